//! Who is asked to save: programs that wait for the signal blocked, and nobody who would die of it.

use serde_json::json;

use crate::support::{Running, Task};

/// Saves once it was asked; `asked` is set by whatever waits for the signal.
const UNTIL_ASKED: &str = r"
import threading
asked = threading.Event()
def until_asked():
    ready()
    while not asked.wait(0.05): pass
    save(7)
    sys.exit(75)
";

#[track_caller]
fn check(program: &str, saves: bool) {
    let task =
        Task::python(&format!("{UNTIL_ASKED}\n{program}")).with("/checkpoint/lead", json!(4));
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    let expected: &[&str] = if saves { &["step-7"] } else { &[] };
    assert_eq!(task.checkpoints(), expected, "{}", task.stderr(0));
    let signal = task.ends()[0].signal;
    assert_ne!(signal, Some(10), "it died of the request: {}", task.stderr(0));
}

/// The signal is blocked, but in one thread that waits for it.
const WAITING_THREAD: &str = r"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
wait = lambda: (signal.sigwait([signal.SIGUSR1]), asked.set())
threading.Thread(target=wait, daemon=True).start()
until_asked()
";

#[test]
fn a_thread_that_waits_for_the_signal_is_asked() {
    check(WAITING_THREAD, true);
}

#[test]
fn a_thread_that_waits_is_asked_though_another_one_would_die_of_the_signal() {
    // As a library's do that is loaded first.
    let deaf = "threading.Thread(target=lambda: time.sleep(60), daemon=True).start()";
    check(&format!("{deaf}\n{WAITING_THREAD}"), true);
}

#[test]
fn who_looks_at_a_blocked_signal_between_its_steps_is_asked() {
    check(
        r"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
ready()
while signal.SIGUSR1 not in signal.sigpending(): time.sleep(0.05)
save(7)
sys.exit(75)
",
        true,
    );
}

#[test]
fn who_reads_a_signalfd_is_asked() {
    check(
        r"
import ctypes, select
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
fd = ctypes.CDLL(None, use_errno=True).signalfd(-1, mask, 0)
ready()
select.select([fd], [], [])
assert os.read(fd, 128)[0] == signal.SIGUSR1
save(7)
sys.exit(75)
",
        true,
    );
}

#[test]
fn who_waits_for_another_signal_alone_is_not_asked() {
    check(
        r"
ready()
signal.sigwait([signal.SIGUSR2]) # USR1 would end it here
",
        false,
    );
}

#[test]
fn a_thread_that_blocks_the_signal_does_not_speak_for_one_that_does_not() {
    check(
        r"
def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    time.sleep(60)
threading.Thread(target=block, daemon=True).start()
ready()
pause()
",
        false,
    );
}

#[test]
fn a_child_that_inherited_the_mask_gets_no_signal_of_its_own() {
    let task = Task::python(&format!(
        "{UNTIL_ASKED}{}",
        r#"
import subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def wait():
    signal.sigwait([signal.SIGUSR1])
    pending = open("/proc/%d/status" % child.pid).read().split("ShdPnd:\t")[1].split()[0]
    open(os.environ["TEST"] + "/pending", "w").write(pending)
    asked.set()
threading.Thread(target=wait, daemon=True).start()
until_asked()
"#
    ));
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.checkpoints(), ["step-7"]);
    let pending = std::fs::read_to_string(task.path("pending")).unwrap();
    assert_eq!(pending, "0000000000000000", "the child was signalled too");
}

#[test]
fn a_script_that_dies_of_term_is_outlived_by_one_that_waits_for_it() {
    // As a shell around `srun`: it gets Slurm's TERM too, and ends before what it waits for.
    let program = r#"
import subprocess
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", open(os.environ["TEST"] + "/inner").read()])
"#;
    let inner = format!(
        "{}\n{UNTIL_ASKED}{}",
        crate::support::PYTHON,
        r"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
wait = lambda: (signal.sigwait([signal.SIGUSR1, signal.SIGTERM]), time.sleep(1), asked.set())
threading.Thread(target=wait, daemon=True).start()
until_asked()
"
    );
    let task = Task::python(program);
    std::fs::write(task.path("inner"), inner).unwrap();
    let mut running: Running = task.start();
    running.wait_for("ready-0");
    let outer = outer(&task);
    crate::support::signal(outer, "TERM");
    running.signal("TERM");
    assert_eq!(running.finish(), 143);
    assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
}

/// The first process of the program: the child of the harness.
fn outer(task: &Task) -> u32 {
    let harness = task.records()[0].as_start().unwrap().process.pid;
    let children = std::fs::read_to_string(format!("/proc/{harness}/task/{harness}/children"));
    let pids: Vec<u32> =
        children.unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let runs_python = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().starts_with("python")
    };
    pids.into_iter().find(runs_python).unwrap()
}

/// `run` as a text for the shell, which saves by itself.
const SAVING_TEXT: &str = r#"
save() { mkdir "$NEMO_CHECKPOINT_DIR/step-3.tmp" && echo 3 >"$NEMO_CHECKPOINT_DIR/step-3.tmp/state" && mv "$NEMO_CHECKPOINT_DIR/step-3.tmp" "$NEMO_CHECKPOINT_DIR/step-3"; exit 75; }
trap save USR1
"#;

#[test]
fn a_text_for_the_shell_that_catches_the_signal_is_asked() {
    let text =
        format!("{SAVING_TEXT}: >\"$TEST/ready-$NEMO_ATTEMPT\"\nwhile :; do sleep 0.05; done");
    let task = Task::sh(&text).with("/checkpoint/lead", json!(4));
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-3"], "{}", task.stderr(0));
}

#[test]
fn a_program_below_such_a_text_is_asked_in_its_place() {
    let python = format!("{}\n{UNTIL_ASKED}{WAITING_THREAD}", crate::support::PYTHON);
    let text = format!("{SAVING_TEXT}python3 \"$TEST/program.py\"");
    let task = Task::sh(&text).with("/checkpoint/lead", json!(4));
    std::fs::write(task.path("program.py"), python).unwrap();
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
}

#[test]
fn a_text_that_bash_would_end_at_the_signal_is_not_asked() {
    // With a trap for its end, bash catches every signal that would end it, to run that trap and die.
    let text = r#"trap 'echo bye' EXIT
: >"$TEST/ready-$NEMO_ATTEMPT"
until [ -e "$TEST/go" ]; do sleep 0.05; done
echo done"#;
    let mut task = Task::sh(text);
    task.env("BASH_FUNC_module%%", "() {  :\n}");
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    std::thread::sleep(std::time::Duration::from_secs(1));
    std::fs::write(task.path("go"), "").unwrap();
    running.finish();
    assert_eq!(task.stdout(0), "done\nbye\n", "{}", task.stderr(0));
}

/// A script of the user's with a trap for its end, as scripts that clean up have.
fn script_with_exit_trap(command: &[&str], text: &str) -> Task {
    let task = Task::new(&json!({ "exec": command }));
    let python = format!("{}\n{UNTIL_ASKED}{WAITING_THREAD}", crate::support::PYTHON);
    std::fs::write(task.path("program.py"), python).unwrap();
    std::fs::write(task.path("train.sh"), format!("set -e\ntrap 'echo bye' EXIT\n{text}")).unwrap();
    task
}

#[test]
fn a_program_below_a_script_with_a_trap_for_its_end_is_asked_in_its_place() {
    let text = "python3 \"$TEST/program.py\"\n";
    let in_line = format!("trap 'echo bye' EXIT; {text}exit $?");
    let commands: [&[&str]; 2] = [&["bash", "train.sh"], &["bash", "-c", &in_line]];
    for command in commands {
        let task = script_with_exit_trap(command, text);
        assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
        assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
        assert_eq!(
            task.ends()[0].exit_code,
            Some(75),
            "it died of the request: {}",
            task.stderr(0)
        );
        assert_eq!(task.stdout(0), "bye\n");
    }
}

#[test]
fn a_script_with_a_trap_for_its_end_is_asked_if_it_has_one_for_the_signal_too() {
    let text =
        format!("{SAVING_TEXT}: >\"$TEST/ready-$NEMO_ATTEMPT\"\nwhile :; do sleep 0.05; done");
    let task = script_with_exit_trap(&["bash", "train.sh"], &text);
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-3"], "{}", task.stderr(0));
}

#[test]
fn a_script_that_would_die_of_the_signal_is_not_asked() {
    let text = r#": >"$TEST/ready-$NEMO_ATTEMPT"
until [ -e "$TEST/go" ]; do sleep 0.05; done
echo done"#;
    let task = script_with_exit_trap(&["bash", "train.sh"], text);
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    std::thread::sleep(std::time::Duration::from_secs(1)); // it would be dead by then
    std::fs::write(task.path("go"), "").unwrap();
    running.finish();
    assert_eq!(task.stdout(0), "done\nbye\n", "{}", task.stderr(0));
}

#[test]
fn a_script_that_can_run_its_trap_only_after_its_command_is_not_asked_in_its_place() {
    // As `xvfb-run` has it, for a signal of its own.
    let text = "trap - EXIT\ntrap : USR1\npython3 \"$TEST/program.py\"\nexit $?\n";
    let task = script_with_exit_trap(&["bash", "train.sh"], text);
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
}

#[test]
fn a_program_in_the_background_of_a_text_is_asked_in_its_place() {
    let python = format!("{}\n{UNTIL_ASKED}{WAITING_THREAD}", crate::support::PYTHON);
    let mut task = Task::sh("trap : USR1\npython3 \"$TEST/program.py\" &\nwait $!")
        .with("/checkpoint/lead", json!(4));
    std::fs::write(task.path("program.py"), python).unwrap();
    task.through = ["env", "--default-signal=INT,QUIT"].map(str::to_owned).to_vec();
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
}

/// Handles INT itself, though it may run in the background.
const HANDLES_INT: &str = "on(signal.SIGINT, lambda: None)\n";

#[test]
fn a_program_in_the_background_is_known_though_it_handles_int() {
    let text = "trap 'echo passed; kill -USR1 $pid; wait $pid; exit $?' USR1
python3 \"$TEST/program.py\" &\npid=$!\nwait $pid\nexit $?\n";
    let mut task = script_with_exit_trap(&["bash", "train.sh"], text);
    handle_int(&task);
    task.through = ["env", "--default-signal=INT,QUIT"].map(str::to_owned).to_vec();
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
    assert_eq!(task.stdout(0), "passed\nbye\n");
}

#[test]
fn who_ignores_quit_is_not_in_the_background_for_that_alone() {
    // As every bash does, and all that a harness starts which is itself in the background.
    let inner = "bash -c 'python3 \"$TEST/program.py\"; exit $?'";
    for (signals, program) in [("default", inner), ("ignore", "python3 \"$TEST/program.py\"")] {
        let text = format!("trap 'echo passed' USR1\n{program}\nexit $?\n");
        let mut task = script_with_exit_trap(&["bash", "train.sh"], &text);
        handle_int(&task);
        let signals = format!("--{signals}-signal=INT,QUIT");
        task.through = vec!["env".to_owned(), signals];
        assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
        assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
        assert_eq!(task.stdout(0), "bye\n");
    }
}

fn handle_int(task: &Task) {
    let python = format!("{}\n{HANDLES_INT}{UNTIL_ASKED}{WAITING_THREAD}", crate::support::PYTHON);
    std::fs::write(task.path("program.py"), python).unwrap();
}

#[test]
fn a_script_with_an_option_c_of_its_own_is_asked() {
    let text =
        format!("{SAVING_TEXT}: >\"$TEST/ready-$NEMO_ATTEMPT\"\nwhile :; do sleep 0.05; done");
    let task = script_with_exit_trap(&["bash", "train.sh", "-c", "config.yaml"], &text);
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-3"], "{}", task.stderr(0));
}

#[test]
fn a_script_that_waits_for_a_command_in_the_background_passes_the_signal_on() {
    let passes_on = "trap 'echo passed; kill -USR1 $pid; wait $pid; exit $?' USR1\n";
    for (trap, printed) in [(passes_on, "passed\nbye\n"), ("", "bye\n")] {
        let text = format!("{trap}python3 \"$TEST/program.py\" &\npid=$!\nwait $pid\nexit $?\n");
        let mut task = script_with_exit_trap(&["bash", "train.sh"], &text);
        // What runs in the background ignores INT, as these tests may themselves.
        task.through = ["env", "--default-signal=INT"].map(str::to_owned).to_vec();
        assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
        assert_eq!(task.checkpoints(), ["step-7"], "{}", task.stderr(0));
        assert_eq!(task.stdout(0), printed);
    }
}
