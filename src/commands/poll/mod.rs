//! `poll`: requeues what no harness could: Slurm refused or was away, or the harness was killed before it could ask, or
//! could not be started. Safe at any time, and again.
//!
//! A person, cron, or a job of the experiment at its end starts it.

mod crontab;
mod dry_run;
mod messages;
mod outcome;
mod put_back;
mod requeue;
mod resubmit;
mod runner;
mod steps;
mod timeouts;

use std::collections::HashSet;
use std::str::FromStr;

use clap::Args;
use serde_json::json;

use super::App;
use super::followers::{self, ToVisit};
use super::notices;
use super::polling::query_slurm;
use super::retry::automatic;
use super::status::look_by;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::executor::local;
use crate::experiment::Task;
use crate::journal;
use crate::observe::Depth;
use crate::plan::JobArray;
use crate::query::{self, SlurmSource, submitted_jobs};
use crate::report::{out_json, say};
use crate::script;
use crate::status::Status;
use crate::store::{ExperimentId, Stored, Target};
use crate::summary::{self, Index};
pub(super) use crontab::is_installed;
use outcome::PollResult;
use requeue::Place;

/// `poll`.
#[derive(Debug, Args)]
#[command(
    after_help = "`nemo-slurm status` says when a poll is needed: Slurm refused a requeue or did not answer, a harness was killed, or a job could not be started. \
    The jobs of an experiment do it for each other when they end. \
    `poll` may be repeated, and may run from cron: every five minutes is best, since Slurm soon forgets a job that has ended. \
    A job is given up after five failed starts (or `restart.no_progress`, if that is less). \
    What failed is retried if the file says so (`retry` of a task). \
    Notifications that are due are sent (`[notify]` of a file), and tried again where that failed. \
    The exit code is 1 if a job can't be requeued or an experiment can't be read.\n\n\
    Examples:\n  nemo-slurm poll\n  nemo-slurm poll --dry-run\n  nemo-slurm poll --install\n  nemo-slurm poll digits-3kz81q7m sweep/train"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct PollArgs {
    /// EXPERIMENT[/TASK[/TRIALS]], one or several; all experiments by default
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Add a line to your crontab that runs `poll` every five minutes
    #[arg(long, group = "crontab", conflicts_with_all = ["targets", "json"])]
    pub install: bool,
    /// Remove that line
    #[arg(long, group = "crontab", conflicts_with_all = ["targets", "json"])]
    pub uninstall: bool,
    /// Show what would be done, change nothing; with --install or --uninstall: print the line
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The run of a job that has lost its harness, which starts this: JOB:RESTARTS
    #[arg(long, hide = true, value_name = "JOB:RESTARTS")]
    pub ended_run: Option<EndedRun>,
}

/// One run of a job whose harness is gone. Slurm may still show it as running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRun {
    /// As Slurm shows it: `7_3`.
    pub job: String,
    /// How many times it had been restarted.
    pub restarts: u32,
}

impl FromStr for EndedRun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once(':').and_then(|(job, restarts)| {
            Some(Self { job: job.to_owned(), restarts: restarts.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("`{text}` is not JOB:RESTARTS"))
    }
}

/// What one pass over experiments found, and whether all of it could be looked at.
struct PollPass<'a> {
    app: &'a App,
    args: &'a PollArgs,
    rows: Vec<serde_json::Value>,
    /// All experiments that are not final, where all of them are looked after.
    open: HashSet<ExperimentId>,
    /// What waits for those that were looked after, and is none of the above.
    followers: ToVisit,
    /// What there may be to tell. It comes last: a server that is away keeps no trial waiting.
    to_tell: Vec<(Stored, Status)>,
    /// What was told.
    told: Vec<serde_json::Value>,
    is_well: bool,
    /// Whether Slurm said all that it was asked.
    was_answered: bool,
    /// The runners of this machine that were started, or are missing.
    runners: Vec<serde_json::Value>,
    /// The clusters that gave no answer; none stands for that of this machine.
    away: Vec<Option<String>>,
    /// What the first of them said instead.
    no_answer: Option<CommandError>,
}

/// Brings back the trials of some targets, or of all experiments.
pub(super) fn poll(app: &App, args: &PollArgs) -> Result<ExitCode, CommandError> {
    if args.install {
        return crontab::install(app, args.dry_run);
    }
    if args.uninstall {
        return crontab::uninstall(app, args.dry_run);
    }
    let read_only = app.read_only();
    let app = if args.dry_run { &read_only } else { app };
    let mut pass = PollPass::new(app, args);
    if args.targets.is_empty() {
        pass.all()?;
    }
    for text in &args.targets {
        let (target, stored) = app.find(text)?;
        pass.experiment(&stored, &target, SlurmSource::Slurm(&app.slurm), Depth::All)?;
        pass.followers_before(None);
    }
    pass.tell_all();
    pass.finish()
}

impl<'a> PollPass<'a> {
    fn new(app: &'a App, args: &'a PollArgs) -> Self {
        Self {
            app,
            args,
            rows: Vec::new(),
            open: HashSet::new(),
            followers: ToVisit::default(),
            to_tell: Vec::new(),
            told: Vec::new(),
            is_well: true,
            was_answered: true,
            runners: Vec::new(),
            away: Vec::new(),
            no_answer: None,
        }
    }

    /// Prints what was done, and says how that went.
    fn finish(self) -> Result<ExitCode, CommandError> {
        let Self { args, rows, told, is_well, was_answered, runners, no_answer, .. } = self;
        let is_idle = rows.is_empty() && told.is_empty() && runners.is_empty();
        if let Some(error) = no_answer {
            if !args.json || is_idle {
                return Err(error);
            }
            say(&format!("warning: {}", error.one_line()));
        }
        if args.json {
            out_json(&json!({
                "schema": 1,
                "dry_run": args.dry_run,
                "trials": rows,
                "runners": runners,
                "notifications": told,
            }))?;
        } else if is_idle && is_well && was_answered {
            say("Nothing to do: no trial needs to be requeued.");
        }
        Ok(match (was_answered, is_well) {
            (false, _) => ExitCode::NoAnswer,
            (true, false) => ExitCode::Failed,
            (true, true) => ExitCode::Fine,
        })
    }

    /// All that are not final. Slurm is asked once for all of them.
    fn all(&mut self) -> Result<(), CommandError> {
        let app = self.app;
        let mut ids = app.home.ids()?;
        ids.extend(app.home.job_ids()?);
        ids.sort_by(|a, b| a.age().cmp(&b.age()));
        let index = Index::read(&app.home);
        let known = summary::known(&app.home, &ids, &index);
        let open = || ids.iter().zip(&known).filter(|(_, known)| !known.is_final());
        let question = |(id, known)| {
            let wanted = summary::wanted(&app.home, id, known)?;
            // There may be more jobs than at the last look.
            let jobs = app.home.journal(id).map_or_else(|_| Vec::new(), |it| submitted_jobs(&it));
            Some(query::JobsToQuery { jobs, ..wanted })
        };
        let wanted: Vec<query::JobsToQuery> = open().filter_map(question).collect();
        let answers = query_slurm(app, &wanted, clock::now(), &Vec::new);
        self.open = open().map(|(id, _)| id.clone()).collect();
        for (id, _) in open() {
            self.followers_before(Some(id));
            self.one_of_all(id.clone(), SlurmSource::Asked(&answers));
        }
        self.followers_before(None);
        Ok(())
    }

    /// One experiment of a home. What is wrong with it must not keep the others waiting, nor must a cluster that is away
    /// keep those of other clusters and of this machine waiting.
    fn one_of_all(&mut self, id: ExperimentId, source: SlurmSource<'_>) {
        let target = Target::whole(id);
        let stored = match self.app.home.load(&target.id) {
            Ok(stored) => stored,
            Err(error) => return self.failed(&target.id, &CommandError::from(error)),
        };
        let cluster = stored.experiment.cluster().map(str::to_owned);
        if stored.experiment.has_slurm() && self.away.contains(&cluster) {
            return;
        }
        match self.experiment(&stored, &target, source, Depth::Open) {
            Err(error) if error.code == ExitCode::NoAnswer => {
                self.was_answered = false;
                self.away.push(cluster);
                self.no_answer.get_or_insert(error);
            }
            Err(error) => self.failed(&target.id, &error),
            Ok(()) => {}
        }
    }

    fn failed(&mut self, id: &ExperimentId, error: &CommandError) {
        self.is_well = false;
        say(&format!("warning: `{id}`: {}", error.error));
    }

    fn experiment(
        &mut self,
        stored: &Stored,
        target: &Target,
        source: SlurmSource<'_>,
        depth: Depth,
    ) -> Result<(), CommandError> {
        if self.args.dry_run {
            return self.dry_run(stored, target, source);
        }
        if !stored.experiment.has_slurm() {
            return self.local(stored, target, depth);
        }
        let app = &self.app.on_cluster_of(stored);
        // What is asked for all at once is asked of this machine's cluster.
        let elsewhere = stored.experiment.cluster().is_some();
        let source = if elsewhere { SlurmSource::Slurm(&app.slurm) } else { source };
        let (mut status, _) = look_by(app, stored, source, depth)?;
        self.warn_if_stale(&stored.id, &status);
        let control = app.slurm.control(tokens(stored));
        let has_ended = self.end_waiting(&control, stored, target, &status)?;
        if self.pause_spent(app, stored, target, source)? || has_ended {
            // What was ended or paused must not be brought back by what was seen before.
            (status, _) = look_by(app, stored, SlurmSource::Slurm(&app.slurm), depth)?;
        }
        let mut hopeless = self.requeue(app, &control, stored, target, &status)?;
        hopeless.extend(self.resubmit(app, stored, target, &status)?);
        let needs_all =
            automatic::may_be_due(stored, &status) || notices::has_new(stored, &status)?;
        let whole = (depth == Depth::Open && needs_all)
            .then(|| look_by(app, stored, source, Depth::All))
            .transpose()?;
        let seen = whole.as_ref().map_or(&status, |(status, _)| status);
        self.retry(app, stored, target, seen)?;
        self.will_tell(stored, target, seen);
        // What waits for them comes after them.
        self.put_back(&control, stored, target, &status, hopeless)?;
        self.submit_due(app, stored, source)?;
        self.find_followers(stored);
        Ok(())
    }

    /// Finds the experiments that wait to be submitted after this one. Where all that are open are looked after, these come
    /// later anyway; the others were blocked by this one, and may be so no more.
    fn find_followers(&mut self, stored: &Stored) {
        for id in followers::of(self.app, &stored.dir) {
            if !self.open.contains(&id) {
                self.followers.add(id);
            }
        }
    }

    /// Looks after those of them that are older than an experiment.
    fn followers_before(&mut self, limit: Option<&ExperimentId>) {
        while let Some(id) = self.followers.next_before(limit) {
            self.one_of_all(id, SlurmSource::Slurm(&self.app.slurm));
        }
    }

    /// One whose trials run on this machine: its runner brings back what is not over, and is started again where it is gone.
    fn local(
        &mut self,
        stored: &Stored,
        target: &Target,
        depth: Depth,
    ) -> Result<(), CommandError> {
        let has_rules = stored.experiment.tasks.iter().any(|task| !task.retry.is_empty());
        let has_budget = stored.experiment.has_budget();
        let is_watched = has_rules || has_budget || stored.experiment.notify.is_some();
        if !is_watched && local::is_running(&stored.dir)?.is_some() {
            return Ok(());
        }
        self.pause_spent(self.app, stored, target, SlurmSource::Nobody)?;
        let (status, _) = look_by(self.app, stored, SlurmSource::Nobody, depth)?;
        self.retry(self.app, stored, target, &status)?;
        self.will_tell(stored, target, &status);
        self.start_runner(self.app, stored, &status)
    }

    /// Where Slurm gave no whole answer, that nothing is to be done says nothing.
    fn warn_if_stale(&mut self, id: &ExperimentId, status: &Status) {
        if status.experiment.stale {
            self.was_answered = false;
            say(&format!("warning: `{id}`: {}", status.warnings.join("; ")));
        }
    }

    /// `job`: none on this machine.
    fn report(
        &mut self,
        place: &Place<'_>,
        job: Option<&str>,
        done: PollResult,
        why: Option<&str>,
    ) {
        let (id, task, index) = place;
        self.is_well &= done.is_well();
        if !self.args.json {
            let sentence =
                if self.args.dry_run { PollResult::dry_run } else { PollResult::sentence };
            say(&format!("{id}/{task}/{index}: {}", sentence(done, job.unwrap_or_default(), why)));
        }
        self.rows.push(json!({ "experiment": id, "task": task, "trial": index, "slurm_job": job, "did": done, "reason": why }));
    }
}

/// Whether anything may have to be submitted later, or runs on this machine.
fn may_be_due(stored: &Stored) -> bool {
    let experiment = &stored.experiment;
    let unplanned = |task: &Task| journal::unplanned(&stored.journal, task).count() > 0;
    let is_left = |task: &Task| !experiment.is_local(task) && unplanned(task);
    experiment.has_local() || experiment.tasks.iter().any(is_left)
}

/// The names of all job arrays of an experiment.
fn tokens(stored: &Stored) -> Vec<String> {
    let id = stored.id.as_str();
    let arrays = journal::planned_arrays(&stored.journal);
    let name = |array: &JobArray| match &array.wrapped {
        Some(wrapped) => wrapped.name.clone(),
        None => script::token(id, &array.task, array.index),
    };
    arrays.map(name).collect()
}
