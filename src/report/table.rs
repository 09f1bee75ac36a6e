//! Tables that fit the terminal, and read the same without colour.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use nemo_core::rundir::Cause;

use super::Page;
use super::escape::escape_line;
use super::grid::{ColumnFit, Grid, TextCell};
use crate::experiment::OutsideDependency;
use crate::humanize::{metric, short_age};
use crate::plan::{JobArray, Plan, Relation};
use crate::status::State;
use crate::summary::{BestTrial, ExperimentBrief};

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let header = header.iter().map(|title| Cell::new(title.to_uppercase()));
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if nobody_wants_colour() {
        table.force_no_tty();
    }
    table
}

/// Rows of words below their titles.
#[must_use]
pub fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = table(header);
    for row in rows {
        table.add_row(row.iter().map(cell));
    }
    text(&table)
}

/// A cell of foreign text.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(escape_line(text.as_ref()))
}

/// A table as text, without blanks at the ends of lines.
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// [`comfy_table`] looks for a terminal; `NO_COLOR` is ours to heed.
#[expect(clippy::disallowed_methods, reason = "an edge: the terminal's habits are read here")]
pub(super) fn nobody_wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A state in its colour.
pub(super) fn coloured(state: State) -> TextCell {
    let colour = match state {
        State::Completed => Some(Color::Green),
        State::Failed | State::Timeout => Some(Color::Red),
        State::Running => Some(Color::Cyan),
        State::Preempted | State::Paused | State::Unknown => Some(Color::Yellow),
        State::Pending | State::Cancelled | State::Blocked => None,
    };
    TextCell { text: state.as_str().to_owned(), colour }
}

/// Why an attempt ended, as people say it.
pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Completed => "completed",
        Cause::Failed => "failed",
        Cause::Preempted => "preempted",
        Cause::TimeLimit => "time limit",
        Cause::NodeFailure => "node failure",
        Cause::StartFailed => "not started",
        Cause::Cancelled => "cancelled",
        Cause::OutOfMemory => "out of memory",
        Cause::Restart => "asked to restart",
        Cause::Superseded => "superseded",
        Cause::Hung => "hung",
        Cause::Paused => "paused",
    }
}

/// One experiment in a list.
#[derive(Debug)]
pub struct ListLine {
    /// Its id.
    pub id: String,
    /// When it was submitted, in unix seconds.
    pub created: u64,
    /// What is known of it; nothing where it can't be read.
    pub row: Option<ExperimentBrief>,
    /// Its folder.
    pub dir: String,
}

/// Experiments, newest first. Their ids stay whole: they are what is typed next. Of the rest the best value stays longest:
/// it is what a researcher looks for.
#[must_use]
pub fn list_table(lines: &[ListLine], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("experiment", ColumnFit::Whole),
        ("job", ColumnFit::Whole),
        ("state", ColumnFit::Whole),
        ("trials", ColumnFit::Late),
        ("best", ColumnFit::Spare(5)),
        ("tags", ColumnFit::Spare(1)),
        ("submitted", ColumnFit::Spare(2)),
        ("looked at", ColumnFit::Spare(4)),
        ("folder", ColumnFit::Spare(0)),
    ]);
    for line in lines {
        let row = line.row.as_ref();
        let job = row.and_then(|row| row.slurm_job);
        grid.row([
            TextCell::from(&line.id),
            TextCell::from(job.map_or_else(String::new, |job| job.to_string())),
            row.map_or_else(damaged, |row| coloured(row.state)),
            TextCell::from(row.map_or_else(String::new, trials)),
            TextCell::from(row.and_then(|row| row.best.as_ref()).map_or_else(String::new, best)),
            TextCell::from(row.map_or_else(String::new, |row| row.tags.join(" "))),
            TextCell::from(submitted(line, page.now)),
            TextCell::from(row.map_or_else(String::new, |row| looked_at(row, page.now))),
            TextCell::from(&line.dir),
        ]);
    }
    grid.without_empty().lines_telling(page).join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "unix seconds")]
fn submitted(line: &ListLine, now: f64) -> String {
    short_age(now - line.created as f64)
}

/// A folder that can't be read.
fn damaged() -> TextCell {
    TextCell { text: "damaged".to_owned(), colour: Some(Color::Red) }
}

fn trials(row: &ExperimentBrief) -> String {
    let counts = row.trials.iter().map(|(state, n)| format!("{n} {}", state.as_str()));
    counts.collect::<Vec<_>>().join(", ")
}

fn best(best: &BestTrial) -> String {
    format!("{}={}", best.metric, metric(&best.value.into()))
}

/// How old what is shown is; nothing where it can't change.
fn looked_at(row: &ExperimentBrief, now: f64) -> String {
    let seconds = now - row.as_of;
    if row.state.is_final() || seconds < 1.0 { String::new() } else { short_age(seconds) }
}

/// The arrays of a plan in their order.
#[must_use]
pub fn plan_table(plan: &Plan, outside: &[OutsideDependency]) -> String {
    let mut table = table(&["", "task", "trials", "array", "starts"]);
    for (place, array) in plan.arrays.iter().enumerate() {
        let throttle = array.throttle.map_or_else(String::new, |n| format!("%{n}"));
        table.add_row(vec![
            (place + 1).to_string(),
            array.task.clone(),
            array.trials.to_string().replace('-', "–"),
            format!("{}{throttle}", array.indices()),
            starts(array, outside),
        ]);
    }
    text(&table)
}

fn starts(array: &JobArray, outside: &[OutsideDependency]) -> String {
    match (array.after.is_empty(), array.held) {
        (true, _) if !outside.is_empty() => {
            outside.iter().map(OutsideDependency::in_words).collect::<Vec<_>>().join(", ")
        }
        (true, true) => "when all is submitted".to_owned(),
        (true, false) => "at once".to_owned(),
        (false, _) => array.after.iter().map(dependency).collect::<Vec<_>>().join(", "),
    }
}

/// `afterok:#2`: the kind, and the number of the array in the table.
fn dependency(edge: &crate::plan::ArrayDependency) -> String {
    let kind = match edge.on {
        Relation::AfterOk => "afterok",
        Relation::AfterNotOk | Relation::AnyAfterNotOk => "afternotok",
        Relation::AfterAny => "afterany",
        Relation::AfterCorr => "aftercorr",
    };
    format!("{kind}:#{}", edge.array + 1)
}
