//! What an experiment's programs inherit from the shell that submits it, and whether all that they need is there.

use nemo_core::environment;

use super::{App, prepare};
use crate::error::{CommandError, ExitCode};
use crate::experiment::{EnvSpec, Executor, Experiment};
use crate::store::KeptEnvironment;

/// Gathers it. A secret that is not set is an error.
pub(super) fn gather(app: &App, experiment: &Experiment) -> Result<KeptEnvironment, CommandError> {
    let secrets = secrets(experiment);
    let missing =
        secrets.iter().find(|secret| !app.variables.iter().any(|(name, _)| name == **secret));
    if let Some(name) = missing {
        let text = format!("the secret `{name}` is not set in your environment");
        return Err(CommandError::new(ExitCode::Usage, text).hinted(format!("export {name}=…")));
    }
    let (named, others) = app
        .variables
        .iter()
        .cloned()
        .partition(|(name, _)| secrets.iter().any(|secret| name == *secret));
    let plain = environment::inheritable(others, prepare::is_on_slurm(experiment));
    Ok(KeptEnvironment { plain, secrets: named })
}

/// The names of all secrets of the executors that are used.
fn secrets(experiment: &Experiment) -> Vec<&str> {
    let used = experiment.tasks.iter().filter_map(|task| experiment.executors.get(&task.executor));
    used.flat_map(|executor| &env_spec(executor).secrets).map(String::as_str).collect()
}

fn env_spec(executor: &Executor) -> &EnvSpec {
    match executor {
        Executor::Slurm(slurm) => &slurm.surroundings,
        Executor::Local(local) => &local.surroundings,
    }
}
