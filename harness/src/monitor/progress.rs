//! `progress.json`: how far the program is, for those who read the trial's folder.

use std::time::Duration;

use nemo_core::durable;
use nemo_core::rundir::Progress;

use crate::monitor::Monitor;
use crate::os::clock::Time;
use crate::protocol::Session;

/// The shortest time between two writes of `progress.json`.
pub(super) const WRITE_PAUSE: Duration = Duration::from_secs(2);

impl Monitor {
    fn progress(&self) -> Progress {
        let Session { step, total, progress, status, .. } = &self.session;
        let (attempt, status) = (self.attempt, status.clone());
        Progress { attempt, step: *step, total: *total, progress: *progress, status }
    }

    /// Whether the folder does not show how far the program is: neither in the metrics nor in `progress.json`.
    pub(super) fn is_stale(&self) -> bool {
        let is_ahead = self.session.reported_step > self.recorded_step;
        (self.uses_messages || is_ahead) && self.written_progress.0 != Some(self.progress())
    }

    /// Writes `progress.json` if it is out of date, but not too often.
    pub(super) fn update_progress(&mut self, now: Time) {
        let is_early =
            self.written_progress.0.is_some() && now < self.written_progress.1 + WRITE_PAUSE;
        if self.is_stale() && !is_early {
            self.write_progress(now);
        }
    }

    pub(super) fn write_progress(&mut self, now: Time) {
        let progress = self.progress();
        let text = serde_json::to_vec(&progress).unwrap_or_default();
        let path = self.dir.progress();
        if !self.records.is_full() {
            self.records.add(text.len(), move || {
                drop(durable::replace_file(&path, &text)); // the next change tries again
            });
        }
        self.written_progress = (Some(progress), now);
    }
}
