//! Programs whose checkpoints another program takes: `checkpoint.command` and `checkpoint.resume`.

use std::fs;

use nemo_core::rundir::AttemptRecord;
use serde_json::json;

use crate::support::{Task, wait_until};

/// It counts, knows nothing of checkpoints, and tells its state to whoever connects to its socket. It waits meanwhile, as a
/// process does that a checkpointer has stopped.
const PROGRAM: &str = r#"
import json, os, socket, sys, time
state = json.load(open(sys.argv[1])) if len(sys.argv) > 1 else {"step": 0, "sum": 0}
print("begins after", state["step"], flush=True)
path = os.environ["TEST"] + "/socket"
if os.path.exists(path): os.remove(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
server.setblocking(False)
while state["step"] < 40:
    state["step"] += 1
    state["sum"] += state["step"] ** 2
    print("step", state["step"], "sum:", state["sum"], flush=True)
    if state["step"] == 10: open(os.environ["TEST"] + "/ready-" + os.environ["NEMO_ATTEMPT"], "w").close()
    end = time.monotonic() + 0.05
    def held(): return state["step"] == 30 and not os.path.exists(os.environ.get("GO", "/"))
    while time.monotonic() < end or held():
        try:
            client = server.accept()[0]
            client.sendall(json.dumps(state).encode())
            client.close()
        except BlockingIOError:
            time.sleep(0.01)
"#;

/// The checkpointer.
const TAKE: &str = r#"
import json, os, socket
os.kill(int(os.environ["NEMO_PID"]), 0)
client = socket.socket(socket.AF_UNIX)
client.connect(os.environ["TEST"] + "/socket")
text = b""
while part := client.recv(4096): text += part
folder = os.environ["NEMO_CHECKPOINT_DIR"] + "/step-%d" % json.loads(text)["step"]
os.mkdir(folder)
open(folder + "/image", "wb").write(text)
open(folder + "/restore.sh", "w").write("exit 0")
"#;

fn task(take: &str) -> Task {
    let own = Task::new(&json!({"exec": ["python3", "-c", PROGRAM]}));
    own.with("/checkpoint/signal", json!("none"))
        .with("/checkpoint/lead", json!(20))
        .with("/checkpoint/command", json!({"exec": ["python3", "-c", take]}))
        .with(
            "/checkpoint/resume",
            json!({"exec": ["python3", "-c", PROGRAM, "{resume_from}/image"]}),
        )
        .with("/metrics", json!({"step": r"step (\d+)", "sum": r"sum: (\d+)"}))
}

/// Each step once, in order, with the sum that an undisturbed run has.
#[track_caller]
fn check_undisturbed(task: &Task) {
    let rows: Vec<(u64, u64)> = task
        .metrics()
        .iter()
        .map(|row| {
            let sum = row.values["sum"].to_string();
            (row.step.unwrap(), sum.trim_end_matches(".0").parse().unwrap())
        })
        .collect();
    let expected: Vec<(u64, u64)> =
        (1..=40).map(|step| (step, (1..=step).map(|one| one * one).sum())).collect();
    assert_eq!(rows, expected, "{}", task.newest_log());
}

#[test]
fn a_stop_takes_a_checkpoint_and_another_command_goes_on_from_it() {
    let task = task(TAKE);
    assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
    let committed = task.committed();
    assert_eq!(committed.len(), 1, "{}", task.stderr(0));
    assert!(committed[0] >= 10, "{committed:?}");
    let image = task.dir().checkpoint(committed[0]).join("image");
    let image: serde_json::Value = serde_json::from_slice(&fs::read(image).unwrap()).unwrap();
    assert_eq!(image["step"], committed[0]);
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, Some(committed[0])]);
    assert!(task.stdout(1).starts_with(&format!("begins after {}\n", committed[0])));
    check_undisturbed(&task);
}

#[test]
fn checkpoints_are_taken_at_intervals_and_a_kill_loses_no_more() {
    // It takes a while to be verified.
    let take = format!("{TAKE}open(folder + '/memory', 'wb').truncate(128 << 20)");
    let mut task = task(&take)
        .with("/checkpoint/every", json!({"seconds": 1}))
        .with("/restart/crashes", json!(1));
    // However slow this machine is, the program is not at its end before its first checkpoint.
    let go = task.path("go");
    task.env("GO", go.to_str().unwrap());
    let running = task.start();
    wait_until("a checkpoint", || !task.committed().is_empty());
    let program = task.path("socket");
    assert!(program.exists());
    let pid = task.records().iter().rev().find_map(|row| row.as_start().map(|own| own.process.pid));
    kill_below(pid.unwrap());
    fs::write(&go, "").unwrap();
    assert_eq!(running.finish(), 0, "{}", task.stderr(0));
    assert!(task.resume_steps()[1].is_some(), "{}", task.stderr(0));
    check_answered(&task.stderr(0));
    check_undisturbed(&task);
}

/// No run begins before it is known what became of the one before.
#[track_caller]
fn check_answered(log: &str) {
    let ends = ["is committed as", "was not committed", "took no checkpoint"];
    let mut is_open = false;
    for line in log.lines() {
        if line.contains("checkpoint.command takes a checkpoint") {
            assert!(!is_open, "{log}");
            is_open = true;
        } else if ends.iter().any(|end| line.contains(end)) {
            is_open = false;
        }
    }
}

/// Its first run fails, and what the next two leave is no checkpoint.
#[test]
fn what_is_refused_is_taken_again_at_the_next_interval_and_leaves_nothing() {
    let take = format!(
        r#"
import os, sys
runs = os.environ["TEST"] + "/runs"
with open(runs, "a") as file: file.write("x")
run, folder = os.path.getsize(runs), os.environ["NEMO_CHECKPOINT_DIR"]
if run == 1:
    open(folder + "/part", "w").close()
    sys.exit(3)
if run < 4:
    os.mkfifo(folder + "/pipe")
    sys.exit(0)
{TAKE}"#
    );
    let mut task = task(&take).with("/checkpoint/every", json!({"seconds": 1}));
    let go = task.path("go");
    task.env("GO", go.to_str().unwrap());
    let running = task.start();
    wait_until("a checkpoint", || !task.committed().is_empty());
    let log = task.stderr(0);
    assert!(log.contains("it ended with code 3") && log.contains("was not committed"), "{log}");
    check_answered(&log);
    let staging = task.dir().staging(0);
    wait_until("the removal", || !staging.join(".tmp-command-1").exists());
    fs::write(&go, "").unwrap();
    assert_eq!(running.finish(), 0, "{}", task.stderr(0));
    check_undisturbed(&task);
}

#[test]
fn a_program_that_tells_no_step_is_saved_in_each_attempt() {
    let program = "import os, time\nopen(os.environ['TEST'] + '/ready-' + os.environ['NEMO_ATTEMPT'], 'w').close()\ntime.sleep(600)";
    let take = "import os\nopen(os.environ['NEMO_CHECKPOINT_DIR'] + '/image', 'w').write(os.environ['NEMO_ATTEMPT'])";
    let command = json!({"exec": ["python3", "-c", program]});
    let task = Task::new(&command)
        .with("/checkpoint/signal", json!("none"))
        .with("/checkpoint/command", json!({"exec": ["python3", "-c", take]}));
    for attempt in 0..3 {
        let mut running = task.start();
        running.wait_for(&format!("ready-{attempt}"));
        running.signal("USR1");
        assert_eq!(running.finish(), 75, "{}", task.stderr(attempt));
    }
    assert_eq!(task.resume_steps(), [None, Some(1), Some(2)], "{}", task.newest_log());
    assert!(task.committed().contains(&3), "{:?}", task.committed());
}

/// It has begun when there was more time.
#[test]
fn a_run_under_way_has_only_the_time_that_a_stop_leaves() {
    let take =
        "import os, time\nopen(os.environ['TEST'] + '/taking-0', 'w').close()\ntime.sleep(600)";
    let mut task = task(take)
        .with("/checkpoint/every", json!({"seconds": 1}))
        .with("/checkpoint/lead", json!(300))
        .with("/kill_wait", json!(6));
    let go = task.path("go");
    task.env("GO", go.to_str().unwrap());
    let mut running = task.start();
    running.wait_for("taking-0");
    running.signal("TERM");
    running.finish();
    let log = task.stderr(0);
    assert!(log.contains("took no checkpoint: it took longer than"), "{log}");
    assert_eq!(task.ends().len(), 1, "{log}");
}

/// Kills the program of a harness.
fn kill_below(harness: u32) {
    let own =
        std::process::Command::new("pkill").args(["-KILL", "-P", &harness.to_string()]).status();
    assert!(own.unwrap().success());
}

#[test]
fn a_checkpointer_that_fails_or_hangs_is_told_and_ends_with_the_attempt() {
    for (take, expected) in [
        (
            "import sys; print('no coordinator'); sys.exit(3)",
            "it ended with code 3: no coordinator",
        ),
        ("pass", "it left nothing in $NEMO_CHECKPOINT_DIR"),
        ("import time; time.sleep(60)", "took longer than the lead"),
    ] {
        let task = task(take).with("/checkpoint/lead", json!(5));
        let code = task.signalled(&["USR1"]);
        assert_eq!(code, 75, "{expected}: {}", task.stderr(0));
        let told = task.records().into_iter().find_map(|row| match row {
            AttemptRecord::Warning { code, message, .. } => Some((code, message)),
            _ => None,
        });
        let log = task.stderr(0);
        let (code, message) = told.unwrap_or_else(|| panic!("{expected}: {log}"));
        assert_eq!(code, "checkpoint-command-failed");
        assert!(message.contains(expected), "{message}");
        assert!(task.committed().is_empty());
    }
}

/// Other programs of the user hold all of the system's watches.
#[test]
fn without_a_watch_what_it_takes_is_committed_all_the_same() {
    const WITHOUT: &str = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let through = ["unshare", "--user", "--map-root-user", "sh", "-c", WITHOUT, "sh"];
    let tried = std::process::Command::new(through[0]).args(&through[1..]).arg("true").status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED: no user namespace can be made here");
        return;
    }
    let mut task = task(TAKE);
    task.through = through.map(str::to_owned).to_vec();
    let go = task.path("go"); // the program does not end by itself before it is stopped
    task.env("GO", go.to_str().unwrap());
    assert_eq!(task.signalled(&["USR1"]), 75);
    fs::write(&go, "").unwrap();
    assert!(task.stderr(0).contains("no inotify watch left"), "{}", task.stderr(0));
    assert_eq!(task.committed().len(), 1, "{}", task.stderr(0));
    assert_eq!(task.run(), 0);
    check_undisturbed(&task);
}
