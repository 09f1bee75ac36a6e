//! `wait`: returns when an experiment is over; its exit code says how.

use super::App;
use super::follow::{View, until};
use crate::cli::WaitArgs;
use crate::error::{CommandError, ExitCode};

/// Waits for a target.
#[expect(clippy::disallowed_methods, reason = "an edge: a time limit counts from now")]
pub(super) fn wait(app: &App, args: &WaitArgs) -> Result<ExitCode, CommandError> {
    let (target, _) = app.find(&args.target)?;
    let deadline = args.timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
    until(app, &target, if args.json { View::Json } else { View::Silent }, deadline)
}
