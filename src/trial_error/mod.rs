//! Why a trial failed, in its program's own words: class, message and traceback, found in what it printed. Pure, but for
//! `read`, which takes the ends of the files.

mod finding;
mod handled;
mod launcher;
mod native;
mod output;
mod python;
mod read;
mod script;
mod shell;
#[cfg(test)]
mod tests;

use nemo_core::error_class;
use nemo_core::rundir::Cause;
use serde::Serialize;

use crate::status::{AttemptStatus, State, TrialStatus};
use finding::FoundError;

pub use finding::Weight;
pub use nemo_core::error_class::ErrorClass;
pub use read::{set_errors, set_errors_of, tell_vain_starts};

/// Why a trial failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialError {
    /// What kind of error it was.
    pub class: ErrorClass,
    /// The error in one line.
    pub message: String,
    /// The traceback or backtrace, chained exceptions included.
    pub traceback: Option<String>,
    /// Where it happened.
    pub node: Option<String>,
    /// The last lines that the program printed.
    pub lines: Vec<String>,
}

impl TrialError {
    /// Equal for equal errors, whatever numbers they tell: steps, sizes, addresses, processes.
    #[must_use]
    pub fn kind(&self) -> String {
        let place = self.place().unwrap_or_default();
        format!("{} {place} {}", self.class.as_str(), without_numbers(&self.message))
    }

    /// `train.py:31`: the last line of the program's own code in the traceback.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.traceback.as_deref().and_then(python::last_own_frame)
    }
}

/// Each number as `#`, also a hexadecimal one.
fn without_numbers(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let plain = |word: &str| -> String {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        let end = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        if is_number { format!("#{end}") } else { word.to_owned() }
    };
    words.map(plain).collect()
}

/// What was found in one output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedOutput {
    finding: Option<FoundError>,
    /// The last lines.
    lines: Vec<String>,
    /// The last one that is the program's own.
    last_line: Option<String>,
    /// It is the error output, whose last line tells more than nothing.
    is_stderr: bool,
}

/// The first part of a chain of exceptions has fewer lines.
const LINES_BEFORE: usize = 200;

/// Looks for the error in the end of an output. `is_cut`: the output began before it.
#[must_use]
pub fn parse(end: &[u8], is_cut: bool) -> ParsedOutput {
    let all = output::lines(end, is_cut);
    let blocks = launcher::blocks(&all);
    let own = launcher::last_own_line(&all, &blocks);
    let last_line = own.map(|at| output::cut_long(&all[at]));
    let finding = finding::best(&all, &blocks);
    ParsedOutput { finding, lines: output::last(&all), last_line, is_stderr: true }
}

impl ParsedOutput {
    /// How surely it is the error; nothing if none was found.
    fn weight(&self) -> Option<Weight> {
        self.finding.as_ref().map(|finding| finding.weight)
    }

    /// Whether more of the output would tell nothing else: the error is in it, with so many lines before it that it is no
    /// part of a longer one.
    fn is_sure(&self) -> bool {
        self.finding.as_ref().is_some_and(|finding| {
            finding.weight == Weight::Cause
                && !finding.is_one_of_many()
                && finding.at >= LINES_BEFORE
        })
    }

    /// The one that tells more. Of two that tell the same, the first.
    fn better(self, other: Self) -> Self {
        let is_better = other.weight() > self.weight()
            || (other.weight() == self.weight() && self.lines.is_empty());
        if is_better { other } else { self }
    }
}

/// Joins what a failed trial printed with what is known of its last attempt.
#[must_use]
pub fn error_of(trial: &TrialStatus, printed: ParsedOutput) -> TrialError {
    let last = trial.attempts.last();
    let ParsedOutput { finding, lines, last_line, is_stderr } = printed;
    let last_line = last_line.filter(|_| is_stderr);
    // A program that was ended says only that it was.
    let was_ended = trial.state == State::Timeout
        || matches!(last.and_then(|last| last.cause), Some(Cause::Hung | Cause::TimeLimit));
    // The program's own last word tells more than that a process ended.
    let is_told = |it: &FoundError| it.weight > Weight::Report || last_line.is_none();
    let finding = finding.filter(|it| !was_ended && is_told(it));
    let reason = trial.reason.clone().or_else(|| last.and_then(|last| last.reason.clone()));
    let own_line = || error_class::of_texts(last_line.as_slice());
    let told = match &finding {
        Some(found) => found.class.or_else(|| error_class::of_texts(&found.texts)),
        None if was_ended => None,
        None => own_line(),
    };
    // What lets no program begin has let this one begin.
    let is_late = told == Some(ErrorClass::BadConfiguration) && has_advanced(trial);
    let told = if is_late { Some(ErrorClass::Crash) } else { told };
    let class = class(trial, told, finding.is_some(), reason.as_deref());
    let (said, traceback) = finding.map_or((None, None), |it| (Some(it.message), it.traceback));
    let last_line = last_line.filter(|_| !was_ended);
    let message = said.or(last_line).or(reason).unwrap_or_else(|| "nobody told why".to_owned());
    let of_rank = last.and_then(failed_rank).map(|(_, node)| node.to_owned());
    let node = of_rank.or_else(|| last.and_then(|last| last.node.clone()));
    TrialError { class, message, traceback, node, lines }
}

/// The rank whose end became that of a program of several processes, and its node: the harness begins its reason with
/// `rank 3 on n2`.
fn failed_rank(attempt: &AttemptStatus) -> Option<(u32, &str)> {
    let reason = attempt.reason.as_deref()?;
    let (_, rest) = reason
        .split_once("rank ")
        .filter(|(before, _)| before.is_empty() || before.ends_with(": "))?;
    let (rank, rest) = rest.split_once(" on ")?;
    let node = rest.split([' ', ':']).next().filter(|node| !node.is_empty())?;
    Some((rank.parse().ok()?, node))
}

/// Whether the last attempt came further than where it began.
fn has_advanced(trial: &TrialStatus) -> bool {
    let Some(last) = trial.attempts.last() else { return false };
    let reached = trial.step.max(last.checkpoint_step);
    reached > Some(last.resume_step.unwrap_or(0))
}

/// What ended the attempt counts first, then what the program said.
fn class(
    trial: &TrialStatus,
    told: Option<ErrorClass>,
    has_finding: bool,
    reason: Option<&str>,
) -> ErrorClass {
    let last = trial.attempts.last();
    match last.and_then(|last| last.cause) {
        _ if trial.state == State::Timeout => ErrorClass::TimeLimit,
        Some(Cause::TimeLimit) => ErrorClass::TimeLimit,
        Some(Cause::Hung) => ErrorClass::Hung,
        Some(Cause::OutOfMemory) if told == Some(ErrorClass::GpuOutOfMemory) => {
            ErrorClass::GpuOutOfMemory
        }
        Some(Cause::OutOfMemory) => ErrorClass::OutOfMemory,
        Some(Cause::StartFailed) if reason.is_some_and(is_refused_step) => {
            ErrorClass::BadConfiguration
        }
        Some(Cause::NodeFailure | Cause::StartFailed) => ErrorClass::NodeFailure,
        Some(Cause::Failed) if reason.is_some_and(|why| is_no_command(last, why)) => {
            ErrorClass::BadConfiguration
        }
        _ if told.is_some() => told.unwrap_or(ErrorClass::Crash),
        _ if has_finding || last.is_some_and(has_crashed) => ErrorClass::Crash,
        _ => reason
            .and_then(|why| error_class::of_texts(&[why.to_owned()]))
            .unwrap_or(ErrorClass::Unknown),
    }
}

/// Whether `srun` says that what was asked for does not go with the job: no other node would help.
fn is_refused_step(reason: &str) -> bool {
    let words = [
        "Unable to create step",
        "Requested node configuration is not available",
        "Node count specification invalid",
        "More processors requested than permitted",
        "Invalid node count",
    ];
    words.iter().any(|word| reason.contains(word))
}

/// Whether the harness says that there is nothing to run under the name of the command. A program that ran has an exit code.
fn is_no_command(last: Option<&AttemptStatus>, reason: &str) -> bool {
    let words = [
        "` does not exist",
        "` was not found in PATH",
        "` is not executable",
        "` is on a disk that is mounted `noexec`",
        "` is no program: ",
        "where the program must run, is not there",
        "the command is empty",
        "is too long for the system",
    ];
    let has_run = last.is_none_or(has_ended_itself);
    !has_run && words.iter().any(|word| reason.contains(word))
}

fn has_ended_itself(attempt: &AttemptStatus) -> bool {
    attempt.exit_code.is_some() || attempt.signal.is_some()
}

fn has_crashed(attempt: &AttemptStatus) -> bool {
    attempt.exit_code.is_some_and(|code| code != 0) || attempt.signal.is_some()
}
