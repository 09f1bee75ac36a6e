//! Looks at an experiment again and again until it is over.

use std::io::IsTerminal;
use std::time::Instant;

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

/// So many looks in a row at which nothing but `unknown` is left: Slurm answers, and has forgotten.
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
            let text = format!("`{}` is still {}", target.id, state.as_str());
            return Err(CommandError::new(ExitCode::NoAnswer, text));
        }
        std::thread::sleep(pause);
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
