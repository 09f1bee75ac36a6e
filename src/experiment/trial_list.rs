//! Trials that are written one by one.

use std::collections::BTreeMap;

use nemo_core::rundir::Params;
use serde_json::Value as Json;

use super::MOST_TRIALS;
use super::grid::insert;
use super::parameters::{self, Domain, Parameters};
use super::problem_report::{KeyPosition, ProblemReport, listed};
use super::reader::{Field, Section};
use super::toml_tree::{TomlValue, dotted};

/// The trials of a list, and the dotted names that all of them have.
pub(super) struct TrialList {
    pub(super) names: Vec<(String, KeyPosition)>,
    /// Nothing where there are mistakes.
    pub(super) trials: Option<Vec<Params>>,
}

/// A trial, its nested names dotted.
type TrialEntry = BTreeMap<String, (Json, KeyPosition)>;

/// The trials as written, each with the constants that all share.
pub(super) fn read(
    rows: &[Field<'_>],
    common: &Parameters,
    place: &KeyPosition,
    report: &mut ProblemReport,
) -> TrialList {
    let before = report.len();
    let shared = shared(common, report);
    if rows.is_empty() {
        report.problem(place, "an empty list leaves nothing to try");
    }
    if rows.len() > MOST_TRIALS as usize {
        let message = format!("the list has {} trials; the maximum is {MOST_TRIALS}", rows.len());
        report.problem(place, message).hint("write several files");
    }
    let mut trials: Vec<TrialEntry> = Vec::new();
    for row in rows {
        let mut trial = shared.clone();
        if let Some(section) = row.section(report) {
            flatten(&section, "", &mut trial, report);
        }
        // One trial that differs is enough said.
        if report.len() == before {
            check_tables(&trial, report);
            same_names(trials.first().unwrap_or(&trial), &trial, row, report);
        }
        trials.push(trial);
    }
    let names = trials.first().map(|first| {
        first.iter().map(|(name, (_, place))| (name.clone(), place.clone())).collect()
    });
    let fits = report.len() == before;
    TrialList {
        names: names.unwrap_or_else(|| common.names.clone()),
        trials: fits.then(|| trials.iter().map(nest).collect()),
    }
}

fn shared(common: &Parameters, report: &mut ProblemReport) -> TrialEntry {
    let mut shared = TrialEntry::new();
    for parameter in &common.parameters {
        if let Domain::Const(value) = &parameter.domain {
            shared.insert(parameter.name.clone(), (value.clone(), parameter.place.clone()));
        } else {
            let message =
                format!("`{}` has several values, and the trials are a list", parameter.name);
            report
                .problem(&parameter.place, message)
                .hint("beside a list, `params` holds the constants that all trials share");
        }
    }
    shared
}

fn flatten(section: &Section<'_>, prefix: &str, row: &mut TrialEntry, report: &mut ProblemReport) {
    for field in section.fields() {
        if parameters::check_name(&field, prefix, report).is_none() {
            continue;
        }
        let name = dotted(prefix, field.name);
        if let TomlValue::Table(table) = field.value {
            flatten(&Section::root(table, field.key_place.clone()), &name, row, report);
        } else if let Some(value) = parameters::constant(&field, report) {
            row.insert(name, (value, field.key_place.clone()));
        }
    }
}

/// A name can't be a value in one place and a table in another.
fn check_tables(trial: &TrialEntry, report: &mut ProblemReport) {
    for (name, (_, place)) in trial {
        for (at, _) in name.match_indices('.') {
            let table = &name[..at];
            if trial.contains_key(table) {
                let message = format!("`{table}` can't be both a value and a table with `{name}`");
                report.problem(place, message);
            }
        }
    }
}

fn same_names(
    first: &TrialEntry,
    trial: &TrialEntry,
    field: &Field<'_>,
    report: &mut ProblemReport,
) {
    if first.keys().eq(trial.keys()) {
        return;
    }
    let (own, others) = (names(trial), names(first));
    let message =
        format!("all trials must have the same parameters: this one has {own}, the first {others}");
    report
        .problem(&field.place, message)
        .hint("move shared values into the task's `params`, or give them to every trial");
}

fn names(row: &TrialEntry) -> String {
    listed(row.keys().map(String::as_str))
}

fn nest(row: &TrialEntry) -> Params {
    let mut paths: Vec<(Vec<&str>, &Json)> =
        row.iter().map(|(name, (value, _))| (name.split('.').collect(), value)).collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    let mut params = Params::new();
    for (path, value) in paths {
        insert(&mut params, &path, value.clone());
    }
    params
}
