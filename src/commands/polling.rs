//! Polls Slurm for commands that show several experiments, or that repeat.

use std::time::Duration;

use super::App;
use super::status::look_by;
use crate::clock;
use crate::error::CommandError;
use crate::journal;
use crate::observe::Depth;
use crate::query::{
    AccountingBackoff, JobsToQuery, NamedJob, QueryContext, SlurmAnswers, SlurmSource,
    submitted_jobs,
};
use crate::status::Status;
use crate::store::{ExperimentId, Stored};
use crate::summary::{self, Index, KnownExperiment};

/// Between two looks at the folders of what runs on this machine's cluster. Slurm itself is asked less often.
const SLURM_PAUSE: Duration = Duration::from_secs(3);
/// Between two looks at another cluster.
const ELSEWHERE_PAUSE: Duration = ANSWER_AGE;
/// Between two looks at what runs on this machine.
const LOCAL_PAUSE: Duration = Duration::from_millis(500);
/// How long one answer of Slurm's is used by every command that repeats its question.
const ANSWER_AGE: Duration = Duration::from_secs(10);

/// Asks Slurm about these experiments, unless there is an answer that is no older than `not_before` (unix seconds). If
/// Slurm is asked, it is asked for `others` too.
pub(super) fn query_slurm(
    app: &App,
    wanted: &[JobsToQuery],
    not_before: f64,
    others: &dyn Fn() -> Vec<NamedJob>,
) -> SlurmAnswers {
    let backoff = &AccountingBackoff::default();
    let (client, cache) = (&app.slurm, &app.query_cache);
    SlurmAnswers::query(QueryContext { client, cache, not_before, backoff, others }, wanted)
}

/// The jobs of all experiments that are not final.
pub(super) fn open_jobs(
    app: &App,
    ids: &[ExperimentId],
    known: &[KnownExperiment<'_>],
) -> Vec<NamedJob> {
    let wanted = |(id, known)| summary::wanted(&app.home, id, known);
    let open = ids.iter().zip(known).filter_map(wanted);
    open.flat_map(|wanted| wanted.jobs).collect()
}

/// Looks at one experiment again and again, and asks Slurm at most once in [`ANSWER_AGE`]; several that do so, in
/// whatever experiments, ask one question between them.
#[derive(Debug, Default)]
pub(super) struct StatusPoller {
    backoff: AccountingBackoff,
    /// When the answer of the last look was asked for.
    asked: f64,
}

/// What one look saw.
pub(super) struct PolledStatus {
    pub(super) status: Status,
    /// Whether Slurm's answer is another one than at the look before, or nobody had to ask it.
    pub(super) is_new: bool,
    /// Until the next look.
    pub(super) pause: Duration,
}

fn on_slurm(status: &Status) -> bool {
    status.tasks.iter().flat_map(|task| &task.trials).any(|trial| trial.slurm_job.is_some())
}

impl StatusPoller {
    pub(super) fn next(
        &mut self,
        app: &App,
        stored: &Stored,
    ) -> Result<PolledStatus, CommandError> {
        let trials = || journal::n_trials(&stored.journal, &stored.experiment);
        let wanted = JobsToQuery {
            jobs: submitted_jobs(&stored.journal),
            open: summary::read(&stored.dir).map_or_else(trials, |summary| summary.open),
            created: stored.id.made_at(),
        };
        if stored.experiment.cluster().is_some() {
            // Another cluster is asked for this experiment alone.
            let (status, _) = look_by(app, stored, SlurmSource::Slurm(&app.slurm), Depth::All)?;
            return Ok(PolledStatus { status, is_new: true, pause: ELSEWHERE_PAUSE });
        }
        let context = QueryContext {
            client: &app.slurm,
            cache: &app.query_cache,
            not_before: clock::now() - ANSWER_AGE.as_secs_f64(),
            backoff: &self.backoff,
            others: &|| all_open_jobs(app),
        };
        let answers = SlurmAnswers::query(context, &[wanted]);
        let (status, _) = look_by(app, stored, SlurmSource::Asked(&answers), Depth::All)?;
        let is_new = answers.asked() == 0.0 || answers.asked() > self.asked;
        self.asked = answers.asked();
        let pause = if on_slurm(&status) { SLURM_PAUSE } else { LOCAL_PAUSE };
        Ok(PolledStatus { status, is_new, pause })
    }
}

/// The jobs of all experiments that are not final, for who knows nothing of the others yet.
fn all_open_jobs(app: &App) -> Vec<NamedJob> {
    let ids = app.home.ids().unwrap_or_default();
    let index = Index::read(&app.home);
    open_jobs(app, &ids, &summary::known(&app.home, &ids, &index))
}
