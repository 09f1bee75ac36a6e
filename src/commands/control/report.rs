//! What `cancel`, `pause`, `resume` and `preempt` print in the end, and how they fail.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::scope::TrialSet;
use serde_json::json;

use super::{ControlArgs, TrialKey};
use crate::error::{CommandError, ExitCode};
use crate::humanize::count;
use crate::report::{out_json, say};
use crate::slurm::SlurmError;
use crate::store::{ExperimentId, Stored};

/// What went wrong on the way. What could be done was done all the same.
#[derive(Debug, Default)]
pub(in crate::commands) struct Troubles {
    /// Slurm's answers.
    pub(in crate::commands) slurm: Vec<SlurmError>,
    /// A file that can't be written.
    pub(in crate::commands) unwritten: Option<CommandError>,
    /// Running trials that Slurm may not have signalled, and its answer. They read the request from their folders.
    pub(in crate::commands) unsignalled: BTreeMap<TrialKey, String>,
    /// Trials that may run, and that nothing was sent to: `squeue` did not show their jobs.
    pub(in crate::commands) unsure: BTreeSet<TrialKey>,
}

impl Troubles {
    /// What is said of the trials that Slurm may not have signalled, if there are any.
    pub(in crate::commands) fn unsignalled_in_words(&self, id: &ExperimentId) -> Option<String> {
        let answer = self.unsignalled.values().next()?;
        if self.slurm.iter().any(SlurmError::is_no_answer) {
            return Some(self.unseen_in_words(id, answer));
        }
        let trials = count(self.unsignalled.len(), "running trial");
        let do_so = match self.unsignalled.len() {
            1 => "reads the request from its folder within some seconds, and saves then",
            _ => "read the request from their folders within some seconds, and save then",
        };
        Some(format!("Slurm gave no answer ({answer}). {trials} of {id} {do_so}."))
    }

    /// The same where Slurm did not say what runs: that is only known from earlier.
    fn unseen_in_words(&self, id: &ExperimentId, answer: &str) -> String {
        let trials = count(self.unsignalled.len(), "trial");
        let do_so = match self.unsignalled.len() {
            1 => {
                "if it still does, it reads the request from its folder within some seconds, and saves then"
            }
            _ => {
                "those that still do read the request from their folders within some seconds, and save then"
            }
        };
        format!(
            "Slurm gave no answer ({answer}). {trials} of {id} ran when that was last known: {do_so}."
        )
    }

    /// The trials that may run, as targets.
    fn unsure_targets(&self, id: &ExperimentId) -> Vec<String> {
        let mut tasks: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (task, trial) in &self.unsure {
            tasks.entry(task).or_default().push(*trial);
        }
        let of_task = |(task, trials)| Some(format!("{id}/{task}/{}", TrialSet::new(trials)?));
        tasks.into_iter().filter_map(of_task).collect()
    }

    /// What is said of the trials that may run, if there are any.
    pub(in crate::commands) fn unsure_in_words(&self, id: &ExperimentId) -> Option<String> {
        let names = format!("`{}`", self.unsure_targets(id).join("`, `"));
        match self.unsure.len() {
            0 => None,
            1 => Some(format!(
                "could not tell whether {names} runs: `squeue` shows its job neither waiting nor running"
            )),
            _ => Some(format!(
                "could not tell whether {names} run: `squeue` shows their jobs neither waiting nor running"
            )),
        }
    }
}

/// The command that does something again each time.
const PREEMPT: &str = "preempt";

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
    /// Those of them that run, and were only asked: they stop once they have saved.
    pub(in crate::commands) asked: usize,
    pub(in crate::commands) jobs: Vec<String>,
}

impl ControlReport<'_> {
    /// Reports what was done. Fails if Slurm refused a part, did not answer, or did not show what may run.
    pub(in crate::commands) fn finish(self, troubles: &Troubles) -> Result<ExitCode, CommandError> {
        if let Some(error) = &troubles.unwritten {
            let is_accepted = troubles.slurm.is_empty() && !self.jobs.is_empty();
            let accepted = if is_accepted { "Slurm accepted it, but " } else { "" };
            say(&format!("warning: {accepted}{}", error.one_line()));
        }
        if !troubles.slurm.is_empty() {
            if let Some(words) = troubles.unsignalled_in_words(&self.stored.id) {
                say(&words);
            }
            return Err(self.failure(troubles));
        }
        if self.args.json && troubles.unsure.is_empty() {
            return out_json(&json!({
                "schema": 1,
                "id": self.stored.id,
                "action": self.action,
                "dry_run": self.args.dry_run,
                "trials": self.trials,
                "asked": self.asked,
                "unsignalled": troubles.unsignalled.len(),
                "slurm_jobs": self.jobs,
                "requested": troubles.unwritten.is_none() && !self.args.dry_run,
            }));
        }
        if !self.args.json {
            self.say_done(troubles);
        }
        if troubles.unsure.is_empty() { Ok(ExitCode::Fine) } else { Err(self.failure(troubles)) }
    }

    fn say_done(&self, troubles: &Troubles) {
        let id = &self.stored.id;
        let unsignalled = troubles.unsignalled_in_words(id);
        if let Some(words) = &unsignalled {
            say(words);
        }
        let n = troubles.unsignalled.len();
        let (trials, asked) = (self.trials.saturating_sub(n), self.asked.saturating_sub(n));
        if asked > 0 && !self.args.dry_run {
            self.say_asked(asked, trials.saturating_sub(asked));
        } else if trials > 0 {
            say(&format!("{} {} of {id}", self.what, count(trials, "trial")));
        } else if unsignalled.is_none() && troubles.unsure.is_empty() {
            say(&format!("Nothing to do: {}.", self.nothing));
        }
    }

    /// What runs stops only after its save, and a program that does not save is stopped after its `lead`.
    fn say_asked(&self, asked: usize, waiting: usize) {
        let (id, asked) = (&self.stored.id, count(asked, "running trial"));
        let rest = match waiting {
            0 => String::new(),
            n => format!(" {} waiting {} held.", n, if n == 1 { "trial is" } else { "trials are" }),
        };
        say(&format!(
            "Asked {asked} of {id} to save and to stop.{rest} `nemo-slurm status {id}` shows them as paused once they have."
        ));
    }

    /// The error for what Slurm refused, did not answer, or did not show.
    fn failure(&self, troubles: &Troubles) -> CommandError {
        let is_silent = troubles.slurm.iter().any(SlurmError::is_no_answer);
        // Without an answer of `squeue` nothing is known of what it shows.
        let unsure = troubles.unsure_in_words(&self.stored.id).filter(|_| !is_silent);
        let unanswered = unsure.is_some() || is_silent;
        let code = if unanswered { ExitCode::NoAnswer } else { ExitCode::Failed };
        let mut reasons: Vec<String> = Vec::new();
        for reason in troubles.slurm.iter().map(SlurmError::to_string).chain(unsure) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let (action, target, reasons) = (self.action, &self.args.target, reasons.join("; "));
        // What runs does it all the same.
        let text = if is_silent && !troubles.unsignalled.is_empty() {
            format!("could not tell Slurm to {action} `{target}`: {reasons}")
        } else {
            format!("could not {action} all of `{target}`: {reasons}")
        };
        let error = CommandError::new(code, text);
        if action == PREEMPT {
            return self.hinted_for_preempt(error, troubles);
        }
        let again = format!("nemo-slurm {action} {target}");
        error.hinted(format!("`{again}` does the rest; nothing is done twice"))
    }

    /// What to type after a `preempt`. Those that were asked run again by then, and would be asked again.
    fn hinted_for_preempt(&self, error: CommandError, troubles: &Troubles) -> CommandError {
        let id = &self.stored.id;
        let unsure = troubles.unsure_targets(id);
        if !troubles.unsignalled.is_empty() {
            let shown = format!("`nemo-slurm status {id}` shows when what runs has saved");
            return error.hinted(shown);
        }
        let others = unsure.is_empty().then(|| self.args.target.clone());
        let hint = |error: CommandError, target: String| {
            error.hinted(format!("`nemo-slurm preempt {target}` asks again"))
        };
        unsure.into_iter().chain(others).fold(error, hint)
    }
}
