//! `goodput`: on a folder made by hand, without any Slurm, and after a real preemption.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::counting;
use crate::fake::FakeSlurm;
use crate::support::{World, text};

/// The worked example of `docs/goodput.md`.
const EXAMPLE: &str = include_str!("../data/goodput/attempts.jsonl");

const PARTS: [&str; 8] =
    ["waiting", "queued", "starting", "productive", "saving", "repeated", "restarting", "hung"];

const SWEEP: &str = "name = \"example\"\n\
    [executor.cpu]\nkind = \"slurm\"\n[executor.gpu]\nkind = \"slurm\"\ngpus_per_node = \"h100:8\"\n\
    [task.prepare]\nrun = \"true\"\nexecutor = \"cpu\"\n\
    [task.train]\nafter = [\"prepare\"]\nrun = \"true {x}\"\nexecutor = \"gpu\"\n[task.train.params]\nx = [0]\n";

/// When Slurm took the array of a task.
fn submitted(experiment: &Path, task: &str) -> f64 {
    let journal = std::fs::read_to_string(experiment.join("journal.jsonl")).unwrap();
    let lines = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_task = |line: &Value| {
        let token = text(&line["token"]);
        line["event"] == "submitted" && token.split('.').nth(1) == Some(task)
    };
    lines.into_iter().find(of_task).unwrap()["time"].as_f64().unwrap()
}

/// Writes the example's records as those of a trial that was submitted at `base`.
fn write_example(trial: &Path, base: f64) {
    let shifted = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for key in ["time", "began", "stopped"] {
            if let Some(time) = line[key].as_f64() {
                line[key] = json!(base + time);
            }
        }
        format!("{line}\n")
    };
    std::fs::create_dir_all(trial).unwrap();
    let records: String = EXAMPLE.lines().map(shifted).collect();
    std::fs::write(trial.join("attempts.jsonl"), records).unwrap();
    // The attempt whose node was lost wrote its last line then.
    let output = std::fs::File::create(trial.join("2.out")).unwrap();
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(base + 1500.0);
    output.set_modified(last).unwrap();
}

/// An experiment that is over: `prepare` took 30 s, then came the example. Whoever asks Slurm is found out.
fn example() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    let file = fake.world.write("exp.toml", SWEEP);
    let id = fake.world.ok(&["submit", file.to_str().unwrap()]);
    let experiment = fake.world.experiment(&id);
    let base = submitted(&experiment, "train");
    write_example(&experiment.join("tasks/train/trials/0"), base);
    let prepare = experiment.join("tasks/prepare/trials/0");
    std::fs::create_dir_all(&prepare).unwrap();
    let start = json!({"event": "start", "attempt": 0, "slurm_job": "101_0", "node": "n1", "pid": 1,
        "boot_id": "b", "start_ticks": 1, "time": base + 10.0, "resume_step": null});
    let end = json!({"event": "end", "attempt": 0, "time": base + 30.0, "cause": "completed",
        "exit_code": 0, "signal": null, "step": null, "checkpoint_step": null, "next": "done", "reason": null});
    std::fs::write(prepare.join("attempts.jsonl"), format!("{start}\n{end}\n")).unwrap();
    let asked = fake.state("was-asked");
    for program in ["squeue", "sacct"] {
        let script = format!("#!/bin/sh\necho {program} >>{}\nexit 1\n", asked.display());
        std::fs::write(fake.world.path("bin").join(program), script).unwrap();
    }
    (fake, id)
}

/// In whole seconds.
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn rounded(account: &Value) -> [i64; 8] {
    PARTS.map(|part| account["seconds"][part].as_f64().unwrap().round() as i64)
}

#[test]
fn the_worked_example_needs_no_slurm() {
    let (fake, id) = example();
    let world = &fake.world;
    let printed = world.ok(&["goodput", &id, "--json", "--price", "2.50"]);
    let goodput: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(goodput["unit"], "gpu-hours");
    let train = &goodput["tasks"][1];
    // Of the 435 s in the queue 30 were spent behind `prepare`.
    assert_eq!(rounded(train), [30, 405, 20, 1390, 55, 249, 81, 0]);
    let total = &goodput["total"];
    assert!((total["lost_hours"].as_f64().unwrap() - 0.9).abs() < 1e-3, "{total:#}");
    assert!((total["lost_cost"].as_f64().unwrap() - 2.25).abs() < 1e-3, "{total:#}");
    // Weighted by GPUs: `prepare` has none, so the total is that of `train`.
    assert_eq!(total["ettr"], train["ettr"]);
    assert_eq!(goodput["tasks"][0]["lost_hours"], 0.0);
    assert!(!fake.state("was-asked").exists(), "{}", fake.read("was-asked"));
}

#[test]
fn the_tables_fit_80_columns() {
    let (fake, id) = example();
    let printed = fake.world.ok(&["goodput", &id, "--price", "2.50"]);
    assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
    for expected in ["ETTR 63.2%", "0.900 GPU-hours lost", "2.25", "no end recorded", "crash"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let one = fake.world.ok(&["goodput", &format!("{id}/prepare")]);
    assert!(one.contains("prepare") && !one.contains("crash"), "{one}");
    let wrong = fake.world.run(&["goodput", &id, "--price", "-1"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

/// What somebody has paused is in no queue.
#[test]
fn a_pause_of_what_waits_is_no_queue() {
    let fake = FakeSlurm::new(1001);
    let file = "name = \"one\"\n[executor.c]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n";
    fake.world.write("exp.toml", file);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "JobHeldUser"]]));
    fake.world.ok(&["pause", &id]);
    std::thread::sleep(Duration::from_secs(3));
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "Priority"]]));
    fake.world.ok(&["resume", &id]);
    let printed = fake.world.ok(&["goodput", &id, "--json"]);
    let goodput: Value = serde_json::from_str(&printed).unwrap();
    let seconds = |part: &str| goodput["total"]["seconds"][part].as_f64().unwrap();
    assert!(seconds("waiting") >= 2.0, "{goodput:#}");
    assert!(seconds("queued") < seconds("whole") - 1.5, "{goodput:#}");
}

#[test]
fn a_preemption_on_this_machine_is_accounted_for() {
    let world = World::new();
    counting::write(&world, "kind = \"local\"\nparallel = 4", 40, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    world.ok(&["preempt", &format!("{id}/train")]);
    world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    let printed = world.ok(&["goodput", &id, "--json"]);
    let goodput: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(goodput["unit"], "core-hours");
    let trials = goodput["tasks"][1]["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 3);
    for trial in trials {
        let seconds = |part: &str| trial["seconds"][part].as_f64().unwrap();
        let sum: f64 = PARTS.map(seconds).iter().sum();
        assert!((sum - seconds("whole")).abs() < 1e-4, "{trial:#}");
        assert!(seconds("waiting") > 0.0, "`prepare` came before: {trial:#}");
        // 40 steps of 50 ms, of which none was done twice.
        assert!(seconds("productive") > 1.5, "{trial:#}");
        let losses = trial["losses"].as_array().unwrap();
        let preempted = losses.iter().find(|loss| loss["reason"] == "preempted").unwrap();
        assert_eq!(preempted["times"], 1, "{trial:#}");
        assert!(!losses.iter().any(|loss| loss["reason"] == "crash"), "{trial:#}");
    }
}
