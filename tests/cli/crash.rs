//! `kill -9` of `submit`, and of a `poll` that submits the next window, before each of its system calls: going on submits
//! each array exactly once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake::{CHAIN, CHAIN_ARRAYS, FakeSlurm};
use crate::retry_rules::end;
use crate::support::{printed, states, text, trials};

/// Calls that change something, or that could come between two that do.
const CALLS: &str = "write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,openat,clone,clone3,vfork,wait4,waitid,poll,ppoll,read,close";

pub(crate) fn strace(
    fake: &FakeSlurm,
    inject: &[&str],
    arguments: &[&OsStr],
    log: &Path,
) -> Command {
    let mut command = Command::new("strace");
    fake.world.surround(&mut command);
    command.arg("-o").arg(log).args(inject);
    command.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(arguments);
    command
}

/// Kills a submission before its `n`-th call and goes on with it. False when it ended before that.
fn kill_and_go_on(n: usize) -> bool {
    let fake = FakeSlurm::new(2);
    let file = fake.world.write("exp.toml", CHAIN);
    let log = fake.world.path("strace.log");
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
    let trace = format!("trace={CALLS}");
    let arguments = ["submit".as_ref(), file.as_os_str()];
    let first = strace(&fake, &["-e", &trace, "-e", &inject], &arguments, &log).output();
    let first = first.expect("strace is needed: apt-get install strace");
    let killed = !first.status.success();
    let ids: Vec<String> = match std::fs::read_dir(fake.world.path("home").join("experiments")) {
        Ok(entries) => {
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
        Err(_) => Vec::new(),
    };
    let whole: Vec<&String> = ids.iter().filter(|id| !id.starts_with('.')).collect();
    let call = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .rev()
            .nth(1)
            .unwrap_or("")
            .to_owned()
    };
    match whole.as_slice() {
        [] => assert_eq!(
            fake.names(),
            [""; 0],
            "killed at {n}: {}: nothing was written, nothing asked",
            call()
        ),
        [id] => {
            let second =
                printed(&fake.world.command(&["submit", "--continue", id]).output().unwrap());
            assert_eq!(second.code, 0, "killed at {n}: {}: {second:?}", call());
            assert_eq!(fake.names(), CHAIN_ARRAYS, "killed at {n}: {}", call());
            let all_in = fake.read("released_at").split_whitespace().all(|jobs| jobs == "5");
            assert!(all_in && !fake.read("released").is_empty(), "killed at {n}: {}", call());
        }
        more => panic!("one submission made {more:?}"),
    }
    killed
}

/// Kills a submission half-way, then the one that goes on with it before its `n`-th call, and goes on again. False when
/// the second one ended before that.
fn kill_twice_and_go_on(n: usize) -> bool {
    let fake = FakeSlurm::new(2);
    let file = fake.world.write("exp.toml", CHAIN);
    let log = fake.world.path("strace.log");
    std::fs::write(fake.state("stop_after"), "2").unwrap();
    let first =
        printed(&fake.world.command(&["submit".as_ref(), file.as_os_str()]).output().unwrap());
    assert_eq!((first.code, fake.names().len()), (4, 2), "{first:?}");
    std::fs::remove_file(fake.state("stop_after")).unwrap();
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
    let trace = format!("trace={CALLS}");
    let arguments = ["submit", "--continue", "chain"].map(OsStr::new);
    let second = strace(&fake, &["-e", &trace, "-e", &inject], &arguments, &log).output();
    let killed = !second.unwrap().status.success();
    let third = printed(&fake.world.command(&["submit", "--continue", "chain"]).output().unwrap());
    assert_eq!(third.code, 0, "killed at {n}: {third:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS, "killed at {n}");
    let folder = std::fs::read_dir(fake.world.path("home/experiments")).unwrap().next().unwrap();
    let names = std::fs::read_dir(folder.unwrap().path()).unwrap();
    let claims = names.filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("claim.")
    });
    assert!(claims.count() <= 3, "killed at {n}: old claims are removed");
    killed
}

#[test]
fn kill_9_of_who_goes_on_is_no_worse() {
    // Every fifth: the claim and each array take more calls than that.
    let mut calls = (1..).step_by(5).take_while(|call| kill_twice_and_go_on(*call));
    let last = calls.by_ref().last().unwrap_or(0);
    assert!(last > 60, "only {last} calls: were the right ones traced?");
    println!("killed before every fifth of {last} system calls");
}

#[test]
fn kill_9_before_any_system_call_submits_each_array_once() {
    let mut points = 0;
    while kill_and_go_on(points + 1) {
        points += 1;
        assert!(points < 5000, "a submission is not that long");
    }
    assert!(points > 60, "only {points} calls: were the right ones traced?");
    println!("killed before each of {points} system calls");
}

/// What waits for room: two trials of `b` came with the window before and are done, and a `poll` is to submit the other two,
/// with `c` behind them.
struct NextWindow {
    fake: FakeSlurm,
    id: String,
}

/// Its arrays, once all is in.
const WINDOWS: [&str; 4] = ["a.0", "b.1", "b.2", "c.1"];

impl NextWindow {
    fn new() -> Self {
        let fake = FakeSlurm::new(1001);
        let text = "name = \"windows\"\n[executor.gpu]\nkind = \"slurm\"\n[task.a]\nrun = \"true\"\n\
            [task.b]\nrun = \"true {n}\"\nparams.n = [0, 1, 2, 3]\n[task.c]\nrun = \"true\"\nafter = [\"b\"]\n";
        fake.world.write("exp.toml", text);
        std::fs::write(fake.state("no_room"), "b.0\n").unwrap();
        let id = fake.world.ok(&["submit", "exp.toml"]);
        fake.world.ok(&["poll", &id]);
        assert_eq!(fake.names(), WINDOWS[..2]);
        for trial in 0..2 {
            end(&fake, &id, &format!("b/{trial}"), &format!("102_{trial}"), 0, "done");
        }
        let window = Self { fake, id };
        copy(&window.places(), &window.saved());
        window
    }

    /// What a `poll` may change.
    fn places(&self) -> [PathBuf; 2] {
        ["home", "state"].map(|name| self.fake.world.path(name))
    }

    fn saved(&self) -> [PathBuf; 2] {
        ["home", "state"].map(|name| self.fake.world.path(&format!("saved-{name}")))
    }

    /// Kills a `poll` before its `n`-th call and runs it again. False when it ended before that.
    fn kill_and_poll_again(&self, n: usize) -> bool {
        copy(&self.saved(), &self.places());
        let log = self.fake.world.path("strace.log");
        let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
        let trace = format!("trace={CALLS}");
        let poll = ["poll", &self.id].map(OsStr::new);
        let first = strace(&self.fake, &["-e", &trace, "-e", &inject], &poll, &log).output();
        let killed = !first.expect("strace is needed: apt-get install strace").status.success();
        let call = std::fs::read_to_string(&log).unwrap_or_default();
        let at = format!("killed at {n}: {}", call.lines().rev().nth(1).unwrap_or_default());
        let second = self.fake.world.run(&["poll", &self.id]);
        assert_eq!(second.code, 0, "{at}: {second:?}");
        assert_eq!(self.fake.names(), WINDOWS, "{at}: {second:?}");
        let behind = &self.fake.taken()[3].arguments;
        assert!(behind.contains("afterok:103"), "{at}: {behind}");
        assert!(self.fake.read("released").contains("103"), "{at}: {second:?}");
        let third = self.fake.world.run(&["poll", &self.id]);
        assert_eq!((third.code, self.fake.names().len()), (0, 4), "{at}: {third:?}");
        killed
    }
}

/// Makes folders anew as copies of others.
fn copy(from: &[PathBuf], to: &[PathBuf]) {
    for (from, to) in from.iter().zip(to) {
        if to.exists() {
            std::fs::remove_dir_all(to).unwrap();
        }
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.unwrap().success(), "{}", from.display());
    }
}

#[test]
fn kill_9_of_a_poll_before_any_system_call_submits_the_next_window_once() {
    let window = NextWindow::new();
    let mut points = 0;
    while window.kill_and_poll_again(points + 1) {
        points += 1;
        assert!(points < 5000, "a poll is not that long");
    }
    assert!(points > 100, "only {points} calls: were the right ones traced?");
    println!("killed before each of {points} system calls");
}

/// A submission that was killed half-way is cancelled: what was never submitted is cancelled too, for good.
#[test]
fn what_a_killed_submission_left_is_cancelled_for_good() {
    let fake = FakeSlurm::new(2);
    let id = half_submitted(&fake);
    fake.answer("squeue", Some(&[])); // Slurm has cancelled and forgotten what it took
    fake.world.ok(&["cancel", &id]);
    let status = fake.world.status(&id);
    for (task, trial) in [("train", 3), ("evaluate", 0)] {
        let trial = &trials(&status, task)[trial];
        assert_eq!((&trial["state"], &trial["final"]), (&"cancelled".into(), &true.into()));
    }
    let over = fake.world.run(&["submit", "--continue", &id]);
    assert_eq!(over.code, 0, "{over:?}");
    assert!(over.stderr.contains("what was not submitted is cancelled"), "{over:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS[..2], "nothing of it is submitted");
    let again = fake.world.ok(&["submit", "--continue", &id, "--json"]);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["nothing_to_do"], true, "{again:#}");
}

/// Where only a part was cancelled, the rest is submitted.
#[test]
fn what_is_not_cancelled_of_a_killed_submission_is_submitted() {
    let fake = FakeSlurm::new(2);
    let id = half_submitted(&fake);
    fake.world.ok(&["cancel", &format!("{id}/evaluate")]);
    let status = fake.world.status(&id);
    assert_eq!(states(&status, "evaluate"), ["cancelled"]);
    assert_eq!(states(&status, "train")[4], "pending");
    let rest = fake.world.run(&["submit", "--continue", &id]);
    let said = "Submitted 6 trials as 4 job arrays; 1 trial is cancelled, and not submitted.";
    assert!(rest.code == 0 && rest.stderr.contains(said), "{rest:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS[..4]);
}

/// A submission of which Slurm took two arrays.
fn half_submitted(fake: &FakeSlurm) -> String {
    let file = fake.world.write("exp.toml", CHAIN);
    std::fs::write(fake.state("stop_after"), "2").unwrap();
    let first = fake.world.run(&["submit".as_ref(), file.as_os_str()]);
    assert_eq!((first.code, fake.names().len()), (4, 2), "{first:?}");
    std::fs::remove_file(fake.state("stop_after")).unwrap();
    let listed: serde_json::Value =
        serde_json::from_str(&fake.world.ok(&["list", "--json"])).unwrap();
    text(&listed["experiments"][0]["id"])
}

#[test]
fn continuing_what_is_submitted_says_that_there_is_nothing_to_do() {
    let fake = FakeSlurm::new(2);
    let file = fake.world.write("exp.toml", CHAIN);
    let id = fake.world.ok(&["submit".as_ref(), file.as_os_str()]);
    let again = fake.world.run(&["submit", "--continue", id.trim()]);
    assert!(again.code == 0 && again.stderr.contains("Nothing to do"), "{again:?}");
    assert!(!again.stderr.contains("Submitted"), "{again:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS);
}

/// Whoever looks at what a killed submission left is told how to go on.
#[test]
fn an_interrupted_submission_is_told_everywhere() {
    let fake = FakeSlurm::new(2);
    let file = fake.world.write("exp.toml", CHAIN);
    let sbatch = fake.world.path("bin/sbatch");
    let whole = std::fs::read_to_string(&sbatch).unwrap();
    let killer = "[ ! -e jobs ] || { kill -9 $PPID; exit 1; }\nfor script;";
    std::fs::write(&sbatch, whole.replacen("for script;", killer, 1)).unwrap();
    assert_eq!(fake.world.run(&["submit", file.to_str().unwrap()]).code, -1);
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "JobHeldUser"]]));
    let listed: serde_json::Value =
        serde_json::from_str(&fake.world.ok(&["list", "--json"])).unwrap();
    let id = text(&listed["experiments"][0]["id"]);
    let told =
        format!("its submission was interrupted: `nemo-slurm submit --continue {id}` continues it");
    assert_eq!(listed["experiments"][0]["reason"], told);
    let list = fake.world.run(&["list"]);
    assert!(list.stderr.contains(&format!("`{id}`: {told}")), "{list:?}");
    let status = fake.world.ok(&["status", &id]);
    assert!(status.contains(&told), "{status}");
    let wait = fake.world.run(&["wait", &id, "--timeout", "25s"]);
    assert!(wait.code == 4 && wait.stderr.contains(&told), "{wait:?}");
    let mut watch = fake.world.command(&["watch", &id]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(first.contains(&told), "{first}");
}
