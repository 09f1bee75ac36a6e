//! What is shown of an experiment that is looked at again and again.

use std::io::IsTerminal;

use nemo_core::scope::Scope;
use serde_json::json;

use crate::error::{CommandError, ExitCode};
use crate::report::live::{Bars, StatusChanges, Stream};
use crate::report::{Page, out, out_json, say, status_table};
use crate::status::{State, Status};
use crate::store::{Stored, Target};
use crate::{clock, observe, status, trial_error};

/// How what is seen is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Bars on a terminal, else lines; at the end the table.
    Live(Stream),
    /// A line of JSON for each change.
    JsonLines,
    /// Nothing.
    Silent,
    /// The final status as JSON.
    Json,
}

/// What one look saw of the target; its status has nothing else in it.
pub(super) struct SeenStatus<'a> {
    pub(super) target: &'a Target,
    pub(super) stored: &'a Stored,
    pub(super) status: &'a mut Status,
    /// Where the target stands.
    pub(super) state: State,
}

/// The display, and what it showed last.
pub(super) enum FollowOutput {
    Bars(Bars, Stream),
    Lines(StatusChanges, Stream),
    JsonLines(StatusChanges),
    Silent,
    Json,
}

impl FollowOutput {
    pub(super) fn new(view: View) -> Self {
        match view {
            View::Live(stream) if is_terminal(stream) => Self::Bars(Bars::new(stream), stream),
            View::Live(stream) => Self::Lines(StatusChanges::default(), stream),
            View::JsonLines => Self::JsonLines(StatusChanges::default()),
            View::Silent => Self::Silent,
            View::Json => Self::Json,
        }
    }

    pub(super) fn show(&mut self, seen: &SeenStatus<'_>) -> Result<(), CommandError> {
        let now = clock::now();
        match self {
            Self::Bars(bars, stream) => bars.draw(seen.status, &page(*stream)),
            Self::Lines(changes, stream) => {
                for change in changes.next(seen.status) {
                    print(*stream, &change.line())?;
                }
            }
            Self::JsonLines(changes) => {
                if let Some(state) = changes.next_state(seen.state) {
                    out_json(&state_line(seen, state, now))?;
                }
                for change in changes.next(seen.status) {
                    out_json(&change.json(now))?;
                }
            }
            Self::Silent | Self::Json => {}
        }
        Ok(())
    }

    /// Shows the last of it; `code` is what the command exits with.
    pub(super) fn end(
        &self,
        seen: &mut SeenStatus<'_>,
        code: ExitCode,
    ) -> Result<(), CommandError> {
        match self {
            Self::Bars(bars, stream) => {
                bars.clear();
                table(seen, *stream)
            }
            Self::Lines(_, stream) => table(seen, *stream),
            Self::JsonLines(_) => out_json(&end_line(seen, code, clock::now())).map(drop),
            Self::Silent => Ok(()),
            Self::Json => {
                set_details(seen);
                out_json(&*seen.status).map(drop)
            }
        }
    }
}

fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Out => std::io::stdout().is_terminal(),
        Stream::Err => std::io::stderr().is_terminal(),
    }
}

fn page(stream: Stream) -> Page {
    match stream {
        Stream::Out => Page::here(clock::now()),
        Stream::Err => Page::on_stderr(clock::now()),
    }
}

fn print(stream: Stream, text: &str) -> Result<(), CommandError> {
    match stream {
        Stream::Out => out(text).map(drop),
        Stream::Err => {
            say(text);
            Ok(())
        }
    }
}

fn table(seen: &mut SeenStatus<'_>, stream: Stream) -> Result<(), CommandError> {
    set_details(seen);
    print(stream, &status_table(seen.status, &page(stream)))
}

/// What only the end needs: parameters, and why trials failed.
fn set_details(seen: &mut SeenStatus<'_>) {
    status::set_params(seen.status, observe::params(seen.stored, &Scope::default()));
    trial_error::set_errors(seen.status, seen.stored);
}

fn state_line(seen: &SeenStatus<'_>, state: State, now: f64) -> serde_json::Value {
    json!({
        "schema": 1, "time": now, "event": "state", "target": seen.target.to_string(),
        "state": state, "reason": reason(seen),
    })
}

fn end_line(seen: &SeenStatus<'_>, code: ExitCode, now: f64) -> serde_json::Value {
    json!({
        "schema": 1, "time": now, "event": "end", "target": seen.target.to_string(),
        "state": seen.state, "reason": reason(seen), "exit_code": code as u8,
    })
}

/// Why the whole experiment is as it is; a part of it has no such reason.
fn reason<'a>(seen: &'a SeenStatus<'_>) -> Option<&'a str> {
    let whole = seen.target.scope.task.is_none();
    seen.status.experiment.reason.as_deref().filter(|_| whole)
}
