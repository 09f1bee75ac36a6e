//! `nemo-harness wrap`: which folder a job gets, and what it runs. Slurm is made of variables and of a `scontrol` that
//! answers with a file.

mod own_variables;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::wait_until;

/// A home, a working folder, and a `scontrol` that knows nothing until `shown` is there.
struct Site {
    root: tempfile::TempDir,
    harness: PathBuf,
}

/// How a job ended, and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stderr: String,
}

impl Site {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let scontrol = r#"#!/bin/sh
[ "$*" = "-o show job $SLURM_JOB_ID" ] && cat "$TEST/shown" 2>/dev/null || exit 1
"#;
        for (name, script) in [("scontrol", scontrol), ("squeue", "#!/bin/sh\nexit 1\n")] {
            write_program(&bin.join(name), script);
        }
        Self { root, harness: env!("CARGO_BIN_EXE_nemo-harness").into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `wrap` outside of a job.
    fn command(&self, arguments: &[&str]) -> Command {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(&self.harness);
        command.arg("wrap").args(arguments).current_dir(self.root.path());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SLURM") {
                command.env_remove(name);
            }
        }
        command.env("PATH", path).env("TEST", self.root.path());
        command.env("NEMO_SLURM_HOME", self.path("home"));
        command.stdin(Stdio::null());
        command
    }

    /// The same in a job of this number and name.
    fn job(&self, (number, name): (&str, &str), arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("SLURM_JOB_ID", number).env("SLURM_JOB_NAME", name);
        command.env("SLURM_JOB_END_TIME", "9999999999").env("SLURMD_NODENAME", "n1");
        command
    }

    /// The folders of `jobs/`, without links by number.
    fn jobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("home/jobs")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "by-id").collect();
        names.sort();
        names
    }

    /// A file of JSON in the folder of the only job.
    fn json(&self, name: &str) -> Value {
        let jobs = self.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        read_json(&self.path("home/jobs").join(&jobs[0]).join(name))
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn end(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    Ended { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
}

/// What is written down for later attempts is JSON: a name that it can't hold would be another one then.
#[test]
fn a_name_that_is_not_utf_8_is_refused_before_anything_is_written() {
    let site = Site::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let folder = site.root.path().join(name);
    fs::create_dir(&folder).unwrap();
    let mut command = site.command(&["--", "true"]);
    command.current_dir(&folder);
    let ended = end(command);
    let text = "the working folder is not UTF-8";
    assert!(ended.code == Some(1) && ended.stderr.contains(text), "{ended:?}");
    assert!(ended.stderr.contains("caf\\xe9"), "{ended:?}");
    let mut command = site.command(&["--", "echo"]);
    command.arg(name);
    let ended = end(command);
    assert!(ended.code == Some(2) && ended.stderr.contains("is not UTF-8"), "{ended:?}");
    assert!(!site.path("home/jobs").exists(), "nothing is left behind");
}

#[test]
fn no_program_of_a_folder_that_others_may_write_to_is_run() {
    for (mode, is_safe) in [(0o755, true), (0o1777, false)] {
        let mut site = Site::new();
        let folder = site.path("shared");
        fs::create_dir(&folder).unwrap();
        let harness = folder.join("nemo-harness");
        fs::copy(&site.harness, &harness).unwrap();
        site.harness = harness;
        write_program(&folder.join("nemo-slurm-evil"), "#!/bin/sh\n");
        set_mode(&folder, mode);
        let ended = end(site.job(("100", "a"), &["--", "true"]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let poll = &site.json("tasks/job/task.0.json")["poll"];
        let real = folder.canonicalize().unwrap().join("nemo-slurm-evil");
        assert_eq!(poll["program"].as_str(), is_safe.then_some(real.to_str().unwrap()), "{poll}");
        assert_eq!(ended.stderr.contains("If the harness of this job is killed"), !is_safe);
    }
}

#[test]
fn a_home_that_others_may_write_to_is_refused() {
    let site = Site::new();
    let home = site.path("home");
    fs::create_dir(&home).unwrap();
    set_mode(&home, 0o777);
    let ended = end(site.command(&["--", "touch", "ran"]));
    let (path, code) = (home.display(), ended.code);
    let why = format!("other users can write to `{path}` (mode 777), and could replace");
    assert!(ended.stderr.contains(&why), "{ended:?}");
    assert!(ended.stderr.contains(&format!("hint: `chmod go-w {path}`")), "{ended:?}");
    assert_eq!(
        (code, site.path("ran").exists(), home.join("jobs").exists()),
        (Some(1), false, false)
    );
}

/// Saves step 10, writes down where it went on, and exits with this code.
fn saves(code: u32) -> String {
    format!(
        r#"echo "$1 ${{NEMO_RESUME_FROM##*/}}" >>"$TEST/ran"
out=$NEMO_CHECKPOINT_DIR/step-10; mkdir "$out.tmp"; echo 10 >"$out.tmp/state"; mv "$out.tmp" "$out"; exit {code}"#
    )
}

impl Site {
    /// Runs [`saves`] in a job, with more variables.
    fn run_job(&self, job: (&str, &str), variables: &[(&str, &str)], code: u32) -> Ended {
        let mut command = self.job(job, &["--", "sh", "-c", &saves(code), "sh", job.1]);
        command.envs(variables.iter().copied());
        end(command)
    }

    /// What [`saves`] wrote down: a line for each run.
    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("ran")).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// What Slurm shows of a job.
    fn show(&self, (number, name): (&str, &str), restarts: u32, submitted: u64) {
        let shown = format!(
            "JobId={number} JobName={name} UserId=u(1) GroupId=u(1) JobState=RUNNING Reason=None Requeue=1 \
             Restarts={restarts} SubmitTime={submitted} StartTime={submitted} EndTime=9999999999 PreemptTime=None \
             Partition=main NumNodes=1\n"
        );
        fs::write(self.path("shown"), shown).unwrap();
    }

    /// The ids that links by number lead to, in the order of their names.
    fn links(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.path("home/jobs/by-id")).unwrap();
        let of = |entry: fs::DirEntry| {
            let id = fs::read_link(entry.path()).unwrap();
            let name = |id: &Path| id.file_name().unwrap().to_str().unwrap().to_owned();
            (name(&entry.path()), name(&id))
        };
        let mut links: Vec<(String, String)> = entries.map(|entry| of(entry.unwrap())).collect();
        links.sort();
        links
    }
}

/// After a job that ended with this code, one of the same number begins anew.
#[track_caller]
fn check_another(first: (&str, u32), variables: &[&[(&str, &str)]; 2], name: &str) {
    let site = Site::new();
    site.run_job(("100", first.0), variables[0], first.1);
    let ended = site.run_job(("100", name), variables[1], 0);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(site.ran(), [first.0, name], "{ended:?}");
    assert_eq!(site.jobs().len(), 2, "{:?}", site.links());
}

#[test]
fn a_number_that_comes_again_is_another_job() {
    for code in [0, 1] {
        check_another(("alpha", code), &[&[], &[]], "beta");
        let clusters = [&[("SLURM_CLUSTER_NAME", "a")][..], &[("SLURM_CLUSTER_NAME", "b")]];
        check_another(("alpha", code), &clusters, "alpha");
    }
    // A controller that lost its state counts from the beginning.
    check_another(("alpha", 0), &[&[], &[]], "alpha");
    check_another(("alpha", 0), &[&[("SLURM_CLUSTER_NAME", "a")]; 2], "alpha");
}

#[test]
fn a_job_that_was_submitted_after_its_number_was_told_is_another() {
    let site = Site::new();
    let job = ("100", "alpha");
    site.show(job, 0, 1000);
    site.run_job(job, &[], 1);
    site.show(job, 0, 9_000_000_000);
    site.run_job(job, &[], 1);
    // Its requeue comes later still, and is no other job.
    site.show(job, 1, 9_100_000_000);
    let ended = site.run_job(job, &[("SLURM_RESTART_COUNT", "1")], 0);
    assert_eq!(site.ran(), ["alpha", "alpha", "alpha step-10"], "{ended:?}");
    assert_eq!(site.jobs().len(), 2);
}

#[test]
fn a_restarted_job_finds_its_state_and_so_does_a_tool_that_starts_it_again() {
    let job = ("100", "alpha");
    let site = Site::new();
    site.run_job(job, &[], 1);
    // In the same run of the job, as by `until … wrap …; do …`.
    site.show(job, 0, 1000);
    site.run_job(job, &[], 1);
    // Slurm gives no answer.
    fs::remove_file(site.path("shown")).unwrap();
    let ended = site.run_job(job, &[("SLURM_RESTART_COUNT", "1")], 0);
    assert_eq!(site.ran(), ["alpha", "alpha step-10", "alpha step-10"], "{ended:?}");
    // Slurm may start a job that is done again.
    site.run_job(job, &[("SLURM_RESTART_COUNT", "2")], 0);
    assert_eq!((site.ran().len(), site.jobs().len()), (3, 1));
}

#[test]
fn a_link_without_a_cluster_is_of_an_earlier_version() {
    let site = Site::new();
    site.run_job(("100", "alpha"), &[], 1);
    let again = [("SLURM_CLUSTER_NAME", "a"), ("SLURM_RESTART_COUNT", "1")];
    site.run_job(("100", "alpha"), &again, 0);
    assert_eq!(site.ran(), ["alpha", "alpha step-10"]);
    assert_eq!(site.links().len(), 1);
}

/// Starts tasks of an array at once, and waits for all.
fn run_array(site: &Site, name: &str, n_tasks: u32, options: &[&str]) {
    let start = |index: u32| {
        let index = index.to_string();
        let mut arguments = options.to_vec();
        arguments.extend(["--", "true"]);
        let mut command = site.job((&index, name), &arguments);
        let last = (n_tasks - 1).to_string();
        let array = [("SLURM_ARRAY_JOB_ID", "100"), ("SLURM_ARRAY_TASK_ID", &*index)];
        let bounds = [("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_MAX", &*last)];
        command.envs(array.into_iter().chain(bounds));
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<_> = (0..n_tasks).map(start).collect();
    for task in started {
        let output = task.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// The rows of a folder's journal that say that Slurm has taken a job.
fn submitted(dir: &Path) -> Vec<Value> {
    let journal = nemo_core::lines::read::<Value>(&dir.join("journal.jsonl")).unwrap();
    assert!(journal.damaged.is_empty(), "{journal:?}");
    journal.rows.into_iter().filter(|row| row["event"] == "submitted").collect()
}

#[test]
fn tasks_that_start_together_share_a_folder_and_tell_of_the_job_once() {
    let site = Site::new();
    run_array(&site, "alpha", 6, &[]);
    run_array(&site, "beta", 6, &[]);
    let links = site.links();
    assert_eq!((links.len(), site.jobs().len()), (2, 2), "{links:?}");
    for (_, id) in links {
        let dir = site.path("home/jobs").join(id);
        assert_eq!(submitted(&dir).len(), 1, "{}", dir.display());
        assert_eq!(fs::read_dir(dir.join("tasks/job/trials")).unwrap().count(), 6);
    }
}

impl Site {
    /// Runs [`saves`] in a job with a `--dir`.
    fn run_in(&self, dir: &str, number: &str, code: u32) -> Ended {
        end(self.job((number, "train"), &["--dir", dir, "--", "sh", "-c", &saves(code), "sh", dir]))
    }

    fn shell(&self, script: &str) {
        let status = Command::new("sh").args(["-c", script]).current_dir(self.root.path()).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn n_starts(&self, dir: &str) -> usize {
        let attempts = self.path(dir).join("tasks/job/trials/0/attempts.jsonl");
        fs::read_to_string(attempts).unwrap().matches(r#""start""#).count()
    }
}

#[test]
fn a_copy_of_a_folder_is_a_job_of_its_own() {
    let site = Site::new();
    site.run_in("runs/a", "100", 1);
    site.shell("cp -r runs/a runs/b");
    let ended = site.run_in("runs/b", "101", 1);
    assert!(ended.stderr.contains("is a copy of"), "{ended:?}");
    assert_eq!(site.ran(), ["runs/a", "runs/b step-10"]);
    assert_eq!((site.n_starts("runs/a"), site.n_starts("runs/b")), (1, 2));
    assert_eq!(site.jobs().len(), 2);
    let numbers = |dir: &str| -> Vec<Value> {
        submitted(&site.path(dir)).into_iter().map(|row| row["slurm_job"].clone()).collect()
    };
    assert_eq!((numbers("runs/a"), numbers("runs/b")), (vec![100.into()], vec![101.into()]));
    let ended = site.run_in("runs/b", "102", 0);
    assert!(!ended.stderr.contains("is a copy of"), "it is told once: {ended:?}");
    assert_eq!((site.n_starts("runs/a"), site.jobs().len()), (1, 2));
}

#[test]
fn a_copy_does_not_end_what_runs_in_the_original() {
    let site = Site::new();
    let script = "touch $TEST/ready; until [ -e $TEST/go ]; do sleep 0.05; done";
    let mut original = site.job(("100", "train"), &["--dir", "a", "--", "sh", "-c", script]);
    let mut original = original.spawn().unwrap();
    wait_until("the original runs", || site.path("ready").exists());
    site.shell("cp -r a b");
    let ended = site.run_in("b", "101", 0);
    assert_eq!((ended.code, original.try_wait().unwrap()), (Some(0), None), "{ended:?}");
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(original.wait().unwrap().code(), Some(0));
    assert_eq!(site.n_starts("a"), 1);
}

#[test]
fn a_folder_that_was_moved_keeps_its_id() {
    let site = Site::new();
    site.run_in("runs/a", "100", 1);
    site.shell("mv runs/a runs/c");
    let ended = site.run_in("runs/c", "101", 0);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(site.ran(), ["runs/a", "runs/c step-10"]);
    let ids: Vec<String> = site.links().into_iter().map(|(_, id)| id).collect();
    assert_eq!(site.jobs(), [&*ids[0]], "{ids:?}");
    assert_eq!(ids[0], ids[1]);
    let place = site.path("home/jobs").join(&ids[0]).canonicalize().unwrap();
    assert_eq!(place, site.path("runs/c").canonicalize().unwrap());
}

#[test]
fn a_job_may_have_a_folder_for_each_of_its_programs() {
    let site = Site::new();
    for restarts in ["0", "1"] {
        for dir in ["a", "b"] {
            let script = saves(1);
            let arguments = ["--dir", dir, "--", "sh", "-c", &script, "sh", dir];
            let mut command = site.job(("100", "train"), &arguments);
            command.env("SLURM_RESTART_COUNT", restarts);
            end(command);
        }
    }
    assert_eq!(site.ran(), ["a", "b", "a step-10", "b step-10"]);
    assert_eq!((site.jobs().len(), site.links().len()), (2, 2));
}

#[test]
fn a_smaller_job_in_the_same_folder_leaves_what_the_larger_one_has() {
    let site = Site::new();
    run_array(&site, "sweep", 3, &["--dir", "state"]);
    let lines = || fs::read_to_string(site.path("state/tasks/job/trials.jsonl")).unwrap();
    let before = lines();
    end(site.job(("200", "train"), &["--dir", "state", "--", "true"]));
    assert_eq!((before.lines().count(), lines()), (3, before.clone()));
    let experiment = read_json(&site.path("state/experiment.json"));
    assert_eq!(experiment["tasks"][0]["n_trials"], 3);
}

#[test]
fn another_program_does_not_take_over_in_silence() {
    let site = Site::new();
    let job = |script: &str, variables: &[(&str, &str)]| {
        let mut command = site.job(("100", "train"), &["--dir", "state", "--", "sh", "-c", script]);
        command.envs(variables.iter().copied());
        end(command)
    };
    site.show(("100", "train"), 0, 1000);
    job("exit 1", &[]);
    let ended = job("echo a >>$TEST/ran", &[]);
    assert!(ended.stderr.contains("the last command here was `sh -c exit 1`"), "{ended:?}");
    // Of a script with several programs, none is passed over as done.
    let ended = job("echo b >>$TEST/ran", &[]);
    assert_eq!((ended.code, site.ran()), (Some(1), vec!["a".to_owned()]), "{ended:?}");
    assert!(ended.stderr.contains("give each program of a job a `--dir`"), "{ended:?}");
    // A later run of the job has nothing left to do, whatever its command line holds of its node.
    site.show(("100", "train"), 1, 2000);
    let ended = job("echo c >>$TEST/ran", &[("SLURM_RESTART_COUNT", "1")]);
    assert_eq!((ended.code, site.ran().len()), (Some(0), 1), "{ended:?}");
}
