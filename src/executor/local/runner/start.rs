//! Starts the harness of a trial, with the GPUs that it gets.
#![expect(clippy::disallowed_methods, reason = "an edge: starts are spaced out by the real clock")]

use std::time::Instant;

use nemo_core::rundir::runner::RunnerRecord;

use super::{Runner, START_BACKOFF, index};
use crate::clock;
use crate::executor::local::schedule::{LocalPhase, TrialRef};
use crate::executor::local::spawn;
use crate::experiment::Executor;
use crate::journal;
use crate::process::ProcessId;

impl Runner<'_> {
    /// Whether a start that failed is long enough ago.
    pub(super) fn may_start(&self, place: TrialRef) -> bool {
        let now = Instant::now();
        now >= self.next_start && self.start_after.get(&place).is_none_or(|until| now >= *until)
    }

    /// Starts the harness of a trial.
    pub(super) fn start(&mut self, place: TrialRef) {
        let task = self.task_name(place).to_owned();
        let trial = index(place);
        let dir = self.stored.dir.task(&task);
        let retries = journal::last_retries(&self.journal, &task);
        let changed = retries.get(&trial).and_then(|retry| retry.changed);
        let spec = changed.map(|changed| changed.spec.as_str());
        let Some(gpus) = self.gpus.take(place, self.gpus_per_trial(place)) else { return };
        let visible = (!gpus.is_empty()).then(|| gpus.join(","));
        let own = spawn::HarnessOptions { spec, gpus: visible.as_deref() };
        let child = match spawn::harness(&self.harness, &dir, trial, own) {
            Ok(child) => child,
            Err(error) if spawn::is_passing(&error) => {
                self.gpus.give_back(place);
                self.next_start = Instant::now() + START_BACKOFF;
                return self.warn_once(&error.with_cause());
            }
            Err(error) => {
                self.gpus.give_back(place);
                let reason = format!("its harness can't be started: {}", error.with_cause());
                self.warn_once(&reason);
                *self.phase(place) = LocalPhase::Lost;
                return self.log.add(RunnerRecord::NotStarted { task, trial, reason });
            }
        };
        let pid = child.id();
        self.log.add(RunnerRecord::Started { task, trial, pid, gpus, time: clock::now() });
        *self.phase(place) = LocalPhase::Running;
        self.live.insert(place, ProcessId::of(pid));
        self.children.insert(place, child);
    }

    /// How many GPUs a trial has for itself.
    fn gpus_per_trial(&self, place: TrialRef) -> usize {
        match self.stored.experiment.executors.get(&self.tasks[place.0].task.executor) {
            Some(Executor::Local(local)) => local.gpus_per_trial.map_or(0, |n| n.get() as usize),
            Some(Executor::Slurm(_)) | None => 0,
        }
    }
}
