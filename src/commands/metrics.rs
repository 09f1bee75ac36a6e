//! `metrics`: the values that trials reported, or that patterns find in their logs after the fact.

mod parquet;
mod printer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufWriter, IsTerminal};
use std::path::Path;

use clap::Args;
use nemo_core::patterns::Patterns;

use self::printer::RowPrinter;
use super::App;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::Task;
use crate::humanize::count;
use crate::observe;
use crate::report::{Page, metrics_table, out, say};
use crate::results::{MetricRow, SeriesSource, each_row};
use crate::store::{Stored, Target};

/// `metrics`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm metrics @/train/3 --metric loss\n  nemo-slurm metrics digits --format csv > metrics.csv\n  \
    nemo-slurm metrics digits --format parquet > metrics.parquet\n  \
    nemo-slurm metrics @ --pattern 'step=step (\\d+)' --pattern 'loss=loss: (\\S+)'"
)]
pub struct MetricsArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Only this metric; may be given several times
    #[arg(long, value_name = "NAME")]
    pub metric: Vec<String>,
    /// Look for values in the logs instead: a regular expression with a group around the value. `step` tells the step
    #[arg(long, value_name = "NAME=REGEX", value_parser = pattern)]
    pub pattern: Vec<(String, String)>,
    /// Only the last VALUES values of each metric of a trial; 0 shows all (default: 20 in a table, else all)
    #[arg(long, short = 'n', value_name = "VALUES")]
    pub tail: Option<usize>,
    /// How to print
    #[arg(long, value_enum, default_value_t = MetricsFormat::Table)]
    pub format: MetricsFormat,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How the rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsFormat {
    /// A table that fits the terminal.
    Table,
    /// Comma-separated values, the first line with the names of the columns.
    Csv,
    /// JSON, as with `--json`.
    Json,
    /// A Parquet file with the columns of CSV.
    Parquet,
}

impl MetricsArgs {
    fn format(&self) -> MetricsFormat {
        if self.json { MetricsFormat::Json } else { self.format }
    }
}

/// How many values of each metric of a trial a table shows.
const SHOWN: usize = 20;

fn pattern(text: &str) -> Result<(String, String), String> {
    let (name, regex) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "write NAME=REGEX, as in --pattern 'loss=loss: (\\S+)'".to_owned())?;
    let one = BTreeMap::from([(name.to_owned(), regex.to_owned())]);
    Patterns::new(&one).map(|_| (name.to_owned(), regex.to_owned()))
}

/// Shows the metrics of a target.
pub(super) fn metrics(app: &App, args: &MetricsArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let format = args.format();
    let tail = args.tail.unwrap_or(if format == MetricsFormat::Table { SHOWN } else { 0 });
    let mut search = Search {
        args,
        tail,
        known: BTreeSet::new(),
        warnings: Vec::new(),
        redone: RedoneSteps::default(),
    };
    if format == MetricsFormat::Table {
        let mut rows = Vec::new();
        search.run(&stored, &target, |row| {
            rows.push(row);
            Ok(())
        })?;
        search.finish(rows.is_empty())?;
        let page = Page::here(clock::now());
        if !rows.is_empty() {
            out(&metrics_table(&rows, &page))?;
        }
        return Ok(ExitCode::Fine);
    }
    if format == MetricsFormat::Parquet && io::stdout().is_terminal() {
        return Err(CommandError::new(
            ExitCode::Usage,
            "a Parquet file is binary and can't be printed to a terminal",
        )
        .hinted("write it to a file: `nemo-slurm metrics @ --format parquet > metrics.parquet`"));
    }
    let out = BufWriter::with_capacity(64 * 1024, io::stdout());
    let mut printer = RowPrinter::new(out, format, stored.id.to_string());
    search.run(&stored, &target, |row| printer.row(row))?;
    search.finish(printer.is_empty() && format != MetricsFormat::Json)?;
    printer.end(&search).at("write", Path::new("standard output"))?;
    Ok(ExitCode::Fine)
}

/// What is looked for, and what was seen on the way.
struct Search<'a> {
    args: &'a MetricsArgs,
    /// Of each metric of a trial; 0 is all.
    tail: usize,
    /// The names of all metrics.
    known: BTreeSet<String>,
    warnings: Vec<String>,
    redone: RedoneSteps,
}

/// What was done again, and is shown as it was the last time.
#[derive(Clone, Copy, Default, serde::Serialize)]
struct RedoneSteps {
    trials: u64,
    steps: u64,
}

impl RedoneSteps {
    fn add(&mut self, steps: u64) {
        self.trials += u64::from(steps > 0);
        self.steps += steps;
    }
}

impl Search<'_> {
    /// Calls a function with each value that is meant.
    fn run(
        &mut self,
        stored: &Stored,
        target: &Target,
        mut take: impl FnMut(MetricRow) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        let meant = stored.experiment.tasks.iter().filter(|it| target.scope.covers_task(&it.name));
        for task in meant {
            let dir = stored.dir.task(&task.name);
            let mut trials = observe::trial_folders(&dir).at("read", &dir.trials())?;
            trials.retain(|trial| target.scope.covers_trial(*trial));
            trials.sort_unstable();
            for trial in trials {
                let read = self.of_trial(stored, task, trial, &mut take);
                read.at("write", Path::new("standard output"))?;
            }
        }
        Ok(())
    }

    fn of_trial(
        &mut self,
        stored: &Stored,
        task: &Task,
        trial: u32,
        take: &mut impl FnMut(MetricRow) -> io::Result<()>,
    ) -> io::Result<()> {
        let patterns = patterns(&self.args.pattern, task);
        let source = if self.args.pattern.is_empty() {
            SeriesSource::Reported
        } else {
            SeriesSource::Printed(&patterns)
        };
        let dir = stored.dir.task(&task.name).trial(trial);
        let mut last: BTreeMap<String, VecDeque<(usize, MetricRow)>> = BTreeMap::new();
        let mut place = 0;
        let (wanted, tail, known) = (&self.args.metric, self.tail, &mut self.known);
        let notes = each_row(&dir, (&task.name, trial), source, |row| {
            if !known.contains(&row.metric) {
                known.insert(row.metric.clone());
            }
            if !wanted.is_empty() && !wanted.contains(&row.metric) {
                return Ok(());
            }
            if tail == 0 {
                return take(row);
            }
            let rows = last.entry(row.metric.clone()).or_default();
            rows.push_back((place, row));
            place += 1;
            if rows.len() > tail {
                rows.pop_front();
            }
            Ok(())
        })?;
        self.warnings.extend(notes.warnings);
        self.redone.add(notes.redone_steps);
        let mut rows: Vec<(usize, MetricRow)> = last.into_values().flatten().collect();
        rows.sort_by_key(|(place, _)| *place);
        rows.into_iter().try_for_each(|(_, row)| take(row))
    }

    /// A metric that nobody reported is a mistake; that none was reported at all is said.
    fn finish(&self, is_empty: bool) -> Result<(), CommandError> {
        let is_json = self.args.format() == MetricsFormat::Json;
        for warning in self.warnings.iter().filter(|_| !is_json) {
            say(&format!("warning: {warning}"));
        }
        if self.redone.steps > 0 && !is_json {
            let (steps, trials) = (self.redone.steps, self.redone.trials);
            say(&format!(
                "Steps that were done again after a resume are shown once, with their last values: {} of {}.",
                count(usize::try_from(steps).unwrap_or(usize::MAX), "step"),
                count(usize::try_from(trials).unwrap_or(usize::MAX), "trial")
            ));
        }
        let missing = self.args.metric.iter().find(|name| !self.known.contains(*name));
        if let Some(missing) = missing.filter(|_| !self.known.is_empty()) {
            let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
            let text = format!("no trial reported a metric `{missing}`");
            return Err(CommandError::new(ExitCode::NotFound, text)
                .hinted(format!("they reported {}", known.join(", "))));
        }
        if is_empty && self.args.pattern.is_empty() {
            say("No metric was reported. `--pattern NAME=REGEX` looks for values in the logs.");
        } else if is_empty {
            say("No line of the logs fits a pattern.");
        }
        Ok(())
    }
}

/// The patterns of the command line, and the task's own for the step, unless there is one.
fn patterns(given: &[(String, String)], task: &Task) -> BTreeMap<String, String> {
    let mut patterns: BTreeMap<String, String> = given.iter().cloned().collect();
    let steps = ["step", "epoch"];
    if !steps.iter().any(|name| patterns.contains_key(*name)) {
        let own = steps.iter().find_map(|name| task.metrics.get_key_value(*name));
        patterns.extend(own.map(|(name, pattern)| (name.clone(), pattern.clone())));
    }
    patterns
}
