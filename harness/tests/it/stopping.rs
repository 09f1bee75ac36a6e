//! Signals and exit codes.

use std::fs;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{PYTHON, Task, is_alive, signal, wait_until};

const SAVES: &str = r"
def stop():
    save(step + 1)
    sys.exit(CODE)
on(signal.SIGUSR1, stop)
ready()
pause()
";

fn saver(code: u8) -> Task {
    Task::python(&SAVES.replace("CODE", &code.to_string()))
}

#[test]
fn usr1_saves_and_the_trial_must_run_again() {
    for code in [0, 75, 85, 143] {
        let task = saver(code);
        let mut running = task.start();
        running.wait_for("ready-0");
        for _ in 0..100 {
            running.signal("USR1");
        }
        assert_eq!(running.finish(), 75);
        task.check_ends("Preempted Requeue");
        assert_eq!(task.checkpoints(), ["step-1"]);
        let mut running = task.start();
        running.wait_for("ready-1");
        running.signal("USR1");
        assert_eq!(running.finish(), 75);
        assert_eq!(task.resume_steps(), [None, Some(1)]);
        assert_eq!(task.checkpoints(), ["step-1", "step-2"]);
        hold("C: USR1 100 times", &task.dir(), Left::InOrder);
        if code == 0 {
            hold("C: exit 0 without being done", &task.dir(), Left::InOrder);
        }
    }
}

#[test]
fn term_saves_and_cancels() {
    let task = saver(0);
    assert_eq!(task.signalled(&["TERM", "TERM"]), 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-1"]);
    hold("C: TERM only", &task.dir(), Left::InOrder);
}

#[test]
fn a_program_that_does_not_catch_the_signal_is_ended_at_once_by_term() {
    let task = Task::python("ready(); pause()");
    assert_eq!(task.signalled(&["TERM"]), 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.ends()[0].signal, Some(15));
}

#[test]
fn a_program_that_ignores_everything_is_killed() {
    let task = Task::python(
        "on(signal.SIGUSR1, lambda: None); on(signal.SIGTERM, lambda: None); ready(); pause()",
    )
    .with("/checkpoint/lead", json!(4));
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.ends()[0].signal, Some(9));
    hold("C: a program that ignores signals", &task.dir(), Left::InOrder);
}

#[test]
fn a_signal_before_the_handler_is_sent_again() {
    let task = Task::python(
        r#"
ready("began")
while not os.path.exists(os.environ["TEST"] + "/go"): time.sleep(0.01)
def stop():
    save(7); sys.exit(75)
on(signal.SIGUSR1, stop)
pause()
"#,
    );
    let mut running = task.start();
    running.wait_for("began-0");
    running.signal("USR1");
    std::fs::write(task.path("go"), "").unwrap();
    assert_eq!(running.finish(), 75);
    assert_eq!(task.checkpoints(), ["step-7"]);
    hold("C: USR1 before the program installed its handler", &task.dir(), Left::InOrder);
}

#[test]
fn inherited_signal_settings_do_not_matter() {
    // The shell ignores the signals before it becomes the harness.
    let task = saver(75);
    assert_eq!(task.signalled(&["USR1"]), 75);
    let script = "trap '' USR1 TERM CHLD; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_nemo-harness"),
        "run",
        "--local",
        "--trial",
        "0",
    ]);
    command.arg("--task-dir").arg(task.path("tasks/train")).envs(task.env.iter().cloned());
    let mut child = command.spawn().unwrap();
    wait_until("ready-1", || task.path("ready-1").exists());
    signal(child.id(), "USR1");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(task.checkpoints(), ["step-1", "step-2"]);
    hold("C: USR1 inherited as ignored or blocked", &task.dir(), Left::InOrder);
}

#[test]
fn restart_in_place_and_requeue_by_exit_code() {
    let task = Task::python("save(step + 1); sys.exit({0: 85, 1: 85, 2: 75}[step])");
    assert_eq!(task.run(), 75);
    task.check_ends("Restart Restart, Restart Restart, Restart Requeue");
    assert_eq!(task.checkpoints(), ["step-2", "step-3"]);
    assert_eq!(task.resume_steps(), [None, Some(1), Some(2)]);
}

#[test]
fn no_progress_ends_a_loop() {
    let task = Task::sh("exit 85");
    assert_eq!(task.run(), 1);
    task.check_ends("Restart Restart, Restart Restart, Restart Failed");
}

#[test]
fn the_time_limit_is_kept_here_and_the_deadline_too() {
    let task = saver(75).with("/time_limit", json!(5)).with("/checkpoint/lead", json!(4));
    assert_eq!(task.run(), 75);
    task.check_ends("TimeLimit Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    let task = saver(75).with("/deadline", json!(1));
    assert_eq!(task.run(), 124);
    task.check_ends("TimeLimit Timeout");
    hold("C: USR1 at the time limit", &task.dir(), Left::InOrder);
}

#[test]
fn the_launcher_does_not_die_of_a_signal_for_its_child() {
    let text = SAVES.replace("CODE", "75");
    let program = format!("{}{text}", crate::support::PYTHON);
    let mut task = Task::sh("python3 -c \"$PROGRAM\" & wait $!; code=$?; exit $code");
    task.env("PROGRAM", &program);
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
}

#[test]
fn a_killed_harness_takes_its_program_along() {
    let task = Task::python(
        "ready(); open(os.environ['TEST'] + '/pid', 'w').write(str(os.getpid())); ready('written'); pause()",
    );
    let mut running = task.start();
    running.wait_for("written-0");
    let pid = running.wait_for("pid");
    running.signal("KILL");
    assert_eq!(running.finish(), -9);
    wait_until("the program is gone", || !is_alive(&pid));
}

#[test]
fn nothing_outlives_a_harness_that_is_killed() {
    let task = Task::python(
        r#"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(os.environ["TEST"] + "/daemon", "w").write(str(os.getpid()))
        pause()
    os._exit(0)
os.wait()
while not os.path.exists(os.environ["TEST"] + "/daemon") or not open(os.environ["TEST"] + "/daemon").read(): pass
ready()
pause()
"#,
    );
    let mut running = task.start();
    running.wait_for("ready-0");
    let daemon = running.wait_for("daemon");
    running.signal("KILL");
    running.finish();
    wait_until("the daemon is gone", || !is_alive(&daemon));
    hold("C: the harness killed with -9", &task.dir(), Left::Killed);
}

#[test]
fn a_pause_is_no_failure() {
    let task = Task::python("on(signal.SIGUSR1, lambda: sys.exit(75)); ready(); pause()")
        .with("/restart/no_progress", json!(1));
    let mut running = task.start();
    running.wait_for("ready-0");
    std::fs::write(task.dir().pause(), "{}").unwrap();
    running.signal("USR1");
    assert_eq!(running.finish(), 75);
    task.check_ends("Paused Requeue");
}

/// Something lies where the folder of the program's results must be.
fn without_artifacts() -> Task {
    let task = Task::python("print(1)");
    fs::create_dir_all(task.dir().path()).unwrap();
    fs::write(task.dir().artifacts(), "").unwrap();
    task
}

#[test]
fn what_a_node_can_not_give_is_tried_again_elsewhere() {
    let task = without_artifacts();
    assert_eq!(task.run(), 75);
    task.check_ends("NodeFailure Requeue");
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("was not started: ") && reason.contains("artifacts"), "{reason}");
    fs::remove_file(task.dir().artifacts()).unwrap();
    assert_eq!(task.run(), 0);
    task.check_ends("NodeFailure Requeue, Completed Done");
}

#[test]
fn what_no_node_can_give_is_given_up() {
    let task = without_artifacts();
    assert_eq!((task.run(), task.run(), task.run()), (75, 75, 1));
    task.check_ends("NodeFailure Requeue, NodeFailure Requeue, NodeFailure Failed");
}

#[test]
fn a_shell_around_the_program_outlives_the_term_of_every_process() {
    let program = format!(
        "{PYTHON}\ndef stop():\n    time.sleep(0.5)\n    save(1)\n    sys.exit(0)\non(signal.SIGUSR1, stop)\n\
         on(signal.SIGTERM, lambda: None)\nopen(os.environ['TEST'] + '/group', 'w').write(str(os.getpgrp()))\nready()\npause()"
    );
    let text = "python3 \"$TEST/program.py\"; exit $?";
    let script = |task: &Task| fs::write(task.path("script.sh"), text).unwrap();
    // Ours; a script's own, which dies of it; and that below ours.
    for task in [
        Task::sh(text),
        Task::new(&json!({"exec": ["sh", "-c", text]})),
        Task::sh("sh \"$TEST/script.sh\"; exit $?"),
    ] {
        script(&task);
        fs::write(task.path("program.py"), &program).unwrap();
        let mut running = task.start();
        running.wait_for("ready-0");
        let group: i32 = fs::read_to_string(task.path("group")).unwrap().parse().unwrap();
        // Slurm's order is its own.
        killpg(Pid::from_raw(group), Signal::SIGTERM).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        running.signal("TERM");
        assert_eq!(running.finish(), 143);
        task.check_ends("Cancelled Cancelled");
        assert_eq!(task.checkpoints(), ["step-1"], "{}", task.stderr(0));
        assert_eq!(task.ends()[0].exit_code, Some(0), "it ends as its program does");
    }
    // A script that somebody else ends takes along what it had started.
    let task = Task::new(&json!({"exec": ["sh", "-c", text]}));
    fs::write(task.path("program.py"), &program).unwrap();
    let mut running = task.start();
    running.wait_for("ready-0");
    let group: i32 = fs::read_to_string(task.path("group")).unwrap().parse().unwrap();
    signal(u32::try_from(group).unwrap(), "TERM");
    assert_eq!(running.finish(), 1);
    task.check_ends("Failed Failed");
    // Without a handler the program ends by TERM, and the shell goes on to nothing else.
    let task = Task::sh("sleep 60; touch \"$TEST/went-on\"");
    let running = task.start();
    wait_until("the program", || task.dir().stdout(0).exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal("TERM");
    assert_eq!(running.finish(), 143);
    assert!(!task.path("went-on").exists());
}

/// Who wrote the request was killed before the signal, or `scancel` hung.
#[test]
fn a_request_without_a_signal_is_seen() {
    let program = "on(signal.SIGUSR1, lambda: (save(1), sys.exit(75)))\nready()\npause()";
    for (is_pause, end) in [(true, "Paused Requeue"), (false, "Preempted Requeue")] {
        let task = Task::python(program);
        let mut running = task.start();
        running.wait_for("ready-0");
        let dir = task.dir();
        fs::write(if is_pause { dir.pause() } else { dir.preempt() }, "").unwrap();
        wait_until("the stop", || running.has_ended());
        assert_eq!(running.finish(), 75);
        task.check_ends(end);
        assert_eq!(task.committed(), [1]);
    }
}
