//! The facts of the cluster, asked once and kept for a while: they change with its configuration only.

use std::path::PathBuf;

use nemo_core::durable;
use serde::{Deserialize, Serialize};

use super::App;
use crate::host;
use crate::slurm::{Cluster, SlurmError};

/// Seconds after which a cluster is asked again. `sbatch` refuses what a newer limit forbids, so nothing is lost.
const FRESH: f64 = 600.0;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Unix seconds.
    asked: f64,
    cluster: Cluster,
}

/// What the cluster allows, from a recent answer or from the cluster itself.
pub(super) fn facts(app: &App) -> Result<Cluster, SlurmError> {
    let path = path(app);
    let kept: Option<Kept> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let now = host::now();
    if let Some(kept) = kept.filter(|kept| kept.asked <= now && now - kept.asked < FRESH) {
        return Ok(kept.cluster);
    }
    let (limits, partitions) = std::thread::scope(|scope| {
        let limits = scope.spawn(|| app.slurm.limits());
        (limits.join(), app.slurm.partitions())
    });
    let never = |_| SlurmError::NoAnswer { program: "scontrol", waited: std::time::Duration::ZERO };
    let cluster = Cluster::new(&limits.map_err(never)??, &partitions?);
    let kept = Kept { asked: now, cluster };
    if let Ok(text) = serde_json::to_vec(&kept) {
        // Only a hint: without it the cluster is asked again.
        drop(durable::create_dir_all(&app.home.cache()));
        drop(durable::replace_file_durably(&path, &text));
    }
    Ok(kept.cluster)
}

/// Several clusters may share a home: each configuration has a file of its own.
fn path(app: &App) -> PathBuf {
    let hash = blake3::hash(app.slurm_conf.as_bytes()).to_hex();
    app.home.cache().join(format!("cluster-{}.json", &hash[..12]))
}
