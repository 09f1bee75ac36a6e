//! Real Slurm for tests: the shared cluster that `scripts/test` starts, or one of a test's own with other settings.

use std::process::Command;

use tempfile::TempDir;

use crate::support::World;

/// A cluster of a test's own, ended with it.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    options: Vec<(&'static str, String)>,
}

/// Whether a real Slurm is here. `scripts/test --without-slurm` says loudly what is not tested then.
pub(crate) fn is_here() -> bool {
    let is_here = std::env::var_os("NEMO_TEST_SLURM").is_some();
    if !is_here {
        eprintln!("skipped: no real Slurm here; `scripts/test` starts one");
    }
    is_here
}

impl Cluster {
    /// Starts a cluster on ports from `port`, with options of `scripts/slurm-dev`.
    pub(crate) fn start(port: u16, options: &[(&'static str, &str)]) -> Self {
        let options = options.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let cluster = Self { folder: TempDir::new().unwrap(), port, options };
        cluster.dev(&["start"]);
        cluster
    }

    /// A world whose Slurm is this cluster.
    pub(crate) fn world(&self) -> World {
        let mut world = World::new();
        let conf = self.folder.path().join("slurm/etc/slurm.conf");
        world.slurm_conf = Some(conf.to_str().unwrap().to_owned());
        world
    }

    /// `scripts/slurm-dev` for this cluster.
    pub(crate) fn dev(&self, arguments: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/slurm-dev");
        let mut command = Command::new(script);
        command.args(arguments).env("SLURM_DEV_DIR", self.folder.path().join("slurm"));
        command.env("SLURM_DEV_PORT", self.port.to_string());
        for (name, value) in &self.options {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/slurm-dev");
        let stopped = Command::new(script)
            .arg("stop")
            .env("SLURM_DEV_DIR", self.folder.path().join("slurm"))
            .output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("the cluster in {} may still run", self.folder.path().display());
        }
    }
}
