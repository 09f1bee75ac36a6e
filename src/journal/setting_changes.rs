//! What a retry changed of its trials, beside what held for them before.

use std::collections::BTreeMap;

use nemo_core::rundir::RestartFrom;

use super::{Event, RetriedTrials, last_retries};
use crate::experiment::ChangedKeys;
use crate::slurm::indices::IndexSet;

/// What changed for some trials of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange<'a> {
    /// The task.
    pub task: &'a str,
    /// Which trials.
    pub trials: IndexSet,
    /// The keys that got another value with this retry.
    pub changed: ChangedKeys,
    /// All changed keys that the trials run with, those of earlier retries included.
    pub set: ChangedKeys,
    /// Where they begin, if that is not their newest checkpoint.
    pub restart_from: Option<RestartFrom>,
    /// The rule of the file by which they are retried.
    pub rule: Option<&'a str>,
    /// The class of the failure by which `--advise` changed them.
    pub advice: Option<&'a str>,
}

/// What the retry of the `at`-th event changed. Trials that run as before are left out.
#[must_use]
pub fn setting_changes(journal: &[Event], at: usize) -> Vec<SettingChange<'_>> {
    let Some(Event::Planned { retry: Some(retry), .. }) = journal.get(at) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    for (task, groups) in &retry.trials {
        let earlier = last_retries(&journal[..at], task);
        for group in groups {
            // Trials that run alike now may have run in different ways before.
            let mut by_keys: BTreeMap<ChangedKeys, Vec<u32>> = BTreeMap::new();
            for trial in group.trials.iter() {
                let before = earlier.get(&trial).and_then(|retry| retry.changed);
                let before = before.map(|changed| &changed.set);
                by_keys.entry(other_keys(group, before)).or_default().push(trial);
            }
            let all = by_keys.into_iter().map(|(keys, trials)| change(task, group, keys, trials));
            changes.extend(all.filter(is_change));
        }
    }
    merged(changes)
}

/// The keys that have other values than before.
fn other_keys(group: &RetriedTrials, before: Option<&ChangedKeys>) -> ChangedKeys {
    let set = group.changed.iter().flat_map(|changed| &changed.set);
    let is_new = |(key, value): &(&String, &String)| {
        before.and_then(|before| before.get(*key)) != Some(*value)
    };
    set.filter(is_new).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn change<'a>(
    task: &'a str,
    group: &'a RetriedTrials,
    changed: ChangedKeys,
    trials: Vec<u32>,
) -> SettingChange<'a> {
    let now = group.changed.as_ref();
    SettingChange {
        task,
        trials: trials.into_iter().collect(),
        changed,
        set: now.map(|now| now.set.clone()).unwrap_or_default(),
        restart_from: now.and_then(|now| now.restart_from),
        rule: group.rule.as_deref(),
        advice: group.advice.as_deref(),
    }
}

fn is_change(change: &SettingChange<'_>) -> bool {
    !change.changed.is_empty() || change.restart_from.is_some()
}

/// Trials that had different numbers of attempts are no different here.
fn merged(changes: Vec<SettingChange<'_>>) -> Vec<SettingChange<'_>> {
    let mut merged: Vec<SettingChange<'_>> = Vec::new();
    for change in changes {
        let is_same = |other: &&mut SettingChange<'_>| {
            SettingChange { trials: change.trials.clone(), ..(**other).clone() } == change
        };
        match merged.iter_mut().find(is_same) {
            Some(same) => {
                same.trials = same.trials.iter().chain(change.trials.iter()).collect();
            }
            None => merged.push(change),
        }
    }
    merged
}
