//! Where a site limits how many jobs a user may have, what does not fit is submitted later: on a real Slurm.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::fake::FakeSlurm;
use crate::retry_advice::failed_in_four_ways;
use crate::support::{World, states};

const N: usize = 62;
const FILE: &str = r#"
name = "windows"
[executor.s]
kind = "slurm"
partition = "main"
time = "10m"
mem = "5M"
[task.train]
run = "echo run >>$NEMO_DIR/runs"
params.n = { int = [1, 62] }
[task.last]
after = ["train"]
run = "echo run >>$NEMO_DIR/runs"
"#;

/// A cluster where the user may have so many jobs.
fn limited(port: u16, jobs: &str) -> (Cluster, World) {
    let cluster = Cluster::start(port, &[("SLURM_DEV_LIMITS", "1")]);
    let world = cluster.world();
    let limit = format!("MaxSubmitJobs={jobs}");
    world.slurm("sacctmgr", &["-i", "-Q", "modify", "user", "root", "set", &limit]);
    world.write("exp.toml", FILE);
    (cluster, world)
}

#[track_caller]
fn assert_ran_once(world: &World, id: &str) {
    let status = world.status(id);
    assert_eq!(states(&status, "train"), vec!["completed"; N], "{status:#}");
    assert_eq!(states(&status, "last"), ["completed"], "{status:#}");
    let trials = world.experiment(id).join("tasks/train/trials");
    let runs = |path: &Path| std::fs::read_to_string(path.join("runs")).unwrap();
    for trial in 0..N {
        assert_eq!(runs(&trials.join(trial.to_string())), "run\n", "of trial {trial}");
    }
    assert_eq!(runs(&world.experiment(id).join("tasks/last/trials/0")), "run\n");
}

#[test]
fn what_does_not_fit_is_submitted_by_the_jobs_that_end() {
    if !cluster::is_here() {
        return;
    }
    let (_cluster, world) = limited(26_317, "50");
    let plan: Value = serde_json::from_str(&world.ok(&["plan", "exp.toml", "--json"])).unwrap();
    assert_eq!((&plan["max_submit"], &plan["room"]), (&50.into(), &50.into()), "{plan:#}");
    assert_eq!(plan["arrays"][0]["trials"], 50, "{plan:#}");
    assert_eq!(plan["later"][0]["trials"], 12, "{plan:#}");
    let submitted = world.run(&["submit", "exp.toml"]);
    assert!(submitted.stderr.contains("13 trials will be submitted later"), "{submitted:?}");
    let id = submitted.stdout.trim();
    world.ok(&["wait", id, "--timeout", "8m"]);
    assert_ran_once(&world, id);
    let shown: Value = serde_json::from_str(&world.ok(&["show", id, "--json"])).unwrap();
    let n = |generation: &Value| generation["trials"].as_u64().unwrap();
    let generations = shown["generations"].as_array().unwrap();
    assert_eq!(generations.iter().map(n).sum::<u64>(), 63, "{shown:#}");
}

/// Jobs in an account without room take none in another one; and where there is none, Slurm is asked all the same.
#[test]
fn the_room_is_that_of_the_account() {
    if !cluster::is_here() {
        return;
    }
    let (_cluster, world) = limited(26_617, "50");
    world.slurm("sacctmgr", &["-i", "-Q", "add", "account", "tiny"]);
    let right = ["add", "user", "root", "account=tiny", "MaxSubmitJobs=2"];
    world.slurm("sacctmgr", &[&["-i", "-Q"], &right[..]].concat());
    for _ in 0..2 {
        world.slurm("sbatch", &["--account=tiny", "--hold", "--output=/dev/null", "--wrap=true"]);
    }
    let plan: Value = serde_json::from_str(&world.ok(&["plan", "exp.toml", "--json"])).unwrap();
    assert_eq!((&plan["max_submit"], &plan["room"]), (&50.into(), &50.into()), "{plan:#}");
    let tiny = ["exp.toml", "--set", "executor.s.sbatch.account=tiny"];
    let planned = world.ok(&[&["plan", "--json"], &tiny[..]].concat());
    let plan: Value = serde_json::from_str(&planned).unwrap();
    assert_eq!((&plan["room"], &plan["arrays"][0]["trials"]), (&0.into(), &1.into()), "{plan:#}");
    let submitted = world.run(&[&["submit"], &tiny[..]].concat());
    assert_eq!(submitted.code, 0, "{submitted:?}");
    assert!(submitted.stderr.contains("poll --install"), "{submitted:?}");
    let id = submitted.stdout.trim();
    let n_lines = || {
        std::fs::read_to_string(world.experiment(id).join("journal.jsonl")).unwrap().lines().count()
    };
    let before = n_lines();
    world.run(&["poll", id]);
    world.run(&["poll", id]);
    assert_eq!(n_lines(), before, "a try in vain rests");
}

/// Nobody tells the limit: `sbatch` does by its refusal, and what it takes is found out.
#[test]
fn a_limit_that_is_not_known_is_found_out() {
    if !cluster::is_here() {
        return;
    }
    let (_cluster, mut world) = limited(26_417, "20");
    let without = world.path("bin");
    std::fs::create_dir(&without).unwrap();
    for program in ["sbatch", "squeue", "sacct", "scontrol", "scancel", "srun", "sinfo"] {
        let found =
            std::env::split_paths(&world.path).map(|it| it.join(program)).find(|it| it.is_file());
        std::os::unix::fs::symlink(found.unwrap(), without.join(program)).unwrap();
    }
    let all =
        std::mem::replace(&mut world.path, format!("{}:/usr/local/bin:/bin", without.display()));
    let submitted = world.run(&["submit", "exp.toml"]);
    assert_eq!(submitted.code, 0, "{submitted:?}");
    assert!(submitted.stderr.contains("will be submitted later"), "{submitted:?}");
    let id = submitted.stdout.trim().to_owned();
    world.path = all;
    world.until(&id, "all to be over", |status| {
        world.run(&["poll", &id]);
        status["experiment"]["state"] == "completed"
    });
    assert_ran_once(&world, &id);
}

/// Nobody tells a limit: what Slurm does not take at once is asked for in smaller parts, until it takes some.
#[test]
fn a_first_window_is_found_at_the_submission() {
    let fake = FakeSlurm::new(1001);
    let text = "name = \"w\"\n[executor.s]\nkind = \"slurm\"\n[task.train]\nrun = \"true {n}\"\nparams.n = { int = [1, 30] }\n";
    fake.world.write("exp.toml", text);
    std::fs::write(fake.state("no_room"), "train.0\ntrain.1\n").unwrap();
    let submitted = fake.world.run(&["submit", "exp.toml"]);
    assert_eq!(submitted.code, 0, "{submitted:?}");
    assert_eq!(fake.names(), ["train.2"], "{submitted:?}");
    let id = submitted.stdout.trim();
    let script = fake.world.experiment(id).join("tasks/train/2.sbatch");
    assert!(std::fs::read_to_string(script).unwrap().contains("#SBATCH --array=0-6\n"));
    let expected = "Submitted 7 trials as 1 job array; 23 trials will be submitted later.";
    assert!(submitted.stderr.contains(expected), "{submitted:?}");
    assert!(!submitted.stderr.contains("nothing is submitted yet"), "{submitted:?}");
}

#[test]
fn a_retry_finds_its_first_window_too() {
    let (fake, id) = failed_in_four_ways();
    std::fs::write(fake.state("no_room"), "train.1\n").unwrap();
    let retried = fake.world.run(&["retry", &id]);
    assert_eq!(fake.names(), ["train.0", "train.2"], "{retried:?}");
    let expected = "Retried 5 trials as 1 job array; 3 trials will be submitted later.";
    assert!(retried.stderr.contains(expected), "{retried:?}");
}

#[test]
fn a_kill_loses_nothing_and_doubles_nothing() {
    if !cluster::is_here() {
        return;
    }
    let (_cluster, world) = limited(26_517, "50");
    for after in [20, 60, 100, 140, 200, 300] {
        kill_after(&world, &["submit", "exp.toml"], after);
    }
    // Those that were written down go on; each is whole.
    let ids = std::fs::read_dir(world.path("home/experiments")).into_iter().flatten();
    let ids: Vec<String> =
        ids.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect();
    let ids: Vec<&String> = ids.iter().filter(|id| id.starts_with("windows-")).take(2).collect();
    for id in ids {
        world.ok(&["submit", "--continue", id]);
        let after = std::cell::Cell::new(10);
        world.until(id, "all to be over", |status| {
            kill_after(&world, &["poll", id], after.replace(after.get() + 37) % 400);
            status["experiment"]["state"] == "completed"
        });
        assert_ran_once(&world, id);
    }
}

/// Runs a command and kills it after so many milliseconds.
fn kill_after(world: &World, arguments: &[&str], milliseconds: u64) {
    let mut command = world.command(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(milliseconds));
    child.kill().unwrap();
    child.wait().unwrap();
}
