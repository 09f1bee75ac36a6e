//! The runner of this machine, where it is gone: `poll` starts it again, or says who must.

use serde_json::json;

use super::PollPass;
use crate::commands::{App, due};
use crate::error::CommandError;
use crate::executor::local;
use crate::report::say;
use crate::status::{Remedy, Status};
use crate::store::Stored;

impl PollPass<'_> {
    /// Starts the runner again that is gone, or says that somebody must: it runs where the experiment was submitted, and not
    /// inside a job.
    pub(super) fn start_runner(
        &mut self,
        app: &App,
        stored: &Stored,
        status: &Status,
    ) -> Result<(), CommandError> {
        let is_dry_run = self.args.dry_run;
        let starts = if is_dry_run { due::lacks_runner } else { due::start_runner };
        let is_started = starts(app, stored, status)?;
        let mut trials = status.tasks.iter().flat_map(|task| &task.trials);
        let is_missing = trials.any(|trial| trial.remedy == Some(Remedy::StartRunner));
        if is_started {
            let is = if is_dry_run { "would be" } else { "is" };
            let text = format!("{}: the runner of this machine {is} started again", stored.id);
            self.report_runner(stored, "started", &text);
        } else if is_missing && local::is_running(&stored.dir)?.is_none() {
            let again = format!("`nemo-slurm submit --continue {}` starts it again", stored.id);
            self.report_runner(
                stored,
                "gone",
                &format!("{}: its runner is gone: {again}", stored.id),
            );
        }
        Ok(())
    }

    fn report_runner(&mut self, stored: &Stored, did: &str, text: &str) {
        self.runners.push(json!({ "experiment": stored.id, "did": did }));
        if !self.args.json {
            say(text);
        }
    }
}
