//! Looks at an experiment again and again until it is over.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::App;
use super::polling::{PolledStatus, StatusPoller};
use crate::error::{CommandError, ExitCode};
use crate::report::live::{Bars, Changes};
use crate::report::{Page, out, say, status_table};
use crate::status::{State, Status, TrialStatus};
use crate::store::{Stored, Target};
use crate::{clock, observe, status};

/// How what is seen is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Bars on a terminal, else lines; at the end the table.
    Live,
    /// Nothing.
    Silent,
    /// The final status as JSON.
    Json,
}

/// Give up after this many answers in a row in which every open trial is unknown.
const FORGOTTEN: u32 = 5;
/// So many looks in a row must show an end that only Slurm tells: one odd answer is not waited for.
const AGREEING: u32 = 2;

/// Waits until an experiment, or the part of it that a target names, is over. Exit 0 only if all of it completed.
pub(super) fn until_over(
    app: &App,
    stored: &Stored,
    view: View,
    deadline: Option<Instant>,
) -> Result<ExitCode, CommandError> {
    let whole = Target::whole(stored.id.clone());
    until(app, &whole, view, deadline)
}

/// As [`until_over`], for a target.
#[expect(clippy::disallowed_methods, reason = "an edge: it waits on the real clock")]
pub(super) fn until(
    app: &App,
    target: &Target,
    view: View,
    deadline: Option<Instant>,
) -> Result<ExitCode, CommandError> {
    let mut screen = FollowOutput::new(view);
    let (mut forgotten, mut doubtful) = (0, 0);
    let mut looks = StatusPoller::default();
    loop {
        let stored = app.home.load(&target.id)?;
        let PolledStatus { mut status, is_new, pause } = looks.next(app, &stored)?;
        let (state, settled) = standing(&status, target);
        screen.show(&status);
        // The same answer twice is not two that agree.
        let seen = u32::from(is_new);
        doubtful = if settled == Settled::Doubtful { doubtful + seen } else { 0 };
        if settled == Settled::Over || doubtful >= AGREEING {
            if view == View::Silent && state != State::Completed {
                say(&why(target, &status, state));
            }
            return screen.end(&stored, &mut status, state);
        }
        forgotten = if settled == Settled::Forgotten { forgotten + seen } else { 0 };
        if forgotten >= FORGOTTEN {
            screen.end(&stored, &mut status, state)?;
            let text = format!("the outcome of some trials of `{}` is unknown", target.id);
            return Err(CommandError::new(ExitCode::NoAnswer, text).hinted(format!(
                "`nemo-slurm status {} --attempts` shows what is known",
                target.id
            )));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            screen.end(&stored, &mut status, state)?;
            return Err(not_over(target, &status, state));
        }
        std::thread::sleep(pause_before(deadline, Instant::now(), pause));
    }
}

/// The pause until the next look, which no deadline waits for.
fn pause_before(deadline: Option<Instant>, now: Instant, pause: Duration) -> Duration {
    deadline.map_or(pause, |deadline| pause.min(deadline.saturating_duration_since(now)))
}

/// What the time was not enough for.
fn not_over(target: &Target, status: &Status, state: State) -> CommandError {
    if !state.is_final() {
        let text = format!("`{}` is still {}", target.id, state.as_str());
        return CommandError::new(ExitCode::NoAnswer, text);
    }
    let text = format!("`{}` is {}, but that may change", target.id, state.as_str());
    let error = CommandError::new(ExitCode::NoAnswer, text);
    let mut trials = status::meant(status, &target.scope).map(|(_, trial)| trial);
    if trials.any(TrialStatus::is_brought_back) {
        error.hinted(format!("`nemo-slurm poll {}` requeues what could not be", target.id))
    } else {
        error
    }
}

/// How it ended, where nothing else is shown.
fn why(target: &Target, status: &Status, state: State) -> String {
    let reason = status.experiment.reason.as_ref().filter(|_| target.scope.task.is_none());
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let id = &target.id;
    format!("`{target}` is {}{reason}; `nemo-slurm status {id}` shows more", state.as_str())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// Something may come yet.
    Open,
    /// It is over as far as Slurm tells now.
    Doubtful,
    /// It is over for good.
    Over,
    /// Slurm answers, yet knows nothing of what is left.
    Forgotten,
}

/// Where the target stands.
fn standing(status: &Status, target: &Target) -> (State, Settled) {
    let meant: Vec<&TrialStatus> =
        status::meant(status, &target.scope).map(|(_, trial)| trial).collect();
    let open = || meant.iter().filter(|trial| !trial.state.is_final());
    let forgotten = !status.experiment.stale
        && open().count() > 0
        && open().all(|trial| trial.state == State::Unknown);
    let state = match target.scope.task {
        None => status.experiment.state,
        Some(_) => status::state_of(meant.iter().map(|trial| trial.state)),
    };
    let settled = match state.is_final() {
        true if meant.iter().all(|trial| trial.is_final()) => Settled::Over,
        true if meant.iter().any(|trial| trial.is_brought_back()) => Settled::Open,
        true => Settled::Doubtful,
        false if forgotten => Settled::Forgotten,
        false => Settled::Open,
    };
    (state, settled)
}

enum FollowOutput {
    Bars(Bars),
    Lines(Changes),
    Silent,
    Json,
}

impl FollowOutput {
    fn new(view: View) -> Self {
        match view {
            View::Live if std::io::stderr().is_terminal() => Self::Bars(Bars::default()),
            View::Live => Self::Lines(Changes::default()),
            View::Silent => Self::Silent,
            View::Json => Self::Json,
        }
    }

    fn show(&mut self, status: &Status) {
        match self {
            Self::Bars(bars) => bars.draw(status),
            Self::Lines(changes) => {
                for line in changes.lines(status) {
                    say(&line);
                }
            }
            Self::Silent | Self::Json => {}
        }
    }

    fn end(
        &self,
        stored: &Stored,
        status: &mut Status,
        state: State,
    ) -> Result<ExitCode, CommandError> {
        if !matches!(self, Self::Silent) {
            observe::set_params(stored, status);
        }
        match self {
            Self::Bars(bars) => {
                bars.clear();
                say(&status_table(status, &Page::on_stderr(clock::now())));
            }
            Self::Lines(_) => say(&status_table(status, &Page::on_stderr(clock::now()))),
            Self::Silent => {}
            Self::Json => {
                out(&status::json(status))?;
            }
        }
        Ok(if state == State::Completed { ExitCode::Fine } else { ExitCode::Failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        Certainty, Counters, ExperimentStatus, Remedy, TaskStatus, recount, state_of,
    };
    use crate::store::ExperimentId;

    fn trial(
        index: u32,
        state: State,
        certainty: Certainty,
        remedy: Option<Remedy>,
    ) -> TrialStatus {
        TrialStatus {
            index,
            state,
            reason: None,
            certainty,
            remedy,
            params: None,
            slurm_job: None,
            step: None,
            progress: None,
            message: None,
            labels: Vec::new(),
            metrics: serde_json::Map::new(),
            counters: Counters::default(),
            attempts: Vec::new(),
        }
    }

    fn status(trials: Vec<TrialStatus>) -> Status {
        let state = state_of(trials.iter().map(|trial| trial.state));
        let mut task = TaskStatus {
            name: "train".to_owned(),
            state,
            counts: std::collections::BTreeMap::new(),
            executor: "cluster".to_owned(),
            dir: "/x".to_owned(),
            start: None,
            end: None,
            best: None,
            trials,
        };
        recount(&mut task);
        let experiment = ExperimentStatus {
            id: "sample-00000100".to_owned(),
            name: "sample".to_owned(),
            state,
            reason: None,
            created: 100,
            stale: false,
            dir: "/x".to_owned(),
        };
        Status { schema: 1, experiment, tasks: vec![task], warnings: Vec::new() }
    }

    #[test]
    fn what_poll_would_requeue_is_not_over() {
        let target = Target::whole(ExperimentId::new("sample", 100, 0));
        let agreed = Certainty::Agreed(0.0);
        let check = |trials: Vec<TrialStatus>, expected| {
            assert_eq!(standing(&status(trials), &target).1, expected);
        };
        let done = || trial(0, State::Completed, Certainty::Final, None);
        check(vec![done()], Settled::Over);
        check(vec![done(), trial(1, State::Failed, agreed, None)], Settled::Doubtful);
        let brought_back = |certainty| trial(1, State::Failed, certainty, Some(Remedy::Requeue));
        check(vec![done(), brought_back(agreed)], Settled::Open);
        check(vec![brought_back(Certainty::Open)], Settled::Open);
        check(vec![done(), brought_back(Certainty::Final)], Settled::Over);
        let seen = status(vec![brought_back(agreed)]);
        let error = not_over(&target, &seen, State::Failed);
        assert!(error.hints[0].contains("`nemo-slurm poll sample-"), "{error:?}");
        assert!(error.one_line().ends_with("is failed, but that may change"), "{error:?}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a point in time to count from")]
    fn no_pause_outlasts_the_deadline() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        assert_eq!(pause_before(None, now, seconds(10)), seconds(10));
        assert_eq!(pause_before(Some(now + seconds(60)), now, seconds(10)), seconds(10));
        assert_eq!(pause_before(Some(now + seconds(2)), now, seconds(10)), seconds(2));
        assert_eq!(pause_before(Some(now), now + seconds(1), seconds(10)), Duration::ZERO);
    }
}
