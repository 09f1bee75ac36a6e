//! Looks at an experiment again and again until it is over.

use std::time::{Duration, Instant};

use super::App;
use super::follow_output::{FollowOutput, SeenStatus, View};
use super::polling::{PolledStatus, StatusPoller};
use super::retry::automatic;
use super::status::narrow;
use crate::error::{CommandError, ExitCode};
use crate::report::say;
use crate::status;
use crate::status::{Remedy, State, Status, TrialStatus};
use crate::store::{Stored, Target};

/// Give up after this many answers in a row in which every open trial is unknown.
const FORGOTTEN: u32 = 5;
/// How many looks in a row must show an end that only Slurm tells: one odd answer is not enough.
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
    let mut ending = Ending::default();
    let mut looks = StatusPoller::default();
    let mut waiting = WaitNotice::default();
    loop {
        let stored = app.home.load(&target.id)?;
        let PolledStatus { mut status, is_new, pause } = looks.next(app, &stored)?;
        let (state, settled) = standing(&stored, &status, target)?;
        narrow(&mut status, target);
        if view == View::Silent && is_new {
            waiting.update(waits_for_somebody(target, &status));
        }
        let mut seen = SeenStatus { target, stored: &stored, status: &mut status, state };
        screen.show(&seen)?;
        let outlook = ending.see(settled, is_new);
        if outlook == Outlook::Over {
            if view == View::Silent && state != State::Completed {
                say(&why(target, seen.status, state));
            }
            let completed = state == State::Completed;
            let code = if completed { ExitCode::Fine } else { ExitCode::Failed };
            return screen.end(&mut seen, code).map(|()| code);
        }
        if outlook == Outlook::Forgotten {
            screen.end(&mut seen, ExitCode::NoAnswer)?;
            let text = format!("the outcome of some trials of `{}` is unknown", target.id);
            return Err(CommandError::new(ExitCode::NoAnswer, text).hinted(format!(
                "`nemo-slurm status {} --attempts` shows what is known",
                target.id
            )));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            screen.end(&mut seen, ExitCode::NoAnswer)?;
            return Err(not_over(target, &status, state));
        }
        std::thread::sleep(pause_before(deadline, Instant::now(), pause));
    }
}

/// What is said while somebody waits for what goes on only once a person does something.
#[derive(Debug, Default)]
struct WaitNotice {
    seen: Option<String>,
    said: Option<String>,
}

impl WaitNotice {
    /// Says it once, when two looks in a row have shown it.
    fn update(&mut self, text: Option<String>) {
        if text.is_some() && text == self.seen && text != self.said {
            say(text.as_deref().unwrap_or_default());
            self.said.clone_from(&text);
        }
        self.seen = text;
    }
}

/// What to type where nothing goes on by itself; none where anything may.
fn waits_for_somebody(target: &Target, status: &Status) -> Option<String> {
    let open: Vec<&TrialStatus> = status::meant(status, &target.scope)
        .map(|(_, trial)| trial)
        .filter(|trial| !trial.is_final() && trial.state != State::Blocked)
        .collect();
    let all = |holds: fn(&TrialStatus) -> bool| !open.is_empty() && open.iter().all(|it| holds(it));
    let reason = status.experiment.reason.as_ref().filter(|_| !status.experiment.state.is_final());
    if let Some(reason) = reason.filter(|_| !open.is_empty()) {
        Some(format!("`{target}` does not go on by itself: {reason}"))
    } else if all(|trial| trial.state == State::Paused) {
        Some(format!("`{target}` is paused: `nemo-slurm resume {target}` lets it go on"))
    } else if all(|trial| trial.remedy == Some(Remedy::StartRunner)) {
        let again = format!("`nemo-slurm submit --continue {}` starts it again", target.id);
        Some(format!("`{target}` waits for its runner on this machine, which is gone: {again}"))
    } else if all(TrialStatus::is_brought_back) {
        let poll = format!("`nemo-slurm poll {}`", target.id);
        Some(format!("`{target}` waits for what Slurm has dropped: {poll} brings it back"))
    } else {
        None
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
        error.hinted(format!("`nemo-slurm poll {}` brings back what was dropped", target.id))
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

/// What may still come, after all looks so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Something.
    Open,
    /// Nothing: it is over.
    Over,
    /// Nobody knows.
    Forgotten,
}

/// How many looks in a row have shown an end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    doubtful: u32,
    forgotten: u32,
}

impl Ending {
    /// Counts a look. The same answer of Slurm's twice is not two that agree.
    pub(super) fn see(&mut self, settled: Settled, is_new: bool) -> Outlook {
        let news = u32::from(is_new);
        self.doubtful = if settled == Settled::Doubtful { self.doubtful + news } else { 0 };
        self.forgotten = if settled == Settled::Forgotten { self.forgotten + news } else { 0 };
        if settled == Settled::Over || self.doubtful >= AGREEING {
            Outlook::Over
        } else if self.forgotten >= FORGOTTEN {
            Outlook::Forgotten
        } else {
            Outlook::Open
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Something may come yet.
    Open,
    /// It is over as far as Slurm tells now.
    Doubtful,
    /// It is over for good.
    Over,
    /// Slurm answers, yet knows nothing of what is left.
    Forgotten,
}

/// Where the target stands. It is not over while a rule of the file is to retry what it means.
pub(super) fn standing(
    stored: &Stored,
    status: &Status,
    target: &Target,
) -> Result<(State, Settled), CommandError> {
    match without_rules(status, target) {
        (state, Settled::Over) if automatic::is_due(stored, status, target)? => {
            Ok((state, Settled::Open))
        }
        standing => Ok(standing),
    }
}

fn without_rules(status: &Status, target: &Target) -> (State, Settled) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Certainty, sample_status, sample_task, sample_trial, state_of};
    use crate::store::ExperimentId;

    fn trial(
        index: u32,
        state: State,
        certainty: Certainty,
        remedy: Option<Remedy>,
    ) -> TrialStatus {
        TrialStatus { certainty, remedy, ..sample_trial(index, state) }
    }

    fn status(trials: Vec<TrialStatus>) -> Status {
        let state = state_of(trials.iter().map(|trial| trial.state));
        sample_status(state, vec![sample_task("train", trials)])
    }

    #[test]
    fn what_poll_would_requeue_is_not_over() {
        let target = Target::whole(ExperimentId::new("sample", 100, 0));
        let agreed = Certainty::Agreed(0.0);
        let check = |trials: Vec<TrialStatus>, expected| {
            assert_eq!(without_rules(&status(trials), &target).1, expected);
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
    fn who_waits_for_a_person_is_told_what_to_type() {
        let target = Target::whole(ExperimentId::new("sample", 100, 0));
        let check = |trials: Vec<TrialStatus>, expected: Option<&str>| {
            let said = waits_for_somebody(&target, &status(trials));
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()));
        };
        let paused = || trial(0, State::Paused, Certainty::Open, None);
        let dropped = || trial(1, State::Pending, Certainty::Open, Some(Remedy::Requeue));
        let done = || trial(2, State::Completed, Certainty::Final, None);
        check(vec![paused(), done()], Some("`nemo-slurm resume sample-"));
        check(vec![dropped(), done()], Some("`nemo-slurm poll sample-"));
        let alone = || trial(3, State::Pending, Certainty::Open, Some(Remedy::StartRunner));
        check(vec![alone(), done()], Some("`nemo-slurm submit --continue sample-"));
        check(vec![alone(), trial(1, State::Running, Certainty::Open, None)], None);
        check(vec![paused(), trial(1, State::Running, Certainty::Open, None)], None);
        check(vec![done()], None);
        let mut interrupted = status(vec![trial(1, State::Running, Certainty::Open, None)]);
        interrupted.experiment.reason = Some("its submission was interrupted".to_owned());
        let said = waits_for_somebody(&target, &interrupted).unwrap();
        assert!(said.contains("its submission was interrupted"), "{said}");
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
