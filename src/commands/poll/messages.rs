//! The notifications that are due: `poll` sends them last, so that a server that is away keeps no trial waiting.

use serde_json::json;

use super::PollPass;
use crate::commands::notices::{self, Sender, Tried};
use crate::report::say;
use crate::status::Status;
use crate::store::{Stored, Target};

impl PollPass<'_> {
    /// Remembers what may be told. Only who looks after a whole experiment tells of it.
    pub(super) fn will_tell(&mut self, stored: &Stored, target: &Target, status: &Status) {
        if stored.experiment.notify.is_some() && target.scope.task.is_none() {
            self.to_tell.push((stored.clone(), status.clone()));
        }
    }

    pub(super) fn tell_all(&mut self) {
        let mut to_tell = std::mem::take(&mut self.to_tell);
        // The time is for all of them: a server that was away before comes last.
        to_tell.sort_by_cached_key(|(stored, _)| {
            notices::failures(stored).map_or(0, |failures| failures.len())
        });
        let sending = (Sender::of_poll(self.app), notices::deadline());
        for (stored, status) in to_tell {
            let home = &self.app.home;
            let told = if self.args.dry_run {
                notices::dry_run(home, &stored, &status, sending.0)
            } else {
                notices::send_due(home, &stored, &status, sending)
            };
            match told {
                Ok(tried) => tried.iter().for_each(|tried| self.report_told(tried)),
                Err(error) => {
                    self.is_well = false;
                    say(&format!("warning: `{}`: {}", stored.id, error.one_line()));
                }
            }
        }
    }

    /// That a message could not be sent is no failure of what it tells of.
    fn report_told(&mut self, tried: &Tried) {
        let message = &tried.record.message;
        if !self.args.json {
            let sent = if self.args.dry_run { "would be sent" } else { "sent" };
            for way in &tried.sent {
                say(&format!("{}: notification {sent} ({way})", message.id));
            }
            for failure in &tried.failed {
                say(&format!("warning: {failure}"));
            }
        }
        self.told.push(
            json!({ "experiment": message.experiment, "id": message.id, "event": message.event,
            "sent": tried.sent, "failed": tried.failed }),
        );
    }
}
