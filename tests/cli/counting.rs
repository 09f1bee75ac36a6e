//! A program that counts, saves when it is asked to, and goes on where it was: small enough to know what must come out.

use std::path::Path;

use serde_json::Value;

use crate::support::{World, trials};

const PROGRAM: &str = r#"
import os, signal, sys, time
asked = False
def ask(*_):
    global asked
    asked = True
signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGTERM, ask)
steps, pace = int(sys.argv[1]), float(sys.argv[2])
step, total = 0, int(sys.argv[3])
if os.environ["NEMO_RESUME_FROM"]:
    step, total = map(int, open(os.environ["NEMO_RESUME_FROM"]).read().split())
while step < steps:
    step += 1
    total = total * 31 % 1000003
    print(f"step {step} loss: {total}", flush=True)
    time.sleep(pace)
    if asked:
        folder = os.environ["NEMO_CHECKPOINT_DIR"]
        with open(folder + "/.tmp", "w") as file:
            file.write(f"{step} {total}")
        os.rename(folder + "/.tmp", f"{folder}/step-{step}")
        sys.exit(75)
os.makedirs(os.environ["NEMO_DIR"] + "/artifacts", exist_ok=True)
open(os.environ["NEMO_DIR"] + "/artifacts/total", "w").write(str(total))
"#;

pub(crate) const SEEDS: [u64; 3] = [3, 5, 7];

/// Writes the program and `exp.toml`: `prepare`, then three trials of `train` that count to `steps`. `executor` is the
/// table of the executor that runs them.
pub(crate) fn write(world: &World, executor: &str, steps: u32, pace: f64) {
    write_trials(world, executor, steps, pace, &SEEDS);
}

/// The same with a trial for each seed.
pub(crate) fn write_trials(world: &World, executor: &str, steps: u32, pace: f64, seeds: &[u64]) {
    world.write("count.py", PROGRAM);
    let text = format!(
        r#"
name = "count"
[executor.it]
{executor}
[task.prepare]
run = "echo ready > {{dir}}/ready"
[task.train]
after = ["prepare"]
run = "test -e {{prepare.dir}}/ready && exec python3 count.py {steps} {pace} {{seed_value}}"
[task.train.params]
seed_value = {seeds:?}
[task.train.checkpoint]
lead = "20s"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
"#
    );
    world.write("exp.toml", &text);
}

/// Waits until every trial has counted beyond `step`.
#[track_caller]
pub(crate) fn until_beyond(world: &World, id: &str, step: u64) {
    world.until(id, "steps of every trial", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(step))
    });
}

/// What the trials ended with is what undisturbed ones end with, and every step is in the record once.
#[track_caller]
pub(crate) fn assert_undisturbed(world: &World, id: &str, steps: u32) {
    assert_trials_undisturbed(world, id, steps, &SEEDS);
}

/// The same with a trial for each seed.
#[track_caller]
pub(crate) fn assert_trials_undisturbed(world: &World, id: &str, steps: u32, seeds: &[u64]) {
    assert_undisturbed_in(&world.experiment(id), steps, seeds);
}

/// The same of an experiment's folder, however it is reached.
#[track_caller]
pub(crate) fn assert_undisturbed_in(experiment: &Path, steps: u32, seeds: &[u64]) {
    for (trial, &seed) in seeds.iter().enumerate() {
        let dir = experiment.join(format!("tasks/train/trials/{trial}"));
        let values: Vec<u64> = (0..steps)
            .scan(seed, |total, _| {
                *total = *total * 31 % 1_000_003;
                Some(*total)
            })
            .collect();
        let total = std::fs::read_to_string(dir.join("artifacts/total")).unwrap();
        assert_eq!(total, values.last().unwrap().to_string(), "trial {trial}");
        let metrics = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let seen: Vec<(u64, f64)> = metrics
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                (line["step"].as_u64().unwrap(), line["values"]["loss"].as_f64().unwrap())
            })
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected: Vec<(u64, f64)> =
            (1..).zip(values.iter().map(|value| *value as f64)).collect();
        let first = seen.iter().zip(&expected).find(|(seen, expected)| seen != expected);
        assert_eq!(first, None, "trial {trial}: the first report that differs");
        assert_eq!(seen.len(), expected.len(), "trial {trial}: how many reports");
    }
}

/// Every later attempt went on from the checkpoint of the one before, and that was beyond `step`.
#[track_caller]
pub(crate) fn assert_resumed_beyond(trial: &Value, step: u64) {
    let attempts = trial["attempts"].as_array().unwrap();
    assert!(attempts.len() > 1, "it was never interrupted: {trial:#}");
    for pair in attempts.windows(2) {
        assert_eq!(pair[0]["checkpoint_step"], pair[1]["resume_step"], "{trial:#}");
        assert!(pair[1]["resume_step"].as_u64() > Some(step), "{trial:#}");
    }
}
