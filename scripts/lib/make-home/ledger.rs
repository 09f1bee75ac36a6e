//! What became of each trial, and what it leaves: its folder, and Slurm's rows.

use std::io::Write;
use std::path::Path;

use nemo_core::checksum;
use nemo_core::process_id::ProcessId;
use nemo_core::rundir::{
    AttemptEnd, AttemptRecord, AttemptStart, Cause, MetricsLine, Next, Params, TrialDir,
};
use nemo_slurm::journal;
use nemo_slurm::slurm::id::{TaskSet, Tasks};
use nemo_slurm::slurm::parse::account::SlurmExitCode;
use nemo_slurm::slurm::{AccountRow, JobId, JobState, QueueRow, UnixTime};
use nemo_slurm::status::State;
use nemo_slurm::store::Stored;

use crate::chance::Chance;
use crate::{Fate, Result};

/// A trial and what became of it.
pub(crate) struct TrialLedger {
    pub(crate) task: String,
    pub(crate) index: u32,
    pub(crate) state: State,
    loss: f64,
}

pub(crate) fn fates(stored: &Stored, fate: Fate, chance: &mut Chance) -> Vec<TrialLedger> {
    let kind = chance.below(10);
    let mut all = Vec::new();
    for task in &stored.experiment.tasks {
        let is_last = Some(&task.name) == stored.experiment.tasks.last().map(|task| &task.name);
        let total = task.n_trials;
        for index in 0..total {
            let state = match fate {
                _ if !is_last => State::Completed,
                // Those in the middle run, those before them are over, and the others wait.
                Fate::Open if index < total / 2 => State::Completed,
                Fate::Open if index < total / 2 + 8 => State::Running,
                Fate::Open => State::Pending,
                Fate::Over | Fate::Damaged => match kind {
                    0 => State::Cancelled,
                    1 | 2 if chance.below(4) == 0 => State::Failed,
                    _ => State::Completed,
                },
            };
            let loss = chance.below(10_000) as f64 / 10_000.0;
            all.push(TrialLedger { task: task.name.clone(), index, state, loss });
        }
    }
    all
}

impl TrialLedger {
    /// Its array and its place there.
    fn place(&self, stored: &Stored) -> Option<(JobId, u32)> {
        let arrays = journal::submitted_arrays(&stored.journal);
        let is_own = |array: &&journal::Submitted<'_>| {
            array.task == self.task && array.trials.contains(self.index)
        };
        let array = arrays.iter().find(is_own)?;
        Some((array.job, self.index - array.offset))
    }

    pub(crate) fn in_queue(&self, stored: &Stored) -> Option<QueueRow> {
        let (job, index) = self.place(stored)?;
        let (tasks, state) = match self.state {
            State::Running => (Tasks::One(index), JobState::Running),
            State::Pending => {
                let indices = std::iter::once(index).collect();
                let set = TaskSet { indices, limit: None, cut_short: false };
                (Tasks::Set(Box::new(set)), JobState::Pending)
            }
            _ => return None,
        };
        let reason = "Resources".into();
        Some(QueueRow {
            array_job: job,
            tasks,
            state,
            reason,
            submit: UnixTime::new(100),
            restarts: 0,
        })
    }

    pub(crate) fn in_accounts(&self, stored: &Stored) -> Option<AccountRow> {
        let (job, index) = self.place(stored)?;
        let state = match self.state {
            State::Completed => JobState::Completed,
            State::Failed => JobState::Failed,
            State::Cancelled => JobState::Cancelled,
            _ => return None,
        };
        let (submit, start, end) = (UnixTime::new(100), UnixTime::new(200), UnixTime::new(300));
        let (exit, nodes) = (SlurmExitCode::default(), "n1".into());
        let (tasks, cancelled_by) = (Tasks::One(index), None);
        Some(AccountRow {
            array_job: job,
            tasks,
            state,
            cancelled_by,
            exit,
            submit,
            start,
            end,
            nodes,
        })
    }

    /// Its folder, if it ever ran.
    pub(crate) fn write(&self, stored: &Stored, created: f64) -> Result<()> {
        if self.state == State::Pending {
            return Ok(());
        }
        let dir = stored.dir.task(&self.task).trial(self.index);
        std::fs::create_dir_all(dir.path())?;
        let start = created + 60.0 + f64::from(self.index);
        let mut records = vec![AttemptRecord::Start(AttemptStart {
            attempt: 0,
            slurm_job: self.place(stored).map(|(job, index)| format!("{job}_{index}")),
            restarts: 0,
            process: ProcessId {
                node: format!("n{}", self.index % 64),
                boot_id: "b0070000-0000-4000-8000-000000000000".to_owned(),
                pid: 4000,
                start_ticks: 100,
            },
            time: start,
            resume_step: None,
            began: Some(start),
        })];
        for step in [100, 200] {
            let (attempt, time) = (0, start + step as f64);
            records.push(AttemptRecord::Checkpoint {
                attempt,
                step,
                time,
                saving: Some(0.5),
                bytes: Some(1 << 20),
            });
        }
        records.extend(self.end(start).map(AttemptRecord::End));
        lines(&dir.attempts(), &records)?;
        lines(&dir.metrics(), &self.metrics(start))?;
        std::fs::write(dir.params(), serde_json::to_vec(&Params::new())?)?;
        output(&dir, self.loss)
    }

    fn end(&self, start: f64) -> Option<AttemptEnd> {
        let (cause, next, code) = match self.state {
            State::Completed => (Cause::Completed, Next::Done, 0),
            State::Failed => (Cause::Failed, Next::Failed, 1),
            State::Cancelled => (Cause::Cancelled, Next::Cancelled, 143),
            _ => return None,
        };
        Some(AttemptEnd {
            attempt: 0,
            time: start + 300.0,
            cause,
            exit_code: Some(code),
            signal: None,
            step: Some(250),
            checkpoint_step: Some(200),
            next,
            reason: (code == 1).then(|| "exited with code 1".to_owned()),
            stopped: None,
            saving: Some(1.0),
        })
    }

    fn metrics(&self, start: f64) -> Vec<MetricsLine> {
        let line = |step: u64| {
            let mut values = serde_json::Map::new();
            values.insert("loss".to_owned(), (self.loss + 10.0 / (step as f64)).into());
            MetricsLine {
                step: Some(step),
                attempt: 0,
                time: start + step as f64,
                values,
                validation: false,
            }
        };
        [10, 50, 100, 150, 200, 250].map(line).into()
    }
}

fn output(dir: &TrialDir, loss: f64) -> Result<()> {
    Ok(std::fs::write(dir.stdout(0), format!("step 250 loss {loss}\n"))?)
}

fn lines(path: &Path, rows: &[impl serde::Serialize]) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for row in rows {
        let mut line = checksum::to_vec(row)?;
        line.push(b'\n');
        file.write_all(&line)?;
    }
    Ok(())
}
