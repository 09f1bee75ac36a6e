//! Which disturbances, and when: a value that follows from the seed and the undisturbed run. Pure.

use nemo_core::stop_times::DEFAULT_KILL_WAIT;
use serde::Serialize;

/// What a run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScenarioKind {
    /// The trial is not disturbed.
    #[value(skip)]
    Undisturbed,
    /// The trial is preempted with notice, several times.
    Preempted,
    /// The program is killed.
    Killed,
    /// The time limit ends before the training does.
    TimeLimit,
    /// The harness and all its processes are killed, as when a node is lost.
    NodeLost,
    /// The trial gets SIGTERM, and SIGKILL a little later.
    Terminated,
    /// Slurm requeues the job (`scontrol requeue`).
    Requeued,
    /// The trial is preempted with a much longer notice, to see whether it was only too slow.
    #[value(skip)]
    LongNotice,
}

impl ScenarioKind {
    /// The word for people and for `--only`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undisturbed => "undisturbed",
            Self::Preempted => "preempted",
            Self::Killed => "killed",
            Self::TimeLimit => "time-limit",
            Self::NodeLost => "node-lost",
            Self::Terminated => "terminated",
            Self::Requeued => "requeued",
            Self::LongNotice => "long-notice",
        }
    }
}

/// What is done to a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// USR1 to the harness: the scheduler wants the place after `lead` seconds.
    Preempt {
        /// Seconds until everything must be gone.
        lead: u64,
    },
    /// TERM to the harness, as `scancel` and a preemption without grace do.
    Terminate {
        /// Seconds until the KILL.
        kill_wait: u64,
    },
    /// KILL to every process of the program.
    KillProgram,
    /// KILL to the harness.
    KillHarness,
    /// The segment ends so many seconds after its begin, `lead` included.
    TimeLimit {
        /// Seconds.
        limit: u64,
    },
    /// `scontrol requeue`.
    Requeue,
}

/// When it is done, within one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InjectionTime {
    /// As soon as this step was reported.
    Step(u64),
    /// A number of seconds after the attempt's beginning.
    Seconds(f64),
    /// From the attempt's begin on.
    Begin,
}

/// One disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Injection {
    /// What is done.
    pub fault: Fault,
    /// When.
    pub moment: InjectionTime,
}

/// One run: the first injection is for its first attempt, and so on; further attempts are left alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// What it shows.
    pub kind: ScenarioKind,
    /// In order.
    pub injections: Vec<Injection>,
}

impl Scenario {
    /// The same at half the time, where time decides and it can be less: a run may be faster than the one before.
    #[must_use]
    pub fn sooner(&self, lead: u64) -> Option<Self> {
        let injections = self
            .injections
            .iter()
            .map(|own| half_as_late(own, lead))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { kind: self.kind, injections })
    }
}

/// The same injection at half the time, where time decides and it can be less.
fn half_as_late(own: &Injection, lead: u64) -> Option<Injection> {
    match (own.fault, own.moment) {
        (Fault::TimeLimit { limit }, _) => {
            let segment = limit.saturating_sub(lead);
            let fault = Fault::TimeLimit { limit: lead + segment / 2 };
            (segment > 1).then_some(Injection { fault, ..*own })
        }
        (_, InjectionTime::Seconds(seconds)) if seconds > 0.1 => {
            Some(Injection { moment: InjectionTime::Seconds(seconds / 2.0), ..*own })
        }
        (_, InjectionTime::Seconds(_) | InjectionTime::Step(_) | InjectionTime::Begin) => None,
    }
}

/// What an undisturbed run was like.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// How long it took.
    pub seconds: f64,
    /// The steps that it reported, in order.
    pub steps: Vec<u64>,
    /// The first step that was committed while it ran on, and when that was, in seconds from the begin.
    pub first_save: Option<(u64, f64)>,
    /// `checkpoint.lead`.
    pub lead: u64,
}

/// Where the runs take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RehearseOn {
    /// On this machine.
    Local,
    /// On a cluster, where only what a user may do is done.
    Slurm,
}

/// Neither at once nor at the very end.
const SPAN: (f64, f64) = (0.15, 0.85);

/// All disturbed runs, in the order of what they tell. `interruptions` is how often the preempted one is.
#[must_use]
pub fn plan(
    seed: u64,
    interruptions: u32,
    baseline: &Baseline,
    place: RehearseOn,
) -> Vec<Scenario> {
    let mut chance = SplitMix64(seed ^ 0x6e65_6d6f);
    let lead = baseline.lead;
    let several = fractions(&mut chance, interruptions.max(1), SPAN);
    let preempted = sequence(baseline, &several, Fault::Preempt { lead });
    let killed = kill(&mut chance, baseline, Fault::KillProgram);
    let limit = time_limit(&mut chance, baseline);
    let lost = kill(&mut chance, baseline, Fault::KillHarness);
    let once = fractions(&mut chance, 1, SPAN);
    let kill_wait = lead.min(DEFAULT_KILL_WAIT.into());
    let terminated = sequence(baseline, &once, Fault::Terminate { kill_wait });
    let requeued = sequence(baseline, &once, Fault::Requeue);
    let all = match place {
        RehearseOn::Local => vec![
            (ScenarioKind::Preempted, preempted),
            (ScenarioKind::Killed, killed),
            (ScenarioKind::TimeLimit, limit),
            (ScenarioKind::NodeLost, lost),
            (ScenarioKind::Terminated, terminated),
        ],
        RehearseOn::Slurm => {
            vec![(ScenarioKind::Preempted, preempted), (ScenarioKind::Requeued, requeued)]
        }
    };
    let all = all.into_iter().filter(|(_, injections)| !injections.is_empty());
    all.map(|(kind, injections)| Scenario { kind, injections }).collect()
}

/// How many runs there will be, the undisturbed ones included, where a training is long enough for all of them.
#[must_use]
pub fn expected(only: &[ScenarioKind], place: RehearseOn) -> usize {
    let steps = (1..=100).collect();
    let long = Baseline { seconds: 100.0, steps, first_save: None, lead: 1 };
    let planned = plan(0, 1, &long, place).into_iter();
    2 + planned.filter(|own| only.is_empty() || only.contains(&own.kind)).count()
}

/// The run that tells a program that is too slow from one that does not react: the first preemption once more, with
/// more time than any save should need.
#[must_use]
pub fn long_notice(baseline: &Baseline, before: &Scenario) -> Option<Scenario> {
    let moment = before.injections.first()?.moment;
    let lead = (baseline.lead * 10).max(60);
    let injections = vec![Injection { fault: Fault::Preempt { lead }, moment }];
    Some(Scenario { kind: ScenarioKind::LongNotice, injections })
}

/// One fraction in each of `n` equal parts of the span, so that they are apart.
fn fractions(chance: &mut SplitMix64, n: u32, (from, to): (f64, f64)) -> Vec<f64> {
    let part = (to - from) / f64::from(n);
    (0..n).map(|i| from + part * (f64::from(i) + chance.fraction())).collect()
}

fn sequence(baseline: &Baseline, fractions: &[f64], fault: Fault) -> Vec<Injection> {
    let mut before = 0.0;
    let mut injections: Vec<Injection> = Vec::new();
    for &fraction in fractions {
        let moment = moment(baseline, fraction, before);
        before = fraction;
        // Few steps can't be interrupted often: each moment is once.
        if injections.last().is_none_or(|last| last.moment != moment) {
            injections.push(Injection { fault, moment });
        }
    }
    injections
}

/// The moment at a fraction of the whole; without steps, by the time since the fraction at which the attempt began.
fn moment(baseline: &Baseline, fraction: f64, before: f64) -> InjectionTime {
    match step_at(&baseline.steps, fraction) {
        Some(step) => InjectionTime::Step(step),
        None => InjectionTime::Seconds(baseline.seconds * (fraction - before)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index below a length"
)]
fn step_at(steps: &[u64], fraction: f64) -> Option<u64> {
    let index = (steps.len() as f64 * fraction) as usize;
    // At the last step nothing would be left to disturb.
    let last = steps.len().checked_sub(2)?;
    steps.get(index.min(last)).copied()
}

/// A kill after a checkpoint: after the program's own first one, or else after a preemption made one.
fn kill(chance: &mut SplitMix64, baseline: &Baseline, fault: Fault) -> Vec<Injection> {
    let begin = baseline.first_save.and_then(|(step, seconds)| {
        let by_step = steps_until(&baseline.steps, step);
        let begin = by_step.unwrap_or(seconds / baseline.seconds.max(f64::EPSILON));
        (begin < SPAN.1).then_some(begin)
    });
    if let Some(begin) = begin {
        let at = fractions(chance, 1, (begin + (SPAN.1 - begin) / 4.0, SPAN.1));
        return sequence(baseline, &at, fault);
    }
    let at = fractions(chance, 2, SPAN);
    let mut injections = sequence(baseline, &at, Fault::Preempt { lead: baseline.lead });
    if let Some(second) = injections.get_mut(1) {
        second.fault = fault;
    }
    injections
}

/// Which part of the steps is up to this one.
#[expect(clippy::cast_precision_loss, reason = "numbers of steps")]
fn steps_until(steps: &[u64], step: u64) -> Option<f64> {
    let until = steps.iter().filter(|own| **own <= step).count();
    (!steps.is_empty()).then(|| until as f64 / steps.len() as f64)
}

/// Limits are whole seconds: a training of less than two can't be cut.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a run")]
fn time_limit(chance: &mut SplitMix64, baseline: &Baseline) -> Vec<Injection> {
    let [fraction] = fractions(chance, 1, (0.3, 0.7))[..] else { return Vec::new() };
    let segment = (baseline.seconds * fraction).round().max(1.0);
    if segment > baseline.seconds * 0.9 {
        return Vec::new();
    }
    let limit = segment as u64 + baseline.lead;
    vec![Injection { fault: Fault::TimeLimit { limit }, moment: InjectionTime::Begin }]
}

/// `SplitMix64`: the same numbers from a seed on every machine, for ever.
struct SplitMix64(u64);

impl SplitMix64 {
    /// From 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let steps = (1..=60).collect();
        Baseline { seconds: 10.0, steps, first_save: Some((10, 2.0)), lead: 30 }
    }

    fn moments(scenario: &Scenario) -> Vec<InjectionTime> {
        scenario.injections.iter().map(|injection| injection.moment).collect()
    }

    #[test]
    fn a_seed_gives_the_same_plan_and_another_one_another() {
        let of = |seed| plan(seed, 3, &baseline(), RehearseOn::Local);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let kinds: Vec<&str> = of(7).iter().map(|scenario| scenario.kind.as_str()).collect();
        assert_eq!(kinds, ["preempted", "killed", "time-limit", "node-lost", "terminated"]);
    }

    #[test]
    fn moments_are_in_order_apart_and_never_the_last_step() {
        for seed in 0..200 {
            for scenario in plan(seed, 4, &baseline(), RehearseOn::Local) {
                let steps: Vec<u64> = moments(&scenario)
                    .into_iter()
                    .filter_map(|moment| {
                        if let InjectionTime::Step(step) = moment { Some(step) } else { None }
                    })
                    .collect();
                assert!(steps.is_sorted_by(|a, b| a < b), "{seed}: {steps:?}");
                assert!(steps.iter().all(|step| (2..60).contains(step)), "{seed}: {steps:?}");
                if scenario.kind == ScenarioKind::Killed {
                    assert!(steps[0] > 10, "after the first checkpoint: {steps:?}");
                }
            }
        }
    }

    #[test]
    fn a_program_that_saves_only_when_asked_is_preempted_before_it_is_killed() {
        let plan = plan(1, 3, &Baseline { first_save: None, ..baseline() }, RehearseOn::Local);
        let killed = plan.iter().find(|scenario| scenario.kind == ScenarioKind::Killed).unwrap();
        let faults: Vec<Fault> = killed.injections.iter().map(|own| own.fault).collect();
        assert_eq!(faults, [Fault::Preempt { lead: 30 }, Fault::KillProgram]);
    }

    #[test]
    fn without_steps_the_clock_decides() {
        let plan = plan(1, 2, &Baseline { steps: Vec::new(), ..baseline() }, RehearseOn::Local);
        let total: f64 = moments(&plan[0])
            .into_iter()
            .map(|moment| if let InjectionTime::Seconds(seconds) = moment { seconds } else { 99.0 })
            .sum();
        assert!((5.0..=8.5).contains(&total), "{plan:?}");
    }

    #[test]
    fn what_came_too_late_is_done_sooner_until_it_can_not() {
        let limit = |limit| Scenario {
            kind: ScenarioKind::TimeLimit,
            injections: vec![Injection {
                fault: Fault::TimeLimit { limit },
                moment: InjectionTime::Begin,
            }],
        };
        assert_eq!(limit(34).sooner(30), Some(limit(32)));
        assert_eq!(limit(31).sooner(30), None);
        let preempted = &plan(1, 3, &baseline(), RehearseOn::Local)[0];
        assert_eq!(preempted.sooner(30), None, "steps don't depend on the clock");
    }

    #[test]
    fn what_is_too_short_is_not_cut() {
        let short = Baseline { seconds: 1.0, ..baseline() };
        let plan = plan(1, 1, &short, RehearseOn::Local);
        assert!(plan.iter().all(|scenario| scenario.kind != ScenarioKind::TimeLimit));
        let two = Baseline { steps: vec![1, 2], ..short };
        assert_eq!(super::plan(1, 5, &two, RehearseOn::Local)[0].injections.len(), 1);
    }
}
