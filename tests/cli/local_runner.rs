//! What the local runner hears of, whatever the disk answers and whoever was killed before.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::counting;
use crate::local::runner;
use crate::retry::retry;
use crate::support::{World, causes, states, trials};

/// Two trials: trial 0 fails at once, trial 1 waits for a file. So the runner stays.
fn one_has_failed() -> (World, String) {
    let world = World::new();
    let text = format!(
        "name = \"here\"\n[task.train]\nrun = \"test {{n}} = 1 || exit 3; until [ -e {}/go ]; do sleep 0.1; done\"\n\
         params = {{ n = [0, 1] }}\n",
        world.path("").display()
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the failure", |status| states(status, "train") == ["failed", "running"]);
    (world, id)
}

/// The next time that the runner opens the journal, the disk fails.
fn fail_once(world: &World, id: &str) -> Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &runner(world, id).to_string(), "-e", "trace=openat", "-P"]);
    command.arg(world.experiment(id).join("journal.jsonl"));
    command.args(["-e", "inject=openat:error=EIO:when=1", "-o"]).arg(world.path("strace.log"));
    let mut strace = command.stderr(Stdio::piped()).spawn().expect("strace is needed");
    let mut said = BufReader::new(strace.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "{line}");
    // It may say more.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    strace
}

#[test]
fn a_retry_is_not_lost_by_a_disk_that_fails_once() {
    let (world, id) = one_has_failed();
    let mut strace = fail_once(&world, &id);
    let retried = world.run(&["retry", &format!("{id}/train"), "--trials", "0"]);
    let injected = std::fs::read_to_string(world.path("strace.log")).unwrap();
    assert!(injected.contains("EIO"), "{injected}");
    assert_eq!(retried.code, 0, "{retried:?}");
    world.until(&id, "the second failure", |status| {
        causes(&trials(status, "train")[0]) == ["failed", "failed"]
    });
    world.write("go", "");
    world.until(&id, "the end", |status| states(status, "train") == ["failed", "completed"]);
    strace.kill().ok();
    strace.wait().unwrap();
}

#[test]
fn a_runner_that_hears_nothing_is_not_waited_for_for_ever() {
    let (world, id) = one_has_failed();
    let pid = Pid::from_raw(runner(&world, &id));
    kill(pid, Signal::SIGSTOP).unwrap();
    let retried = world.run(&["retry", &format!("{id}/train"), "--trials", "0"]);
    assert_eq!(retried.code, 1, "{retried:?}");
    let hint = format!("`nemo-slurm submit --continue {id} --take-over` replaces it");
    assert!(retried.stderr.contains(&hint), "{retried:?}");
    kill(pid, Signal::SIGCONT).unwrap();
    // What was asked for is written down, and nothing is done twice.
    world.ok(&["submit", "--continue", &id]);
    world.write("go", "");
    let status = world.until(&id, "the end", |status| {
        causes(&trials(status, "train")[0]).len() == 2
            && states(status, "train") == ["failed", "completed"]
    });
    assert_eq!(causes(&trials(&status, "train")[0]), ["failed", "failed"], "{status:#}");
}

/// Nothing that a program does could be kept: it is ended, and so is the runner. What it says is read by another name.
#[test]
fn a_runner_whose_home_is_removed_ends_with_its_programs() {
    let world = World::new();
    let pid = world.path("pid");
    let text = format!(
        "name = \"here\"\n[task.train]\nrun = \"echo $$ >{}; exec sleep 600\"\n",
        pid.display()
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the program", |status| {
        states(status, "train") == ["running"]
            && std::fs::read_to_string(&pid).is_ok_and(|it| it.ends_with('\n'))
    });
    let program: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let pids = [runner(&world, &id), program];
    let folder = world.experiment(&id);
    let said = world.path("said");
    std::fs::hard_link(folder.join("runner.out"), &said).unwrap();
    // A sign of life may be written meanwhile.
    while folder.exists() {
        std::fs::remove_dir_all(&folder).ok();
    }
    let is_alive = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    };
    let began = Instant::now();
    while pids.iter().any(is_alive) {
        assert!(began.elapsed() < Duration::from_mins(3), "they live on: {pids:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(began.elapsed() > Duration::from_secs(25), "a disk may hide it for a moment");
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("was removed; its programs are ended"), "{said}");
}

/// Who wrote the mark may have been killed before the signal.
#[test]
fn a_trial_whose_mark_is_written_is_signalled_all_the_same() {
    let world = World::new();
    counting::write(&world, "kind = \"local\"\nparallel = 4", 200, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    let mark = world.experiment(&id).join("tasks/train/trials/1/pause-wanted");
    std::fs::write(mark, "{}\n").unwrap();
    world.ok(&["pause", &format!("{id}/train/1")]);
    let status = world.until(&id, "it stops", |status| states(status, "train")[1] != "running");
    assert_eq!(states(&status, "train"), ["running", "paused", "running"], "{status:#}");
    world.ok(&["cancel", &id]);
}

/// The retry can't be written down: a file stands where the folder of the index belongs.
#[test]
fn a_retry_that_fails_at_the_end_keeps_no_message_back() {
    let world = World::new();
    let index = world.path("home/index");
    let text = format!(
        "name = \"ends\"\n[notify]\non = [\"completed\"]\nof = [\"task\"]\ncommand = \"echo {{subject}} >> told\"\n\
         [task.good]\nrun = \"true\"\n[task.bad]\nrun = \"rm -rf '{0}'; touch '{0}'; exit 3\"\n\
         restart.crashes = 0\nretry.failed = 1\n",
        index.display()
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    let has_told = |_: &serde_json::Value| world.path("told").exists();
    world.until(&id, "the message", has_told);
    let journal = std::fs::read_to_string(world.experiment(&id).join("journal.jsonl")).unwrap();
    assert!(!journal.contains("\"planned\""), "the retry failed: {journal}");
}

/// The runner that still works on other trials takes up what is retried.
#[test]
fn a_runner_that_lives_hears_of_a_retry() {
    let world = World::new();
    let marker = world.write("broken", "");
    let hold = world.write("hold", "");
    let file = format!(
        "name = \"two\"\n[task.long]\nrun = \"while test -e {}; do sleep 0.1; done\"\n\
         [task.short]\nrun = \"test ! -e {}\"\nrestart.crashes = 0\n\
         [task.cancelled]\nrun = \"sleep 600\"\n",
        hold.display(),
        marker.display()
    );
    world.write("exp.toml", &file);
    let id = world.ok(&["submit", "exp.toml"]);
    let state = |status: &Value, task: &str| states(status, task).remove(0);
    world.until(&id, "the failure", |status| {
        state(status, "short") == "failed" && state(status, "cancelled") == "running"
    });
    world.ok(&["cancel", &format!("{id}/cancelled")]);
    world.until(&id, "the end", |status| state(status, "cancelled") == "cancelled");
    std::fs::remove_file(&marker).unwrap();
    let retried = retry(&world, &[&id]);
    assert_eq!(retried["trials"], json!({"short": "0", "cancelled": "0"}), "{retried:#}");
    assert_eq!(retried["left"][0]["why"], "it is running");
    world.until(&id, "the second attempts", |status| {
        state(status, "short") == "completed" && state(status, "cancelled") == "running"
    });
    world.ok(&["cancel", &format!("{id}/cancelled")]);
    std::fs::remove_file(&hold).unwrap();
    let status = world.until(&id, "the end of all", |status| {
        ["completed", "completed", "cancelled"]
            .into_iter()
            .zip(["long", "short", "cancelled"])
            .all(|(wanted, task)| state(status, task) == wanted)
    });
    assert_eq!(causes(&trials(&status, "cancelled")[0]), ["cancelled", "cancelled"]);
}
