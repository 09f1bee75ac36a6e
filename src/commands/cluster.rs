//! The facts of the cluster, asked once and kept for a while: they change with its configuration only.

use std::path::PathBuf;

use nemo_core::durable;
use nemo_core::open;
use serde::{Deserialize, Serialize};

use super::App;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::experiment::Experiment;
use crate::report::say;
use crate::slurm::{Cluster, SlurmError};

/// Seconds after which a cluster is asked again. `sbatch` refuses what a newer limit forbids, so nothing is lost.
const FRESH: f64 = 600.0;

#[derive(Serialize, Deserialize)]
struct CachedCluster {
    /// Unix seconds.
    asked: f64,
    cluster: Cluster,
}

/// Puts an experiment on the cluster that the shell names, where its file names none: later commands may come from
/// another shell.
pub(super) fn choose(app: &App, experiment: &mut Experiment) -> Result<(), CommandError> {
    let named = DEFAULTS.into_iter().find_map(|name| Some((name, app.variable(name)?.to_str()?)));
    match named {
        Some((variable, list)) if experiment.cluster().is_none() && list.contains(',') => {
            let text = format!("`{variable}` names several clusters: `{list}`");
            Err(CommandError::new(ExitCode::Usage, text)
                .hinted("name one in the executor: `sbatch = { clusters = \"…\" }`"))
        }
        Some((_, name)) if experiment.cluster().is_none() => {
            experiment.set_cluster(name);
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

/// The variables by which `sbatch` is told of a cluster, the stronger one first.
const DEFAULTS: [&str; 2] = ["SBATCH_CLUSTERS", "SLURM_CLUSTERS"];

/// The same, but where another cluster does not tell, what this machine's cluster allows: clusters of a site are alike, and `sbatch`
/// has the last word.
pub(super) fn facts_or_similar(app: &App, name: Option<&str>) -> Result<Cluster, SlurmError> {
    match (facts(app, name), name) {
        (Err(error), Some(name)) => {
            let similar = facts(app, None)?;
            say(&format!(
                "warning: can't read the limits of cluster `{name}`; using those of `{}`: {error}",
                similar.name
            ));
            Ok(similar)
        }
        (answer, _) => answer,
    }
}

/// What the cluster allows, from a recent answer or from the cluster itself.
pub(super) fn facts(app: &App, name: Option<&str>) -> Result<Cluster, SlurmError> {
    let path = path(app, name);
    let slurm = app.slurm.on_cluster(name);
    let kept: Option<CachedCluster> =
        open::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let now = clock::now();
    if let Some(kept) = kept.filter(|kept| kept.asked <= now && now - kept.asked < FRESH) {
        return Ok(kept.cluster);
    }
    let (limits, partitions) = slurm.limits_and_partitions()?;
    let cluster = Cluster::new(&limits, &partitions);
    let kept = CachedCluster { asked: now, cluster };
    if let (false, Ok(text)) = (app.is_read_only, serde_json::to_vec(&kept)) {
        // Only a hint: without it the cluster is asked again.
        drop(durable::create_dir_all(&app.home.cache()));
        drop(durable::replace_file_durably(&path, &text));
    }
    Ok(kept.cluster)
}

/// Several clusters may share a home: each configuration has a file of its own.
fn path(app: &App, name: Option<&str>) -> PathBuf {
    let which = [app.slurm_conf.as_str(), name.unwrap_or_default()].join("\n");
    let hash = blake3::hash(which.as_bytes()).to_hex();
    app.home.cache().join(format!("cluster-{}.json", &hash[..12]))
}
