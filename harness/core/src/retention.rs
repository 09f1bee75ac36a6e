//! Which checkpoints stay: the newest and the best of each trial, and the best of all trials. Pure.

use std::collections::BTreeSet;

use crate::rundir::{Keep, MetricsLine};

/// A committed checkpoint, and the value of the metric at exactly its step, if there was a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetentionCandidate {
    /// The trial's index.
    pub trial: u32,
    /// Its step.
    pub step: u64,
    /// Smaller is better.
    pub loss: Option<f64>,
}

/// The checkpoints of all trials that stay, as trial and step: the union of the three rules, and the newest of each
/// trial, which is what it would go on from. *Newest* goes by steps; of equals the earlier stays.
#[must_use]
pub fn kept(candidates: &[RetentionCandidate], keep: Keep) -> BTreeSet<(u32, u64)> {
    let trials: BTreeSet<u32> = candidates.iter().map(|candidate| candidate.trial).collect();
    let mut kept = best(candidates, keep.experiment_best);
    for trial in trials {
        let own: Vec<RetentionCandidate> =
            candidates.iter().copied().filter(|candidate| candidate.trial == trial).collect();
        kept.append(&mut best(&own, keep.trial_best));
        let mut steps: Vec<u64> = own.iter().map(|candidate| candidate.step).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        steps.dedup();
        let latest = count(keep.trial_latest).max(1);
        kept.extend(steps.into_iter().take(latest).map(|step| (trial, step)));
    }
    kept
}

/// The best few. Without a metric there are none.
fn best(candidates: &[RetentionCandidate], number: u32) -> BTreeSet<(u32, u64)> {
    let mut ranked: Vec<(f64, u64, u32)> = candidates
        .iter()
        .filter_map(|own| Some((own.loss?, own.step, own.trial)))
        .filter(|(loss, ..)| !loss.is_nan())
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    ranked.into_iter().take(count(number)).map(|(_, step, trial)| (trial, step)).collect()
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What was reported at exactly this step, made so that smaller is better. The last report counts; where some reports
/// of the step are validations, the last of those.
#[must_use]
pub fn loss_at(
    rows: &[MetricsLine],
    step: u64,
    metric: &str,
    larger_is_better: bool,
) -> Option<f64> {
    let mut found = None;
    for row in rows.iter().filter(|row| row.step == Some(step)) {
        if let Some(value) = finite(row, metric)
            && (row.validation || !matches!(found, Some((true, _))))
        {
            found = Some((row.validation, value));
        }
    }
    found.map(|(_, value)| if larger_is_better { -value } else { value })
}

fn finite(row: &MetricsLine, metric: &str) -> Option<f64> {
    row.values.get(metric)?.as_f64().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keep(experiment_best: u32, trial_best: u32, trial_latest: u32) -> Keep {
        Keep { trial_latest, trial_best, experiment_best }
    }

    /// Trial 0 has checkpoints 1 to 5, trial 1 has 6 to 10.
    fn example() -> Vec<RetentionCandidate> {
        let losses = [None, None, Some(0.6), Some(0.5), Some(0.4), None, Some(0.2), Some(0.3)];
        let losses = losses.into_iter().chain([None, None]);
        let made =
            |(step, loss): (u64, _)| RetentionCandidate { trial: u32::from(step > 5), step, loss };
        (1..).zip(losses).map(made).collect()
    }

    #[track_caller]
    fn check(keep: Keep, expected: &[u64]) {
        let steps: Vec<u64> = kept(&example(), keep).into_iter().map(|(_, step)| step).collect();
        assert_eq!(steps, expected, "{keep:?}");
    }

    #[test]
    fn the_documented_example() {
        check(keep(2, 1, 1), &[5, 7, 8, 10]);
        check(keep(0, 0, 1), &[5, 10]);
        check(keep(0, 0, 0), &[5, 10]); // never what a trial would go on from
        check(keep(0, 1, 1), &[5, 7, 10]);
        check(keep(3, 0, 2), &[4, 5, 7, 8, 9, 10]);
        check(keep(99, 99, 99), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn of_equals_the_earlier_stays() {
        let made = |step| RetentionCandidate { trial: 0, step, loss: Some(0.5) };
        let all = kept(&[made(3), made(1), made(2), made(9)], keep(0, 1, 1));
        assert_eq!(all, BTreeSet::from([(0, 1), (0, 9)]));
    }

    fn row(step: u64, values: &serde_json::Value, validation: bool) -> MetricsLine {
        let values = values.as_object().unwrap().clone();
        MetricsLine { step: Some(step), attempt: 0, time: 0.0, values, validation }
    }

    #[test]
    fn only_a_report_at_the_step_itself_counts() {
        let rows = [
            row(1, &serde_json::json!({"loss": 0.9}), false),
            row(2, &serde_json::json!({"loss": 0.8}), true),
            row(2, &serde_json::json!({"loss": 0.7}), false),
            row(3, &serde_json::json!({"loss": null, "other": 1}), true),
            row(4, &serde_json::json!({"loss": 0.3}), false),
            row(4, &serde_json::json!({"loss": 0.4}), false),
        ];
        let found = |step| loss_at(&rows, step, "loss", false);
        assert_eq!([1, 2, 3, 4, 5].map(found), [Some(0.9), Some(0.8), None, Some(0.4), None]);
        assert_eq!(loss_at(&rows, 1, "loss", true), Some(-0.9));
    }

    fn candidates() -> impl Strategy<Value = Vec<RetentionCandidate>> {
        let one = (0..3_u32, 0..30_u64, proptest::option::of(-3..3_i8));
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let all: std::collections::BTreeMap<_, _> =
                all.into_iter().map(|(trial, step, loss)| ((trial, step), loss)).collect();
            let made = |((trial, step), loss): (_, Option<i8>)| RetentionCandidate {
                trial,
                step,
                loss: loss.map(f64::from),
            };
            all.into_iter().map(made).collect()
        })
    }

    proptest! {
        #[test]
        fn what_stays_is_what_the_rules_say(all in candidates(), e in 0..5_u32, b in 0..5_u32, l in 0..5_u32) {
            let stays = kept(&all, keep(e, b, l));
            for one in &all {
                let newer = all.iter().filter(|o| o.trial == one.trial && o.step > one.step).count();
                let better = |o: &&RetentionCandidate| match (o.loss, one.loss) {
                    (Some(a), Some(b)) => (a, o.step, o.trial) < (b, one.step, one.trial),
                    _ => false,
                };
                let own = all.iter().filter(|o| o.trial == one.trial).filter(better).count();
                let everywhere = all.iter().filter(better).count();
                let expected = newer < l.max(1) as usize
                    || (one.loss.is_some() && (own < b as usize || everywhere < e as usize));
                prop_assert_eq!(stays.contains(&(one.trial, one.step)), expected, "{:?}", one);
            }
        }

        #[test]
        fn what_was_removed_would_not_come_back(all in candidates(), e in 0..5_u32, b in 0..5_u32) {
            // The answer for what is left is the same: trials may decide one after the other.
            let keep = keep(e, b, 1);
            let stays = kept(&all, keep);
            let left: Vec<_> = all.into_iter().filter(|o| stays.contains(&(o.trial, o.step))).collect();
            prop_assert_eq!(kept(&left, keep), stays);
        }
    }
}
