//! A task's folder, a harness that runs in it, and questions about what it left.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nemo_core::lines;
use nemo_core::rundir::{AttemptEnd, AttemptRecord, MetricsLine, TrialDir};
use serde_json::{Value, json};

/// What a Python program of these tests begins with. `ready()` tells the test that its handlers are in place.
pub(crate) const PYTHON: &str = r#"
import os, signal, sys, time
out = os.environ["NEMO_CHECKPOINT_DIR"]
resume = os.environ["NEMO_RESUME_FROM"]
step = int(open(os.path.join(resume, "state") if os.path.isdir(resume) else resume).read()) if resume else 0
def ready(name="ready"):
    open(os.path.join(os.environ["TEST"], name + "-" + os.environ["NEMO_ATTEMPT"]), "w").close()
def save(step, name="step-%d"):
    path = os.path.join(out, name % step)
    os.mkdir(path + ".tmp")
    open(os.path.join(path + ".tmp", "state"), "w").write(str(step))
    os.rename(path + ".tmp", path)
def on(number, then):
    signal.signal(number, lambda *_: then())
def pause(): # short: Python sees a signal that comes just before it sleeps only after that
    while True: time.sleep(0.05)
"#;

/// A task with one trial.
pub(crate) struct Task {
    pub(crate) root: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) params: Value,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) local: bool,
    /// A program and its arguments that start the harness.
    pub(crate) through: Vec<String>,
    /// `task.json` and `trials.jsonl` as they lie there.
    written: RefCell<(String, String)>,
}

impl Task {
    pub(crate) fn new(command: &Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let spec = json!({
            "schema": 1, "experiment": "x-1", "task": "train", "command": command,
            "workdir": root.path(), "seed": 42, "checkpoint": {"signal": "USR1", "lead": 20},
            "restart": {"crashes": 0, "no_progress": 3},
        });
        let env = vec![("TEST".to_owned(), root.path().display().to_string())];
        Self {
            root,
            spec,
            params: json!({}),
            env,
            local: true,
            through: Vec::new(),
            written: RefCell::default(),
        }
    }

    pub(crate) fn sh(text: &str) -> Self {
        Self::new(&json!({ "shell": text }))
    }

    pub(crate) fn python(text: &str) -> Self {
        Self::new(&json!({"exec": ["python3", "-c", format!("{PYTHON}\n{text}")]}))
    }

    pub(crate) fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.spec.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn dir(&self) -> TrialDir {
        let root = fs::canonicalize(self.root.path()).unwrap_or(self.root.path().to_owned());
        TrialDir(root.join("tasks/train/trials/0"))
    }

    /// Writes what the harness is told.
    pub(crate) fn write(&self) {
        let task = self.path("tasks/train");
        let files = (self.spec.to_string(), json!({"trial": 0, "params": self.params}).to_string());
        // The disk may have faults since it was written.
        if *self.written.borrow() != files {
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("task.json"), &files.0).unwrap();
            fs::write(task.join("trials.jsonl"), format!("{}\n", files.1)).unwrap();
            *self.written.borrow_mut() = files;
        }
    }

    pub(crate) fn start(&self) -> Running {
        self.write();
        let task = self.path("tasks/train");
        let mut words = self.through.clone();
        words.push(env!("CARGO_BIN_EXE_nemo-harness").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("--task-dir").arg(&task).args(["--trial", "0"]);
        command.args(self.local.then_some("--local"));
        command.envs(self.env.iter().cloned()).stdin(Stdio::null()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap(), root: self.root.path().to_owned() }
    }

    /// Runs to the end; what the program complained of is shown with a test that fails.
    pub(crate) fn run(&self) -> i32 {
        let code = self.start().finish();
        eprintln!("{}", self.stderr(0));
        code
    }

    /// Runs to the end, with these signals for the harness once the program is ready.
    pub(crate) fn signalled(&self, signals: &[&str]) -> i32 {
        let mut running = self.start();
        running.wait_for("ready-0");
        for signal in signals {
            running.signal(signal);
        }
        running.finish()
    }

    pub(crate) fn records(&self) -> Vec<AttemptRecord> {
        let lines = lines::read(&self.dir().attempts()).unwrap();
        assert!(lines.damaged.is_empty(), "{:?}", lines.damaged);
        lines.rows
    }

    pub(crate) fn ends(&self) -> Vec<AttemptEnd> {
        self.records().iter().filter_map(AttemptRecord::as_end).cloned().collect()
    }

    /// Kills the newest attempt's harness; its guard ends once all is over.
    pub(crate) fn kill_harness(&self) {
        let starts = self.records();
        let newest = starts.iter().rev().find_map(AttemptRecord::as_start).unwrap();
        signal(newest.process.pid, "KILL");
    }

    /// `cause next` of each attempt.
    #[track_caller]
    pub(crate) fn check_ends(&self, expected: &str) {
        let ends = self.ends();
        let shown: Vec<String> =
            ends.iter().map(|end| format!("{:?} {:?}", end.cause, end.next)).collect();
        assert_eq!(shown.join(", "), expected, "{ends:#?}\n{}", self.stderr(0));
    }

    pub(crate) fn resume_steps(&self) -> Vec<Option<u64>> {
        let step = |record: &AttemptRecord| record.as_start().map(|start| start.resume_step);
        self.records().iter().filter_map(step).collect()
    }

    pub(crate) fn stdout(&self, attempt: u32) -> String {
        fs::read_to_string(self.dir().stdout(attempt)).unwrap_or_default()
    }

    pub(crate) fn stderr(&self, attempt: u32) -> String {
        fs::read_to_string(self.dir().stderr(attempt)).unwrap_or_default()
    }

    /// The attempt's error output that was written last.
    pub(crate) fn newest_log(&self) -> String {
        (0..100)
            .rev()
            .map(|attempt| self.stderr(attempt))
            .find(|log| !log.is_empty())
            .unwrap_or_default()
    }

    pub(crate) fn metrics(&self) -> Vec<MetricsLine> {
        lines::read(&self.dir().metrics()).unwrap().rows
    }

    /// The steps that were committed, those that were let go since too.
    pub(crate) fn committed(&self) -> Vec<u64> {
        let step = |record: &AttemptRecord| match record {
            AttemptRecord::Checkpoint { step, .. } => Some(*step),
            _ => None,
        };
        self.records().iter().filter_map(step).collect()
    }

    /// The committed checkpoints' names, sorted. A mark of a save (`.taken-…`) is none: it lasts a moment longer
    /// than the commit.
    pub(crate) fn checkpoints(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir().checkpoints()) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(".taken-"));
        names.sort();
        names
    }
}

/// A harness that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    root: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The same for one that may have ended.
    pub(crate) fn try_signal(&mut self, name: &str) {
        if !self.has_ended() {
            self.signal(name);
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until a file is there, and answers with its text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, name: &str) -> String {
        let path = self.root.join(name);
        wait_until(&format!("{}", path.display()), || {
            assert!(self.child.try_wait().unwrap().is_none(), "the harness ended before `{name}`");
            path.exists()
        });
        fs::read_to_string(path).unwrap()
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> i32 {
        self.end()
    }

    /// The same, and what the harness wrote into Slurm's log.
    #[track_caller]
    pub(crate) fn finish_with_log(mut self) -> (i32, String) {
        let code = self.end();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (code, log)
    }

    #[track_caller]
    fn end(&mut self) -> i32 {
        let mut status = None;
        wait_until("the harness ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(40);
    while !is_so() {
        assert!(Instant::now() < until, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5)); // looks again; nothing rests on how long it is
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Whether a process lives (a zombie doesn't).
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// A shared disk with faults, of the tests' own making.
pub(crate) struct SharedDisk {
    folder: tempfile::TempDir,
    server: Child,
}

/// The program that serves it: built when the first test needs it.
fn faultfs() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/faultfs");
        let mut cargo = Command::new(env!("CARGO"));
        let built = cargo.args(["build", "-q", "--release"]).current_dir(&folder).status();
        built.ok().filter(std::process::ExitStatus::success)?;
        let target = folder.join("target");
        let mut places = vec![target.join("release/faultfs")];
        for entry in fs::read_dir(target).unwrap().flatten() {
            places.push(entry.path().join("release/faultfs"));
        }
        places.into_iter().find(|path| path.exists())
    };
    BUILT.get_or_init(build).as_ref()
}

impl SharedDisk {
    /// None where nothing can be mounted, which is said.
    pub(crate) fn mount() -> Option<Self> {
        Self::mount_with_cache(0)
    }

    /// One whose names, absent names and attributes are remembered for so many seconds.
    pub(crate) fn mount_with_cache(seconds: u32) -> Option<Self> {
        let (Some(program), true) = (faultfs(), Path::new("/dev/fuse").exists()) else {
            eprintln!("NOT TESTED: no file system can be mounted here");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        for name in ["backing", "mount"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        fs::write(path("faults"), "").unwrap();
        let mut server = Command::new(program);
        server.args(["--ttl", &seconds.to_string()]);
        server.arg("--faults").args([path("faults"), path("backing"), path("mount")]);
        let mut server = server.spawn().unwrap();
        fs::write(path("backing/.there"), "").unwrap();
        wait_until("the mount", || {
            path("mount/.there").exists() || server.try_wait().unwrap().is_some()
        });
        if server.try_wait().unwrap().is_some() {
            eprintln!("NOT TESTED: no file system can be mounted here");
            return None;
        }
        Some(Self { folder, server })
    }

    /// The same task, its folder on this disk.
    pub(crate) fn hold(&self, mut task: Task) -> Task {
        let root = tempfile::tempdir_in(self.folder.path().join("mount")).unwrap();
        task.spec["workdir"] = json!("/");
        task.root = root;
        task
    }

    /// What goes wrong from now on: rules of `tests/faultfs`.
    pub(crate) fn fault(&self, rules: &str) {
        let (faults, next) = (self.folder.path().join("faults"), self.folder.path().join("next"));
        fs::write(&next, rules).unwrap();
        fs::rename(next, faults).unwrap();
    }
}

impl Drop for SharedDisk {
    fn drop(&mut self) {
        self.fault("");
        let mount = self.folder.path().join("mount");
        drop(Command::new("umount").arg("-l").arg(mount).status());
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
