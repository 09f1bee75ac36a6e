//! Completes targets on the command line, while it is typed: experiments, tasks and trials.
#![expect(
    clippy::disallowed_methods,
    reason = "an edge: a completion has no parsed command line, only the environment"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap_complete::engine::CompletionCandidate;

use crate::journal;
use crate::store::{ExperimentId, Home, Stored, resolve};
use crate::summary::{self, Index};

/// More is of no use to anybody who looks for one.
const MOST: usize = 100;

/// What `EXPERIMENT[/TASK[/TRIALS]]` may become. Nothing is written, and Slurm is not asked.
#[must_use]
pub(super) fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(typed), Some(home)) = (current.to_str(), home()) else { return Vec::new() };
    let found = candidates(&home, typed);
    (0..)
        .zip(found)
        .map(|(place, text)| CompletionCandidate::new(text).display_order(Some(place)))
        .collect()
}

/// The same for an argument that is an experiment.
#[must_use]
pub(super) fn experiments(current: &OsStr) -> Vec<CompletionCandidate> {
    if current.to_str().is_none_or(|typed| typed.contains('/')) {
        Vec::new()
    } else {
        targets(current)
    }
}

/// The same for experiments that are archived.
#[must_use]
pub(super) fn archived(current: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(typed), Some(home)) = (current.to_str(), home()) else { return Vec::new() };
    let ids = home.ids().unwrap_or_default();
    let index = Index::read(&home);
    let known = summary::known(&home, &ids, &index);
    let archived = ids.iter().zip(&known).filter(|(_, known)| known.is_archived());
    let archived = archived.map(|(id, _)| id.as_str()).filter(|id| id.starts_with(typed));
    // A name could mean a newer one, which is not archived.
    let newest = archived.filter(|id| is_plain(id)).rev().take(MOST);
    let candidate = |(place, id)| CompletionCandidate::new(id).display_order(Some(place));
    (0..).zip(newest.map(str::to_owned)).map(candidate).collect()
}

/// As the program itself finds it.
fn home() -> Option<Home> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let value =
        |(place, word): (usize, &std::ffi::OsString)| match word.to_str()?.strip_prefix("--home") {
            Some("") => arguments.get(place + 1).map(PathBuf::from),
            Some(rest) => rest.strip_prefix('=').map(PathBuf::from),
            None => None,
        };
    let typed = arguments.iter().enumerate().find_map(value);
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let default = || variable("HOME").map(|home| home.join(".nemo_slurm"));
    let path = typed.or_else(|| variable("NEMO_SLURM_HOME")).or_else(default)?;
    Some(Home::new(std::path::absolute(path).ok()?))
}

fn candidates(home: &Home, typed: &str) -> Vec<String> {
    match typed.rsplit_once('/') {
        None => home.ids().map_or_else(|_| Vec::new(), |ids| of_ids(&ids, typed)),
        Some((target, rest)) => within(home, target, rest).unwrap_or_default(),
    }
}

/// `@`, names, and the newest ids, of those that begin so.
fn of_ids(ids: &[ExperimentId], typed: &str) -> Vec<String> {
    let newest = || ids.iter().rev().filter(|id| is_plain(id.as_str()));
    let mut seen = BTreeSet::new();
    let named = newest().map(ExperimentId::name).filter(|name| name.starts_with(typed));
    let named: Vec<&str> = named.filter(|name| seen.insert(*name)).take(MOST).collect();
    let full = newest().map(ExperimentId::as_str).filter(|id| id.starts_with(typed)).take(MOST);
    let any = (typed.is_empty() && !ids.is_empty()).then_some("@");
    any.into_iter().chain(named).chain(full).map(str::to_owned).collect()
}

/// Tasks below an experiment, or trials below a task.
fn within(home: &Home, target: &str, typed: &str) -> Option<Vec<String>> {
    let target_scope = resolve(home, target).ok()?;
    let Stored { experiment, journal, .. } = home.load(&target_scope.id).ok()?;
    let Some(task) = &target_scope.scope.task else {
        let tasks = experiment.tasks.iter().map(|task| task.name.as_str());
        let tasks = tasks.filter(|name| name.starts_with(typed) && is_plain(name));
        return Some(tasks.map(|name| format!("{target}/{name}")).collect());
    };
    let task = experiment.tasks.iter().find(|known| known.name == *task)?;
    let trials = journal::trials(&journal, task);
    // Behind a comma, or a dash, is one more number.
    let (before, number) = typed.rfind([',', '-']).map_or(("", typed), |at| typed.split_at(at + 1));
    let numbers = trials.iter().map(|trial| trial.to_string());
    let numbers = numbers.filter(|text| text.starts_with(number));
    Some(numbers.take(MOST).map(|text| format!("{target}/{before}{text}")).collect())
}

/// A folder's name may be anything; a shell would obey some of it.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_ids_and_the_newest_first() {
        let ids: Vec<ExperimentId> =
            ["digits-00000100", "prep-00000200", "digits-00000300", "a;b-00000400"]
                .map(|id| id.parse().unwrap())
                .to_vec();
        let all = ["@", "digits", "prep", "digits-00000300", "prep-00000200", "digits-00000100"];
        assert_eq!(of_ids(&ids, ""), all);
        assert_eq!(of_ids(&ids, "digits-"), ["digits-00000300", "digits-00000100"]);
        assert_eq!(of_ids(&ids, "p"), ["prep", "prep-00000200"]);
        assert!(of_ids(&ids, "x").is_empty());
        assert!(of_ids(&[], "").is_empty());
    }
}
