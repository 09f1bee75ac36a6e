//! `checkpoint.tier`: a program saves to memory, and only what was copied out and committed counts.

use std::fs;

use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, wait_until};

/// A task whose tier is a folder of the test's.
fn tiered(program: &str) -> Task {
    let task = Task::python(program);
    let tier = task.path("memory");
    fs::create_dir(&tier).unwrap();
    task.with("/checkpoint/tier", json!(tier))
}

fn left(task: &Task) -> usize {
    fs::read_dir(task.path("memory")).unwrap().count()
}

#[test]
fn a_save_to_memory_is_committed_while_the_program_trains_on() {
    let task = tiered(
        "assert out.startswith(os.environ['TEST'] + '/memory/')\nsave(step + 1)\nwhile os.path.exists(out + '/step-%d' % (step + 1)): time.sleep(0.01)\n\
         on(signal.SIGUSR1, lambda: (save(step + 2), sys.exit(75)))\nready()\npause()",
    );
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.committed(), [1, 2]);
    let mut again = task.start();
    again.wait_for("ready-1");
    assert_eq!(task.resume_steps(), [None, Some(2)]);
    again.signal("USR1");
    assert_eq!(again.finish(), 75);
    assert_eq!(task.committed(), [1, 2, 3, 4]);
    hold("a tier", &task.dir(), Left::InOrder);
    assert_eq!(left(&task), 0);
}

/// Of what lay in memory when both were killed nothing counts, and nothing stays.
#[test]
fn a_kill_at_any_moment_leaves_what_was_committed() {
    let program = "n = step\nready()\nwhile True:\n  n += 1\n  save(n)\n  print('step', n, flush=True)\n  time.sleep(0.02)";
    for pause in [0, 30, 90, 200] {
        let task = tiered(program).with("/metrics", json!({"step": r"step (\d+)"}));
        let mut on_disk = Vec::new();
        for attempt in 0..2 {
            on_disk.extend(task.checkpoints());
            let mut running = task.start();
            running.wait_for(&format!("ready-{attempt}"));
            let before = task.committed().len();
            wait_until("a checkpoint", || task.committed().len() > before);
            std::thread::sleep(std::time::Duration::from_millis(pause)); // a moment of its own
            task.kill_harness();
            running.finish();
            assert_eq!(left(&task), 0, "the guard knows where the tier is");
        }
        let committed = task.committed();
        let resumed = task.resume_steps()[1].unwrap();
        // The harness may be killed between a commit and its record.
        let is_there = on_disk.contains(&format!("step-{resumed}"));
        assert!(is_there || committed.contains(&resumed), "{resumed} {committed:?} {on_disk:?}");
        hold("a kill with a tier", &task.dir(), Left::Killed);
    }
}

/// The program's folder on the node may be in the same memory.
#[test]
fn what_is_in_the_scratch_folder_is_no_save() {
    let mut task = tiered(
        "scratch = os.environ['NEMO_SCRATCH']\nassert scratch != out\nopen(scratch + '/step-9', 'w').write('9')\nsave(step + 1)\nsys.exit(75)",
    );
    let memory = task.path("memory").display().to_string();
    task.env("TMPDIR", &memory);
    assert_eq!(task.run(), 75, "{}", task.stderr(0));
    assert_eq!(task.committed(), [1]);
    assert_eq!(left(&task), 0);
}

#[test]
fn logs_in_memory_are_no_checkpoint_and_last() {
    let program = r#"
if resume: print("from", os.path.basename(resume)); sys.exit(0)
os.mkdir(out + "/.tmp-5"); open(out + "/.tmp-5/state", "w").write("5")
print("step 5 loss: 2", flush=True); os.rename(out + "/.tmp-5", out + "/checkpoint-5")
while os.path.exists(out + "/checkpoint-5"): time.sleep(0.01)
print("step 8 loss: 1", flush=True)
while '"step":8' not in open(os.environ["NEMO_DIR"] + "/metrics.jsonl").read(): time.sleep(0.01)
os.makedirs(out + "/runs/a"); open(out + "/runs/a/events", "w").write("8")
sys.exit(85)"#;
    let task = tiered(program)
        .with("/profile", json!("transformers"))
        .with("/metrics", json!({"step": r"step (\d+)", "loss": r"loss: (\d+)"}));
    assert_eq!(task.run(), 0, "{}", task.newest_log());
    assert_eq!(task.committed(), [5]);
    assert_eq!(task.stdout(1), "from step-5\n");
    let kept = task.dir().path().join("left/0/runs/a/events");
    assert_eq!(fs::read_to_string(kept).unwrap(), "8");
    assert_eq!(left(&task), 0);
}

#[test]
fn a_crash_before_anything_was_committed_is_followed_by_an_attempt_on_the_disk() {
    let program =
        "if '/memory/' in out: raise OSError(28, 'No space left on device')\nsave(step + 1)";
    let task = tiered(program);
    assert_eq!(task.run(), 0, "{}", task.newest_log());
    task.check_ends("Failed Restart, Completed Done");
    assert!(task.stderr(0).contains("go to the disk next"), "{}", task.stderr(0));
    assert!(task.stderr(1).contains("the program saves to the disk"), "{}", task.stderr(1));
    assert_eq!((task.committed(), left(&task)), (vec![1], 0));
    // On the disk the crash is the program's own.
    let task = tiered("sys.exit(1)");
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Restart, Failed Failed");
}

#[test]
fn a_tier_that_is_too_small_is_not_used_and_that_is_said() {
    let program = "print(out, flush=True)\nsave(step + 1)\nsys.exit(75)";
    let task = tiered(program).with("/checkpoint/tier", json!("/nowhere"));
    assert_eq!(task.run(), 75);
    assert!(task.stderr(0).contains("the program saves to the disk"), "{}", task.stderr(0));
    assert_eq!(task.committed(), [1]);
    let task = tiered("sys.exit(75)").with("/restart/no_progress", json!(0));
    assert_eq!((task.run(), task.run()), (75, 75));
    assert!(task.stderr(1).contains("no earlier attempt has saved"), "{}", task.stderr(1));
    assert_eq!(left(&task), 0, "the guard or the next attempt has removed it");
}

#[test]
fn a_folder_that_was_written_in_place_is_complete_by_the_programs_word() {
    let task = tiered(
        r#"
import socket
os.mkdir(out + "/step-7")
open(out + "/step-7/model", "w").write("7")
harness = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
harness.connect(os.environ["NEMO_SOCKET"])
harness.send(b"CKPT_DONE=step-7")
end = time.monotonic() + 15
while os.path.exists(out + "/step-7"):
    if time.monotonic() > end: os.kill(os.getpid(), 9)
    time.sleep(0.01)
sys.exit(75)"#,
    );
    assert_eq!(task.run(), 75, "it was not committed while the program ran");
    assert_eq!(task.committed(), [7]);
}
