//! Whether a trial meets conditions, as far as what is kept of its task tells. Pure.

use nemo_core::rundir::Params;
use serde_json::Value;

use super::condition::ValueCondition;
use crate::summary::{Facts, ParamValues, TaskFacts, flatten};

/// What is known before the trials are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matches.
    Yes,
    /// It does not.
    No,
    /// Only the trials tell.
    ReadTrials,
}

/// Whether all conditions are met: each by a trial that meets all those about parameters of its task.
pub(super) fn verdict(conditions: &[&ValueCondition], facts: &Facts) -> Verdict {
    let by_task: Vec<(Verdict, Vec<bool>)> =
        facts.tasks.iter().map(|task| of_task(conditions, task)).collect();
    let of_one = |place: usize| {
        let about = by_task.iter().filter(|(_, own)| own.get(place) == Some(&true));
        any(about.map(|(verdict, _)| *verdict))
    };
    all((0..conditions.len()).map(of_one))
}

/// Whether a trial of a task meets the conditions that are about it, and which those are.
fn of_task(conditions: &[&ValueCondition], task: &TaskFacts) -> (Verdict, Vec<bool>) {
    let Some(params) = &task.params else {
        return (Verdict::ReadTrials, vec![true; conditions.len()]);
    };
    let own: Vec<bool> =
        conditions.iter().map(|condition| params.contains_key(&condition.key)).collect();
    let mut keys: Vec<&str> = conditions.iter().map(|condition| condition.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let known = keys.iter().filter_map(|key| Some((key, params.get(*key)?)));
    let verdicts: Vec<Verdict> = known
        .map(|(key, values)| {
            let about: Vec<&ValueCondition> =
                conditions.iter().filter(|condition| condition.key == **key).copied().collect();
            of_values(&about, values)
        })
        .collect();
    let is_joint = verdicts.len() > 1 && !task.is_grid;
    match all(verdicts.into_iter()) {
        Verdict::Yes if is_joint => (Verdict::ReadTrials, own),
        verdict => (verdict, own),
    }
}

/// Whether one value meets all of these.
fn of_values(conditions: &[&ValueCondition], values: &ParamValues) -> Verdict {
    let yes_or_no = |holds| if holds { Verdict::Yes } else { Verdict::No };
    match values {
        ParamValues::Each(values) => {
            yes_or_no(values.iter().any(|value| meets_all(conditions, value)))
        }
        ParamValues::Steps(first, last, step) => {
            yes_or_no(of_steps(conditions, (*first, *last, *step)))
        }
        ParamValues::Range(least, most) => {
            let may = conditions.iter().all(|condition| condition.may_hold_within(*least, *most));
            match conditions {
                _ if !may => Verdict::No,
                [only] if only.is_bound() => Verdict::Yes,
                _ => Verdict::ReadTrials,
            }
        }
        ParamValues::Many => Verdict::ReadTrials,
    }
}

fn of_steps(conditions: &[&ValueCondition], (first, last, step): (i64, i64, i64)) -> bool {
    let mut numbers = std::iter::successors(Some(first), |number| {
        number.checked_add(step).filter(|next| *next <= last && step > 0)
    });
    numbers.any(|number| meets_all(conditions, &Value::from(number)))
}

fn meets_all(conditions: &[&ValueCondition], value: &Value) -> bool {
    conditions.iter().all(|condition| condition.is_met_by(value))
}

/// Which conditions are met, after some trials of some tasks.
#[derive(Debug)]
pub(super) struct TrialSearch<'a> {
    conditions: &'a [&'a ValueCondition],
    is_met: Vec<bool>,
}

impl<'a> TrialSearch<'a> {
    pub(super) fn new(conditions: &'a [&'a ValueCondition]) -> Self {
        Self { conditions, is_met: vec![false; conditions.len()] }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_met.iter().all(|is_met| *is_met)
    }

    /// Looks at one trial.
    pub(super) fn add(&mut self, params: &Params) {
        let flat = flatten(params);
        let value =
            |condition: &ValueCondition| flat.iter().find(|(name, _)| *name == condition.key);
        let meets: Vec<Option<bool>> = self
            .conditions
            .iter()
            .map(|condition| value(condition).map(|(_, value)| condition.is_met_by(value)))
            .collect();
        if !meets.contains(&Some(false)) {
            for (is_met, meets) in self.is_met.iter_mut().zip(&meets) {
                *is_met |= *meets == Some(true);
            }
        }
    }
}

fn all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut whole = Verdict::Yes;
    for verdict in verdicts {
        match verdict {
            Verdict::No => return Verdict::No,
            Verdict::ReadTrials => whole = Verdict::ReadTrials,
            Verdict::Yes => {}
        }
    }
    whole
}

fn any(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut whole = Verdict::No;
    for verdict in verdicts {
        match verdict {
            Verdict::Yes => return Verdict::Yes,
            Verdict::ReadTrials => whole = Verdict::ReadTrials,
            Verdict::No => {}
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(tasks: &Value) -> Facts {
        serde_json::from_value(json!({ "tasks": tasks })).unwrap()
    }

    #[track_caller]
    fn check(facts: &Facts, wheres: &[&str], expected: Verdict) {
        let conditions: Vec<ValueCondition> =
            wheres.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(verdict(&conditions.iter().collect::<Vec<_>>(), facts), expected, "{wheres:?}");
    }

    #[test]
    fn what_is_kept_of_a_task_tells_most() {
        use Verdict::{No, ReadTrials, Yes};
        let train = json!({ "name": "train", "is_grid": true, "params": {
            "lr": { "each": [0.001, 1.0] }, "n": { "steps": [0, 900, 3] }, "x": { "range": [0.5, 1.5] }, "w": "many",
        }});
        let prepare = json!({ "name": "prepare", "is_grid": true, "params": { "data": { "each": ["wiki"] } } });
        let both = facts(&json!([prepare, train]));
        check(&both, &[], Yes);
        check(&both, &["lr=1"], Yes);
        check(&both, &["lr>0.01", "lr<0.1"], No); // no value is both
        check(&both, &["n=600"], Yes);
        check(&both, &["n=601"], No);
        check(&both, &["n>600", "n<603"], No);
        check(&both, &["x<0.6"], Yes);
        check(&both, &["x<0.5"], No);
        check(&both, &["x=0.7"], ReadTrials);
        check(&both, &["x>0.6", "x<0.7"], ReadTrials);
        check(&both, &["w=a"], ReadTrials);
        check(&both, &["w=a", "lr=2"], No);
        check(&both, &["lr=1", "data=wiki"], Yes); // of two tasks
        check(&both, &["lr=1", "data=none"], No);
        check(&both, &["unknown=1"], No);
        let list = json!({ "name": "t", "is_grid": false, "params": {
            "a": { "each": [1, 2] }, "b": { "each": [1, 2] },
        }});
        check(&facts(&json!([list])), &["a=1"], Yes);
        check(&facts(&json!([list])), &["a=1", "b=2"], ReadTrials);
        check(&facts(&json!([list])), &["a=1", "b=3"], No);
        let unread = json!({ "name": "t", "is_grid": false, "params": null });
        check(&facts(&json!([unread])), &["a=1"], ReadTrials);
    }

    #[test]
    fn one_trial_meets_all_conditions_about_its_task() {
        let check = |wheres: &[&str], expected| {
            let conditions: Vec<ValueCondition> =
                wheres.iter().map(|text| text.parse().unwrap()).collect();
            let conditions: Vec<&ValueCondition> = conditions.iter().collect();
            let mut search = TrialSearch::new(&conditions);
            for params in
                [json!({ "a": 1, "b": 1 }), json!({ "a": 2, "b": 2 }), json!({ "c": { "d": 7 } })]
            {
                search.add(params.as_object().unwrap());
            }
            assert_eq!(search.is_done(), expected, "{wheres:?}");
        };
        check(&["a=1", "b=1"], true);
        check(&["a=1", "b=2"], false);
        check(&["a=1", "c.d=7"], true);
        check(&["a=1", "e=7"], false);
        check(&["a>1", "a<2"], false);
    }
}
