//! Collects what a program saves to paths of its own (`checkpoint.from`): a thread looks at them, and copies what is complete
//! into the staging folder, from where it is committed like any other save.
//!
//! The copies lie in `staging/<attempt>/.from-<n>/`, under the program's own names.

mod collected;
mod looks;
mod path_state;
mod thread;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use nemo_core::own_paths::OwnPath;
use nemo_core::profile::TooLarge;
use nemo_core::room::until_room;
use nemo_core::rundir::Profile;
use nix::sys::eventfd::{EfdFlags, EventFd};

pub(crate) use collected::{CollectedPath, CollectedPaths, digest_of};

use crate::os::clock::{Clock, Time};
use thread::CollectorThread;
use watch::FolderWatch;

/// What begins the name of a copy's folder.
pub(super) const PREFIX: &[u8] = b".from-";

/// What a collector is told.
#[derive(Clone, Debug)]
pub(crate) struct CollectorConfig {
    pub(crate) paths: Vec<OwnPath>,
    pub(crate) profile: Option<Profile>,
    pub(crate) staging: PathBuf,
    /// Where it remembers what was committed.
    pub(crate) record: PathBuf,
    /// Other nodes write too.
    pub(crate) is_multi_node: bool,
    pub(crate) clock: Clock,
    /// A folder in memory, from which what was committed is removed.
    pub(crate) tier: Option<PathBuf>,
}

/// Tells the loop what there is.
type Tell = Arc<dyn Fn(CollectorNews) + Send + Sync>;

/// What a collector says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CollectorNews {
    /// A path has changed, then or later. Where the program was then belongs to this number. `seen`: when the kernel told of
    /// it; none if a look showed it.
    Changed {
        number: u64,
        not_before: Time,
        seen: Option<Time>,
    },
    Copied(CollectedSave),
    /// It was not collected, for this reason.
    Refused {
        path: String,
        why: String,
    },
    /// All is collected after the program's end.
    Finished,
}

/// A save that was copied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CollectedSave {
    /// In the staging folder.
    pub(crate) name: Vec<u8>,
    /// The program's own path, for people.
    pub(crate) path: String,
    /// The number of its last change.
    pub(crate) change: u64,
    pub(crate) step: Result<Option<u64>, TooLarge>,
}

/// A word to the thread.
#[derive(Debug)]
enum CollectorCommand {
    /// The program has ended; in order: by itself, with an exit code that says so.
    Finish { in_order: bool },
    /// The program says that what it wrote to this path is complete.
    Complete { path: PathBuf },
    /// This copy is done with; as this step, if it was committed.
    Done { name: Vec<u8>, committed: Option<u64> },
}

/// The handle of the thread. It ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    commands: Sender<CollectorCommand>,
    news: Receiver<CollectorNews>,
    /// What came in the last pass of the loop.
    heard: Vec<CollectorNews>,
    wake_loop: Arc<EventFd>,
    wake_thread: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    watch: FolderWatch,
    is_finished: bool,
}

impl Collector {
    /// Looks at what is there before the program starts, and begins to watch. `wake` is written to when there is news.
    pub(crate) fn start(config: CollectorConfig, wake: &Arc<EventFd>) -> io::Result<Self> {
        let (commands, to_do) = channel();
        let (sender, news) = channel();
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake_thread = Arc::new(EventFd::from_flags(flags)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (woken, loop_wake) = (Arc::clone(&wake_thread), Arc::clone(wake));
        let tell = move |news| {
            sender.send(news).ok(); // nobody listens after the attempt's end
            loop_wake.write(1).ok();
        };
        let mut thread = CollectorThread::new(config, Arc::clone(&stop), Arc::new(tell));
        thread.remember_what_is_there();
        let watch = thread.watch.clone();
        watch.start(&stop, &wake_thread)?;
        let mut parts = Some((thread, woken, to_do));
        until_room(|| {
            let Some((mut thread, woken, to_do)) = parts.take() else { return Ok(()) };
            let builder = std::thread::Builder::new().name("collect".to_owned());
            builder.spawn(move || thread.run(&to_do, &woken)).map(drop)
        })?;
        let (heard, wake_loop) = (Vec::new(), Arc::clone(wake));
        Ok(Self { commands, news, heard, wake_loop, wake_thread, stop, watch, is_finished: false })
    }

    /// The program's output is read until now: a write that is seen from now on comes after that.
    pub(crate) fn output_is_read(&self, now: Time) {
        if self.watch.output_is_read(now) {
            self.wake_thread.write(1).ok();
        }
    }

    /// The news that came before the last call. By now, all is read that the program had sent until then.
    pub(crate) fn news(&mut self) -> Vec<CollectorNews> {
        let next: Vec<_> = self.news.try_iter().collect();
        if !next.is_empty() {
            self.wake_loop.write(1).ok();
        }
        let news = std::mem::replace(&mut self.heard, next);
        self.is_finished |= news.contains(&CollectorNews::Finished);
        news
    }

    /// The program has ended.
    pub(crate) fn finish(&self, in_order: bool) {
        self.say(CollectorCommand::Finish { in_order });
    }

    /// The program says that a path is complete. That counts like a rename.
    pub(crate) fn complete(&self, path: PathBuf) {
        self.say(CollectorCommand::Complete { path });
    }

    /// A copy is done with.
    pub(crate) fn done(&self, name: Vec<u8>, committed: Option<u64>) {
        self.say(CollectorCommand::Done { name, committed });
    }

    /// Whether everything is collected after the program's end.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    fn say(&self, command: CollectorCommand) {
        self.commands.send(command).ok(); // the thread lives as long as the sender
        self.wake_thread.write(1).ok();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake_thread.write(1).ok();
    }
}

/// Whether a name in the staging folder is a copy of a collected save.
pub(super) fn is_collected(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// Names that atomic savers use while they write.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.contains(".tmp") || name.contains("checkpoint-tmp")
}
