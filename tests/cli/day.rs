//! A day of a cluster's life in minutes: sixteen trials are preempted, lose their nodes, their controller and their
//! accounting, crash, and are cancelled by strangers. What comes out must be what an undisturbed run gives.
//!
//! `NEMO_DAY_SEED` repeats the choices of a run (not its moments), `NEMO_DAY_SECONDS` makes the day longer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::choices::Choices;
use crate::cluster::{self, Cluster};
use crate::support::{World, text, trials};
use crate::training;

const NODES: u64 = 4;
const TRIALS: u64 = 16;
/// What a trial does undisturbed in a little more than a day.
const STEPS_A_SECOND: u64 = 10;
/// How long after the day everything may take to end.
const EVENING: Duration = Duration::from_mins(6);

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
    /// Jobs that Slurm showed as running when they were not, and that were requeued.
    ghosts: BTreeSet<String>,
    /// Trials whose next run a node refused to launch, and that were requeued.
    unlaunched: BTreeSet<u64>,
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
        let (ghosts, unlaunched) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, world, id, steps, choices, began, lost, cancelled, ghosts, unlaunched }
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
        for pid in jobs {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
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

    fn programs_of(&self, trial: u64) -> Vec<i32> {
        let dir = format!("NEMO_DIR={}", self.trial(trial).display());
        processes(|environment, command| {
            environment.contains(&dir.as_str()) && command.contains("training::as_a_program")
        })
    }

    fn program_is_killed(&mut self) {
        let trial = self.choices.below(TRIALS);
        let programs = self.programs_of(trial);
        self.note(&format!("the program of trial {trial} is killed: {programs:?}"));
        for pid in programs {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }

    fn trial(&self, trial: u64) -> PathBuf {
        self.world.experiment(&self.id).join(format!("tasks/train/trials/{trial}"))
    }

    /// What runs on a node, the step managers first.
    fn processes_of(&self, node: &str) -> Vec<i32> {
        let conf = format!("SLURM_CONF={}", self.world.slurm_conf.as_deref().unwrap());
        let node = format!("SLURMD_NODENAME={node}");
        let jobs = processes(|environment, _| {
            environment.contains(&conf.as_str()) && environment.contains(&node.as_str())
        });
        let managers: BTreeSet<i32> = jobs
            .iter()
            .filter_map(|pid| parent(*pid))
            .filter(|pid| command_of(*pid).starts_with("slurmstepd"))
            .collect();
        managers.into_iter().chain(jobs).collect()
    }

    fn is_over(&self) -> bool {
        let status = self.world.status(&self.id);
        trials(&status, "train").iter().all(is_final)
    }

    /// Everything comes back, and what is left of the work is done.
    fn evening(&mut self) {
        self.note("the evening");
        for (_, back) in &mut self.lost {
            *back = Instant::now();
        }
        self.nodes_come_back();
        let until = Instant::now() + EVENING;
        while Instant::now() < until {
            self.ghosts_are_laid();
            self.unlaunched_are_requeued();
            self.drained_nodes_are_resumed();
            self.unstarted_are_resumed();
            if self.is_over() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.note("the night");
    }

    /// A node that came back may refuse a job's next run (`already killed, do not launch` in its log), and Slurm then
    /// takes the job for failed although nothing of ours ran. An administrator requeues it.
    fn unlaunched_are_requeued(&mut self) {
        let status = self.world.status(&self.id);
        let refused = (0..).zip(trials(&status, "train")).filter(|(_, trial)| {
            trial["state"] == "failed" && text(&trial["reason"]).contains("before the program ran")
        });
        for (trial, refused) in refused {
            if self.unlaunched.insert(trial) && self.logs("slurmd").contains("do not launch") {
                let job = text(&refused["slurm_job"]);
                self.note(&format!("a node refused to launch {job}: it is requeued"));
                self.slurm("scontrol", &["requeue", &job]);
            }
        }
    }

    /// A controller that is killed forgets what it started in its last seconds. It takes those runs for duplicates, and
    /// drains their nodes (`Duplicate jobid on nodes`) until an administrator has looked at them.
    fn drained_nodes_are_resumed(&self) {
        for line in self.slurm("sinfo", &["-h", "-N", "-p", "scavenge", "-o", "%N %T"]).lines() {
            if let Some((node, state)) =
                line.split_once(' ').filter(|(_, state)| state.contains("drain"))
            {
                self.note(&format!("{node} is {state}: it is resumed"));
                self.slurm("scontrol", &["update", &format!("nodename={node}"), "state=resume"]);
            }
        }
    }

    /// The jobs that it could not start meanwhile are held (`launch failed requeued held`). Status says what helps.
    fn unstarted_are_resumed(&self) {
        let status = self.world.status(&self.id);
        for (trial, held) in (0_u32..).zip(trials(&status, "train")) {
            if text(&held["reason"]).contains("could not be started; `nemo-slurm poll`") {
                self.note(&format!("trial {trial} could not be started: it is polled"));
                let target = format!("{}/train/{trial}", self.id);
                self.world.run(&["poll", &target]);
            }
        }
    }

    /// What the daemons of this name have logged.
    fn logs(&self, daemon: &str) -> String {
        let conf = Path::new(self.world.slurm_conf.as_deref().unwrap());
        let folder = conf.parent().unwrap().with_file_name("log");
        let paths = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        let is_theirs = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.split('.').next() == Some(daemon)
        };
        paths
            .filter(is_theirs)
            .map(|path| std::fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    /// Slurm 22.05 may forget which nodes a job has (`on wrong node` in its log): it kills the job there, and shows it
    /// as running until its time limit. An administrator requeues it.
    fn ghosts_are_laid(&mut self) {
        let log = self.logs("slurmctld");
        let job = |line: &str| {
            let (_, job) = line.split_once(": Registered JobId=")?;
            Some(job.split_once('(')?.0.to_owned())
        };
        let lines = log.lines().filter(|line| line.contains(" on wrong node "));
        let ghosts: BTreeSet<String> = lines.filter_map(job).collect();
        for job in ghosts.difference(&self.ghosts.clone()) {
            let is_alive = |trial: u64| !self.programs_of(trial).is_empty();
            let is_dead = (0..TRIALS)
                .filter(|trial| job.ends_with(&format!("_{trial}")))
                .all(|trial| !is_alive(trial));
            if is_dead && self.slurm("squeue", &["-h", "-o", "%T", "-j", job]).contains("RUNNING") {
                self.note(&format!("Slurm runs the ghost of {job}: it is requeued"));
                self.slurm("scontrol", &["requeue", job]);
                self.ghosts.insert(job.clone());
            }
        }
    }

    fn what_is_wrong(&self) -> Vec<String> {
        let status = self.world.status(&self.id);
        let mut wrong = Vec::new();
        for (index, trial) in (0..).zip(trials(&status, "train")) {
            let mut tell = |what: String| wrong.push(format!("trial {index}: {what}"));
            let state = text(&trial["state"]);
            let was_cancelled = self.cancelled.contains(&index) && state == "cancelled";
            if state != "completed" && !was_cancelled {
                tell(format!("is {state}: {}", trial["reason"]));
            }
            let series = series(&self.trial(index).join("metrics.jsonl"));
            let expected: Vec<(u64, u64)> =
                (1..).zip(training::losses(index + 1, self.steps)).collect();
            let whole = if was_cancelled {
                &expected[..series.len().min(expected.len())]
            } else {
                &expected
            };
            if series != whole {
                tell(difference(&series, whole));
            }
            unaccounted(trial, &self.trial(index)).into_iter().for_each(&mut tell);
            broken_checkpoints(&self.trial(index)).into_iter().for_each(&mut tell);
            if trial["attempts"].as_array().unwrap().is_empty() && !was_cancelled {
                tell("has no attempt".to_owned());
            }
        }
        wrong.extend(self.survivors());
        wrong.extend(self.goodput_is_off());
        if !wrong.is_empty() {
            self.keep();
        }
        wrong
    }

    /// Processes of the experiment that outlived it.
    fn survivors(&self) -> Vec<String> {
        let home = self.world.experiment(&self.id).display().to_string();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let left = processes(|environment, command| {
                let dir = environment.iter().find_map(|line| line.strip_prefix("NEMO_DIR="));
                dir.is_some_and(|dir| dir.starts_with(&home)) || command.contains(&home)
            });
            if left.is_empty() || Instant::now() > until {
                return left
                    .iter()
                    .map(|pid| format!("process {pid} is left: {}", command_of(*pid)))
                    .collect();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn goodput_is_off(&self) -> Option<String> {
        let goodput: Value =
            serde_json::from_str(&self.world.ok(&["goodput", &self.id, "--json"])).unwrap();
        let seconds = goodput["total"]["seconds"].as_object().unwrap();
        let parts = seconds.iter().filter(|(name, _)| *name != "whole");
        let sum: f64 = parts.map(|(_, seconds)| seconds.as_f64().unwrap()).sum();
        let whole = seconds["whole"].as_f64().unwrap();
        ((sum - whole).abs() > 1e-3).then(|| format!("goodput: {sum} s are not {whole} s"))
    }

    /// What is needed to understand a bad day.
    fn keep(&self) {
        let to = std::env::temp_dir().join(format!("bad-day-{}", std::process::id()));
        let copied = Command::new("cp").arg("-a").arg(self.world.folder.path()).arg(&to).status();
        let logs = Path::new(self.world.slurm_conf.as_deref().unwrap()).parent().unwrap();
        Command::new("cp")
            .arg("-a")
            .arg(logs.with_file_name("log"))
            .arg(to.join("slurm-log"))
            .status()
            .ok();
        eprintln!("kept in {}: {copied:?}", to.display());
        eprintln!("{}", self.world.ok(&["status", &self.id, "--attempts"]));
    }
}

fn is_final(trial: &Value) -> bool {
    matches!(&*text(&trial["state"]), "completed" | "failed" | "cancelled" | "timeout" | "blocked")
}

/// The reports of a trial.
fn series(path: &Path) -> Vec<(u64, u64)> {
    let metrics = std::fs::read_to_string(path).unwrap_or_default();
    let one = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers"
        )]
        let loss = line["values"]["loss"].as_f64().unwrap() as u64;
        (line["step"].as_u64().unwrap(), loss)
    };
    metrics.lines().map(one).collect()
}

fn difference(seen: &[(u64, u64)], expected: &[(u64, u64)]) -> String {
    let first = (0..).zip(seen.iter().zip(expected)).find(|(_, (a, b))| a != b);
    format!("{} of {} reports; the first that differs: {first:?}", seen.len(), expected.len())
}

/// Attempts without a start, an end or a cause.
fn unaccounted(trial: &Value, dir: &Path) -> Vec<String> {
    // What was killed with its harness, and cancelled before it ran again, has nobody who could write its end.
    let is_cancelled = trial["state"] == "cancelled";
    let attempts = trial["attempts"].as_array().unwrap().iter();
    let is_unknown = |attempt: &&Value| {
        attempt["cause"].is_null() || (attempt["end"].is_null() && !is_cancelled)
    };
    let unknown = attempts.filter(is_unknown);
    let mut wrong: Vec<String> = unknown.map(|attempt| format!("unaccounted: {attempt}")).collect();
    let records = std::fs::read_to_string(dir.join("attempts.jsonl")).unwrap_or_default();
    let of = |event: &str| -> Vec<u64> {
        let lines = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let wanted = lines.filter(|line| line["event"] == event);
        wanted.map(|line| line["attempt"].as_u64().unwrap()).collect()
    };
    let (starts, mut ends) = (of("start"), of("end"));
    ends.sort_unstable();
    let is_unwritten = is_cancelled && starts.split_last().is_some_and(|(_, all)| all == ends);
    if starts != ends && !is_unwritten {
        wrong.push(format!("P6: starts {starts:?}, ends {ends:?}"));
    }
    wrong
}

/// Committed checkpoints that are not what their manifests say.
fn broken_checkpoints(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("checkpoints")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path());
    let committed =
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("step-"));
    committed.filter_map(|path| Some(format!("{}: {}", path.display(), broken(&path)?))).collect()
}

fn broken(checkpoint: &Path) -> Option<String> {
    let Ok(manifest) = std::fs::read_to_string(checkpoint.join("MANIFEST")) else {
        return Some("no manifest".to_owned());
    };
    let (body, end) = manifest.trim_end().rsplit_once("\nend ")?;
    if blake3::hash(format!("{body}\n").as_bytes()).to_hex().as_str() != end {
        return Some("a torn manifest".to_owned());
    }
    let files: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("file ")).collect();
    let is_wrong = |file: &&&str| {
        let mut words = file.split(' ');
        let (hash, size, name) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let bytes = std::fs::read(checkpoint.join(name)).unwrap_or_default();
        bytes.len().to_string() != size || blake3::hash(&bytes).to_hex().as_str() != hash
    };
    match files.iter().find(is_wrong) {
        Some(file) => Some(format!("altered: {file}")),
        None if files.len() == 2 => None,
        None => Some(format!("of its two files {} are there", files.len())),
    }
}

/// The processes whose environment and command are as wanted. Those that can't be looked at are others'.
fn processes(is_wanted: impl Fn(&[&str], &str) -> bool) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let matches = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        let lines: Vec<&str> = environment.split('\0').collect();
        *pid != own && is_wanted(&lines, &command_of(*pid))
    };
    pids.filter(matches).collect()
}

fn command_of(pid: i32) -> String {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).replace('\0', " ")
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}
