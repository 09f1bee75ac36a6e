//! An experiment whose folder is removed while it runs on a real Slurm: its harness ends with its program.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster;
use crate::support::{PATIENCE, World, states};

/// Submits a trial, and waits for its program, which writes its process to `pid`.
fn started() -> (World, String) {
    let world = World::new();
    let text = format!(
        "name = \"removed\"\n[executor.c]\nkind = \"slurm\"\nmem = \"50M\"\ntime = \"10m\"\n\
         [task.train]\nrun = \"echo $$ >{}; exec sleep 300\"\n",
        world.path("pid").display()
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the program", |status| {
        states(status, "train") == ["running"] && world.path("pid").exists()
    });
    (world, id)
}

/// The job's state and exit code, as Slurm tells them.
fn job(world: &World, id: &str) -> String {
    let name = format!("--name={id}.train.0");
    let words = ["--noheader", "--parsable2", "--allocations", "--format=State,ExitCode", &name];
    world.slurm("sacct", &words).trim().to_owned()
}

fn until_ended(world: &World, id: &str) -> String {
    let began = Instant::now();
    loop {
        let job = job(world, id);
        if !job.is_empty() && !job.starts_with("RUNNING") {
            return job;
        }
        assert!(began.elapsed() < PATIENCE, "it lives on: {job}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_job_whose_experiment_is_removed_ends_and_is_not_requeued() {
    if !cluster::is_here() {
        return;
    }
    let (world, id) = started();
    let (folder, began) = (world.experiment(&id), Instant::now());
    // A sign of life may be written meanwhile.
    while folder.exists() {
        std::fs::remove_dir_all(&folder).ok();
    }
    assert_eq!(until_ended(&world, &id), "FAILED|93:0");
    assert!(began.elapsed() > Duration::from_secs(25), "a disk may hide it for a moment");
    let pid = std::fs::read_to_string(world.path("pid")).unwrap();
    let is_alive = Command::new("kill").args(["-0", pid.trim()]).status().unwrap().success();
    assert!(!is_alive, "its program is ended");
    assert!(!folder.exists(), "nothing is made anew");
}

#[test]
fn one_whose_home_is_out_of_sight_for_long_runs_on() {
    if !cluster::is_here() {
        return;
    }
    let (world, id) = started();
    std::fs::rename(world.path("home"), world.path("elsewhere")).unwrap();
    std::thread::sleep(Duration::from_secs(50));
    assert_eq!(job(&world, &id), "RUNNING|0:0");
    std::fs::rename(world.path("elsewhere"), world.path("home")).unwrap();
    world.until(&id, "running", |status| states(status, "train") == ["running"]);
    world.ok(&["cancel", &id]);
    world.until(&id, "the end", |status| states(status, "train") == ["cancelled"]);
}
