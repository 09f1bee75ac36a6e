//! The evening of a day: everything comes back, an administrator does what only one can do, and the work ends.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Day, TRIALS};
use crate::support::{text, trials};

/// How long after the day everything may take to end.
const EVENING: Duration = Duration::from_mins(6);
/// How long a job may show as running with no program and no harness.
const SILENCE: Duration = Duration::from_secs(30);

impl Day {
    /// Everything comes back, and what is left of the work is done.
    pub(super) fn evening(&mut self) {
        self.note("the evening");
        for (_, back) in &mut self.lost {
            *back = Instant::now();
        }
        self.nodes_come_back();
        let until = Instant::now() + EVENING;
        while Instant::now() < until {
            self.ghosts_are_laid();
            self.unlaunched_are_polled();
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
    /// takes the job for failed although nothing of ours ran. Status says what helps.
    fn unlaunched_are_polled(&self) {
        let status = self.world.status(&self.id);
        for (trial, refused) in (0_u32..).zip(trials(&status, "train")) {
            let is_told = text(&refused["reason"]).contains("`nemo-slurm poll` requeues it");
            let is_refused = refused["state"] == "failed" && is_told;
            if is_refused && self.logs("slurmd").contains("do not launch") {
                self.note(&format!("a node refused to launch trial {trial}: it is polled"));
                self.poll(trial);
            }
        }
    }

    fn poll(&self, trial: u32) {
        self.world.run(&["poll", &format!("{}/train/{trial}", self.id)]);
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
                self.poll(trial);
            }
        }
    }

    /// What the daemons of this name have logged.
    fn logs(&self, daemon: &str) -> String {
        let conf = Path::new(self.world.slurm_conf.as_deref().unwrap());
        let folder = conf.parent().unwrap().with_file_name("log");
        let paths = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.file_prefix().is_some_and(|name| name == daemon))
            .map(|path| std::fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    /// Slurm may miss the end of a run: it forgot which nodes the job has (`on wrong node` in its log, 22.05), or a node came
    /// back with a run that was to be killed there when the next one began (24.11). It shows the job as running until its time
    /// limit, though nothing of it lives, no harness either. An administrator requeues it.
    fn ghosts_are_laid(&mut self) {
        let status = self.world.status(&self.id);
        for (trial, seen) in (0..TRIALS).zip(trials(&status, "train")) {
            let lives = !self.programs_of(trial).is_empty() || !self.harnesses_of(trial).is_empty();
            if seen["state"] != "running" || lives {
                self.silent.remove(&trial);
                continue;
            }
            let since = *self.silent.entry(trial).or_insert_with(Instant::now);
            let job = text(&seen["slurm_job"]);
            if since.elapsed() > SILENCE && self.is_running(&job) {
                self.note(&format!("Slurm runs the ghost of {job}: it is requeued"));
                self.slurm("scontrol", &["requeue", &job]);
                self.silent.remove(&trial);
            }
        }
    }

    fn is_running(&self, job: &str) -> bool {
        self.slurm("squeue", &["-h", "-o", "%T", "-j", job]).contains("RUNNING")
    }
}
