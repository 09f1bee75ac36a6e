//! A shim that the program finds as `scontrol`. A requeue of its own job becomes a message to the harness, so that the
//! checkpoint is committed before the requeue. Every other command goes to Slurm.
//!
//! If the harness can't be reached, the requeue goes to Slurm too. A harness that still runs then gets TERM.
#![expect(
    clippy::disallowed_methods,
    reason = "an edge: reads its environment, and becomes Slurm's program"
)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nemo_core::rundir::TrialDir;

use crate::job::context::{JobContext, SlurmJob};
use crate::os::log::log_stderr;

/// The name by which it is called.
const NAME: &str = "scontrol";
/// How long the harness may take to read a message.
const PATIENCE: Duration = Duration::from_secs(5);

/// A requeue of the caller's own job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnRequeue {
    Requeue,
    /// The job must be held until somebody releases it.
    Hold,
}

/// Makes a folder that holds only `scontrol`, for the front of the program's PATH.
pub(crate) fn make(beside: &Path, context: &JobContext) -> io::Result<PathBuf> {
    let folder = beside.with_file_name("bin");
    fs::create_dir(&folder)?; // in the socket's folder, which only the user may enter, and which is removed with it
    symlink(&context.exe, folder.join(NAME))?;
    Ok(folder)
}

/// Whether this process was called by that name.
pub(crate) fn is_meant(name: Option<&OsStr>) -> bool {
    name.and_then(|name| Path::new(name).file_name()) == Some(OsStr::new(NAME))
}

/// Acts as `scontrol`. Returns only if the harness took the message, or there is no real `scontrol`.
pub(crate) fn run(arguments: &[OsString]) -> u8 {
    let job = crate::job::context::slurm_job();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or("\0")).collect();
    let Some((requeue, job)) = job.as_ref().and_then(|job| Some((own_requeue(&words, job)?, job)))
    else {
        return real(arguments);
    };
    match forward(requeue) {
        Ok(()) => 0,
        Err(_) => real(&with_own_id(&words, job)),
    }
}

/// The requeue in a command line, if it is for this job alone.
fn own_requeue(words: &[&str], job: &SlurmJob) -> Option<OwnRequeue> {
    let mut words = words.iter().filter(|word| !word.starts_with('-'));
    let requeue = match *words.next()? {
        "requeue" => OwnRequeue::Requeue,
        "requeuehold" => OwnRequeue::Hold,
        _ => return None,
    };
    let ids: Vec<&str> = words.flat_map(|word| word.split(',')).collect();
    (!ids.is_empty() && ids.iter().all(|id| is_own(id, job))).then_some(requeue)
}

fn is_own(id: &str, job: &SlurmJob) -> bool {
    id == job.raw || id == job.id()
}

/// The raw id of one task equals the array's and would requeue the whole array. Only the form with an index names it.
fn with_own_id(words: &[&str], job: &SlurmJob) -> Vec<OsString> {
    let own = words.iter().map(|word| if *word == job.raw { job.id() } else { (*word).to_owned() });
    own.map(OsString::from).collect()
}

fn forward(requeue: OwnRequeue) -> io::Result<()> {
    let socket = variable("NEMO_SOCKET")?;
    if requeue == OwnRequeue::Hold {
        let dir = TrialDir(variable("NEMO_DIR")?.into());
        fs::write(dir.pause(), "{}")?;
    }
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    sender.send_to(b"REQUEUE=1\n", socket)?;
    Ok(())
}

fn variable(name: &str) -> io::Result<OsString> {
    env::var_os(name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Executes Slurm's own program: the first in PATH that is not this one.
fn real(arguments: &[OsString]) -> u8 {
    let own = env::current_exe().and_then(fs::canonicalize).ok();
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&path).map(|folder| folder.join(NAME));
    let other = found.find(|file| file.is_file() && fs::canonicalize(file).ok() != own);
    let Some(other) = other else {
        log_stderr("`scontrol` was not found in PATH");
        return 127;
    };
    let error = Command::new(&other).args(arguments).exec();
    log_stderr(&crate::job::trial::with_path(&other, &error));
    126
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> SlurmJob {
        SlurmJob { raw: "9".into(), array: Some(("7".into(), 3)), restarts: 0, end: None }
    }

    #[track_caller]
    fn check(line: &str, expected: Option<OwnRequeue>) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(own_requeue(&words, &job()), expected, "{line}");
    }

    #[test]
    fn only_a_requeue_of_the_own_job_is_ours() {
        check("requeue 9", Some(OwnRequeue::Requeue));
        check("requeue 7_3", Some(OwnRequeue::Requeue));
        check("-Q requeue 7_3", Some(OwnRequeue::Requeue));
        check("requeuehold 9", Some(OwnRequeue::Hold));
        check("requeue 7", None); // the whole array
        check("requeue 9,7_4", None);
        check("requeue", None);
        check("show job 9", None);
        check("release 9", None);
        check("", None);
    }

    #[test]
    fn slurm_is_told_the_arrays_form() {
        let words = with_own_id(&["requeue", "9"], &job());
        assert_eq!(words, ["requeue", "7_3"]);
    }

    #[test]
    fn it_is_known_by_its_name() {
        assert!(is_meant(Some("scontrol".as_ref())));
        assert!(is_meant(Some("/tmp/x/bin/scontrol".as_ref())));
        assert!(!is_meant(Some("/opt/nemo-harness".as_ref())));
        assert!(!is_meant(None));
    }
}
