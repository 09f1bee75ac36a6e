//! The rehearsal from its first run to its last.

use std::collections::VecDeque;

use nemo_core::rundir::{ExperimentDir, TrialDir};

use super::advice::{self, Advice};
use super::compare::{Tolerance, compare};
use super::file_names::NamePatterns;
use super::findings::{self, Finding, Rehearsal, needs_long_notice};
use super::folder::{RehearsalFolder, RunFolder};
use super::local::{self, RunContext, RunError};
use super::run_record::{RehearsedRun, RunEnd};
use super::scenarios::{self, Baseline, Fault, RehearseOn, Scenario, ScenarioKind};
use crate::clock;
use crate::experiment::{On, Task};
use crate::file_error::IoResultExt;

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct RehearsalOptions {
    pub(crate) seed: u64,
    pub(crate) interruptions: u32,
    /// Empty: all.
    pub(crate) only: Vec<ScenarioKind>,
    pub(crate) place: RehearseOn,
}

/// What came out.
#[derive(Debug)]
pub struct RehearsalOutcome {
    /// All that was seen.
    pub rehearsal: Rehearsal,
    /// What it means.
    pub findings: Vec<Finding>,
    /// What to change for speed.
    pub advice: Advice,
    /// What there was no time for.
    pub skipped: Vec<ScenarioKind>,
}

/// Why a rehearsal came to no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RehearseError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// What the task waits for must have run.
    #[error("task `{task}`, which must run first, failed: {reason}")]
    Upstream { task: String, reason: String },
}

/// Hears which run begins: its kind, its number from 1, of how many as far as is known, and the seconds
/// that one takes (0 before the first).
pub(crate) type Announce<'a> = &'a dyn Fn(&str, usize, Option<(usize, f64)>, Option<u64>);

/// A rehearsal under way.
pub(crate) struct Rehearser<'a> {
    pub(crate) folder: &'a RehearsalFolder<'a>,
    pub(crate) stage: &'a RunContext<'a>,
    pub(crate) options: &'a RehearsalOptions,
    pub(crate) announce: Announce<'a>,
    /// Where runs on Slurm are carried out.
    pub(crate) slurm: Option<&'a crate::slurm::Client>,
}

/// A run, and where it lies.
struct FinishedRun {
    run: RehearsedRun,
    dir: TrialDir,
}

impl Rehearser<'_> {
    /// Carries everything out.
    pub(crate) fn rehearse(&self) -> Result<RehearsalOutcome, RehearseError> {
        let upstream = self.run_upstream()?;
        let calm = Scenario { kind: ScenarioKind::Undisturbed, injections: Vec::new() };
        let runs = scenarios::expected(&self.options.only, self.options.place);
        (self.announce)(ScenarioKind::Undisturbed.as_str(), 1, Some((runs, 0.0)), None);
        let baseline = self.run(1, &calm, &upstream, None)?;
        let mut all = self.begin(baseline.run.clone());
        let mut skipped = Vec::new();
        if baseline.run.end == RunEnd::Completed {
            self.disturb(&mut all, &baseline, &upstream, &mut skipped)?;
        }
        let findings = findings::judge(&all);
        let advice = advice::advise(&all);
        Ok(RehearsalOutcome { rehearsal: all, findings, advice, skipped })
    }

    fn begin(&self, baseline: RehearsedRun) -> Rehearsal {
        let task = self.folder.task;
        Rehearsal {
            task: task.name.clone(),
            lead: task.checkpoint.lead,
            signal: task.checkpoint.signal.clone(),
            crashes: task.restart.crashes,
            noise: NamePatterns::new(&task.rehearse.noise),
            baseline,
            again: None,
            runs: Vec::new(),
        }
    }

    /// The second undisturbed run, and all the disturbed ones, as long as there is time.
    fn disturb(
        &self,
        all: &mut Rehearsal,
        baseline: &FinishedRun,
        upstream: &ExperimentDir,
        skipped: &mut Vec<ScenarioKind>,
    ) -> Result<(), RehearseError> {
        let facts = Baseline {
            seconds: baseline.run.seconds,
            steps: baseline.run.steps(),
            first_save: baseline.run.first_save(),
            lead: all.lead,
        };
        let calm = Scenario { kind: ScenarioKind::Undisturbed, injections: Vec::new() };
        let mut scenarios: VecDeque<Scenario> =
            std::iter::once(calm).chain(self.planned(&facts)).collect();
        let mut slack = Tolerance::default();
        let ignored = NamePatterns::new(&self.folder.task.rehearse.ignore);
        let mut number = 1;
        while let Some(scenario) = scenarios.pop_front() {
            number += 1;
            let known = Some((number + scenarios.len(), facts.seconds));
            (self.announce)(scenario.kind.as_str(), number, known, facts.steps.last().copied());
            let Some(done) = self.run_in_time(number, &scenario, upstream, &facts)? else {
                skipped.push(scenario.kind);
                continue;
            };
            let pair = (&baseline.run, &baseline.dir);
            let compared = compare(pair, (&done.run, &done.dir), &slack, &ignored);
            let comparison = compared.at("compare", done.dir.path()).map_err(RunError::from)?;
            if scenario.kind == ScenarioKind::Undisturbed {
                slack = Tolerance::new(&comparison, &baseline.run, &done.run);
                all.again = Some((done.run, comparison));
                continue;
            }
            if let Some(sooner) = again_sooner(&done.run, &facts, &scenario) {
                scenarios.push_front(sooner);
                continue;
            }
            if let Some(long) = self.long_notice(all, &done.run, &facts, &scenario) {
                scenarios.push_front(long);
            }
            all.runs.push((done.run, comparison));
        }
        Ok(())
    }

    fn planned(&self, facts: &Baseline) -> Vec<Scenario> {
        let RehearsalOptions { seed, interruptions, only, place } = self.options;
        let planned = scenarios::plan(*seed, *interruptions, facts, *place).into_iter();
        planned.filter(|own| only.is_empty() || only.contains(&own.kind)).collect()
    }

    /// Once, where a program heard and was ended too soon to tell what it would have done.
    fn long_notice(
        &self,
        all: &Rehearsal,
        run: &RehearsedRun,
        facts: &Baseline,
        scenario: &Scenario,
    ) -> Option<Scenario> {
        let is_first = all.runs.iter().all(|(run, _)| run.kind != ScenarioKind::LongNotice);
        let is_here =
            self.options.place == RehearseOn::Local && run.kind != ScenarioKind::LongNotice;
        let is_wanted = is_first && is_here && needs_long_notice(run, &all.baseline);
        is_wanted.then(|| scenarios::long_notice(facts, scenario)).flatten()
    }

    /// A run, or nothing where the time is over.
    fn run_in_time(
        &self,
        number: usize,
        scenario: &Scenario,
        upstream: &ExperimentDir,
        facts: &Baseline,
    ) -> Result<Option<FinishedRun>, RehearseError> {
        let patience = patience(facts, scenario);
        if self.stage.deadline.is_some_and(|deadline| clock::now() + facts.seconds > deadline) {
            return Ok(None);
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match self.run(number, scenario, upstream, Some(patience)) {
            Err(RehearseError::Run(RunError::OutOfTime)) => Ok(None),
            done => done.map(Some),
        }
    }

    fn run(
        &self,
        number: u32,
        scenario: &Scenario,
        upstream: &ExperimentDir,
        patience: Option<f64>,
    ) -> Result<FinishedRun, RehearseError> {
        let place = self.folder.run(number, scenario, upstream)?;
        let trial = self.folder.trial;
        let run = match self.slurm {
            None => local::run(self.stage, &place.task, trial, scenario, patience)?,
            Some(client) => {
                super::slurm::run(self.stage, client, &place, trial, scenario, patience)?
            }
        };
        Ok(FinishedRun { run, dir: place.task.trial(trial) })
    }

    /// What the task waits for, once and undisturbed, on this machine.
    fn run_upstream(&self) -> Result<ExperimentDir, RehearseError> {
        let names = self.folder.experiment.graph().upstream(&self.folder.task.name);
        let place: RunFolder = self.folder.upstream()?;
        let calm = Scenario { kind: ScenarioKind::Undisturbed, injections: Vec::new() };
        for task in &self.folder.experiment.tasks {
            let Some(each) = names.get(task.name.as_str()) else { continue };
            let trials =
                if *each { self.folder.trial..self.folder.trial + 1 } else { 0..task.n_trials };
            for trial in trials {
                let dir = place.dir.task(&task.name);
                (self.announce)(
                    &format!("{}/{trial}, which comes before", task.name),
                    0,
                    None,
                    None,
                );
                let run = local::run(self.stage, &dir, trial, &calm, None)?;
                if let (RunEnd::Failed(reason), true) = (run.end, self.must_complete(task)) {
                    return Err(RehearseError::Upstream { task: task.name.clone(), reason });
                }
            }
        }
        Ok(place.dir)
    }

    fn must_complete(&self, task: &Task) -> bool {
        let mut after = self.folder.task.after.iter().filter(|after| after.task == task.name);
        after.all(|after| matches!(after.on, On::Ok | On::Each))
    }
}

/// The scenario once more at half the time, where the run was over before anything could be done to it.
fn again_sooner(run: &RehearsedRun, facts: &Baseline, scenario: &Scenario) -> Option<Scenario> {
    let is_over = run.end == RunEnd::Completed && !run.was_disturbed(facts.steps.last().copied());
    is_over.then(|| scenario.sooner(facts.lead)).flatten()
}

/// Seconds after which a run counts as stuck.
#[expect(clippy::cast_precision_loss, reason = "seconds and counts")]
fn patience(baseline: &Baseline, scenario: &Scenario) -> f64 {
    let notices = scenario.injections.iter().map(|injection| match injection.fault {
        Fault::Preempt { lead } => lead,
        Fault::Terminate { kill_wait } => kill_wait,
        Fault::TimeLimit { limit } => limit,
        Fault::Requeue => 300,
        Fault::KillProgram | Fault::KillHarness => 5,
    });
    let attempts = scenario.injections.len() as f64 + 2.0;
    2.0 * attempts * baseline.seconds + notices.sum::<u64>() as f64 + 60.0
}
