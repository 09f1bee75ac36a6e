//! A shared disk as a cluster has it: the login shell and every node look at it through mounts of their own, with names and
//! attributes cached for half a minute, and with faults (`tests/faultfs`). Every promise holds all the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster;
use crate::counting::{self, SEEDS};
use crate::slurm::urgent_job;
use crate::support::{World, causes, hold_in, text, trials};

const EXECUTOR: &str = "kind = \"slurm\"\npartition = \"scavenge\"\nmem = \"100M\"\ntime = \"10m\"";

/// A Slurm of one node around a shared disk.
struct SharedDisk {
    folder: TempDir,
    port: u16,
}

impl SharedDisk {
    fn start(port: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let disk = Self { folder, port };
        std::fs::create_dir(disk.path("faults")).unwrap();
        disk.script(&["start", disk.mount().to_str().unwrap(), disk.backing().to_str().unwrap()]);
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mount(&self) -> PathBuf {
        self.path("mount")
    }

    fn backing(&self) -> PathBuf {
        self.path("backing")
    }

    fn script(&self, arguments: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/shared-disk");
        let mut command = Command::new(script);
        command.args(arguments).env("SLURM_DEV_DIR", self.path("slurm"));
        command.env("SLURM_DEV_PORT", self.port.to_string()).env("SLURM_DEV_NODES", "1");
        let output = command.env("FAULTFS_FAULTS", self.path("faults")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// A world on the disk, as the login shell sees it.
    fn world(&self) -> World {
        let mut world = World::new();
        world.folder = TempDir::new_in(self.mount()).unwrap();
        world.slurm_conf = Some(self.path("slurm/etc/slurm.conf").display().to_string());
        world
    }

    /// An experiment's folder behind all mounts and caches.
    fn behind(&self, world: &World, id: &str) -> PathBuf {
        let folder = world.experiment(id);
        self.backing().join(folder.strip_prefix(self.mount()).unwrap())
    }

    /// What goes wrong on the nodes from now on.
    fn faults(&self, rules: &str) {
        std::fs::write(self.path("faults/nodes"), rules).unwrap();
    }

    fn steps(&self, world: &World, id: &str) -> Vec<u64> {
        let last =
            |trial| last_step(&self.behind(world, id).join(format!("tasks/train/trials/{trial}")));
        (0..SEEDS.len()).map(last).collect()
    }

    /// Waits, with an eye behind the caches, until every trial has counted so far.
    fn until_beyond(&self, world: &World, id: &str, step: u64) {
        world.until(id, "steps of every trial", |_| {
            self.steps(world, id).iter().all(|at| *at > step)
        });
    }
}

impl Drop for SharedDisk {
    fn drop(&mut self) {
        std::fs::write(self.path("faults/nodes"), "").ok();
        self.script(&["stop", self.mount().to_str().unwrap()]);
    }
}

fn last_step(trial: &Path) -> u64 {
    let metrics = std::fs::read_to_string(trial.join("metrics.jsonl")).unwrap_or_default();
    let mut whole = metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    whole.next_back().map_or(0, |line| line["step"].as_u64().unwrap())
}

fn until_completed(world: &World, id: &str) -> Value {
    world.until(id, "the end", |status| status["experiment"]["state"] == "completed")
}

#[test]
fn with_stale_caches_a_preempted_sweep_is_exact() {
    if !cluster::is_here() {
        return;
    }
    let disk = SharedDisk::start(29_817);
    let world = disk.world();
    counting::write(&world, EXECUTOR, 400, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    disk.until_beyond(&world, &id, 10);
    urgent_job(&world, "n1");
    until_completed(&world, &id);
    // What this shell's mount shows of an attempt's record may be half a minute old.
    let status = world.until(&id, "both attempts of every trial", |status| {
        trials(status, "train").iter().all(|trial| causes(trial).len() == 2)
    });
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    }
    counting::assert_undisturbed_in(&disk.behind(&world, &id), 400, &SEEDS);
    hold_in("a shared disk with stale caches", &disk.behind(&world, &id));
}

/// Each of these comes between two preemptions: none may lose a step, a checkpoint or a trial.
const FAULTS: [&str; 6] = [
    "fsync attempts.jsonl EIO 2\nfsync checkpoints EIO 1",
    "lookup staging ESTALE 3",
    "write metrics.jsonl ESTALE 3",
    "rename checkpoints lose:ESTALE 3\nlink lease lose:EIO 2",
    "write * delay:15 3",
    "* * delay:0.05",
];

#[test]
fn with_faults_a_preempted_sweep_is_exact() {
    if !cluster::is_here() {
        return;
    }
    let disk = SharedDisk::start(29_917);
    let world = disk.world();
    counting::write(&world, EXECUTOR, 1100, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    for (round, rules) in (0..).zip(FAULTS) {
        let before = *disk.steps(&world, &id).iter().min().unwrap();
        disk.until_beyond(&world, &id, before.max(round) + 10);
        disk.faults(rules);
        urgent_job(&world, "n1");
        let before = *disk.steps(&world, &id).iter().max().unwrap();
        disk.until_beyond(&world, &id, before + 5);
        disk.faults("");
    }
    for trial in trials(&until_completed(&world, &id), "train") {
        // Nothing that went wrong for a while made an attempt leave, a trial fail, or a save impossible.
        for attempt in trial["attempts"].as_array().unwrap() {
            let cause = text(&attempt["cause"]);
            assert!(["preempted", "completed"].contains(&&*cause), "{trial:#}");
            let reason = attempt["reason"].as_str().unwrap_or_default();
            assert!(!reason.contains("not be committed"), "{trial:#}");
        }
    }
    counting::assert_undisturbed_in(&disk.behind(&world, &id), 1100, &SEEDS);
    hold_in("a shared disk with faults", &disk.behind(&world, &id));
}
