//! What a notification says: a value for programs, with a text for people in it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::events::{Notice, tasks_of};
use crate::experiment::NoticeKind;
use crate::humanize::{count, ranges};
use crate::report::own_commands::with_home;
use crate::status::{self, State, Status, TaskStatus, TrialStatus};
use crate::store::Stored;
use crate::trial_error::TrialError;

/// The most different errors in one message.
const MOST_ERRORS: usize = 5;

/// The whole message, as a webhook gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoticeMessage {
    /// The format's number.
    pub schema: u32,
    /// The same whenever this end is told again.
    pub id: String,
    /// What happened.
    pub event: NoticeKind,
    /// The experiment's id.
    pub experiment: String,
    /// Its name.
    pub name: String,
    /// What it is about, as a command takes it.
    pub target: String,
    /// The task; null where it is about the experiment.
    pub task: Option<String>,
    /// The trial.
    pub trial: Option<u32>,
    /// The generation of its last retry.
    pub generation: u32,
    /// Where that stands now: a task may fail while other trials run.
    pub state: State,
    /// When this was found, in unix seconds.
    pub time: f64,
    /// One line.
    pub subject: String,
    /// All of it for people; chats that take a `text` show it.
    pub text: String,
    /// How many trials are in each state.
    pub trials: BTreeMap<State, u32>,
    /// What went wrong, each error once.
    pub errors: Vec<ToldError>,
    /// The command that repairs it, or shows the results.
    pub repair: String,
    /// The experiment's folder.
    pub dir: String,
}

/// Trials that failed in the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldError {
    /// `train/3,7`.
    pub trials: String,
    /// The class of the error; `blocked` where a trial could not start.
    pub class: String,
    /// In one line.
    pub message: String,
    /// Where it happened first.
    pub node: Option<String>,
    /// The last lines that the first one printed.
    pub lines: Vec<String>,
}

/// The message of a notice. The status tells the errors of the trials that it is about.
#[must_use]
pub fn message(stored: &Stored, seen: &Status, notice: &Notice, now: f64) -> NoticeMessage {
    let target = notice.target(stored.id.as_str());
    let mut trials: BTreeMap<State, u32> = BTreeMap::new();
    for (_, trial) in meant(notice, seen) {
        *trials.entry(told_state(notice, trial.state)).or_default() += 1;
    }
    let mut groups = groups(notice, seen);
    let (subject, own_repair) = if let Some(budget) = &notice.budget {
        // Nothing went wrong.
        groups.clear();
        (
            format!("{target} is paused: {}", status::spent_budget(budget)),
            format!("nemo-slurm resume {target}"),
        )
    } else {
        (subject(&target, notice, &trials), repair(&target, notice.kind, &groups))
    };
    let errors = notice_errors(&groups);
    let repair = with_home(&own_repair).into_owned();
    NoticeMessage {
        schema: 1,
        id: notice.id(stored.id.as_str()),
        event: notice.kind,
        experiment: stored.id.to_string(),
        name: stored.experiment.name.clone(),
        text: text(&subject, &errors, &repair, groups.len()),
        target,
        task: notice.task.clone(),
        trial: notice.trial,
        generation: notice.generation,
        state: state(notice, seen),
        time: now,
        subject,
        trials,
        errors,
        repair,
        dir: stored.dir.0.to_string_lossy().into_owned(),
    }
}

impl NoticeMessage {
    /// The message as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        // No key or number of ours is beyond JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The values of a command's placeholders.
    #[must_use]
    pub fn values(&self) -> Map<String, Value> {
        let trial = self.trial.map(|trial| trial.to_string()).unwrap_or_default();
        let values = json!({
            "id": self.id, "event": self.event, "experiment": self.experiment, "name": self.name,
            "target": self.target, "task": self.task.as_deref().unwrap_or_default(), "trial": trial,
            "state": self.state, "subject": self.subject, "text": self.text,
        });
        if let Value::Object(values) = values { values } else { Map::new() }
    }
}

/// Slurm may show a trial as pending whose parents are lost. When all is over, or is told as blocked, it waits in vain.
fn told_state(notice: &Notice, state: State) -> State {
    let is_over = notice.task.is_none() || notice.kind == NoticeKind::Blocked;
    if state == State::Pending && is_over && notice.budget.is_none() {
        State::Blocked
    } else {
        state
    }
}

/// The trials that a notice is about.
fn meant<'a>(
    notice: &'a Notice,
    status: &'a Status,
) -> impl Iterator<Item = (&'a TaskStatus, &'a TrialStatus)> {
    let all = tasks_of(notice, status);
    let all = all.flat_map(|task| task.trials.iter().map(move |trial| (task, trial)));
    all.filter(|(_, trial)| notice.trial.is_none_or(|index| trial.index == index))
}

fn state(notice: &Notice, status: &Status) -> State {
    let task = status.tasks.iter().find(|task| Some(&task.name) == notice.task.as_ref());
    let Some(task) = task else { return status.experiment.state };
    let trial = task.trials.iter().find(|trial| Some(trial.index) == notice.trial);
    trial.map_or(task.state, |trial| trial.state)
}

/// `digits-3kz81q7m/train failed (6 trials: 3 completed, 1 failed, 2 running)`.
fn subject(target: &str, notice: &Notice, trials: &BTreeMap<State, u32>) -> String {
    let kind = match notice.kind {
        NoticeKind::Failed => "failed",
        NoticeKind::Completed => "is completed",
        NoticeKind::Blocked => "is blocked",
        NoticeKind::Cancelled => "was cancelled",
    };
    if notice.trial.is_some() {
        return format!("{target} {kind}");
    }
    let all: u32 = trials.values().sum();
    let counts = State::ALL.iter().filter_map(|state| Some((state, trials.get(state)?)));
    let counts: Vec<String> = counts.map(|(state, n)| format!("{n} {}", state.as_str())).collect();
    match counts.as_slice() {
        // There is nothing more to say of the only trial.
        _ if all <= 1 => format!("{target} {kind}"),
        counts => {
            format!("{target} {kind} ({}: {})", count(all as usize, "trial"), counts.join(", "))
        }
    }
}

/// Trials of a task with the same error.
struct ErrorGroup<'a> {
    task: &'a str,
    trials: Vec<u32>,
    key: String,
    error: Option<&'a TrialError>,
    reason: &'a str,
}

/// What went wrong; failures before what they have blocked.
fn groups<'a>(notice: &'a Notice, status: &'a Status) -> Vec<ErrorGroup<'a>> {
    let mut groups: Vec<ErrorGroup<'_>> = Vec::new();
    for (task, trial) in meant(notice, status) {
        let reason = trial.reason.as_deref().unwrap_or_default();
        let key = match (&trial.error, trial.state) {
            (Some(error), _) => error.kind(),
            (None, State::Blocked) => reason.to_owned(),
            (None, _) => continue,
        };
        let known = groups.iter_mut().find(|group| group.task == task.name && group.key == key);
        if let Some(group) = known {
            group.trials.push(trial.index);
        } else {
            let (trials, error) = (vec![trial.index], trial.error.as_deref());
            groups.push(ErrorGroup { task: &task.name, trials, key, error, reason });
        }
    }
    groups.sort_by_key(|group| group.error.is_none());
    groups
}

fn notice_errors(groups: &[ErrorGroup<'_>]) -> Vec<ToldError> {
    let one = |group: &ErrorGroup<'_>| ToldError {
        trials: format!("{}/{}", group.task, ranges(&group.trials).replace(' ', "")),
        class: group.error.map_or("blocked", |error| error.class.as_str()).to_owned(),
        message: group.error.map_or(group.reason, |error| &error.message).to_owned(),
        node: group.error.and_then(|error| error.node.clone()),
        lines: group.error.map(|error| error.lines.clone()).unwrap_or_default(),
    };
    groups.iter().take(MOST_ERRORS).map(one).collect()
}

/// What to type: a retry helps unless the program or its file is wrong, which must be mended first.
fn repair(target: &str, kind: NoticeKind, groups: &[ErrorGroup<'_>]) -> String {
    let experiment = target.split('/').next().unwrap_or(target);
    let is_hopeless =
        |group: &ErrorGroup<'_>| group.error.is_some_and(|error| error.class.would_fail_again());
    match kind {
        NoticeKind::Completed => format!("nemo-slurm results {target}"),
        // What blocks it lies elsewhere in the experiment.
        NoticeKind::Blocked => format!("nemo-slurm retry {experiment} --advise"),
        NoticeKind::Cancelled => format!("nemo-slurm retry {target}"),
        NoticeKind::Failed if groups.iter().any(is_hopeless) => {
            format!("nemo-slurm debug {}", first(experiment, groups))
        }
        NoticeKind::Failed => format!("nemo-slurm retry {target} --advise"),
    }
}

fn first(experiment: &str, groups: &[ErrorGroup<'_>]) -> String {
    let first = groups.first().and_then(|group| Some((group.task, group.trials.first()?)));
    first.map_or_else(
        || experiment.to_owned(),
        |(task, trial)| format!("{experiment}/{task}/{trial}"),
    )
}

fn text(subject: &str, errors: &[ToldError], repair: &str, n_errors: usize) -> String {
    let mut lines = vec![subject.to_owned()];
    for error in errors {
        let node = error.node.iter().map(|node| format!(" on {node}"));
        let node: String = node.collect();
        lines.push(format!("\n{}{node}: {}: {}", error.trials, error.class, error.message));
        lines.extend(error.lines.iter().map(|line| format!("  {line}")));
    }
    if n_errors > errors.len() {
        lines.push(format!("\n… and {}", count(n_errors - errors.len(), "more error")));
    }
    lines.push(format!("\nNext: {repair}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial_error::ErrorClass;

    #[test]
    fn the_subject_counts_what_came_of_all() {
        let notice = Notice {
            kind: NoticeKind::Failed,
            task: None,
            trial: None,
            generation: 0,
            budget: None,
        };
        let trials = [(State::Failed, 2), (State::Completed, 1)].into();
        let subject = subject("digits-1", &notice, &trials);
        assert_eq!(subject, "digits-1 failed (3 trials: 1 completed, 2 failed)");
    }

    #[test]
    fn a_program_that_cant_run_is_debugged_and_others_are_retried() {
        let error = |class| TrialError {
            class,
            message: "no module".to_owned(),
            traceback: None,
            node: Some("n1".to_owned()),
            lines: vec!["last".to_owned()],
        };
        let check = |class, expected: &str| {
            let error = error(class);
            let trials = vec![3, 4];
            let group = ErrorGroup {
                task: "t",
                trials,
                key: String::new(),
                error: Some(&error),
                reason: "",
            };
            let groups = [group];
            let repair = repair("x-1/t", NoticeKind::Failed, &groups);
            assert_eq!(repair, expected);
            let text = text("x failed", &notice_errors(&groups), &repair, 2);
            assert!(text.contains("t/3-4 on n1: "), "{text}");
            assert!(text.contains("\n  last\n\n… and 1 more error\n"), "{text}");
        };
        check(ErrorClass::OutOfMemory, "nemo-slurm retry x-1/t --advise");
        check(ErrorClass::MissingModule, "nemo-slurm debug x-1/t/3");
        check(ErrorClass::GpuOutOfMemory, "nemo-slurm debug x-1/t/3");
    }
}
