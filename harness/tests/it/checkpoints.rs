//! What is saved, committed, lost and found again.

use std::fs;

use nemo_core::rundir::AttemptRecord;
use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, is_alive, wait_until};

#[test]
fn a_renamed_save_is_committed_while_the_program_runs() {
    let task = Task::python("save(3); ready(); pause()");
    let mut running = task.start();
    running.wait_for("tasks/train/trials/0/checkpoints/step-3/MANIFEST");
    assert!(task.dir().checkpoint(3).join("state").exists());
    running.signal("KILL");
    running.finish();
    let task2 = Task::python("print(step, resume)");
    fs::create_dir_all(task2.path("tasks/train/trials")).unwrap();
    fs::rename(task.path("tasks/train/trials/0"), task2.path("tasks/train/trials/0")).unwrap();
    assert_eq!(task2.run(), 0);
    let from = task2.dir().checkpoint(3);
    assert_eq!(task2.stdout(1), format!("3 {}\n", from.display()));
    assert_eq!(task2.resume_steps(), [None, Some(3)]);
}

#[test]
fn a_single_file_keeps_its_name() {
    let task = Task::python(
        "print(resume)\np = os.path.join(out, 'step-%d.npz' % (step + 1))\nopen(p + '.tmp', 'w').write(str(step + 1))\nos.rename(p + '.tmp', p)\nsys.exit(75)",
    );
    assert_eq!(task.run(), 75);
    assert_eq!(task.run(), 75);
    assert_eq!(task.checkpoints(), ["step-1", "step-2"]);
    let from = task.dir().checkpoint(1).join("step-1.npz");
    assert_eq!(task.stdout(1), format!("{}\n", from.display()));
}

#[test]
fn in_place_is_committed_when_the_program_ended_in_order() {
    let text =
        "os.mkdir(out + '/step-1'); open(out + '/step-1/state', 'w').write('1'); sys.exit(CODE)";
    let task = Task::python(&text.replace("CODE", "75"));
    assert_eq!(task.run(), 75);
    assert_eq!(task.checkpoints(), ["step-1"]);
    let task = Task::python(&text.replace("CODE", "1"));
    assert_eq!(task.run(), 1);
    assert_eq!(task.checkpoints(), [""; 0]);
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("`step-1` was not committed"), "{reason}");
}

#[test]
fn in_place_is_committed_once_it_has_come_to_rest() {
    let task = Task::python("open(out + '/step-1', 'w').write('1'); ready(); pause()");
    let mut running = task.start();
    running.wait_for("tasks/train/trials/0/checkpoints/step-1/MANIFEST");
    // An open file is not at rest, however long nothing is written.
    let open =
        Task::python("f = open(out + '/step-1', 'w'); f.write('1'); f.flush(); ready(); pause()");
    let mut second = open.start();
    second.wait_for("ready-0");
    second.signal("TERM");
    assert_eq!(second.finish(), 143);
    assert_eq!(open.checkpoints(), [""; 0]);
}

#[test]
fn a_folder_in_place_is_never_taken_for_whole_while_the_program_runs() {
    // The second file of the folder could come at any time: here something else is committed long before.
    let task = Task::python(
        "os.mkdir(out + '/step-1'); open(out + '/step-1/model', 'w').write('1'); time.sleep(6); open(out + '/step-2', 'w').write('2'); ready(); pause()",
    );
    let mut running = task.start();
    running.wait_for("tasks/train/trials/0/checkpoints/step-2/MANIFEST");
    assert_eq!(task.checkpoints(), ["step-2"]);
    running.signal("TERM");
    assert_eq!(running.finish(), 143);
    assert_eq!(task.checkpoints(), ["step-2"], "it may be torn");
    hold("A: a missing shard", &task.dir(), Left::InOrder);
}

#[test]
fn a_done_trial_that_is_started_again_runs_nothing() {
    let task = Task::sh("echo again");
    assert_eq!(task.run(), 0);
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
    assert_eq!(task.stdout(1), "", "there is no second attempt");
}

#[test]
fn names_without_a_number_take_the_step_that_was_printed() {
    let task = Task::python(
        "print('step 12'); sys.stdout.flush(); time.sleep(0.2); open(out + '/.tmp', 'w').write('12'); os.rename(out + '/.tmp', out + '/last.pt'); sys.exit(75)",
    )
    .with("/metrics", json!({"step": r"step (\d+)"}));
    assert_eq!(task.run(), 75);
    assert_eq!(task.checkpoints(), ["step-12"]);
}

#[test]
fn a_step_that_is_committed_already_stays_as_it_is() {
    let task = Task::python(
        r"
open(out + '/step-1.tmp', 'w').write(os.environ['NEMO_ATTEMPT'])
os.rename(out + '/step-1.tmp', out + '/step-1')
sys.exit(75)",
    );
    assert_eq!(task.run(), 75);
    assert_eq!(task.run(), 75);
    let state = fs::read_to_string(task.dir().checkpoint(1).join("step-1")).unwrap();
    assert_eq!(state, "0");
    assert!(task.stderr(1).contains("with other content"), "{}", task.stderr(1));
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
        let running = task.start();
        let enough = before + 1 + round % 4;
        let newest = || {
            let names = task.checkpoints();
            names.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max()
        };
        wait_until("checkpoints", || newest() >= Some(enough));
        task.kill_harness(); // wherever it is in the next commit
        running.finish();
        before = newest().unwrap();
        let next = task.start();
        let count = usize::try_from(2 * round + 2).unwrap();
        wait_until("a start", || {
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
    assert_eq!(first.finish(), 0);
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
fn a_commit_that_hangs_holds_up_neither_the_supervision_nor_the_end() {
    let task = Task::python(
        r"
def stop():
    ready('asked'); sys.exit(75)
on(signal.SIGUSR1, stop)
os.mkfifo(os.path.join(os.environ['NEMO_DIR'], 'metrics.jsonl'))
save(1); ready(); pause()",
    )
    .with("/checkpoint/lead", json!(4));
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    running.wait_for("asked-0");
    assert_eq!(running.finish(), 75);
    task.check_ends("Preempted Requeue");
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("`step-1` was not committed: there was no time left"), "{reason}");
    fs::remove_file(task.dir().metrics()).unwrap(); // nobody can read it
    hold("A: a write that hangs", &task.dir(), Left::InOrder);
}

#[test]
fn checkpoints_on_another_file_system_are_refused_at_the_start() {
    use std::os::unix::fs::MetadataExt;
    let task = Task::sh("echo began");
    let device = |path: &str| fs::metadata(path).unwrap().dev();
    let own = device(task.root.path().to_str().unwrap());
    let others = ["/dev/shm", env!("CARGO_TARGET_TMPDIR")];
    let Some(other) = others.into_iter().find(|path| device(path) != own) else {
        eprintln!("NOT TESTED: there is only one file system here");
        return;
    };
    let other = tempfile::tempdir_in(other).unwrap();
    fs::create_dir_all(task.path("tasks/train/trials/0")).unwrap();
    std::os::unix::fs::symlink(other.path(), task.path("tasks/train/trials/0/checkpoints"))
        .unwrap();
    assert_eq!(task.run(), 1);
    assert_eq!(task.stdout(0), "");
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("another file system"), "{reason}");
    hold("A: EXDEV", &task.dir(), Left::InOrder);
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
fn names_without_a_number_are_counted_on_after_a_resume() {
    let task = Task::python(
        r#"
path = os.path.join(out, "model")
os.mkdir(path + ".tmp")
open(path + ".tmp/state", "w").write(os.environ["NEMO_ATTEMPT"])
os.rename(path + ".tmp", path)
sys.exit(75)
"#,
    );
    for _ in 0..3 {
        assert_eq!(task.run(), 75);
    }
    assert_eq!(task.resume_steps(), [None, Some(0), Some(1)]);
    assert_eq!(task.checkpoints(), ["step-1", "step-2"], "two stay of a trial that goes on");
}

#[test]
fn a_copy_of_the_resumed_checkpoint_stays_until_the_program_has_read_it() {
    let task = Task::python(
        r#"
own = os.path.join(out, "snapshot")
given = os.environ["NEMO_RESUME_FROM"]
if given:
    import shutil
    shutil.copyfile(given, own)
time.sleep(5)  # what a real program takes to import its packages
began = open(own).read() if os.path.exists(own) else "nothing"
open(os.environ["TEST"] + "/began-" + os.environ["NEMO_ATTEMPT"], "w").write(began)
if not given:
    open(out + "/.tmp", "w").write("1")
    os.rename(out + "/.tmp", own)
    sys.exit(75)
open(own, "w").write("2")
sys.exit(75)
"#,
    );
    assert_eq!((task.run(), task.run()), (75, 75));
    let began = |attempt: u32| fs::read_to_string(task.path(&format!("began-{attempt}"))).unwrap();
    assert_eq!((began(0).as_str(), began(1).as_str()), ("nothing", "1"));
    assert_eq!(
        task.checkpoints().len(),
        2,
        "what the program makes of it is a checkpoint of its own"
    );
}

#[test]
fn a_name_that_was_refused_may_be_saved_again() {
    let task = Task::python(
        r#"
def put(text):
    open(os.path.join(out, "best-7.pt"), "w").write(text)
put("7"); time.sleep(4); put("8"); time.sleep(4)
save(9)
put("9")
"#,
    );
    assert_eq!(task.run(), 0, "what is there already stays; nothing hangs, nothing is lost");
    assert!(task.checkpoints().contains(&"step-9".to_owned()));
}

#[test]
fn what_is_saved_in_place_without_a_number_is_of_the_step_at_which_it_was_written() {
    let program = "print('step 3', flush=True)\ntime.sleep(0.5)\nopen(out + '/latest', 'w').write('x')\ntime.sleep(0.5)\n\
                   for n in range(4, 50):\n    print('step', n, flush=True)\n    time.sleep(0.1)";
    let task = Task::python(program).with("/metrics", json!({"step": "^step (\\d+)"}));
    assert_eq!(task.run(), 0);
    assert_eq!(task.checkpoints(), ["step-3"]);
}

#[test]
fn the_same_content_again_and_again_is_no_progress() {
    let task = Task::sh("echo same >\"$NEMO_CHECKPOINT_DIR/latest\"; exit 85")
        .with("/restart/no_progress", json!(3));
    assert_eq!(task.run(), 1);
    task.check_ends("Restart Restart, Restart Restart, Restart Restart, Restart Failed");
    assert_eq!(task.checkpoints(), ["step-0"]);
}

/// What an attempt that ended in order says of what it did not commit.
#[track_caller]
fn check_refused(program: &str, expected: &[&str]) {
    let task = Task::python(program);
    assert_eq!(task.run(), 0);
    assert_eq!(task.checkpoints().last().unwrap(), "step-9", "the others change nothing");
    let reason = task.ends()[0].reason.clone().unwrap();
    for expected in expected {
        assert!(reason.contains(expected), "{expected}: {reason}");
        assert!(task.stderr(0).contains(expected), "{}", task.stderr(0));
    }
    hold("A: what is neither a file nor a folder", &task.dir(), Left::InOrder);
}

#[test]
fn a_fifo_a_socket_or_a_device_is_named_and_holds_nothing_up() {
    check_refused(
        r#"
import socket
os.mkfifo(out + "/step-1")
socket.socket(socket.AF_UNIX).bind(out + "/step-2")
os.symlink("/dev/zero", out + "/step-3")
os.symlink(out + "/step-9", out + "/step-4")
os.mkdir(out + "/.5"); os.mkfifo(out + "/.5/pipe"); open(out + "/.5/state", "w").write("5")
os.rename(out + "/.5", out + "/step-5")
save(9)"#,
        &[
            "`step-1` was not committed: it is a FIFO",
            "`step-2` was not committed: it is a socket",
            "`step-3` was not committed: it is a link",
            "`step-4` was not committed: it is a link",
            "`step-5` was not committed: `pipe` in it is a FIFO",
        ],
    );
}

#[test]
fn a_number_that_is_no_step_is_not_taken_for_another() {
    check_refused(
        r#"
for name in ["step-99999999999999999999999", "step-18446744073709551616", "step-18446744073709551615"]:
    save(0, name + "%.0s")
print("step 3", flush=True)
save(9)"#,
        &[
            "`step-99999999999999999999999` was not committed: its number is larger than any step",
            "`step-18446744073709551616` was not committed",
            "`step-18446744073709551615` was not committed",
        ],
    );
}

#[test]
fn a_tree_that_is_too_deep_for_a_path_is_named() {
    check_refused(
        r#"
os.mkdir(out + "/.deep")
top = os.getcwd()
os.chdir(out + "/.deep")
for _ in range(3000): os.mkdir("d"); os.chdir("d")
open("state", "w").write("1")
os.chdir(top)
os.rename(out + "/.deep", out + "/step-5")
save(9)"#,
        &["`step-5` was not committed: it is too deep"],
    );
}

#[test]
fn names_that_are_no_text_are_committed_or_named() {
    check_refused(
        r#"
os.mkdir(out + "/.x")
open(out.encode() + b"/.x/a\nb\xff\x1b[31m", "w").write("1")
os.rename(out.encode() + b"/.x", out.encode() + b"/new\nline\xff-8")
while not os.path.exists(os.environ["NEMO_DIR"] + "/checkpoints/step-8"): time.sleep(0.01)
open(out.encode() + b"/\xff-7.pt", "w").write("1")
save(9)"#,
        &["-7.pt` was not committed: its name is not UTF-8"],
    );
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

/// The most memory that a process ever had, in KiB.
fn peak(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
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
