//! What is seen while an experiment is followed: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::escape::escape_line;
use crate::humanize::metric;
use crate::status::{State, Status, TaskStatus, TrialStatus};

/// How many running trials are shown with their last metric.
const SHOWN_RUNNING: usize = 8;

/// A live view on a terminal.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    tasks: BTreeMap<String, ProgressBar>,
    running: Vec<ProgressBar>,
}

impl Default for Bars {
    fn default() -> Self {
        Self { all: MultiProgress::new(), tasks: BTreeMap::new(), running: Vec::new() }
    }
}

impl Bars {
    /// Draws a status in place of the one before.
    pub fn draw(&mut self, status: &Status) {
        let width = status.tasks.iter().map(|task| task.name.len()).max().unwrap_or(0);
        for task in &status.tasks {
            let bar = self.tasks.entry(task.name.clone()).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(task.trials.len() as u64));
                bar.set_style(style("{prefix} {bar:24} {pos}/{len} {wide_msg}"));
                bar.enable_steady_tick(Duration::from_millis(500));
                bar
            });
            bar.set_prefix(escape_line(&format!("{:width$}", task.name)).into_owned());
            bar.set_position(over(task) as u64);
            bar.set_message(counts(task));
        }
        let mut lines = running(status);
        let hidden = lines.len().saturating_sub(SHOWN_RUNNING);
        if hidden > 0 {
            lines.truncate(SHOWN_RUNNING);
            lines.push(format!("… and {hidden} more"));
        }
        while self.running.len() < lines.len() {
            let line = self.all.add(ProgressBar::new_spinner());
            line.set_style(style("  {wide_msg}"));
            self.running.push(line);
        }
        for (place, bar) in self.running.iter().enumerate() {
            let line = lines.get(place).map(String::as_str).unwrap_or_default();
            bar.set_message(escape_line(line).into_owned());
        }
    }

    /// Takes the view away.
    pub fn clear(&self) {
        drop(self.all.clear());
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours and sound; an unsound one would show the default instead.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
}

fn over(task: &TaskStatus) -> usize {
    task.trials.iter().filter(|trial| trial.state.is_final()).count()
}

fn counts(task: &TaskStatus) -> String {
    let shown = task.counts.iter().map(|(state, n)| format!("{n} {}", state.as_str()));
    shown.collect::<Vec<_>>().join(", ")
}

/// `train/3 step 120 loss=0.12`, for each trial that runs, or that was preempted and will run again.
fn running(status: &Status) -> Vec<String> {
    let of_task = |task: &TaskStatus| {
        let name = task.name.clone();
        task.trials
            .iter()
            .filter(|trial| matches!(trial.state, State::Running | State::Preempted))
            .map(move |trial| line(&name, trial))
            .collect::<Vec<_>>()
    };
    status.tasks.iter().flat_map(of_task).collect()
}

fn line(task: &str, trial: &TrialStatus) -> String {
    let step = trial.step.map_or_else(String::new, |step| format!(" step {step}"));
    let part = trial.progress.map_or_else(String::new, |part| format!(" {:.0} %", part * 100.0));
    let message = trial.message.as_ref().map_or_else(String::new, |text| format!(" “{text}”"));
    let metrics = trial.metrics.iter().map(|(name, value)| format!(" {name}={}", metric(value)));
    let last = trial.attempts.last();
    let saved = last.and_then(|attempt| attempt.checkpoint_step.or(attempt.resume_step));
    let saved = saved.map_or_else(String::new, |step| format!(", saved at step {step}"));
    let story = match (trial.state, trial.attempts.len()) {
        (State::Preempted, _) => format!(" (preempted{saved}, will go on)"),
        (_, 0 | 1) => String::new(),
        (_, n) => format!(" (attempt {}{saved})", n - 1),
    };
    let metrics: String = metrics.collect();
    format!("{task}/{}{step}{part}{metrics}{message}{story}", trial.index)
}

/// Lines for what changed since the last look, for a file or a pipe.
#[derive(Debug, Default)]
pub struct Changes {
    known: BTreeMap<(String, u32), (State, usize)>,
    warnings: Vec<String>,
}

impl Changes {
    /// What is new, one line each.
    pub fn lines(&mut self, status: &Status) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        if self.warnings != status.warnings {
            lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
            self.warnings.clone_from(&status.warnings);
        }
        for task in &status.tasks {
            for trial in &task.trials {
                let now = (trial.state, trial.attempts.len());
                let before = self.known.insert((task.name.clone(), trial.index), now);
                // The record of a first attempt comes a moment after its start: that is no news.
                let alike =
                    |before: (State, usize)| before.0 == now.0 && before.1.max(1) == now.1.max(1);
                let is_news = before.map_or(trial.state != State::Pending, |before| !alike(before));
                if is_news {
                    lines.push(change(&task.name, trial));
                }
            }
        }
        lines
    }
}

fn change(task: &str, trial: &TrialStatus) -> String {
    let attempt = match trial.attempts.len() {
        0 | 1 => String::new(),
        n => format!(" (attempt {})", n - 1),
    };
    let reason = trial.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let metrics = if trial.state.is_final() {
        let shown = trial.metrics.iter().map(|(name, value)| format!(" {name}={}", metric(value)));
        shown.collect::<String>()
    } else {
        String::new()
    };
    format!("{task}/{} {}{attempt}{metrics}{reason}", trial.index, trial.state.as_str())
}
