//! What is seen while an experiment is followed: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::escape::escape_line;
use super::fit::wrap;
use super::own_commands::with_home;
use super::{INDENT, Page};
use crate::humanize::{count, metric};
use crate::status::{State, Status, TaskStatus, TrialStatus};

/// How many running trials are shown with their last metric.
const SHOWN_RUNNING: usize = 8;
/// How many warnings are shown; more are counted only.
const SHOWN_WARNINGS: usize = 4;

/// Where a live view is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Where it is all that the command says.
    Out,
    /// Where stdout has something else.
    Err,
}

/// A live view on a terminal.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    tasks: BTreeMap<String, ProgressBar>,
    lines: Vec<ProgressBar>,
}

impl Bars {
    /// A view that shows nothing yet.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        let target = match stream {
            Stream::Out => ProgressDrawTarget::stdout(),
            Stream::Err => ProgressDrawTarget::stderr(),
        };
        let all = MultiProgress::with_draw_target(target);
        Self { all, tasks: BTreeMap::new(), lines: Vec::new() }
    }

    /// Draws a status in place of the one before.
    pub fn draw(&mut self, status: &Status, page: &Page) {
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
        lines.extend(warnings(status, page));
        while self.lines.len() < lines.len() {
            let line = self.all.add(ProgressBar::new_spinner());
            line.set_style(style("  {wide_msg}"));
            self.lines.push(line);
        }
        for (place, bar) in self.lines.iter().enumerate() {
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
    let mut lines = Vec::new();
    for task in &status.tasks {
        let trials = task.trials.iter();
        let shown = trials.filter(|trial| matches!(trial.state, State::Running | State::Preempted));
        lines.extend(shown.map(|trial| line(&task.name, trial)));
    }
    lines
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

/// The warnings, and first why an experiment that is not over does not go on.
fn messages(status: &Status) -> Vec<String> {
    let reason = status.experiment.reason.clone().filter(|_| !status.experiment.state.is_final());
    reason.into_iter().chain(status.warnings.iter().cloned()).collect()
}

/// The warnings, broken into lines that stand as far in as those of trials.
fn warnings(status: &Status, page: &Page) -> Vec<String> {
    let width = page.width.map_or(usize::MAX, |width| width.saturating_sub(INDENT));
    let messages = messages(status);
    let hidden = messages.len().saturating_sub(SHOWN_WARNINGS);
    let shown = messages.iter().take(SHOWN_WARNINGS);
    let shown = shown.map(|text| format!("warning: {text}"));
    let shown = shown.flat_map(|text| wrap(&with_home(&text), width, INDENT));
    let more = (hidden > 0).then(|| format!("… and {}", count(hidden, "more warning")));
    shown.chain(more).collect()
}

/// What is new since the last look, for a file, a pipe or a program.
#[derive(Debug, Default)]
pub struct StatusChanges {
    known: BTreeMap<(String, u32), (State, usize)>,
    warnings: Vec<String>,
    state: Option<State>,
}

/// One thing that is new.
#[derive(Debug)]
pub enum StatusChange<'a> {
    /// A warning that was not there.
    Warning(String),
    /// A warning that holds no more.
    WarningOver(String),
    /// A trial of a task that is in another state, or another attempt.
    Trial(&'a str, &'a TrialStatus),
}

impl StatusChanges {
    /// What is new of the warnings and of the trials. A trial that waits from the beginning is no news.
    pub fn next<'a>(&mut self, status: &'a Status) -> Vec<StatusChange<'a>> {
        let messages = messages(status);
        let new = messages.iter().filter(|text| !self.warnings.contains(text)).cloned();
        let over = self.warnings.iter().filter(|text| !messages.contains(text)).cloned();
        let mut changes: Vec<StatusChange<'_>> = new.map(StatusChange::Warning).collect();
        changes.extend(over.map(StatusChange::WarningOver));
        self.warnings = messages;
        for task in &status.tasks {
            for trial in &task.trials {
                let now = (trial.state, trial.attempts.len());
                let before = self.known.insert((task.name.clone(), trial.index), now);
                // The record of a first attempt comes a moment after its start: that is no news.
                let alike =
                    |before: (State, usize)| before.0 == now.0 && before.1.max(1) == now.1.max(1);
                let is_news = before.map_or(trial.state != State::Pending, |before| !alike(before));
                if is_news {
                    changes.push(StatusChange::Trial(&task.name, trial));
                }
            }
        }
        changes
    }

    /// The state of the whole, if it is another one than at the last look.
    pub fn next_state(&mut self, state: State) -> Option<State> {
        (self.state.replace(state) != Some(state)).then_some(state)
    }
}

impl StatusChange<'_> {
    /// As people read it.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Warning(text) => format!("warning: {text}"),
            Self::WarningOver(text) => format!("no longer: {text}"),
            Self::Trial(task, trial) => change(task, trial),
        }
    }

    /// As programs read it. `now` is in unix seconds.
    #[must_use]
    pub fn json(&self, now: f64) -> Value {
        match self {
            Self::Warning(text) => warning_json(text, true, now),
            Self::WarningOver(text) => warning_json(text, false, now),
            Self::Trial(task, trial) => json!({
                "schema": 1,
                "time": now,
                "event": "trial",
                "task": task,
                "trial": trial.index,
                "state": trial.state,
                "attempt": trial.attempts.last().and_then(|attempt| attempt.number),
                "slurm_job": trial.slurm_job,
                "step": trial.step,
                "metrics": trial.metrics,
                "reason": trial.reason,
            }),
        }
    }
}

fn warning_json(text: &str, active: bool, now: f64) -> Value {
    json!({"schema": 1, "time": now, "event": "warning", "text": text, "active": active})
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{sample_status, sample_task, sample_trial};

    fn lines(changes: &mut StatusChanges, status: &Status) -> Vec<String> {
        changes.next(status).iter().map(StatusChange::line).collect()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut changes = StatusChanges::default();
        let mut status = sample_status(
            State::Running,
            vec![sample_task(
                "train",
                vec![sample_trial(0, State::Running), sample_trial(1, State::Pending)],
            )],
        );
        status.warnings = vec!["squeue: no answer".to_owned()];
        let first = ["warning: squeue: no answer", "train/0 running"];
        assert_eq!(lines(&mut changes, &status), first);
        assert!(lines(&mut changes, &status).is_empty());
        status.warnings = vec!["sacct: no answer".to_owned()];
        status.tasks[0].trials[1].state = State::Running;
        let second =
            ["warning: sacct: no answer", "no longer: squeue: no answer", "train/1 running"];
        assert_eq!(lines(&mut changes, &status), second);
        status.experiment.reason = Some("its submission was interrupted".to_owned());
        assert_eq!(lines(&mut changes, &status), ["warning: its submission was interrupted"]);
        assert_eq!(changes.next_state(State::Running), Some(State::Running));
        assert_eq!(changes.next_state(State::Running), None);
    }

    #[test]
    fn warnings_keep_to_the_width_of_the_terminal() {
        let mut status = sample_status(State::Running, Vec::new());
        status.warnings = vec!["squeue: it did not answer within 30 s".to_owned(); 6];
        let page = Page { now: 0.0, width: Some(30), colour: false };
        let shown = warnings(&status, &page);
        assert_eq!(shown[..2], ["warning: squeue: it did not", "  answer within 30 s"]);
        assert_eq!(shown.last().unwrap(), "… and 2 more warnings");
    }
}
