//! Which folders experiments can be in: their paths stand in scripts, JSON and what Slurm reads.

use std::path::Path;

use super::App;
use crate::error::{CommandError, ExitCode};

/// Refuses a path that can't be written down as text, or that ends a line of a script.
pub(super) fn check(path: &Path) -> Result<(), CommandError> {
    let why = match path.to_str() {
        None => "it is not UTF-8",
        Some(text) if text.chars().any(char::is_control) => {
            "it contains a line break or another control character"
        }
        Some(_) => return Ok(()),
    };
    let text =
        format!("the path `{}` can't be used: {why}", path.display().to_string().escape_debug());
    Err(CommandError::new(ExitCode::Usage, text).hinted("rename the folder or the file"))
}

/// Refuses a home in which jobs could not write.
pub(super) fn check_home(app: &App, on_slurm: bool) -> Result<(), CommandError> {
    let home = app.home.path();
    check(home)?;
    if on_slurm && home.to_str().is_some_and(|text| text.contains('\\')) {
        let text = format!(
            "the path `{}` can't be used: it contains a `\\`, and Slurm then replaces no `%` in the names of output files",
            home.display()
        );
        return Err(CommandError::new(ExitCode::Usage, text)
            .hinted("set NEMO_SLURM_HOME to another folder"));
    }
    Ok(())
}
