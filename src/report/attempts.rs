//! Every attempt of every trial, with what happened: beside it where there is room, else below it.

use nemo_core::rundir::Cause;

use super::fit::{hang, length};
use super::grid::{ColumnFit, Grid, TextCell};
use super::table::cause;
use super::{INDENT, Page};
use crate::humanize::duration;
use crate::status::{AttemptStatus, ExcludedNode, Status};

/// A story is sentences beside its attempt only if it can have lines as long as this.
const LEAST_STORY: usize = 48;
/// How far in a story stands below its attempt.
const BELOW: usize = 4;

const COLUMNS: [(&str, ColumnFit); 9] = [
    ("trial", ColumnFit::Whole),
    ("attempt", ColumnFit::Whole),
    ("cause", ColumnFit::Whole),
    ("ran", ColumnFit::Spare(2)),
    ("node", ColumnFit::Spare(3)),
    ("from", ColumnFit::Spare(1)),
    ("saved", ColumnFit::Spare(4)),
    ("job", ColumnFit::Spare(0)),
    ("what happened", ColumnFit::Words),
];

/// A row for each attempt.
#[must_use]
pub fn attempts_table(status: &Status, page: &Page) -> String {
    let mut rows: Vec<(String, &AttemptStatus)> = Vec::new();
    for task in &status.tasks {
        for trial in &task.trials {
            let name = format!("{}/{}", task.name, trial.index);
            rows.extend(trial.attempts.iter().map(|attempt| (name.clone(), attempt)));
        }
    }
    let facts = grid(&rows, &COLUMNS[..COLUMNS.len() - 1]);
    let whole = grid(&rows, &COLUMNS);
    let beside = page
        .width
        .is_none_or(|width| whole.natural() <= width || facts.natural() + LEAST_STORY + 2 <= width);
    if beside {
        return whole.lines(page).join("\n");
    }
    let mut lines = facts.lines(page).into_iter();
    let mut all: Vec<String> = lines.next().into_iter().collect();
    for (line, (_, attempt)) in lines.zip(&rows) {
        all.push(line);
        all.extend(below(attempt, page));
    }
    all.join("\n")
}

fn grid(rows: &[(String, &AttemptStatus)], columns: &[(&str, ColumnFit)]) -> Grid {
    let mut grid = Grid::new(columns);
    for (trial, attempt) in rows {
        grid.row(row(trial, attempt).into_iter().take(columns.len()));
    }
    grid.without_empty()
}

fn row(trial: &str, attempt: &AttemptStatus) -> [TextCell; 9] {
    let ran = match (attempt.start, attempt.end) {
        (Some(start), Some(end)) => duration(end - start),
        _ => String::new(),
    };
    [
        TextCell::from(trial),
        TextCell::from(number(attempt.number.map(u64::from))),
        TextCell::from(how_it_ended(attempt)),
        TextCell::from(ran),
        TextCell::from(attempt.node.as_deref().unwrap_or("")),
        TextCell::from(number(attempt.resume_step)),
        TextCell::from(number(saved(attempt))),
        TextCell::from(attempt.slurm_job.as_deref().unwrap_or("")),
        TextCell::from(story(attempt).join("; ")),
    ]
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// The newest checkpoint, if it is not the one from which the attempt went on.
fn saved(attempt: &AttemptStatus) -> Option<u64> {
    attempt.checkpoint_step.filter(|step| Some(*step) != attempt.resume_step)
}

/// What happened, one sentence each.
fn story(attempt: &AttemptStatus) -> Vec<String> {
    let matched = attempt
        .labels
        .iter()
        .map(|label| format!("log policy `{}` matched: {}", label.name, label.line));
    let excluded = attempt.excluded_nodes.iter().map(excluded);
    attempt.reason.iter().cloned().chain(matched).chain(excluded).collect()
}

fn excluded(excluded: &ExcludedNode) -> String {
    let ExcludedNode { node, reason, left } = excluded;
    if *left {
        format!("left node {node} without starting anything: {reason}")
    } else {
        format!("node {node} is not used again: {reason}")
    }
}

/// The story as lines of their own. That a program which is done exited needs none.
fn below(attempt: &AttemptStatus, page: &Page) -> Vec<String> {
    let blanks = " ".repeat(BELOW);
    let width = page.width.map(|width| width.saturating_sub(BELOW));
    let mut sentences = story(attempt);
    if attempt.cause == Some(Cause::Completed) && attempt.reason.is_some() {
        sentences.remove(0);
    }
    let lines = sentences.iter().map(|sentence| hang(sentence, width, INDENT));
    lines.flat_map(|text| indented(&text, &blanks)).collect()
}

fn indented(text: &str, blanks: &str) -> Vec<String> {
    text.lines().filter(|line| length(line) > 0).map(|line| format!("{blanks}{line}")).collect()
}

fn how_it_ended(attempt: &AttemptStatus) -> &'static str {
    match (attempt.cause, &attempt.reason) {
        (Some(known), _) => cause(known),
        (None, Some(_)) => "unknown",
        (None, None) => "running",
    }
}
