//! Whether a program can be given its parameters: as variables, as words, and the one that is its seed.

use std::collections::BTreeMap;

use nemo_core::placeholder::{TemplatePart, scan};
use nemo_core::rundir::{CommandSpec, Params};
use serde_json::Value as Json;

use super::problem_report::{KeyPosition, ProblemReport};
use super::tasks::{CommandDraft, TaskDraft};

/// The longest string that Linux hands to a program as an argument or a variable, less the byte that ends it.
pub(super) const MAX_STRING_BYTES: usize = 128 * 1024 - 1;
/// How much of what Linux hands over at all (2 MiB, the inherited environment included) parameters may take.
const MOST: usize = 1024 * 1024;
/// A shorter file has no value that is too long.
const SHORT: usize = 20_000;

/// Checks the parameters of all tasks. `length` is that of all texts that they were read from.
pub(super) fn check(drafts: &[TaskDraft], length: usize, report: &mut ProblemReport) {
    for draft in drafts {
        check_variables(draft, report);
        let Some(trials) = &draft.search.trials else { continue };
        check_seed(draft, trials, report);
        if length > SHORT {
            check_lengths(draft, trials, report);
        }
    }
}

/// The variable that holds a parameter.
fn variable(name: &str) -> String {
    nemo_core::environment::parameter_variable(name)
}

/// The first part of each parameter's name, once: what becomes a variable.
fn tops(draft: &TaskDraft) -> Vec<(&str, &KeyPosition)> {
    let mut tops: Vec<(&str, &KeyPosition)> = Vec::new();
    for (name, place) in &draft.search.names {
        let top = name.split('.').next().unwrap_or(name);
        if tops.last().is_none_or(|(last, _)| *last != top) {
            tops.push((top, place)); // they are sorted
        }
    }
    tops
}

/// Two parameters must not become one variable: a program would be given one of them as both.
fn check_variables(draft: &TaskDraft, report: &mut ProblemReport) {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (name, place) in tops(draft) {
        let variable = variable(name);
        match taken.get(&variable) {
            Some(other) if *other != name => {
                let message = format!("`{name}` and `{other}` would both be `{variable}`");
                report.problem(place, message).hint("rename one of the two parameters");
            }
            Some(_) => {}
            None => drop(taken.insert(variable, name)),
        }
    }
}

/// A parameter called `seed` is the trial's seed.
fn check_seed(draft: &TaskDraft, trials: &[Params], report: &mut ProblemReport) {
    let mut seeds = trials.iter().filter_map(|params| params.get("seed"));
    let Some(wrong) = seeds.find(|seed| !seed.is_u64()) else { return };
    let place = place_of(draft, "seed");
    let message =
        format!("`seed` is the trial's seed, a whole number from 0 on, but a trial has {wrong}");
    report.problem(place, message).hint("write whole numbers, or give the parameter another name");
}

/// Where a parameter stands.
fn place_of<'a>(draft: &'a TaskDraft, name: &str) -> &'a KeyPosition {
    tops(draft).into_iter().find(|(top, _)| *top == name).map_or(&draft.place, |(_, place)| place)
}

fn check_lengths(draft: &TaskDraft, trials: &[Params], report: &mut ProblemReport) {
    for params in trials {
        let mut all = 0;
        for (name, value) in params {
            let length = plain_length(value);
            all += length;
            if variable(name).len() + 1 + length > MAX_STRING_BYTES {
                too_long(
                    place_of(draft, name),
                    &format!("a value of `{name}` has {length}"),
                    report,
                );
                return;
            }
        }
        if all > MOST {
            too_long(&draft.place, &format!("the parameters of a trial have {all}"), report);
            return;
        }
        if let Some(run) = &draft.run
            && !check_words(run, params, report)
        {
            return;
        }
    }
}

/// Each word of the command, its placeholders filled.
fn check_words(run: &CommandDraft, params: &Params, report: &mut ProblemReport) -> bool {
    for (text, place) in &run.parts {
        let length = |piece: TemplatePart<'_>| match (piece, &run.command) {
            (TemplatePart::Text(text), _) => text.len(),
            (TemplatePart::Name(_), CommandSpec::Shell(_)) => "\"${NEMO_ARG_1000}\"".len(),
            (TemplatePart::Name(name), CommandSpec::Exec(_)) => {
                params.get(name).map_or(0, plain_length)
            }
        };
        let length: usize = scan(text).into_iter().map(length).sum();
        if length > MAX_STRING_BYTES {
            too_long(place, &format!("this would have {length}"), report);
            return false;
        }
    }
    true
}

/// Says of something that no program can be given it.
pub(super) fn too_long(place: &KeyPosition, what: &str, report: &mut ProblemReport) {
    let message = format!("{what} bytes, more than Linux passes to a program");
    report.problem(place, message).hint("put it into a file, and give the program the file's name");
}

/// The length of a value as a program gets it.
fn plain_length(value: &Json) -> usize {
    value.as_str().map_or_else(|| value.to_string().len(), str::len)
}
