//! What trials use, as a table.

use super::Page;
use super::grid::{ColumnFit, Grid, TextCell};
use super::table::coloured;
use crate::humanize::bytes;
use crate::usage::TrialResources;

/// A row for each trial.
#[must_use]
pub fn resources_table(trials: &[TrialResources], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("trial", ColumnFit::Whole),
        ("state", ColumnFit::Whole),
        ("cpu", ColumnFit::Whole),
        ("memory", ColumnFit::Whole),
        ("peak", ColumnFit::Whole),
        ("limit", ColumnFit::Spare(1)),
        ("gpu", ColumnFit::Whole),
        ("gpu memory", ColumnFit::Whole),
        ("node", ColumnFit::Spare(0)),
        ("advice", ColumnFit::Words),
    ]);
    for trial in trials {
        let size = |size: Option<u64>| TextCell::from(size.map_or_else(String::new, bytes));
        // A trial that is over has nothing in memory any more.
        let is_over = trial.state.is_some_and(crate::status::State::is_final);
        let memory = trial.memory_bytes.filter(|_| !is_over);
        let memory_gpu = if is_over { trial.gpu_memory_peak_bytes } else { trial.gpu_memory_bytes };
        let peak = trial.memory_peak_bytes.map(bytes);
        let peak = match trial.efficiency.and_then(|efficiency| efficiency.memory) {
            Some(part) => peak.map(|peak| format!("{peak} ({:.0}%)", part * 100.0)),
            None => peak,
        };
        grid.row([
            TextCell::from(format!("{}/{}", trial.task, trial.trial)),
            trial.state.map_or_else(|| TextCell::from(""), coloured),
            TextCell::from(processors(trial)),
            size(memory),
            TextCell::from(peak.unwrap_or_default()),
            size(trial.memory_limit_bytes),
            TextCell::from(trial.gpu_percent.map_or_else(String::new, |it| format!("{it:.0}%"))),
            size(memory_gpu),
            TextCell::from(trial.nodes.join(" ")),
            TextCell::from(trial.advice.as_deref().unwrap_or_default()),
        ]);
    }
    grid.without_empty().lines(page).join("\n")
}

/// `180% of 4`.
fn processors(trial: &TrialResources) -> String {
    let Some(percent) = trial.cpu_percent else { return String::new() };
    match trial.cpus {
        Some(cpus) => format!("{percent:.0}% of {cpus}"),
        None => format!("{percent:.0}%"),
    }
}
