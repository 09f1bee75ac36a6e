//! SIGKILL of the program, and of the program and its harness, at moments spread over a commit.
//!
//! The commit itself is killed at each of its system calls by the tests beside it; here the whole of both is real.

use std::time::Duration;

use nemo_core::rundir::AttemptRecord;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::promises::{Left, hold};
use crate::support::{Task, is_alive, wait_until};

/// Saves a folder whose commit takes a while, and is at the next one when it is killed.
const SAVES: &str = r#"
def big(step):
    folder = "%s/.tmp-%d" % (out, step)
    os.mkdir(folder)
    open(folder + "/state", "w").write(str(step))
    for part in range(100): open("%s/%d" % (folder, part), "wb").write(bytes(10000))
    os.rename(folder, "%s/step-%d" % (out, step))
if step: sys.exit(0)
save(1)
while not os.path.exists(os.environ["NEMO_DIR"] + "/checkpoints/step-1"): time.sleep(0.001)
pid = os.environ["TEST"] + "/pid"
open(pid + ".tmp", "w").write(str(os.getpid()))
big(2)
os.rename(pid + ".tmp", pid)
big(3)
big(4)
pause()
"#;

/// How long the three commits take here, roughly.
const COMMITS: Duration = Duration::from_millis(400);

/// The newest step that is on record as committed.
fn recorded(task: &Task) -> Option<u64> {
    let step = |record: &AttemptRecord| match record {
        AttemptRecord::Checkpoint { step, .. } => Some(*step),
        _ => None,
    };
    task.records().iter().filter_map(step).max()
}

/// A kill at the `nth` of so many moments, and what the next attempt goes on from.
fn killed(fault: &str, with_harness: bool, nth: u32, of: u32) {
    let task = Task::python(SAVES);
    let mut running = task.start();
    running.wait_for("pid");
    std::thread::sleep(COMMITS * nth / of);
    if with_harness {
        running.signal("KILL");
    }
    let pid = std::fs::read_to_string(task.path("pid")).unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok(); // the guard may have been faster
    running.finish();
    hold(fault, &task.dir(), if with_harness { Left::Killed } else { Left::InOrder });
    let before = recorded(&task);
    assert_eq!(task.run(), 0);
    let from = task.resume_steps()[1];
    assert!(from >= before && from <= Some(4), "{fault} {nth}: from {from:?} after {before:?}");
    hold(fault, &task.dir(), Left::InOrder);
}

fn sweep(fault: &str, with_harness: bool) {
    let moments = if std::env::var_os("NEMO_FAULTS_FULL").is_some() { 200 } else { 8 };
    for nth in 0..moments {
        killed(fault, with_harness, nth, moments);
    }
}

#[test]
fn the_program_is_killed_at_any_moment_of_a_commit() {
    sweep("A: SIGKILL of the program", false);
}

#[test]
fn both_are_killed_at_any_moment_of_a_commit() {
    sweep("A: SIGKILL of both", true);
}

/// A daemon that keeps nothing of its parents: neither their environment, nor session, nor files.
const DAEMON: &str = r#"
def note(name, pid):
    path = os.environ["TEST"] + "/" + name
    open(path + ".tmp", "w").write(str(pid))
    os.rename(path + ".tmp", path)
if os.fork() == 0:
    os.setsid()
    daemon = os.fork()
    if daemon == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for end in (0, 1, 2): os.dup2(null, end)
        os.execve("/bin/sleep", ["sleep", "60"], dict())
    note("daemon", daemon)
    os._exit(0)
os.wait()
note("program", os.getpid())
pause()
"#;

/// Kills some of the two processes of a harness: nothing of its attempt may live on.
fn no_daemon_outlives(victims: impl Fn(u32, u32) -> Vec<u32>) {
    let task = Task::python(DAEMON);
    let mut running = task.start();
    let program = running.wait_for("program");
    let daemon = running.wait_for("daemon");
    let harness = task.records()[0].as_start().unwrap().pid;
    assert_ne!(harness, running.id(), "the harness has a guard");
    for victim in victims(harness, running.id()) {
        kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL).unwrap();
    }
    assert_eq!(running.finish(), -9, "it ends as the harness did");
    for pid in [program, daemon, harness.to_string()] {
        wait_until("a process of the attempt ends", || !is_alive(&pid));
    }
    hold("C: the harness killed with -9", &task.dir(), Left::Killed);
    let ends = task.ends();
    assert!(ends.is_empty(), "nobody was there to judge: {ends:?}");
}

#[test]
fn no_daemon_outlives_a_harness_that_is_killed() {
    no_daemon_outlives(|harness, _| vec![harness]);
}

#[test]
fn no_daemon_outlives_a_guard_that_is_killed() {
    no_daemon_outlives(|_, guard| vec![guard]);
}

#[test]
fn the_program_outlives_neither_of_both() {
    let task = Task::python(
        r#"open(os.environ["TEST"] + "/pid", "w").write(str(os.getpid())); ready(); pause()"#,
    );
    let mut running = task.start();
    running.wait_for("ready-0");
    let program = running.wait_for("pid");
    let harness = task.records()[0].as_start().unwrap().pid.cast_signed();
    kill(Pid::from_raw(harness), Signal::SIGSTOP).unwrap(); // it can do nothing any more
    running.signal("KILL");
    kill(Pid::from_raw(harness), Signal::SIGKILL).unwrap();
    assert_eq!(running.finish(), -9);
    wait_until("the program ends", || !is_alive(&program));
}
