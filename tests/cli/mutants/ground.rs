//! The experiments whose files are damaged: one that is over on this machine, and one that is half way on Slurm.

use std::path::{Path, PathBuf};

use nemo_core::checksum;
use nemo_slurm::journal::Event;
use nemo_slurm::plan::{JobArray, Plan};
use nemo_slurm::slurm::JobId;
use nemo_slurm::slurm::parse::queue::DELIMITER;
use serde_json::{Value, json};

use crate::damage::{submit_small, write_small};
use crate::fake::FakeSlurm;

/// What the metrics of the local experiment are read by.
const METRICS: &str = r"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\S+)'
";

const SLURM: &str = r#"
name = "chain"
tags = ["a"]
[executor.gpu]
kind = "slurm"
time = "1h"
[task.prepare]
run = "true"
[task.train]
after = ["prepare"]
run = "true {x}"
params.x = { int = [1, 8] }
[task.train.search]
metric = "loss"
[task.each]
after = [{ task = "train", on = "each" }]
run = "true {x}"
params.x = { int = [1, 8] }
[task.last]
after = ["train"]
run = "true"
[task.alarm]
after = [{ task = "train", on = "failed" }]
run = "true"
"#;

/// The array that each task's trials begin with: three trials an array, in the order of their submission.
const FIRST_JOB: [(&str, u32); 5] =
    [("prepare", 101), ("train", 102), ("each", 105), ("last", 108), ("alarm", 109)];

/// A home with both, and the Slurm that one of them is on.
pub(super) struct Ground {
    pub(super) fake: FakeSlurm,
    pub(super) local: String,
    pub(super) slurm: String,
}

impl Ground {
    pub(super) fn new() -> Self {
        let fake = FakeSlurm::new(3);
        let world = &fake.world;
        write_small(world, "echo step 3 loss: 0.5; exit {code}", 1, METRICS);
        let local = submit_small(world);
        world.write("slurm.toml", SLURM);
        let slurm = world.ok(&["submit", "slurm.toml"]);
        let names = fake.names();
        assert_eq!(names.len(), 9, "{names:?}");
        let ground = Self { fake, local, slurm };
        ground.later_generation();
        ground.run_so_far();
        ground.requests();
        ground
    }

    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.fake.world.experiment(id)
    }

    /// Trial 7 of `train` was submitted once more.
    fn later_generation(&self) {
        let array = JobArray {
            task: "train".to_owned(),
            index: 3,
            offset: 6,
            trials: "7".parse().unwrap(),
            throttle: None,
            after: Vec::new(),
            held: false,
            outside: Vec::new(),
            behind: Vec::new(),
            after_jobs: Vec::new(),
            wrapped: None,
        };
        let token = format!("{}.train.3", self.slurm);
        let (task, trials, time) = ("train".to_owned(), array.trials.clone(), 1_795_900_100.0);
        let events = [
            Event::Planned { plan: Plan { generation: 1, arrays: vec![array] }, retry: None },
            Event::Intended { token: token.clone(), task, array: 3, offset: 6, trials, time },
            Event::Submitted { token, slurm_job: JobId(110), time },
            Event::Complete { generation: 1, time },
        ];
        append(&self.folder(&self.slurm).join("journal.jsonl"), &events.map(|event| json!(event)));
    }

    /// `train`: 0 is done, 1 after two requeues, 2 failed, 3 runs, 4 was preempted and waits, 5 waits, 6 was
    /// cancelled, 7 runs again.
    fn run_so_far(&self) {
        let tasks = self.folder(&self.slurm).join("tasks");
        let trial = |task: &str, trial: u32| tasks.join(format!("{task}/trials/{trial}"));
        record(&trial("prepare", 0), &[start(0, "101_0"), end(0, "completed", "done")]);
        record(&trial("train", 0), &[start(0, "102_0"), end(0, "completed", "done")]);
        let twice = [
            start(0, "102_1"),
            json!({"event": "checkpoint", "attempt": 0, "step": 10, "time": 1_795_900_020.0}),
            end(0, "preempted", "requeue"),
            start(1, "102_1"),
            json!({"event": "checkpoint", "attempt": 1, "step": 20, "time": 1_795_900_021.0}),
            json!({"event": "removed", "attempt": 1, "steps": [10], "time": 1_795_900_022.0}),
            end(1, "time_limit", "requeue"),
            start(2, "102_1"),
            json!({"event": "ready", "attempt": 2, "time": 1_795_900_023.0}),
            end(2, "completed", "done"),
        ];
        record(&trial("train", 1), &twice);
        record(&trial("train", 2), &[start(0, "102_2"), end(0, "failed", "failed")]);
        record(&trial("train", 3), &[start(0, "103_0")]);
        record(&trial("train", 4), &[start(0, "103_1"), end(0, "preempted", "requeue")]);
        record(&trial("train", 6), &[start(0, "104_0"), end(0, "cancelled", "cancelled")]);
        let again = [start(0, "104_1"), end(0, "node_failure", "requeue"), start(1, "110_1")];
        record(&trial("train", 7), &again);
        record(&trial("each", 0), &[start(0, "105_0"), end(0, "completed", "done")]);
    }

    fn requests(&self) {
        for (name, request) in [
            (
                "1.000000-n1-1.json",
                json!({"action": "pause", "task": "each", "trial": 5, "time": 1_795_900_000}),
            ),
            (
                "2.000000-n1-1.json",
                json!({"action": "cancel", "task": "train", "trial": 6, "time": 1_795_900_001}),
            ),
        ] {
            let folder = self.folder(&self.slurm).join("requests");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), checksum::to_vec(&request).unwrap()).unwrap();
        }
    }

    /// The files of an experiment that a program reads: all but scripts and logs.
    pub(super) fn files(&self, id: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        gather(&self.folder(id), &mut files);
        let is_log = |path: &PathBuf| {
            path.extension().is_some_and(|it| it == "out" || it == "err" || it == "sbatch")
        };
        files.retain(|path| !is_log(path));
        files.sort();
        files
    }
}

fn gather(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { gather(&path, into) } else { into.push(path) }
    }
}

fn start(attempt: u32, job: &str) -> Value {
    json!({"event": "start", "attempt": attempt, "slurm_job": job, "restarts": attempt, "node": "n1", "boot_id": "b",
        "pid": 1, "start_ticks": 1, "time": 1_795_900_010.0 + f64::from(attempt), "resume_step": null})
}

fn end(attempt: u32, cause: &str, next: &str) -> Value {
    json!({"event": "end", "attempt": attempt, "time": 1_795_900_030.0 + f64::from(attempt), "cause": cause, "exit_code": 0,
        "signal": null, "step": 20, "checkpoint_step": 20, "next": next, "reason": "as told"})
}

/// What a harness leaves in a trial's folder.
fn record(trial: &Path, lines: &[Value]) {
    std::fs::create_dir_all(trial).unwrap();
    append(&trial.join("attempts.jsonl"), lines);
    let metrics: Vec<String> = (1..=20)
        .map(|step| format!("{{\"time\":1795900010.0,\"attempt\":0,\"step\":{step},\"values\":{{\"loss\":0.5}}}}\n"))
        .collect();
    std::fs::write(trial.join("metrics.jsonl"), metrics.concat()).unwrap();
    std::fs::write(trial.join("params.json"), "{\"x\": 1}\n").unwrap();
    let lease = json!({"slurm_job": "102_0", "restarts": 0, "node": "n1", "boot_id": "b", "pid": 1, "start_ticks": 1, "nonce": "a"});
    std::fs::write(trial.join("lease.0.json"), lease.to_string()).unwrap();
}

fn append(path: &Path, lines: &[Value]) {
    let mut text = std::fs::read(path).unwrap_or_default();
    for line in lines {
        text.extend(checksum::to_vec(line).unwrap());
        text.push(b'\n');
    }
    std::fs::write(path, text).unwrap();
}

/// Slurm's word on an array task: its state in `squeue`, and in `sacct`.
const SAID: [(&str, u32, &str, &str); 22] = [
    ("prepare", 0, "", "COMPLETED"),
    ("train", 0, "COMPLETED", "COMPLETED"),
    ("train", 1, "COMPLETED", "COMPLETED"),
    ("train", 2, "FAILED", "FAILED"),
    ("train", 3, "RUNNING", "RUNNING"),
    ("train", 4, "PENDING", "PENDING"),
    ("train", 5, "PENDING", "PENDING"),
    ("train", 6, "", "CANCELLED by 0"),
    ("train", 7, "RUNNING", "RUNNING"),
    ("each", 0, "COMPLETED", "COMPLETED"),
    ("each", 1, "RUNNING", "RUNNING"),
    ("each", 2, "PENDING", "PENDING"),
    ("each", 3, "PENDING", "PENDING"),
    ("each", 4, "PENDING", "PENDING"),
    ("each", 5, "PENDING", "PENDING"),
    ("each", 6, "PENDING", "PENDING"),
    ("each", 7, "PENDING", "PENDING"),
    ("last", 0, "PENDING", "PENDING"),
    ("alarm", 0, "PENDING", "PENDING"),
    ("train", 1, "", "PREEMPTED"),
    ("train", 1, "", "TIMEOUT"),
    ("train", 4, "", "PREEMPTED"),
];

fn job_of(task: &str, trial: u32) -> (u32, u32) {
    let first = FIRST_JOB.iter().find(|(name, _)| *name == task).unwrap().1;
    if (task, trial) == ("train", 7) { (110, 1) } else { (first + trial / 3, trial % 3) }
}

fn rows(fields: impl Fn(&str, &str, (u32, u32)) -> Option<Vec<String>>) -> Vec<u8> {
    let with_delimiter = |field: &String| format!("{field}{}", char::from(DELIMITER));
    let row = |(task, trial, queue, account): &(&str, u32, &str, &str)| {
        let fields = fields(queue, account, job_of(task, *trial))?;
        Some(fields.iter().map(with_delimiter).collect::<String>() + "\n")
    };
    SAID.iter().filter_map(row).collect::<String>().into_bytes()
}

/// What `squeue` prints.
pub(super) fn queue() -> Vec<u8> {
    rows(|state, _, (job, index)| {
        let waits = state == "PENDING";
        let reason = if waits { "Dependency" } else { "None" };
        let id = format!("{job}_{index}");
        let row = [&id, state, "1795900000", "0", reason];
        (!state.is_empty()).then(|| row.map(str::to_owned).to_vec())
    })
}

/// What `sacct` prints.
pub(super) fn accounts() -> Vec<u8> {
    rows(|_, state, (job, index)| {
        let (start, end) = match state {
            "PENDING" => ("Unknown", "Unknown"),
            "RUNNING" => ("1795900010", "Unknown"),
            _ => ("1795900010", "1795900030"),
        };
        let exit = if state == "FAILED" { "1:0" } else { "0:0" };
        let id = format!("{job}_{index}");
        Some([&id, state, exit, "1795900000", start, end, "n1"].map(str::to_owned).to_vec())
    })
}
