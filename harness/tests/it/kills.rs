//! SIGKILL of the program, and of the program and its harness, at moments spread over a commit.
//!
//! The commit itself is killed at each of its system calls by the tests beside it; here the whole of both is real.

use std::time::Duration;

use nemo_core::rundir::AttemptRecord;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::promises::{Left, hold};
use crate::support::Task;

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
