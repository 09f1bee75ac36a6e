//! How far a rule of the file is used up for a trial, by the retries in the journal. What Slurm refused submitted nothing and
//! is no retry: it is tried again after a while, and not for ever. Pure.

use std::collections::BTreeMap;

use crate::experiment::RetryRule;
use crate::journal::{self, Event, RetriedTrials};

/// After so many refusals in a row a rule gives up: what a person must correct is refused for ever.
const MOST_REFUSALS: u32 = 5;
/// Seconds after the first refusal. They triple with each that follows: a limit may hold for an hour.
const FIRST_PAUSE: f64 = 120.0;

/// One retry of some trials.
#[derive(Clone, Copy, Debug)]
pub(super) struct PastRetry<'a> {
    group: &'a RetriedTrials,
    /// When Slurm refused it, in unix seconds.
    refused: Option<f64>,
}

/// All retries of a task, oldest first.
pub(super) fn past_retries<'a>(journal: &'a [Event], task: &str) -> Vec<PastRetry<'a>> {
    let refusals = refusals(journal);
    let mut past = Vec::new();
    for event in journal {
        let Event::Planned { plan, retry: Some(retry) } = event else { continue };
        let refused = refusals.get(&plan.generation).copied();
        let groups = retry.trials.get(task).into_iter().flatten();
        past.extend(groups.map(|group| PastRetry { group, refused }));
    }
    past
}

/// When each generation was refused, of those that were.
fn refusals(journal: &[Event]) -> BTreeMap<u32, f64> {
    let refused = journal.iter().filter_map(|event| match event {
        Event::Refused { token, time, .. } => Some((journal::generation_of(journal, token), *time)),
        _ => None,
    });
    refused.filter(|(generation, _)| *generation > 0).collect()
}

/// What a rule has done for a trial since a person retried it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RuleUse {
    /// How often it has retried it.
    times: u32,
    /// How often Slurm has refused that since it last took a job of the trial.
    refusals: u32,
    /// When it refused it last, in unix seconds.
    last_refusal: f64,
}

impl RuleUse {
    pub(super) fn of(past: &[PastRetry<'_>], trial: u32, rule: &str) -> Self {
        let mut seen = Self::default();
        for PastRetry { group, refused } in past.iter().filter(|it| it.group.trials.contains(trial))
        {
            let is_own = group.rule.as_deref() == Some(rule);
            match (refused, &group.rule) {
                (None, None) => seen = Self::default(),
                (None, Some(_)) => {
                    seen = Self { times: seen.times + u32::from(is_own), ..Self::default() };
                }
                (Some(time), Some(_)) if is_own => {
                    (seen.refusals, seen.last_refusal) = (seen.refusals + 1, *time);
                }
                (Some(_), _) => {}
            }
        }
        seen
    }

    /// Whether the rule is not used up, and not given up.
    pub(super) fn is_left(self, rule: &RetryRule) -> bool {
        self.times < rule.times && self.refusals < MOST_REFUSALS
    }

    /// Whether Slurm has refused it too short a while ago.
    pub(super) fn is_resting(self, now: f64) -> bool {
        // A clock that went backwards keeps nobody waiting.
        (self.last_refusal..self.last_refusal + self.pause()).contains(&now)
    }

    /// How many seconds after the last refusal it is tried again.
    pub(super) fn pause(self) -> f64 {
        let tripled = |n: u32| FIRST_PAUSE * f64::from(3_u32.saturating_pow(n));
        self.refusals.checked_sub(1).map_or(0.0, tripled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(rule: Option<&str>) -> RetriedTrials {
        RetriedTrials {
            from_attempt: 1,
            trials: [0].into_iter().collect(),
            changed: None,
            rule: rule.map(str::to_owned),
            advice: None,
        }
    }

    /// Retries by a rule, or by a person where none is named, each with when it was refused.
    #[track_caller]
    fn check(past: &[(Option<&str>, Option<f64>)], expected: (u32, u32), pause: f64) {
        let groups: Vec<RetriedTrials> = past.iter().map(|(rule, _)| group(*rule)).collect();
        let past = groups.iter().zip(past);
        let past: Vec<PastRetry<'_>> =
            past.map(|(group, (_, refused))| PastRetry { group, refused: *refused }).collect();
        let seen = RuleUse::of(&past, 0, "failed");
        assert_eq!((seen.times, seen.refusals), expected);
        assert!((seen.pause() - pause).abs() < 0.1, "{seen:?}");
        assert_eq!(RuleUse::of(&past, 1, "failed"), RuleUse::default(), "another trial");
    }

    #[test]
    fn only_what_slurm_took_uses_a_rule_up() {
        let (own, other, person) = (Some("failed"), Some("crash"), None);
        check(&[(own, None), (own, None)], (2, 0), 0.0);
        check(&[(own, None), (own, Some(1.0))], (1, 1), 120.0);
        check(&[(own, Some(1.0)), (own, Some(2.0)), (own, Some(3.0))], (0, 3), 1080.0);
        check(&[(own, Some(1.0)), (own, None)], (1, 0), 0.0);
        check(&[(own, Some(1.0)), (other, None), (other, Some(3.0))], (0, 0), 0.0);
        check(&[(own, None), (own, Some(1.0)), (person, Some(2.0))], (1, 1), 120.0);
        check(&[(own, None), (own, Some(1.0)), (person, None)], (0, 0), 0.0);
    }

    #[test]
    fn it_rests_after_a_refusal_and_gives_up_after_some() {
        let seen = RuleUse { times: 1, refusals: 2, last_refusal: 100.0 };
        assert!(seen.is_resting(101.0) && seen.is_resting(459.0));
        assert!(!seen.is_resting(461.0) && !seen.is_resting(50.0));
        assert!(!RuleUse::default().is_resting(0.0), "nothing was refused");
        let rule = RetryRule { times: 2, ..RetryRule::default() };
        assert!(seen.is_left(&rule));
        assert!(!RuleUse { refusals: MOST_REFUSALS, ..seen }.is_left(&rule));
        assert!(!RuleUse { times: 2, ..seen }.is_left(&rule));
    }
}
