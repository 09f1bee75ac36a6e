//! What `cancel`, `pause`, `resume` and `preempt` print in the end, and how they fail.

use serde_json::json;

use super::ControlArgs;
use crate::error::{CommandError, ExitCode};
use crate::humanize::count;
use crate::report::{out_json, say};
use crate::slurm::SlurmError;
use crate::store::Stored;

/// What went wrong on the way. What could be done was done all the same.
#[derive(Debug, Default)]
pub(in crate::commands) struct Troubles {
    /// Slurm's answers.
    pub(in crate::commands) slurm: Vec<SlurmError>,
    /// A file that can't be written.
    pub(in crate::commands) unwritten: Option<CommandError>,
}

/// What is said in the end.
pub(in crate::commands) struct ControlReport<'a> {
    pub(in crate::commands) args: &'a ControlArgs,
    pub(in crate::commands) stored: &'a Stored,
    /// `cancel`, `pause` …
    pub(in crate::commands) action: &'static str,
    /// `Cancelled`, `Would cancel` …
    pub(in crate::commands) what: &'a str,
    /// Said where there was nothing to do.
    pub(in crate::commands) nothing: &'a str,
    pub(in crate::commands) trials: usize,
    pub(in crate::commands) jobs: Vec<String>,
}

impl ControlReport<'_> {
    /// Reports what was done. Fails if Slurm refused a part or did not answer.
    pub(in crate::commands) fn finish(self, troubles: &Troubles) -> Result<ExitCode, CommandError> {
        let requested = troubles.unwritten.is_none();
        if let Some(error) = &troubles.unwritten {
            say(&format!("warning: Slurm accepted it, but {}", error.one_line()));
        }
        if !troubles.slurm.is_empty() {
            return Err(self.failure(&troubles.slurm));
        }
        if self.args.json {
            return out_json(&json!({
                "schema": 1,
                "id": self.stored.id,
                "action": self.action,
                "dry_run": self.args.dry_run,
                "trials": self.trials,
                "slurm_jobs": self.jobs,
                "requested": requested && !self.args.dry_run,
            }));
        }
        if self.trials == 0 {
            say(&format!("Nothing to do: {}.", self.nothing));
        } else {
            let trials = count(self.trials, "trial");
            say(&format!("{} {trials} of {}", self.what, self.stored.id));
        }
        Ok(ExitCode::Fine)
    }

    /// The error for what Slurm refused or did not answer.
    fn failure(&self, errors: &[SlurmError]) -> CommandError {
        let unanswered = errors.iter().any(SlurmError::is_no_answer);
        let code = if unanswered { ExitCode::NoAnswer } else { ExitCode::Failed };
        let mut reasons: Vec<String> = Vec::new();
        for error in errors {
            let reason = error.to_string();
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let text = format!(
            "could not {} all of `{}`: {}",
            self.action,
            self.args.target,
            reasons.join("; ")
        );
        let again = format!("nemo-slurm {} {}", self.action, self.args.target);
        CommandError::new(code, text)
            .hinted(format!("`{again}` does the rest; nothing is done twice"))
    }
}
