//! Resumes: the checkpoint that an attempt starts from, and the checkpoints that stay.

use std::fs;

use nemo_core::rundir::AttemptRecord;
use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, is_alive, wait_until};

fn with_two() -> Task {
    let task = Task::python("save(step + 1); sys.exit(75)");
    assert_eq!((task.run(), task.run()), (75, 75));
    assert_eq!(task.checkpoints(), ["step-1", "step-2"]);
    task
}

#[test]
fn a_bad_checkpoint_is_moved_aside_and_the_one_before_is_used() {
    let task = with_two();
    fs::write(task.dir().checkpoint(2).join("state"), "9").unwrap();
    assert_eq!(task.run(), 75);
    assert_eq!(task.resume_steps(), [None, Some(1), Some(1)]);
    let names = task.checkpoints();
    assert!(names[0].starts_with("bad-step-2-"), "{names:?}");
    assert_eq!(names[1..], ["step-1", "step-2"]);
    assert!(task.stderr(2).contains("not as it was committed"), "{}", task.stderr(2));
}

#[test]
fn without_a_good_checkpoint_nothing_is_begun_anew_in_silence() {
    let task = with_two();
    for step in [1, 2] {
        fs::write(task.dir().checkpoint(step).join("state"), "").unwrap();
    }
    assert_eq!(task.run(), 1);
    let task2 = with_two();
    fs::remove_dir_all(task2.dir().checkpoints()).unwrap();
    assert_eq!(task2.run(), 1);
    for task in [task, task2] {
        let end = task.ends().pop().unwrap();
        assert!(end.reason.as_ref().unwrap().contains("up to step 2"), "{end:?}");
        assert_eq!(task.stdout(2), "");
    }
}

/// Later attempts of the same retry go on from their own checkpoints.
#[test]
fn a_retry_from_an_earlier_step_sets_later_checkpoints_aside_once() {
    for (step, kept) in [(json!(1), 1), (json!(null), 0)] {
        let task = with_two().with("/restart_from", json!({"generation": 1, "step": step}));
        assert_eq!((task.run(), task.run()), (75, 75));
        let from = step.as_u64();
        let next = from.unwrap_or(0) + 1;
        assert_eq!(task.resume_steps(), [None, Some(1), from, Some(next)]);
        let records = task.records();
        let set_aside = records.iter().filter_map(|row| match row {
            AttemptRecord::SetAside { steps, attempt, .. } => Some((*attempt, steps.clone())),
            _ => None,
        });
        let expected: Vec<u64> = [1, 2].into_iter().filter(|step| *step > kept).collect();
        assert_eq!(set_aside.collect::<Vec<_>>(), [(2, expected.clone())]);
        let names = task.checkpoints();
        for step in expected {
            let name = format!("set-aside-step-{step}-");
            assert!(names.iter().any(|other| other.starts_with(&name)), "{names:?}");
        }
        assert!(task.stderr(2).contains("a retry begins from"), "{}", task.stderr(2));
    }
}

#[test]
fn a_killed_harness_leaves_a_trial_that_goes_on() {
    let task = Task::python("save(step + 1)\nif step < 1:\n    ready(); pause()");
    let mut running = task.start();
    running.wait_for("tasks/train/trials/0/checkpoints/step-1/MANIFEST");
    running.wait_for("ready-0");
    running.signal("KILL");
    running.finish();
    hold("A: SIGKILL of both", &task.dir(), Left::Killed);
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, Some(1)]);
    task.check_ends("NodeFailure Requeue, Completed Done");
    assert_eq!(task.checkpoints(), ["step-2"], "a trial that is done keeps the newest");
}

#[test]
fn a_harness_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let task = Task::python(
        r"
while True:
    step += 1
    print('step', step, flush=True)
    print('loss', step, flush=True)
    save(step)",
    )
    .with("/restart/no_progress", json!(0))
    .with("/metrics", json!({"loss": r"loss (\d+)", "step": r"step (\d+)"}));
    let mut before = 0;
    for round in 0..12 {
        let mut running = task.start();
        let enough = before + 1 + round % 4;
        let newest = || {
            let names = task.checkpoints();
            names.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max()
        };
        wait_until("checkpoints", || {
            assert!(!running.has_ended(), "round {round}: {}", task.newest_log());
            newest() >= Some(enough)
        });
        task.kill_harness(); // wherever it is in the next commit
        running.finish();
        before = newest().unwrap();
        let mut next = task.start();
        let count = usize::try_from(2 * round + 2).unwrap();
        wait_until("a start", || {
            assert!(!next.has_ended(), "round {round}: {}", task.newest_log());
            task.dir().attempts().exists() && task.resume_steps().len() >= count
        });
        task.kill_harness();
        next.finish();
        // What was taken when it was killed may be finished first.
        assert!(task.resume_steps()[count - 1] >= Some(before), "round {round}");
        before = newest().unwrap();
    }
    assert!(task.checkpoints().iter().all(|name| !name.starts_with("bad")));
    let steps: Vec<_> = task.metrics().iter().filter_map(|row| row.step).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
}

#[test]
fn of_two_attempts_at_once_the_later_one_goes_on() {
    let task = Task::python(
        r"
open(os.environ['TEST'] + '/pid-' + os.environ['NEMO_ATTEMPT'], 'w').write(str(os.getpid()))
on(signal.SIGUSR1, lambda: save(9))
on(signal.SIGTERM, lambda: save(8))
ready()
if os.environ['NEMO_ATTEMPT'] == '0': pause()",
    );
    let mut first = task.start();
    first.wait_for("ready-0");
    let pid = first.wait_for("pid-0");
    assert_eq!(task.run(), 0);
    assert!(!is_alive(&pid));
    assert_eq!(first.finish(), 94);
    // The later one may finish what the earlier one saved before it left.
    let by_the_first =
        |row: &AttemptRecord| matches!(row, AttemptRecord::Checkpoint { attempt: 0, .. });
    assert!(!task.records().iter().any(by_the_first), "the earlier one could not commit");
    hold("E: the same trial started twice", &task.dir(), Left::InOrder);
    task.check_ends("Superseded Requeue, Completed Done");
    wait_until("leases", || task.dir().path().join("lease.1.json").exists());
}

#[test]
fn two_checkpoints_stay_and_nobody_misses_the_others() {
    let task = Task::python(
        "for own in range(step + 1, step + 5): save(own)\nsys.exit(75 if step < 4 else 1)",
    )
    .with("/restart/crashes", json!(0));
    assert_eq!(task.run(), 75);
    assert_eq!(task.checkpoints(), ["step-3", "step-4"]);
    assert_eq!(task.run(), 1);
    assert_eq!(task.checkpoints(), ["step-7", "step-8"]);
    assert_eq!(task.resume_steps(), [None, Some(4)]);
    assert!(!task.stderr(1).contains("is gone"), "{}", task.stderr(1));
    let removed = |record: &AttemptRecord| match record {
        AttemptRecord::Removed { steps, .. } => steps.clone(),
        _ => Vec::new(),
    };
    let removed: Vec<u64> = task.records().iter().flat_map(removed).collect();
    assert_eq!(removed, [1, 2, 3, 4, 5, 6]);
    let bytes = |record: &AttemptRecord| match record {
        AttemptRecord::Checkpoint { bytes, .. } => Some(*bytes),
        _ => None,
    };
    assert_eq!(task.records().iter().find_map(bytes), Some(Some(1)), "one digit was saved");
}

#[test]
fn the_best_checkpoint_stays_too() {
    let task = Task::python(
        r"
for own, loss in enumerate([5, 2, 4, 3, 6], 1):
    print('step', own, 'loss', loss, flush=True)
    save(own)
    while not os.path.exists(os.environ['NEMO_DIR'] + '/checkpoints/step-%d' % own): time.sleep(0.01)",
    )
    .with("/metrics", json!({"loss": r"loss (\d+)", "step": r"step (\d+)"}))
    .with("/metric", json!({"name": "loss", "larger_is_better": false}));
    assert_eq!(task.run(), 0);
    assert_eq!(task.checkpoints(), ["step-2", "step-5"]);
}

#[test]
fn a_checkpoint_that_kills_the_program_twice_is_set_aside() {
    let task = Task::python(
        r"
for own in range(step + 1, 4):
    print('step', own, 'loss', own, flush=True)
    if step == 0 and own < 3: save(own); time.sleep(0.1)
sys.exit(1 if step != 1 else 0)",
    )
    .with("/restart", json!({"crashes": 9, "no_progress": 9}))
    .with("/metrics", json!({"loss": r"loss (\d+)", "step": r"step (\d+)"}));
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, Some(2), Some(2), Some(1)]);
    let names = task.checkpoints();
    assert!(names.iter().any(|name| name.starts_with("set-aside-step-2-")), "{names:?}");
    assert!(task.stderr(3).contains("crashed after it twice"), "{}", task.stderr(3));
    let steps: Vec<_> = task.metrics().iter().filter_map(|row| row.step).collect();
    assert_eq!(steps, [1, 2, 3], "no step is lost, and none is there twice");
    hold("B: verifies but kills the program twice", &task.dir(), Left::InOrder);
}

/// Makes what opens it wait for ever, as a disk that hangs does.
fn hang(path: &std::path::Path) {
    drop(fs::remove_file(path));
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Makes a checkpoint's file so long, of nothing but holes, that it takes minutes to verify. Answers with the manifest as it
/// was.
fn take_long_to_verify(checkpoint: &std::path::Path) -> String {
    const SIZE: u64 = 1 << 38;
    let manifest = fs::read_to_string(checkpoint.join("MANIFEST")).unwrap();
    fs::File::options().write(true).open(checkpoint.join("state")).unwrap().set_len(SIZE).unwrap();
    let longer = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["file", hash, _, "state"] => format!("file {hash} {SIZE} state\n"),
        _ => format!("{line}\n"),
    };
    let body: String =
        manifest.lines().filter(|line| !line.starts_with("end ")).map(longer).collect();
    let end = blake3::hash(body.as_bytes());
    fs::write(checkpoint.join("MANIFEST"), format!("{body}end {end}\n")).unwrap();
    manifest
}

#[test]
fn a_stop_is_heard_while_checkpoints_are_verified() {
    let task = with_two();
    take_long_to_verify(&task.dir().checkpoint(2));
    let running = task.start();
    wait_until("the attempt's log", || task.dir().stderr(2).exists());
    running.signal("TERM");
    assert_eq!(running.finish(), 143);
    task.check_ends("Restart Requeue, Restart Requeue, Cancelled Cancelled");
    assert_eq!(task.stdout(2), "", "nothing is started from what was not verified");
    assert!(task.stderr(2).contains("not started"), "{}", task.stderr(2));
    let reason = task.ends().pop().unwrap().reason.unwrap();
    assert!(reason.contains("still being verified"), "{reason}");
}

#[test]
fn an_attempt_that_is_killed_while_it_verifies_is_on_record() {
    let task = with_two();
    let checkpoint = task.dir().checkpoint(2);
    let whole = fs::metadata(checkpoint.join("state")).unwrap().len();
    let manifest = take_long_to_verify(&checkpoint);
    let running = task.start();
    wait_until("the attempt's log", || task.dir().stderr(2).exists());
    running.signal("KILL");
    running.finish();
    let state = fs::File::options().write(true).open(checkpoint.join("state")).unwrap();
    state.set_len(whole).unwrap();
    fs::write(checkpoint.join("MANIFEST"), manifest).unwrap();
    assert_eq!(task.run(), 75);
    task.check_ends("Restart Requeue, Restart Requeue, NodeFailure Requeue, Restart Requeue");
}

#[test]
fn a_program_that_is_killed_while_it_saves_goes_on_from_the_one_before() {
    let task = Task::python(
        r"
def die(): os.kill(os.getpid(), signal.SIGKILL)
attempt = int(os.environ['NEMO_ATTEMPT'])
save(step + 1)
if attempt == 0:
    for name in ('/step-8.tmp', '/step-9'):
        os.mkdir(out + name); open(out + name + '/state', 'w').write('9')
    die()
if attempt == 1: die()",
    )
    .with("/restart", json!({"crashes": 9, "no_progress": 9}));
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, Some(1), Some(2)]);
    hold("A: SIGKILL of the program", &task.dir(), Left::InOrder);
}

#[test]
fn metrics_after_the_checkpoint_are_taken_out() {
    let task = Task::python(
        r"
for own in range(step + 1, step + 4):
    print('step', own, 'loss', own, flush=True)
    if own == step + 2: save(own)
sys.exit(75 if step < 4 else 0)",
    )
    .with("/metrics", json!({"loss": r"loss (\d+)", "step": r"step (\d+)"}));
    for code in [75, 75, 0] {
        assert_eq!(task.run(), code);
    }
    let steps: Vec<_> = task.metrics().iter().filter_map(|row| row.step).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(task.resume_steps(), [None, Some(2), Some(4)]);
}

#[test]
fn a_resume_needs_no_more_memory_for_more_metrics() {
    let task = Task::python(
        r#"
open(os.environ["TEST"] + "/parent-" + os.environ["NEMO_ATTEMPT"], "w").write(str(os.getppid()))
if not resume: save(200_000); sys.exit(75)
ready(); pause()"#,
    );
    assert_eq!(task.run(), 75);
    let line = |step: u64| {
        format!(
            "{{\"step\":{step},\"attempt\":0,\"time\":1795886744.0886502,\"values\":{{\"loss\":{step}}}}}\n"
        )
    };
    fs::write(task.dir().metrics(), (1..=300_000).map(line).collect::<String>()).unwrap();
    let mut running = task.start();
    running.wait_for("ready-1");
    let peak = peak(running.wait_for("parent-1").trim());
    assert!(peak < 40_000, "{peak} KiB");
    let metrics = task.metrics();
    assert_eq!(metrics.len(), 200_000);
    assert_eq!(metrics.last().unwrap().step, Some(200_000));
}

/// The most memory that a process ever had, in KiB.
fn peak(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_fifo_in_place_of_a_manifest_or_a_log_stops_nothing() {
    let task = with_two();
    hang(&task.dir().checkpoint(2).join("MANIFEST"));
    hang(&task.dir().stderr(3));
    hang(&task.dir().stdout(3));
    assert_eq!((task.run(), task.run()), (75, 75));
    assert_eq!(task.resume_steps(), [None, Some(1), Some(1), Some(2)]);
    assert!(task.stderr(2).contains("its MANIFEST: it is a FIFO"), "{}", task.stderr(2));
}
