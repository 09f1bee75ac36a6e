//! Trials that submit jobs of their own. Those inherit all that marks the trial's processes, run on the same node, and
//! live on when an attempt of the trial ends.

use std::fs;
use std::process::Command;

use crate::cluster;
use crate::support::{World, causes, harness, printed, trials};

/// A plain job, one that is wrapped, and one whose script `nemo-slurm` has been given.
const JOBS: [&str; 3] = ["plain", "wrapped", "given"];

/// Submits the jobs, waits until they run, and asks to be started again, once.
const PROGRAM: &str = r"
cd HERE
test -e plain.up && exit 0
for job in plain wrapped; do sbatch -o /dev/null $job.sbatch; done
SUBMIT submit given.sbatch
until [ -e plain.up ] && [ -e wrapped.up ] && [ -e given.up ]; do sleep 0.1; done
exit 85
";

/// Writes the program, and the scripts of the jobs: each tells that it runs, and ends once it may.
fn write(world: &World) {
    let here = world.path("").display().to_string();
    let program =
        PROGRAM.replace("HERE", &here).replace("SUBMIT", env!("CARGO_BIN_EXE_nemo-slurm"));
    world.write("submits.sh", &program);
    for job in JOBS {
        let waits = format!(
            "cd {here}\necho $SLURM_JOB_ID >> {job}.up\nuntil [ -e go ]; do sleep 0.1; done\n"
        );
        world.write(&format!("{job}.sh"), &waits);
        let wrap = if job == "wrapped" {
            format!("{} wrap -- ", harness().display())
        } else {
            String::new()
        };
        let script = format!(
            "#!/bin/sh\n#SBATCH --nodelist=n1 --mem=50M --time=5 --job-name={job}\n{wrap}sh {here}/{job}.sh\n"
        );
        world.write(&format!("{job}.sbatch"), &script);
    }
}

/// The trial is over. The jobs it has submitted run on, and have never stopped.
#[track_caller]
fn assert_jobs_live(world: &World) {
    let runs: Vec<String> = JOBS
        .iter()
        .map(|job| fs::read_to_string(world.path(&format!("{job}.up"))).unwrap())
        .collect();
    let state = |run: &String| {
        let said = world.slurm("squeue", &["-h", "-t", "all", "-o", "%T", "-j", run.trim()]);
        said.trim().to_owned()
    };
    let states: Vec<String> = runs.iter().map(state).collect();
    world.write("go", "");
    assert_eq!(states, ["RUNNING"; 3], "{JOBS:?}");
    for run in &runs {
        while !["COMPLETED", "FAILED", "CANCELLED"].contains(&state(run).as_str()) {
            std::thread::sleep(std::time::Duration::from_millis(100)); // looks again
        }
        assert_eq!(state(run), "COMPLETED");
    }
    for (job, run) in JOBS.iter().zip(&runs) {
        let all = fs::read_to_string(world.path(&format!("{job}.up"))).unwrap();
        assert_eq!(&all, run, "{job} was started again");
    }
}

fn jobs_outlive_a_trial(executor: &str) {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world);
    let file = format!(
        "name = \"submits\"\n[executor.it]\n{executor}\n[task.t]\nrun = \"sh {}\"\n",
        world.path("submits.sh").display()
    );
    world.write("exp.toml", &file);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    assert_eq!(causes(&trials(&status, "t")[0]), ["restart", "completed"], "{status:#}");
    assert_jobs_live(&world);
}

#[test]
fn jobs_outlive_the_trial_on_slurm_that_submitted_them() {
    jobs_outlive_a_trial(
        "kind = \"slurm\"\ntime = \"5m\"\nmem = \"50M\"\nsbatch = { nodelist = \"n1\" }",
    );
}

#[test]
fn jobs_outlive_the_trial_on_this_machine_that_submitted_them() {
    jobs_outlive_a_trial("kind = \"local\"");
}

#[test]
fn jobs_outlive_the_wrapped_job_that_submitted_them() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world);
    let script = format!(
        "#!/bin/sh\n#SBATCH --nodelist=n1 --mem=50M --time=5 --output=/dev/null\n{} wrap -- sh {}\n",
        harness().display(),
        world.path("submits.sh").display()
    );
    world.write("parent.sbatch", &script);
    let mut command = Command::new("sbatch");
    world.surround(&mut command);
    let ended = printed(&command.args(["--wait", "parent.sbatch"]).output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_jobs_live(&world);
}
