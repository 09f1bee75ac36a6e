//! `run-local`: the local executor's runner, started by `submit`.

use super::App;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::local;
use crate::report::say;
use crate::store::claim::{self, ClaimKind};
use crate::store::{self, TakeOver};

/// Carries a local experiment out, in a session of its own: its terminal may close.
pub(super) fn run_local(app: &App, id: &str) -> Result<ExitCode, CommandError> {
    // Fails where a person runs it by hand as the leader of a group; then the terminal is theirs to keep.
    nix::unistd::setsid().ok();
    let (_, stored) = app.find(id)?;
    let log = stored.dir.runner_log();
    let children = local::Children::new().at("write", &log)?;
    let claim =
        claim::take(&stored.dir, ClaimKind::Runner, TakeOver::FromTheDead, &|text| say(text))?;
    let harness = store::install_program(&app.home, &app.harness()?)?;
    local::run(&stored, &harness, &claim, children).at("write", &log)?;
    Ok(ExitCode::Fine)
}
