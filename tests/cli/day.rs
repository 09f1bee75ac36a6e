//! A day of a cluster's life in minutes: sixteen trials are preempted, lose their nodes, their controller and their
//! accounting, crash, and are cancelled by strangers. What comes out must be what an undisturbed run gives.
//!
//! `NEMO_DAY_SEED` repeats the choices of a run (not its moments), `NEMO_DAY_SECONDS` makes the day longer.

mod evening;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::choices::Choices;
use crate::cluster::{self, Cluster};
use crate::processes::{self, Process};
use crate::support::{World, text, trials};
use crate::training;

const NODES: u64 = 4;
const TRIALS: u64 = 16;
/// What a trial does undisturbed in a little more than a day.
const STEPS_A_SECOND: u64 = 10;

struct Day {
    cluster: Cluster,
    world: World,
    id: String,
    steps: u64,
    choices: Choices,
    began: Instant,
    /// Nodes that are lost, and when they come back.
    lost: Vec<(String, Instant)>,
    /// Trials that a stranger cancelled.
    cancelled: BTreeSet<u64>,
    /// Since when trials that run have no program and no harness.
    silent: BTreeMap<u64, Instant>,
}

#[test]
fn a_day_of_life() {
    if !cluster::is_here() {
        return;
    }
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let seed = variable("NEMO_DAY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let length = Duration::from_secs(variable("NEMO_DAY_SECONDS").unwrap_or(60));
    eprintln!("NEMO_DAY_SEED={seed} repeats this day");
    let mut day = Day::dawn(seed, length.as_secs() * STEPS_A_SECOND);
    while day.began.elapsed() < length && !day.is_over() {
        day.something_happens();
    }
    day.evening();
    let wrong = day.what_is_wrong();
    assert!(wrong.is_empty(), "NEMO_DAY_SEED={seed}\n{}", wrong.join("\n"));
    println!("{}", day.world.ok(&["goodput", &day.id]));
}

impl Day {
    fn dawn(seed: u64, steps: u64) -> Self {
        let nodes = NODES.to_string();
        let options = [
            ("SLURM_DEV_NODES", nodes.as_str()),
            ("SLURM_DEV_GRACE", "10"),
            ("SLURM_DEV_NODE_TIMEOUT", "10"),
            ("SLURM_DEV_MIN_JOB_AGE", "3600"),
        ];
        let cluster = Cluster::start(25_817, &options);
        let world = cluster.world();
        let seeds: Vec<String> = (1..=TRIALS).map(|seed| seed.to_string()).collect();
        let text = format!(
            r#"
name = "day"
[executor.it]
kind = "slurm"
partition = "scavenge"
cpus_per_task = 4
mem = "100M"
time = "10m"
env = {{ TRAINING_STEPS = "{steps}", TRAINING_SAVE_EVERY = "10", TRAINING_PACE_MS = "100" }}
[task.train]
run = {}
[task.train.params]
seed_value = [{}]
[task.train.checkpoint]
lead = "10s"
[task.train.restart]
crashes = 100
no_progress = 0
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
"#,
            training::command(),
            seeds.join(", ")
        );
        world.write("exp.toml", &text);
        let id = world.ok(&["submit", "exp.toml"]);
        let choices = Choices::new(seed);
        let began = Instant::now();
        let (lost, cancelled) = (Vec::new(), BTreeSet::new());
        let silent = BTreeMap::new();
        Self { cluster, world, id, steps, choices, began, lost, cancelled, silent }
    }

    fn note(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    fn something_happens(&mut self) {
        self.nodes_come_back();
        let node = format!("n{}", 1 + self.choices.below(NODES));
        let is_up = !self.lost.iter().any(|(lost, _)| *lost == node);
        match self.choices.below(100) {
            0..40 if is_up => self.urgent_job(&node),
            40..60 if is_up => self.node_is_lost(&node, true),
            60..70 if is_up => self.node_is_lost(&node, false),
            70..80 => self.daemon_is_away("slurmctld"),
            80..87 => self.daemon_is_away("slurmdbd"),
            87..92 if self.cancelled.len() < 2 => self.stranger_cancels(),
            92..100 => self.program_is_killed(),
            _ => {}
        }
        let pause = Duration::from_millis(1000 + self.choices.below(4000));
        std::thread::sleep(pause);
    }

    /// Runs one of Slurm's programs. During the day it may fail.
    fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        self.world.surround(&mut command);
        let output = command.args(arguments).output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            self.note(&format!("{program} {}: {}", arguments.join(" "), why.trim()));
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn urgent_job(&self, node: &str) {
        self.note(&format!("an urgent job takes {node}"));
        let node = format!("--nodelist={node}");
        let job = ["--partition=urgent", "--exclusive", "--mem=0", "--output=/dev/null"];
        self.slurm("sbatch", &[&job[..], &[&node, "--wrap=sleep 2"]].concat());
    }

    /// A node dies with all that runs on it; or its daemon does, and its jobs live on unseen.
    fn node_is_lost(&mut self, node: &str, with_jobs: bool) {
        let jobs = if with_jobs { self.processes_of(node) } else { Vec::new() };
        self.note(&format!("{node} is lost: its daemon and {} processes", jobs.len()));
        self.cluster.dev(&["kill", node]);
        jobs.iter().for_each(Process::kill);
        let name = format!("nodename={node}");
        self.slurm("scontrol", &["update", &name, "state=down", "reason=lost"]);
        let back = Instant::now() + Duration::from_millis(2000 + self.choices.below(10_000));
        self.lost.push((node.to_owned(), back));
    }

    fn nodes_come_back(&mut self) {
        let now = Instant::now();
        let (due, lost) = self.lost.drain(..).partition(|(_, back)| *back <= now);
        self.lost = lost;
        for (node, _) in due {
            self.note(&format!("{node} is back"));
            self.cluster.dev(&["revive", &node]);
        }
    }

    fn daemon_is_away(&mut self, daemon: &str) {
        let away = Duration::from_millis(500 + self.choices.below(4000));
        self.note(&format!("{daemon} is killed, for {away:?}"));
        self.cluster.dev(&["kill", daemon]);
        std::thread::sleep(away);
        self.cluster.dev(&["revive", daemon]);
    }

    fn stranger_cancels(&mut self) {
        let trial = self.choices.below(TRIALS);
        let status = self.world.status(&self.id);
        let job = text(&trials(&status, "train")[usize::try_from(trial).unwrap()]["slurm_job"]);
        self.note(&format!("a stranger cancels {job}, which is trial {trial}"));
        self.slurm("scancel", &[&job]);
        self.cancelled.insert(trial);
    }

    fn programs_of(&self, trial: u64) -> Vec<Process> {
        let dir = format!("NEMO_DIR={}", self.trial(trial).display());
        processes::find(|process| {
            process.has(&dir) && process.line().contains("training::as_a_program")
        })
    }

    fn harnesses_of(&self, trial: u64) -> Vec<Process> {
        let conf = self.conf();
        let task = format!("SLURM_ARRAY_TASK_ID={trial}");
        processes::find(|process| {
            process.has(&conf) && process.has(&task) && process.line().contains("nemo-harness")
        })
    }

    fn program_is_killed(&mut self) {
        let trial = self.choices.below(TRIALS);
        let programs = self.programs_of(trial);
        let pids: Vec<i32> = programs.iter().map(|program| program.pid).collect();
        self.note(&format!("the program of trial {trial} is killed: {pids:?}"));
        programs.iter().for_each(Process::kill);
    }

    fn trial(&self, trial: u64) -> PathBuf {
        self.world.experiment(&self.id).join(format!("tasks/train/trials/{trial}"))
    }

    /// What marks the processes of this cluster.
    fn conf(&self) -> String {
        format!("SLURM_CONF={}", self.world.slurm_conf.as_deref().unwrap())
    }

    /// What runs on a node, the step managers first.
    fn processes_of(&self, node: &str) -> Vec<Process> {
        let conf = self.conf();
        let node = format!("SLURMD_NODENAME={node}");
        let jobs = processes::find(|process| process.has(&conf) && process.has(&node));
        let parents = jobs.iter().filter_map(Process::parent);
        let mut managers: Vec<Process> =
            parents.filter(|parent| parent.line().starts_with("slurmstepd")).collect();
        managers.dedup_by_key(|manager| manager.pid);
        managers.into_iter().chain(jobs).collect()
    }

    fn is_over(&self) -> bool {
        let status = self.world.status(&self.id);
        trials(&status, "train").iter().all(is_final)
    }
}

fn is_final(trial: &Value) -> bool {
    matches!(&*text(&trial["state"]), "completed" | "failed" | "cancelled" | "timeout" | "blocked")
}
