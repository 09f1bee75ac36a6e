//! Saves: which are committed, which are refused, and when.

use std::fs;

use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::Task;

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

/// However long it has not changed: a disk may hang in the middle of a save.
#[test]
fn what_a_kill_has_closed_is_no_checkpoint() {
    for path in ["out + '/step-1'", "os.environ['TEST'] + '/own.pt'"] {
        let program = format!(
            "f = open({path}, 'w'); f.write('1'); f.flush(); time.sleep(4); os.kill(os.getpid(), 9)"
        );
        let task = Task::python(&program);
        let own = task.path("own.pt");
        let task = task.with("/checkpoint/from", json!([own]));
        task.run();
        assert_eq!(task.checkpoints(), [""; 0], "{path}");
        assert!(task.stderr(0).contains("was not committed: the program was ended"), "{path}");
    }
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
fn a_numbered_copy_of_the_resumed_checkpoint_stays_until_the_program_has_read_it() {
    let task = Task::python(
        r#"
import shutil
if resume:
    shutil.copyfile(resume, out + "/ckpt-50.pt")
    time.sleep(5)  # what a real program takes to import its packages
found = os.path.exists(out + "/ckpt-50.pt")
print("finds", found, flush=True)
if not found:
    open(out + "/.tmp", "w").write("50"); os.rename(out + "/.tmp", out + "/ckpt-50.pt")
    sys.exit(75)
open(out + "/ckpt-50.pt", "w").write("60"); os.rename(out + "/ckpt-50.pt", out + "/ckpt-60.pt")
"#,
    );
    assert_eq!((task.run(), task.run()), (75, 0));
    assert_eq!(
        (task.stdout(0).as_str(), task.stdout(1).as_str()),
        ("finds False\n", "finds True\n")
    );
    assert_eq!(task.committed(), [50, 60]);
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

/// Saves under one name, more often than the program reports its step.
#[test]
fn a_save_without_a_report_of_its_own_is_not_refused() {
    let task = Task::python(
        r"
for step in range(1, 8):
    if step % 3 == 1: print('step', step, flush=True)
    time.sleep(0.1)
    open(out + '/.tmp', 'w').write(str(step)); os.rename(out + '/.tmp', out + '/last.pt')
    time.sleep(0.5)
sys.exit(75)",
    )
    .with("/metrics", json!({"step": r"step (\d+)"}))
    .with("/checkpoint/keep", json!({"trial_latest": 99, "trial_best": 0, "experiment_best": 0}));
    assert_eq!(task.run(), 75);
    let content = |step: u64| {
        let path = task.dir().checkpoint(step).join("last.pt");
        std::fs::read_to_string(path).unwrap()
    };
    let saved: Vec<String> = task.committed().into_iter().map(content).collect();
    assert_eq!(saved, ["1", "2", "3", "4", "5", "6", "7"], "{}", task.stderr(0));
}
