//! Which workload a trial does next: train, validate or checkpoint. Pure.
//!
//! The order of precedence is Determined's. Due times lie on a fixed grid of steps, so that a trial that was
//! resumed does what an undisturbed one does.

use serde::Deserialize;

/// The plan that a program asks for. A period of 0 means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct WorkloadPlan {
    /// The total number of steps.
    pub(crate) total: u64,
    /// The most steps of one workload. 0 means no limit.
    #[serde(default)]
    pub(crate) unit: u64,
    #[serde(default)]
    pub(crate) validate_every: u64,
    #[serde(default)]
    pub(crate) checkpoint_every: u64,
    /// Whether the untrained model is validated.
    #[serde(default)]
    pub(crate) validate_first: bool,
    /// Whether every best validation is saved.
    #[serde(default)]
    pub(crate) checkpoint_best: bool,
}

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Train(u64),
    Validate,
    Checkpoint,
    Stop,
}

impl Workload {
    /// Parses `train:100`, `validate` or `checkpoint`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "validate" => Some(Self::Validate),
            "checkpoint" => Some(Self::Checkpoint),
            _ => Some(Self::Train(text.strip_prefix("train:")?.parse().ok()?)),
        }
    }

    /// The lines of the message that assigns it.
    pub(crate) fn lines(self) -> String {
        match self {
            Self::Train(steps) => format!("WORKLOAD=train\nSTEPS={steps}\n"),
            Self::Validate => "WORKLOAD=validate\n".to_owned(),
            Self::Checkpoint => "WORKLOAD=checkpoint\n".to_owned(),
            Self::Stop => "WORKLOAD=stop\n".to_owned(),
        }
    }
}

/// The progress of a trial in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workloads {
    plan: WorkloadPlan,
    step: u64,
    saved: u64,
    /// The step of the last validation.
    validated: Option<u64>,
    /// The last validation was the best one, and is not saved yet.
    best: bool,
}

impl Workloads {
    /// Begins at the step of a checkpoint, or 0. A validation at exactly that step counts.
    pub(crate) fn begin(plan: WorkloadPlan, step: u64, validated: Option<u64>) -> Self {
        Self { plan, step, saved: step, validated, best: false }
    }

    /// The next workload. `stopping`: there may be no time for a validation, but there always is for a save.
    pub(crate) fn next(&self, stopping: bool) -> Workload {
        let WorkloadPlan { total, validate_every, checkpoint_every, validate_first, .. } =
            self.plan;
        let (finished, unsaved) = (self.step >= total, self.saved < self.step);
        let validated = self.validated.unwrap_or(0);
        if stopping {
            return if unsaved { Workload::Checkpoint } else { Workload::Stop };
        }
        let first = validate_first && self.step == 0 && self.validated.is_none();
        if first || is_due(self.step, validated, validate_every) {
            return Workload::Validate;
        }
        let periodic = is_due(self.step, self.saved, checkpoint_every);
        if unsaved && (finished || periodic || (self.best && self.plan.checkpoint_best)) {
            return Workload::Checkpoint;
        }
        if !finished {
            return Workload::Train(self.steps());
        }
        if self.validated == Some(self.step) { Workload::Stop } else { Workload::Validate }
    }

    fn steps(&self) -> u64 {
        let WorkloadPlan { total, unit, validate_every, checkpoint_every, .. } = self.plan;
        let until = |period: u64| (period > 0).then(|| period - self.step % period);
        let unit = (unit > 0).then_some(unit);
        let limits = [until(validate_every), until(checkpoint_every), unit];
        limits.into_iter().flatten().fold(total - self.step, u64::min).max(1)
    }

    /// Notes that a workload was done, at the step that the program reports. Late news change nothing.
    pub(crate) fn did(&mut self, work: Workload, step: Option<u64>) {
        match work {
            Workload::Train(steps) => {
                self.step = self.step.max(step.unwrap_or(self.step.saturating_add(steps)));
            }
            Workload::Validate => {
                self.validated = self.validated.max(Some(step.unwrap_or(self.step)));
            }
            Workload::Checkpoint => self.saved(step.unwrap_or(self.step)),
            Workload::Stop => {}
        }
    }

    /// Notes that a checkpoint is complete.
    pub(crate) fn saved(&mut self, step: u64) {
        self.saved = self.saved.max(step.min(self.step));
        self.best &= self.saved < self.step;
    }

    /// Notes that the last validation was better than all before.
    pub(crate) fn is_best(&mut self) {
        self.best = self.saved < self.step;
    }
}

/// Whether a point of the grid lies after `last`, up to `step`.
fn is_due(step: u64, last: u64, period: u64) -> bool {
    period > 0 && step / period > last / period
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: WorkloadPlan = WorkloadPlan {
        total: 500,
        unit: 100,
        validate_every: 200,
        checkpoint_every: 400,
        validate_first: false,
        checkpoint_best: false,
    };

    /// What is done, up to `limit` workloads.
    fn run(state: &mut Workloads, limit: usize) -> String {
        let mut done = Vec::new();
        for _ in 0..limit {
            let work = state.next(false);
            done.push(match work {
                Workload::Train(_) => "T".to_owned(),
                Workload::Validate => format!("V({})", state.step),
                Workload::Checkpoint => format!("C({})", state.step),
                Workload::Stop => return done.join(" "),
            });
            state.did(work, None);
        }
        done.join(" ")
    }

    #[test]
    fn the_order_is_as_documented() {
        let mut state = Workloads::begin(PLAN, 0, None);
        assert_eq!(run(&mut state, 99), "T T V(200) T T V(400) C(400) T C(500) V(500)");
    }

    #[test]
    fn a_resumed_trial_goes_on_at_its_checkpoint() {
        let mut state = Workloads::begin(PLAN, 400, Some(400));
        assert_eq!(run(&mut state, 99), "T C(500) V(500)");
        let mut lost = Workloads::begin(PLAN, 400, Some(200));
        assert_eq!(run(&mut lost, 99), "V(400) T C(500) V(500)");
    }

    #[test]
    fn a_stop_saves_what_is_unsaved_and_ends() {
        let mut state = Workloads::begin(PLAN, 0, None);
        assert_eq!(state.next(true), Workload::Stop);
        state.did(Workload::Train(100), Some(100));
        assert_eq!(state.next(true), Workload::Checkpoint);
        state.did(Workload::Checkpoint, None);
        assert_eq!(state.next(true), Workload::Stop);
    }

    #[test]
    fn the_first_validation_and_the_best_are_kept() {
        let plan = WorkloadPlan { validate_first: true, checkpoint_best: true, ..PLAN };
        let mut state = Workloads::begin(plan, 0, None);
        assert_eq!(run(&mut state, 4), "V(0) T T V(200)");
        state.is_best();
        assert_eq!(run(&mut state, 2), "C(200) T");
    }

    #[test]
    fn late_and_repeated_news_change_nothing() {
        let mut state = Workloads::begin(PLAN, 400, Some(400));
        let before = state;
        state.did(Workload::Train(100), Some(100));
        state.did(Workload::Validate, Some(200));
        state.did(Workload::Checkpoint, Some(300));
        assert_eq!(state, before);
    }

    proptest::proptest! {
        #[test]
        fn every_plan_ends_with_all_done(
            total in 0u64..300, unit in 0u64..50, validate_every in 0u64..70,
            checkpoint_every in 0u64..70, validate_first: bool, stop_after in 0usize..40,
        ) {
            let plan = WorkloadPlan { total, unit, validate_every, checkpoint_every, validate_first, checkpoint_best: false };
            let mut state = Workloads::begin(plan, 0, None);
            run(&mut state, stop_after);
            let mut resumed = Workloads::begin(plan, state.saved, state.validated.filter(|&at| at <= state.saved));
            run(&mut resumed, 2000);
            proptest::prop_assert_eq!(resumed.next(false), Workload::Stop);
            proptest::prop_assert_eq!((resumed.step, resumed.saved), (total, total));
        }
    }
}
