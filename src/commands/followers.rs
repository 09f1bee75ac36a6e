//! Experiments that wait for another one of which not all has jobs yet. They are not submitted, so no job of theirs submits them:
//! who looks after the other one does, once Slurm can be told of all of it. Where that one is lost they are blocked for good, till
//! somebody retries it: then they wait for it again.

use nemo_core::durable;
use nemo_core::rundir::ExperimentDir;

use super::status::look;
use super::{App, archive, due};
use crate::error::{CommandError, IoResultExt};
use crate::experiment::{Outside, Task};
use crate::journal;
use crate::report::say;
use crate::store::{ExperimentId, Stored};

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

/// The experiments that wait for one, and are not submitted yet; oldest first. Not those that somebody has archived.
pub(super) fn of(app: &App, dir: &ExperimentDir) -> Vec<ExperimentId> {
    let entries = std::fs::read_dir(dir.followers()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.parse::<ExperimentId>().ok());
    let is_waiting = |id: &ExperimentId| {
        let stored = app.home.load(id);
        stored.is_ok_and(|it| is_waiting(&it) && !archive::is_archived(&it).unwrap_or(false))
    };
    let mut ids: Vec<ExperimentId> = ids.filter(is_waiting).collect();
    ids.sort_by(|a, b| a.age().cmp(&b.age()));
    ids
}

/// Submits what of them can be now, and looks at those that wait for them: what was blocked may be so no more. What goes wrong
/// is only said: the experiment that they wait for goes on.
pub(super) fn submit(app: &App, dir: &ExperimentDir) {
    for id in of(app, dir) {
        if let Err(error) = submit_one(app, &id) {
            say(&format!("warning: `{id}`: {}", error.one_line()));
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
    submit(app, &stored.dir);
    Ok(())
}
