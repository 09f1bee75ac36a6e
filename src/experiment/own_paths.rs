//! `checkpoint.from` and `checkpoint.restore_to`: whether the paths can be meant, and whether each trial has its own.

use std::collections::BTreeSet;
use std::path::Path;

use nemo_core::own_paths::{self, OwnPath};
use nemo_core::placeholder::{BuiltIn, TemplatePart, names, scan};
use nemo_core::rundir::Params;

use super::problem_report::{KeyPosition, ProblemReport};
use super::tasks::TaskDraft;

/// How many paths are compared with each other.
const MOST: usize = 240;

/// Checks the paths of all tasks.
pub(super) fn check(drafts: &[TaskDraft], is_shipped: bool, report: &mut ProblemReport) {
    let before = report.len();
    for draft in drafts {
        for (text, place) in &draft.checkpoint.from {
            if let Err(why) = own_paths::check(text) {
                report
                    .problem(place, format!("{text:?} is no pattern of paths: {why}"))
                    .hint("write for example \"out/ckpt*.pt\" or \"runs/**/last.ckpt\"");
            }
        }
        if let Some((text, place)) = &draft.checkpoint.restore_to {
            let from = draft.checkpoint.from.iter().map(|(text, _)| text.as_str());
            if let Err((why, hint)) = own_paths::check_target(text, from) {
                report.problem(place, format!("{text:?} can't be restored to: {why}")).hint(hint);
            }
        }
        for (text, place) in draft.checkpoint.from.iter().chain(&draft.checkpoint.restore_to) {
            if let Some(word) = own_paths::left_to_a_shell(text) {
                report
                    .problem(place, format!("no shell replaces `{word}` in {text:?}"))
                    .hint("write the path from its top, or with a placeholder such as `{dir}`");
            }
            check_names(draft, text, place, report);
            // Each trial of shipped code has a working folder of its own.
            if !is_shipped || text.starts_with('/') {
                check_shared(draft, text, place, report);
            }
        }
    }
    if report.len() == before {
        check_overlaps(filled(drafts, is_shipped), report);
    }
}

/// A path of one trial.
struct TrialPath<'a> {
    task: &'a str,
    trial: usize,
    text: &'a str,
    place: &'a KeyPosition,
    path: OwnPath,
    sample: String,
}

/// The paths of trials that share a folder with others. Of sweeps with very many trials, some stand for all.
fn filled(drafts: &[TaskDraft], is_shipped: bool) -> Vec<TrialPath<'_>> {
    let is_shared = |text: &str| !is_shipped || text.starts_with('/');
    let mut all = Vec::new();
    let n_texts = drafts.iter().map(|draft| draft.checkpoint.from.len() + 1).sum::<usize>();
    for draft in drafts {
        let one = [Params::default()];
        let trials = draft.search.trials.as_deref().unwrap_or(&one);
        let saves = draft.checkpoint.from.iter().map(|(text, place)| (text, place, false));
        // A folder may hold the checkpoints of several.
        let target = draft.checkpoint.restore_to.iter().filter(|(text, _)| !text.ends_with('/'));
        let texts = saves.chain(target.map(|(text, place)| (text, place, true)));
        for (text, place, is_literal) in texts.filter(|(text, ..)| is_shared(text)) {
            for trial in chosen(trials.len(), MOST / n_texts.max(1)) {
                let filled = fill(draft, text, trial, &trials[trial], is_literal);
                let Ok(path) = OwnPath::new(Path::new("/{workdir}"), &filled) else { continue };
                let sample = path.sample();
                all.push(TrialPath { task: &draft.name, trial, text, place, path, sample });
            }
        }
    }
    all
}

/// The first trials, and some of all others.
fn chosen(n_trials: usize, most: usize) -> impl Iterator<Item = usize> {
    let first = n_trials.min(most.div_ceil(2).max(2));
    let step = (n_trials - first).div_ceil(most.div_ceil(2).max(1)).max(1);
    (0..first).chain((first..n_trials).step_by(step))
}

/// A path of one trial, as a pattern.
fn fill(draft: &TaskDraft, text: &str, trial: usize, params: &Params, is_literal: bool) -> String {
    let mut filled = String::new();
    for part in scan(text) {
        match part {
            TemplatePart::Text(text) if is_literal => filled.push_str(&own_paths::literal(text)),
            TemplatePart::Text(text) => filled.push_str(text),
            TemplatePart::Name(name) => {
                let is_parameter = draft.search.names.iter().any(|(own, _)| own == name);
                let known = BuiltIn::of(name).filter(|_| !is_parameter);
                let value = match known {
                    Some(BuiltIn::Dir) => format!("/{{dir}}/{}/{trial}", draft.name),
                    Some(BuiltIn::Trial) => trial.to_string(),
                    // As long as each other, so that none begins with another one.
                    Some(BuiltIn::Seed) => format!("{{seed}}{trial:019}"),
                    Some(BuiltIn::Task) => draft.name.clone(),
                    Some(BuiltIn::Experiment | BuiltIn::CheckpointDir | BuiltIn::ResumeFrom) => {
                        format!("{{{name}}}")
                    }
                    None => plain(&value(params, name)),
                };
                filled.push_str(&own_paths::literal(&value));
            }
        }
    }
    filled
}

/// A parameter as it stands in a path: a text without its quotes.
fn plain(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

/// A pattern that means what another trial, or another task, saves would take it for its own.
fn check_overlaps(mut all: Vec<TrialPath<'_>>, report: &mut ProblemReport) {
    all.sort_by(|a, b| a.sample.cmp(&b.sample));
    let mut told = BTreeSet::new();
    for own in &all {
        let beginning = own.path.beginning();
        let first = all.partition_point(|other| other.sample.as_str() < beginning);
        let alike = all[first..].iter().take_while(|other| other.sample.starts_with(beginning));
        let is_other = |other: &&TrialPath<'_>| (other.task, other.trial) != (own.task, own.trial);
        let mut others = alike.filter(is_other);
        let Some(other) = others.find(|other| own.path.means(Path::new(&other.sample))) else {
            continue;
        };
        let pair = (own.task.min(other.task), own.task.max(other.task));
        if !told.insert(pair) {
            continue;
        }
        if own.task == other.task {
            let message = format!(
                "{:?} of trial {} would take what trial {} saves for its own",
                own.text, own.trial, other.trial
            );
            report.problem(own.place, message).hint(
                "let no wildcard follow what tells the trials apart, for example \"out/{trial}/ckpt*.pt\" or \"{dir}/ckpt*.pt\"",
            );
        } else {
            let message = format!(
                "{:?} of task `{}` would take what task `{}` saves ({:?}) for its own",
                own.text, own.task, other.task, other.text
            );
            report.problem(own.place, message).hint(
                "give each task a folder of its own, for example \"out/{task}/ckpt*.pt\" or \"{dir}/ckpt*.pt\"",
            );
        }
    }
}

/// A path can hold what does not change from attempt to attempt.
fn check_names(draft: &TaskDraft, text: &str, place: &KeyPosition, report: &mut ProblemReport) {
    for name in names(text) {
        let is_parameter = draft.search.names.iter().any(|(own, _)| own == name);
        let is_lasting = match BuiltIn::of(name) {
            Some(BuiltIn::CheckpointDir | BuiltIn::ResumeFrom) | None => false,
            Some(
                BuiltIn::Dir | BuiltIn::Trial | BuiltIn::Seed | BuiltIn::Task | BuiltIn::Experiment,
            ) => true,
        };
        if !is_parameter && !is_lasting {
            report.problem(place, format!("`{{{name}}}` can't be a part of this path")).hint(
                "it can hold parameters, `{dir}`, `{trial}`, `{seed}`, `{task}` and `{experiment}`; a relative path \
                 begins at the program's working folder",
            );
        }
    }
}

/// Two trials that save to one path would overwrite each other's checkpoints.
fn check_shared(draft: &TaskDraft, text: &str, place: &KeyPosition, report: &mut ProblemReport) {
    let Some(trials) = draft.search.trials.as_ref().filter(|trials| trials.len() > 1) else {
        return;
    };
    let named: Vec<&str> = names(text).collect();
    let is_own = |name: &&str| match BuiltIn::of(name) {
        Some(BuiltIn::Dir | BuiltIn::Trial) => true,
        Some(BuiltIn::Seed) => !draft.search.names.iter().any(|(own, _)| own == "seed"),
        Some(_) | None => false,
    };
    if named.iter().any(is_own) {
        return;
    }
    let values =
        |params: &Params| -> Vec<String> { named.iter().map(|name| value(params, name)).collect() };
    let different: BTreeSet<Vec<String>> = trials.iter().map(values).collect();
    if different.len() < trials.len() {
        let message = format!(
            "the {} trials of `{}` would share {text:?}: each would overwrite what another one saves",
            trials.len(),
            draft.name
        );
        report.problem(place, message).hint(
            "run the program in the trial's own folder (`run = \"cd {dir} && …\"`), and write \"{dir}/…\" here; or ship the code, \
             `[package] from = \"folder\"`: each trial has a working folder of its own then",
        );
    }
}

/// The value of a parameter, as text.
fn value(params: &Params, name: &str) -> String {
    let mut parts = name.split('.');
    let first = params.get(name).or_else(|| params.get(parts.next()?));
    let found = if params.contains_key(name) {
        first
    } else {
        first.and_then(|first| parts.try_fold(first, |value, part| value.get(part)))
    };
    found.map(ToString::to_string).unwrap_or_default()
}
