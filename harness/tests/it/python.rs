//! Programs that use `nemo_harness.py`, against the real harness.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Task, wait_until};

/// A trial whose state depends on each of its steps.
const TRAIN: &str = r#"
import os, time
import nemo_harness as nemo
TOTAL = 400
state = [1]
def load(path): state[0] = int((path / "state").read_text())
with nemo.trial() as trial:
    for step in trial.steps(trial.resume(load), TOTAL):
        state[0] = state[0] * 48271 % 2147483647
        trial.report(step, value=state[0])
        if trial.should_save():
            with trial.checkpoint(step) as folder:
                (folder / "state").write_text(str(state[0]))
        time.sleep(0.005)
    if trial.finished: trial.report_validation(TOTAL, value=state[0])
print(state[0])
"#;

fn python(text: &str) -> Task {
    let mut task = Task::new(&json!({"exec": ["python3", "-c", text]}));
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    task.env("PYTHONPATH", module.to_str().unwrap());
    task.env("PYTHONDONTWRITEBYTECODE", "1");
    task
}

/// Every report: its step, whether it is of a validation, and its values.
fn reports(task: &Task) -> Vec<Value> {
    let lines = task.metrics();
    let shown = lines.iter().map(|line| json!([line.step, line.validation, line.values]));
    shown.collect()
}

#[test]
fn a_trial_that_is_preempted_reports_what_an_undisturbed_one_does() {
    let plain = python(TRAIN);
    assert_eq!(plain.run(), 0);
    assert_eq!(reports(&plain).len(), 401);

    let task = python(TRAIN).with("/checkpoint/every", json!({"steps": 150}));
    for past in [60, 220] {
        let running = task.start();
        let is_past = || task.metrics().last().and_then(|line| line.step) >= Some(past);
        wait_until("it has trained", || task.dir().metrics().exists() && is_past());
        running.signal("USR1");
        assert_eq!(running.finish(), 75);
    }
    assert_eq!(task.run(), 0);
    task.check_ends("Preempted Requeue, Preempted Requeue, Completed Done");
    let steps: Vec<Option<u64>> = task.resume_steps();
    assert!(steps[0].is_none() && steps[1] >= Some(60) && steps[2] >= Some(220), "{steps:?}");
    assert_eq!(reports(&task), reports(&plain));
    assert_eq!(task.stdout(2), plain.stdout(0));
    assert_eq!(task.ends()[2].step, Some(400));
}

/// Notes what it is told to do, and is stopped once at `STOP_AT`.
const WORKLOADS: &str = r#"
import os, signal, time
import nemo_harness as nemo
with nemo.trial() as trial:
    start = trial.resume(lambda path: None)
    for work in trial.workloads(start, 700, unit=100, validate_every=200, checkpoint_every=300):
        with open(os.path.join(os.environ["TEST"], "done"), "a") as done:
            print(work.kind, work.step, len(work.steps), file=done)
        for step in work.steps: trial.report(step, loss=1.0)
        if work.kind == "validate": trial.report_validation(work.step, accuracy=0.5)
        if work.kind == "checkpoint":
            with trial.checkpoint(work.step) as folder: (folder / "state").write_text("x")
        if work.kind == "train" and work.step == int(os.environ["STOP_AT"]) and trial.attempt == 0:
            os.kill(os.getppid(), signal.SIGUSR1)
            while not trial.should_stop(): time.sleep(0.001)
"#;

/// What a program is told to do, stopped in the workload that begins at `stop_at`.
fn workloads(stop_at: &str) -> Vec<String> {
    let mut task = python(WORKLOADS);
    task.env("STOP_AT", stop_at);
    while task.run() == 75 {}
    let ends = task.ends();
    assert_eq!(ends.last().unwrap().step, Some(700), "{ends:#?}\n{}", task.stderr(0));
    let done = std::fs::read_to_string(task.path("done")).unwrap();
    done.lines().map(str::to_owned).collect()
}

#[test]
fn workloads_are_the_same_with_and_without_a_harness_and_after_a_stop() {
    let undisturbed = workloads("-1");
    let alone = python(WORKLOADS);
    let mut command = std::process::Command::new("python3");
    command.args(["-c", WORKLOADS]).current_dir(alone.root.path()).envs(alone.env.clone());
    assert!(command.env("STOP_AT", "-1").status().unwrap().success());
    let local = std::fs::read_to_string(alone.path("done")).unwrap();
    assert_eq!(undisturbed, local.lines().collect::<Vec<_>>());

    for (stop_at, saved) in [("200", "checkpoint 300 0"), ("400", "checkpoint 500 0")] {
        let mut stopped = workloads(stop_at);
        assert!(stopped.iter().any(|work| work == saved), "{stopped:#?}");
        if !undisturbed.iter().any(|work| work == saved) {
            stopped.retain(|work| work != saved);
        }
        assert_eq!(stopped, undisturbed, "stopped at {stop_at}");
    }
}

#[test]
fn parameters_that_make_no_sense_end_the_trial() {
    let mut task = python(
        "import nemo_harness as nemo\nwith nemo.trial(params={'width': 3}) as trial:\n    if trial.params['width'] < 0: trial.invalid_hyperparameters('width < 0')",
    )
    .with("/restart/crashes", json!(5));
    task.params = json!({"width": -1});
    assert_ne!(task.run(), 0);
    task.check_ends("Failed Failed");
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("width < 0"), "{reason}");
}
