//! On a real Slurm, and without a single `nemo-slurm poll` by a person or by cron: what was killed runs again, and what
//! waits for it runs behind it. The jobs of an experiment look after each other.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cancel::before;
use crate::cluster::{self, Cluster};
use crate::control;
use crate::counting;
use crate::slurm_taken_out::kill_all_of;
use crate::slurm_word::PROGRAM;
use crate::support::{World, causes, states, text as text_of, trials};

/// `train` counts to so many steps in each of its trials; `ok` waits for all of them.
fn write(world: &World, steps: &[u32]) {
    world.write("program.py", PROGRAM);
    let text = format!(
        r#"
name = "cronless"
[executor.it]
kind = "slurm"
partition = "main"
mem = "100M"
time = "10m"
[task.train]
executor = "it"
run = "exec python3 program.py counts {{steps}}"
params = {{ steps = {steps:?} }}
checkpoint.lead = "15s"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
[task.ok]
executor = "it"
after = ["train"]
run = "true"
"#
    );
    world.write("exp.toml", &text);
}

#[track_caller]
fn until_counting(world: &World, id: &str) {
    world.until(id, "some steps of all", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(3))
    });
}

#[track_caller]
fn until_completed(world: &World, id: &str) -> Value {
    let is_over = |status: &Value| status["experiment"]["state"] == "completed";
    world.until(id, "the end of all", is_over)
}

/// The harness's process of the first attempt of a trial.
fn harness(world: &World, id: &str, trial: u32) -> Pid {
    let path = world.experiment(id).join(format!("tasks/train/trials/{trial}/attempts.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let start: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    Pid::from_raw(i32::try_from(start["pid"].as_i64().unwrap()).unwrap())
}

/// How many times jobs of an experiment have looked after each other.
fn n_turns(experiment: &Path) -> u32 {
    let names = std::fs::read_dir(experiment).unwrap().map(|entry| entry.unwrap().file_name());
    let number = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix("poll.")?.strip_suffix(".json")?.parse::<u32>().ok()
    };
    names.filter_map(number).max().map_or(0, |newest| newest + 1)
}

#[test]
fn the_guard_of_a_killed_harness_has_the_job_requeued_at_once() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, &[40]);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    kill(harness(&world, &id, 0), Signal::SIGKILL).unwrap();
    let status = until_completed(&world, &id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["node_failure", "completed"], "{status:#}");
    assert_eq!(causes(&trials(&status, "ok")[0]), ["completed"], "{status:#}");
}

#[test]
fn three_killed_harnesses_lose_nothing() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
    counting::write(&world, executor, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 25);
    for pid in control::harnesses(&world, &id) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    let status = until_completed(&world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["node_failure", "completed"], "{trial:#}");
    }
    counting::assert_undisturbed(&world, &id, 60);
}

/// The record says that the trial is done; Slurm must not think otherwise because of a kill that comes then.
#[test]
fn a_harness_that_was_killed_after_its_last_record_is_done() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    // Of a job that was requeued, Slurm is told at its end not to run it once more: after the record is written.
    let script = "case \"$*\" in *Requeue=0*) if mkdir \"$NEMO_SLURM_HOME/../settles\"; then sleep 600; fi ;; esac\nexec REAL \"$@\"";
    before(&mut world, "scontrol", script);
    write(&world, &[60]);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    world.ok(&["preempt", &format!("{id}/train")]);
    world.until(&id, "its end", |_| world.path("settles").exists());
    let pid = {
        let path = world.experiment(&id).join("tasks/train/trials/0/attempts.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let start = text.lines().rfind(|line| line.contains("\"start\"")).unwrap();
        let start: Value = serde_json::from_str(start).unwrap();
        Pid::from_raw(i32::try_from(start["pid"].as_i64().unwrap()).unwrap())
    };
    kill(pid, Signal::SIGKILL).unwrap();
    let status = until_completed(&world, &id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["preempted", "completed"], "{status:#}");
    assert_eq!(causes(&trials(&status, "ok")[0]), ["completed"], "{status:#}");
}

/// Of one trial nobody is left. Another one of the task ends later, and looks after it.
#[test]
fn the_end_of_another_trial_brings_back_one_whose_job_was_killed_whole() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, &[61, 60]);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    kill_all_of(&world, Some("0"), || true);
    let status = until_completed(&world, &id);
    let train = trials(&status, "train");
    assert_eq!(causes(&train[0]), ["node_failure", "completed"], "{status:#}");
    assert_eq!(causes(&train[1]), ["completed"], "{status:#}");
    assert_eq!(causes(&trials(&status, "ok")[0]), ["completed"], "{status:#}");
}

/// A trial is done by its record, and its whole job was killed right then: Slurm cancels what waits for it, and forgets
/// that. The end of another trial has it submitted again.
#[test]
fn what_slurm_has_cancelled_and_forgotten_is_submitted_again() {
    if !cluster::is_here() {
        return;
    }
    let options = [("SLURM_DEV_NODES", "1"), ("SLURM_DEV_MIN_JOB_AGE", "5")];
    let cluster = Cluster::start(24_250, &options);
    let mut world = cluster.world();
    let script = "case \"$*\" in *Requeue=0*) if mkdir \"$NEMO_SLURM_HOME/../settles\"; then sleep 600; fi ;; esac\nexec REAL \"$@\"";
    before(&mut world, "scontrol", script);
    write(&world, &[60]);
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    let others = "[task.last]\nexecutor = \"it\"\nafter = [\"ok\"]\nrun = \"true\"\n\
        [task.other]\nexecutor = \"it\"\nrun = \"test {n} = 0 || until test -e go; do sleep 0.2; done\"\n\
        params = { n = [0, 1] }\n";
    world.write("exp.toml", &(text + others));
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    world.ok(&["preempt", &format!("{id}/train")]);
    kill_all_of(&world, Some("0"), || world.path("settles").exists());
    world.until(&id, "Slurm to forget", |status| {
        let reason = text_of(&trials(status, "last")[0]["reason"]);
        reason.contains("`nemo-slurm poll` submits it again")
    });
    world.write("go", "");
    let status = until_completed(&world, &id);
    for task in ["ok", "last"] {
        assert_eq!(causes(&trials(&status, task)[0]), ["completed"], "{status:#}");
    }
}

#[test]
fn many_ends_that_need_nothing_cost_one_poll() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let numbers: Vec<u32> = (0..30).collect();
    let text = format!(
        "name = \"many\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"10M\"\ntime = \"10m\"\n\
         [task.train]\nrun = \"true {{n}}\"\nparams = {{ n = {numbers:?} }}\n"
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = until_completed(&world, &id);
    assert_eq!(states(&status, "train").len(), 30);
    assert_eq!(n_turns(&world.experiment(&id)), 1, "as seldom as cron would");
}
