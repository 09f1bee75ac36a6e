//! `run-local`: the local executor's runner, started by `submit`.

use super::App;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::local;
use crate::store;

/// Carries a local experiment out, in a session of its own: its terminal may close.
pub(super) fn run_local(app: &App, id: &str) -> Result<ExitCode, CommandError> {
    // Fails where a person runs it by hand as the leader of a group; then the terminal is theirs to keep.
    nix::unistd::setsid().ok();
    let (_, stored) = app.find(id)?;
    if local::is_running(&stored.dir).at("read", &stored.dir.runner_log())?.is_some() {
        let text = format!("`{id}` has a runner already");
        return Err(CommandError::new(ExitCode::Refused, text));
    }
    let harness = store::install_program(&app.home, &app.harness()?)?;
    local::run(&stored, &harness).at("write", &stored.dir.runner_log())?;
    Ok(ExitCode::Fine)
}
