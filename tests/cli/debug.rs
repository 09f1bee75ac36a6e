//! `debug`: a failed trial runs here from a copy, and its experiment stays as it is, byte by byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::retry::broken;
use crate::support::{World, printed, states};

/// Every file below a folder with what it holds and when it was changed.
fn content(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let bytes = std::fs::read(&path).unwrap_or_default();
        all.insert(path.clone(), (bytes, meta.modified().unwrap()));
        if meta.is_dir() {
            all.extend(content(&path));
        }
    }
    all
}

/// Trial 1 has failed at step 5, after a checkpoint at step 4.
fn failed() -> (World, String) {
    let world = broken("kind = \"local\"\nenv.WHO = \"me\"");
    let id = world.ok(&["submit", "exp.toml"]);
    let is_failed = |status: &serde_json::Value| {
        states(status, "train") == ["completed", "failed"] && states(status, "after") == ["blocked"]
    };
    world.until(&id, "a failed trial", is_failed);
    world.run(&["wait", &id]);
    // The runner writes its last line a moment after the end of the trials.
    world.until(&id, "the end of the runner", |_| {
        let path = world.experiment(&id).join("runner.jsonl");
        std::fs::read_to_string(path).unwrap().contains("finished")
    });
    (world, id)
}

#[test]
fn a_failed_trial_runs_here_and_nothing_of_its_experiment_changes() {
    let (world, id) = failed();
    let folder = world.experiment(&id);
    let before = content(&folder);
    let again = world.run(&["debug", &id]);
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(again.stdout, "step 5\n", "from its checkpoint: {again:?}");
    assert!(again.stderr.contains("it is broken"), "{again:?}");
    assert!(again.stderr.contains("from a copy of step 4"), "{again:?}");
    std::fs::remove_file(world.path("broken")).unwrap();
    let repaired = world.run(&["debug", &format!("{id}/train/1"), "--step", "4"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert!(repaired.stdout.ends_with("step 10\n"), "{repaired:?}");
    assert_eq!(content(&folder), before, "not a byte of it changed");
    let other = world.run(&["debug", &format!("{id}/train/1"), "--step", "3"]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(other.stderr.contains("it has 4"), "{other:?}");
    assert_eq!(content(&folder), before);
}

#[test]
fn a_command_of_ones_own_gets_what_the_program_gets() {
    let (world, id) = failed();
    let script = "echo $NEMO_PARAM_N $WHO $NEMO_TRIAL $NEMO_RESUME_STEP $1; echo x >$NEMO_CHECKPOINT_DIR/step-7; pwd; exit 3";
    let printed = world.run(&["debug", &id, "--keep", "--", "sh", "-c", script, "sh", "n={n}"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let lines: Vec<&str> = printed.stdout.lines().collect();
    assert_eq!(lines[0], "1 me 1 4 n=1", "{printed:?}");
    assert_eq!(Path::new(lines[1]), world.path("").canonicalize().unwrap(), "{printed:?}");
    assert!(printed.stderr.contains("It exited with 3."), "{printed:?}");
    let (_, rest) = printed.stderr.split_once("What it saved is in `").unwrap();
    let kept = PathBuf::from(rest.split_once('`').unwrap().0);
    assert!(kept.join("tasks/train/trials/1/staging/0/step-7").exists(), "{kept:?}");
    std::fs::remove_dir_all(kept).unwrap();
    let several = world.run(&["debug", &format!("{id}/after")]);
    assert_ne!(several.code, 2, "one trial is meant whatever became of it: {several:?}");
    let none = world.run(&["debug", &format!("{id}/train/0,1")]);
    assert!(none.stderr.contains("/train/1"), "the one that failed: {none:?}");
}

/// A program that hears no HUP and says its secret, and a process of its own that does neither.
const STUBBORN: &str = "trap '' HUP; sleep 600 & echo $TOKEN $!; wait; wait; wait";

/// The names of all files below a folder.
fn names(folder: &Path) -> Vec<String> {
    let files = content(folder).into_keys();
    files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The terminal is gone, or somebody ends `debug`: nothing runs any more, and nothing is left. Secrets are gone before.
#[test]
fn a_signal_ends_the_program_and_leaves_nothing() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"d\"\n[executor.it]\nkind = \"local\"\nsecrets = [\"TOKEN\"]\n[task.t]\nrun = \"false\"\nrestart.crashes = 0\n",
    );
    let submitted =
        world.command(&["submit", "exp.toml", "--wait"]).env("TOKEN", "s3cret").output();
    let id = printed(&submitted.unwrap()).stdout.trim().to_owned();
    for signals in [&[Signal::SIGTERM][..], &[Signal::SIGHUP, Signal::SIGTERM]] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = world.command(&["debug", &id, "--", "sh", "-c", STUBBORN]);
        command.env("TOKEN", "s3cret").env("TMPDIR", temporary.path());
        let mut debug = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(debug.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (secret, child) = line.trim().split_once(' ').unwrap();
        assert_eq!(secret, "s3cret");
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "Ctrl-C is heard: {status}");
        let left = names(temporary.path());
        assert!(left.contains(&"environment".to_owned()), "{left:?}");
        assert!(!left.contains(&"secrets".to_owned()), "{left:?}");
        let began = Instant::now();
        for signal in signals {
            kill(Pid::from_raw(i32::try_from(debug.id()).unwrap()), *signal).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(debug.wait().unwrap().code(), Some(1), "{signals:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "the second signal is heard");
        assert_eq!(names(temporary.path()), [""; 0], "{signals:?}");
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z"), "{signals:?}: {stat}");
    }
}

/// The task's own command names no other task.
#[test]
fn a_command_of_ones_own_may_name_the_tasks_before() {
    let world = World::new();
    let file = "name = \"x\"\n[task.first]\nrun = \"true\"\n[task.second]\nrun = \"true\"\nafter = [\"first\"]\n\
        [task.third]\nrun = \"true\"\nafter = [\"second\"]\n";
    world.write("exp.toml", file);
    let id = world.run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
    let task = world.experiment(&id).join("tasks/third/task.json");
    let spec: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(task).unwrap()).unwrap();
    assert_eq!(spec["inputs"], serde_json::json!({}), "a chain of thousands would fill the disk");
    let printed = world.ok(&["debug", &format!("{id}/third"), "--", "echo", "{first.dir}"]);
    let folder = world.experiment(&id).join("tasks/first/trials/0");
    assert_eq!(Path::new(printed.trim()), folder);
}

/// A program that goes on by itself from its own file, and fails at step 3.
const BY_ITSELF: &str = "name = \"own\"\n[task.t]\n\
    run = 's=$(cat out/state || echo 0); echo from $s; while [ $s -lt 3 ]; do s=$((s + 1)); echo step $s; mkdir -p out; echo $s >out/new; mv out/new out/state; sleep 2; done; exit 3'\n\
    checkpoint = { signal = \"none\", from = \"out/state\", restore_to = \"out/state\", keep.trial_latest = 3 }\n\
    metrics.step = 'step (\\d+)'\n";

#[test]
fn a_program_that_looks_for_its_checkpoint_by_itself_finds_it_in_the_copy() {
    let world = World::new();
    world.write("exp.toml", &format!("{BY_ITSELF}[package]\nfrom = \"folder\"\n"));
    let id = world.run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
    let before = content(&world.experiment(&id));
    let again = world.run(&["debug", &id, "--step", "2"]);
    assert!(again.stderr.contains("from a copy of step 2"), "{again:?}");
    assert_eq!(again.stdout, "from 2\nstep 3\n", "{again:?}");
    assert_eq!(content(&world.experiment(&id)), before, "not a byte of it changed");
}

#[test]
fn what_lies_outside_of_the_copy_is_named_and_not_replaced() {
    let world = World::new();
    world.write("exp.toml", BY_ITSELF);
    let id = world.run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
    let refused = world.run(&["debug", &id, "--step", "2"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("out/state` by itself, which `debug` does not change"),
        "{refused:?}"
    );
    let newest = world.run(&["debug", &id]);
    assert!(newest.stderr.contains("from what is at `"), "{newest:?}");
    assert_eq!(newest.stdout, "from 3\n", "{newest:?}");
}

#[test]
fn a_trial_that_left_no_record_of_its_failure_is_the_one_that_failed() {
    let world = World::new();
    let other = "[task.other]\nafter = [\"t\"]\nrun = \"true\"\n";
    world.write("exp.toml", &format!("name = \"d\"\n[task.t]\nrun = \"echo here\"\n{other}"));
    let harness = world.write("harness", "\u{7f}ELF, but not really");
    let mut submit = world.command(&["submit", "exp.toml", "--wait"]);
    let submitted = printed(&submit.env("NEMO_HARNESS", harness).output().unwrap());
    let id = submitted.stdout.trim();
    let again = world.run(&["debug", id]);
    assert_eq!(again.stdout, "here\n", "{again:?}");
}
