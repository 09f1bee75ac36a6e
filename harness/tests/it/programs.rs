//! Any program: exit codes, parameters, output, metrics.

use std::fs;

use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, is_alive};

#[test]
fn exit_0_is_done_and_anything_else_a_crash() {
    let task = Task::sh("exit 0");
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
    let task = Task::sh("echo 'ValueError: no' >&2; exit 3").with("/restart/crashes", json!(1));
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Restart, Failed Failed");
    let reason = task.ends()[1].reason.clone().unwrap();
    assert!(reason.contains("code 3") && reason.contains("`ValueError: no`"), "{reason}");
    let task = Task::sh("kill -SEGV $$");
    assert_eq!(task.run(), 1);
    assert_eq!(task.ends()[0].signal, Some(11));
    let task = Task::sh("exit 93").with("/restart/crashes", json!(9));
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Failed");
}

#[test]
fn a_program_that_is_missing_is_told_and_not_tried_again() {
    let task = Task::new(&json!({"exec": ["pyhton", "x.py"]})).with("/restart/crashes", json!(9));
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Failed");
    assert!(task.ends()[0].reason.as_ref().unwrap().contains("`pyhton` was not found in PATH"));
    let task = Task::sh("pyhton x.py").with("/restart/crashes", json!(9));
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Failed");
}

#[test]
fn hostile_values_stay_data() {
    let values =
        ["'; touch OWNED; '", "$(touch OWNED)", "`touch OWNED`", "a\nb", "", "-n", "*", "é\"\\"];
    for value in values {
        let mut task = Task::sh(
            "printf '<%s>' {v} \"{v}\" '{v}' \"$NEMO_PARAM_V\"; cat {dir}/params.json >/dev/null",
        );
        task.params = json!({ "v": value });
        assert_eq!(task.run(), 0);
        assert_eq!(task.stdout(0), format!("<{value}>").repeat(4));
        assert!(!task.path("OWNED").exists());
    }
}

#[test]
fn a_program_sees_its_environment() {
    let mut task = Task::sh("env").with("/env", json!({"A": "1", "PYTHONUNBUFFERED": "0"}));
    task.params = json!({"lr": 0.5, "net": {"x-y": 1}});
    assert_eq!(task.run(), 0);
    let out = task.stdout(0);
    for line in [
        "A=1",
        "PYTHONUNBUFFERED=0",
        "NEMO_EXPERIMENT=x-1",
        "NEMO_TASK=train",
        "NEMO_TRIAL=0",
        "NEMO_ATTEMPT=0",
        "NEMO_PARAM_LR=0.5",
        "NEMO_PARAM_NET={\"x-y\":1}",
        "NEMO_SEED=42",
        "NEMO_RESUME_FROM=",
        "NEMO_RESUME_STEP=",
    ] {
        assert!(out.lines().any(|own| own == line), "{line} in {out}");
    }
}

#[test]
fn setup_lines_run_first_and_a_failing_one_is_told() {
    let task = Task::sh("echo $X").with("/setup", json!(["export X=7"]));
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), "7\n");
    let task = Task::sh("echo no").with("/setup", json!(["echo 'no such module' >&2; false"]));
    assert_eq!(task.run(), 1);
    assert_eq!(task.stdout(0), "");
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("`no such module`"), "{reason}");
}

#[test]
fn metrics_are_found_in_the_output() {
    let task =
        Task::sh("printf 'step 1\\nloss: 0.5\\n'; printf 'step 2 loss: nan' >&2; echo héllo")
            .with("/metrics", json!({"loss": r"loss: (\S+)", "step": r"step (\d+)"}));
    assert_eq!(task.run(), 0);
    let mut rows: Vec<_> = task.metrics().iter().map(|row| (row.step, json!(row.values))).collect();
    rows.sort_by_key(|row| row.0);
    assert_eq!(rows, [(Some(1), json!({"loss": 0.5})), (Some(2), json!({"loss": null}))]);
    assert_eq!(task.stdout(0), "step 1\nloss: 0.5\nhéllo\n");
    assert_eq!(task.ends()[0].step, Some(2));
}

#[test]
fn nothing_outlives_the_attempt() {
    let task = Task::python(
        r#"
import subprocess
plain = subprocess.Popen(["sleep", "600"])
daemon = subprocess.Popen(["sh", "-c", "setsid sh -c 'echo $$ > $TEST/daemon; exec sleep 600' & "])
daemon.wait()
while not os.path.exists(os.environ["TEST"] + "/daemon") or not open(os.environ["TEST"] + "/daemon").read(): time.sleep(0.01)
open(os.environ["TEST"] + "/plain", "w").write(str(plain.pid))
for _ in range(1000):
    if os.fork() == 0: os._exit(0)
"#,
    );
    assert_eq!(task.run(), 0);
    for name in ["daemon", "plain"] {
        let pid = fs::read_to_string(task.path(name)).unwrap();
        assert!(!is_alive(&pid), "{name}");
    }
    hold("C: one that forks grandchildren and daemons", &task.dir(), Left::InOrder);
}

#[test]
fn a_full_disk_costs_output_and_not_the_trial() {
    let mut task = Task::sh("echo loss: 1; echo loss: 2 >&2")
        .with("/metrics", json!({"loss": r"loss: (\S+)"}));
    task.env("UNUSED", "");
    fs::create_dir_all(task.path("tasks/train/trials/0")).unwrap();
    std::os::unix::fs::symlink("/dev/full", task.path("tasks/train/trials/0/0.out")).unwrap();
    assert_eq!(task.run(), 0);
    assert_eq!(task.metrics().len(), 2);
    assert!(task.stderr(0).contains("8 bytes"), "{}", task.stderr(0));
    hold("C: a full log disk", &task.dir(), Left::InOrder);
}
