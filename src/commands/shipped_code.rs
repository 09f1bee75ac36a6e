//! Which code a `retry` or a `debug` runs: that of the submission, not what lies in the user's folder now.

use nemo_core::log_line;

use super::App;
use crate::package;
use crate::store::Stored;

/// One line on it; none where no code was shipped.
pub(super) fn description(app: &App, stored: &Stored) -> Option<String> {
    let shipped = package::of(&stored.dir)?;
    let has_changed = package::has_changed(&app.home, &stored.experiment, &shipped);
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let date = log_line::time(stored.id.made_at() as f64);
    let again = "submit again: `nemo-slurm submit FILE`";
    Some(match has_changed {
        Some(true) => format!(
            "The files in `{}` have changed since they were submitted on {date}. The submitted ones run. To run the changed ones, {again}.",
            shipped.root.display()
        ),
        Some(false) | None => {
            format!("The code that was submitted on {date} runs. To run changed files, {again}.")
        }
    })
}
