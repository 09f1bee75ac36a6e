//! Experiments that wait for another one of which not all has jobs yet. They are not submitted, so no job of theirs submits them:
//! who looks after the other one does, once Slurm can be told of all of it. Where that one is lost they are blocked for good, till
//! somebody retries it: then they wait for it again.

use std::collections::BTreeMap;

use nemo_core::durable;
use nemo_core::rundir::ExperimentDir;

use super::status::look;
use super::{App, archive, due, outside};
use crate::error::{CommandError, IoResultExt};
use crate::experiment::{Outside, Task};
use crate::journal;
use crate::report::say;
use crate::status::State;
use crate::store::{ExperimentId, Stored};
use crate::summary::{self, InputVersions};

/// Whether trials on Slurm that wait for other experiments are not submitted.
pub(super) fn is_waiting(stored: &Stored) -> bool {
    let Stored { experiment, journal, .. } = stored;
    let is_root = |task: &&Task| task.after.is_empty() && !experiment.is_local(task);
    let mut roots = experiment.tasks.iter().filter(is_root);
    !experiment.after.is_empty() && roots.any(|task| journal::unplanned(journal, task).count() > 0)
}

/// Writes down, in the folder of each experiment that one waits for, that it does. Where that fails, `poll` of all submits it.
pub(super) fn enlist(app: &App, stored: &Stored) {
    if is_waiting(stored)
        && let Err(error) = try_to_enlist(app, stored)
    {
        let hint = "`nemo-slurm poll` submits it when it may run";
        say(&format!("warning: {}; {hint}", error.one_line()));
    }
}

fn try_to_enlist(app: &App, stored: &Stored) -> Result<(), CommandError> {
    for dependency in &stored.experiment.after {
        let Outside::Experiment(id) = &dependency.of else { continue };
        let Ok(id) = id.parse::<ExperimentId>() else { continue };
        let folder = app.home.experiment(&id).followers();
        durable::create_dir_all(&folder).at("make", &folder)?;
        let path = folder.join(stored.id.as_str());
        durable::replace_file_durably(&path, b"").at("write", &path)?;
    }
    Ok(())
}

/// The experiments that wait for one, are not submitted yet and may be by now. Not those that somebody has archived.
pub(super) fn of(app: &App, dir: &ExperimentDir) -> Vec<ExperimentId> {
    let entries = std::fs::read_dir(dir.followers()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.parse::<ExperimentId>().ok());
    let is_meant = |id: &ExperimentId| {
        app.home.load(id).is_ok_and(|stored| {
            is_waiting(&stored)
                && !archive::is_archived(&stored).unwrap_or(false)
                && !is_over(app, &stored)
        })
    };
    ids.filter(is_meant).collect()
}

/// Whether nothing of it can change by now: it was over at the last look, and what blocked it still does.
fn is_over(app: &App, stored: &Stored) -> bool {
    let Some(last) = summary::read(&stored.dir).filter(|last| last.is_final) else { return false };
    let is_blocked = last.row.trials.get(&State::Blocked).is_some_and(|n| *n > 0);
    last.from.is_unchanged(&InputVersions::of(&stored.dir))
        && (!is_blocked || outside::lost(app, stored).is_some())
}

/// Experiments that are to be looked at, each once, the oldest first: what one waits for is older.
#[derive(Default)]
pub(super) struct ToVisit(BTreeMap<(String, String), ExperimentId>);

impl ToVisit {
    pub(super) fn add(&mut self, id: ExperimentId) {
        let (key, name) = id.age();
        self.0.insert((key.to_owned(), name.to_owned()), id);
    }

    fn add_all(&mut self, ids: Vec<ExperimentId>) {
        for id in ids {
            self.add(id);
        }
    }

    /// The next one, if it is older than this one.
    pub(super) fn next_before(&mut self, limit: Option<&ExperimentId>) -> Option<ExperimentId> {
        let first = self.0.first_entry()?;
        let is_older = limit.is_none_or(|limit| first.get().age() < limit.age());
        is_older.then(|| first.remove())
    }
}

/// Submits what of them can be now, and looks at those that wait for them: what was blocked may be so no more. What goes wrong
/// is only said: the experiment that they wait for goes on.
pub(super) fn submit(app: &App, dir: &ExperimentDir) {
    let mut to_visit = ToVisit::default();
    to_visit.add_all(of(app, dir));
    while let Some(id) = to_visit.next_before(None) {
        match submit_one(app, &id) {
            Ok(()) => {
                to_visit.add_all(of(app, &app.home.experiment(&id)));
            }
            Err(error) => say(&format!("warning: `{id}`: {}", error.one_line())),
        }
    }
}

fn submit_one(app: &App, id: &ExperimentId) -> Result<(), CommandError> {
    let stored = app.home.load(id)?;
    let app = &app.on_cluster_of(&stored);
    let status = look(app, &stored)?;
    due::submit_due(app, &stored, &status)?;
    // It has ended if what waits for it was blocked.
    due::start_runner(app, &app.home.load(id)?, &status)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_several_times_is_visited_once_after_what_it_waits_for() {
        let id = |text: &str| text.parse::<ExperimentId>().unwrap();
        let mut to_visit = ToVisit::default();
        for text in ["last-00000400", "right-00000300", "left-00000200", "last-00000400"] {
            to_visit.add(id(text));
        }
        let limit = id("other-00000300");
        assert_eq!(to_visit.next_before(Some(&limit)), Some(id("left-00000200")));
        assert_eq!(to_visit.next_before(Some(&limit)), None);
        assert_eq!(to_visit.next_before(None), Some(id("right-00000300")));
        assert_eq!(to_visit.next_before(None), Some(id("last-00000400")));
        assert_eq!(to_visit.next_before(None), None);
    }
}
