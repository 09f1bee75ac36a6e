//! On a real Slurm: what waits for a trial is not lost where all of that trial's job is killed, and Slurm therefore takes
//! it for failed: `poll` puts it back.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cancel::before;
use crate::cluster;
use crate::processes::{self, Process};
use crate::slurm_word::PROGRAM;
use crate::support::{PATIENCE, World, causes, states, text, trials};

/// `train` counts to `steps`; what waits for it does so in two ways, and one more waits for that.
fn write(world: &World, steps: u32) {
    world.write("program.py", PROGRAM);
    let text = format!(
        r#"
name = "taken"
[executor.it]
kind = "slurm"
partition = "main"
mem = "100M"
time = "10m"
[executor.late]
kind = "slurm"
partition = "main"
mem = "100M"
time = "10m"
sbatch = {{ begin = "now+3" }}
[task.train]
executor = "late"
run = "exec python3 program.py counts {steps}"
checkpoint.lead = "15s"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
[task.ok]
executor = "it"
after = ["train"]
run = "true {{n}}"
params = {{ n = [0, 1] }}
[task.each]
executor = "it"
after = [{{ task = "train", on = "each" }}]
run = "true"
[task.last]
executor = "it"
after = ["ok"]
run = "true"
"#
    );
    world.write("exp.toml", &text);
}

/// The harnesses of a world's jobs that are tasks of this index in their array, guards included, and what they started for
/// themselves. Without an index all of them.
fn harnesses(world: &World, index: Option<&str>) -> Vec<Process> {
    let home = world.path("home").display().to_string();
    processes::find(|process| {
        process.variable("SLURM_JOB_ID").is_some()
            && (index.is_none() || process.variable("SLURM_ARRAY_TASK_ID") == index)
            && (process.variable("NEMO_SLURM_HOME") == Some(&home)
                || process.line().contains(&home))
    })
}

/// Kills all processes of a world's jobs at once, as soon as there are some and `is_time`.
#[track_caller]
fn kill_all(world: &World, is_time: impl Fn() -> bool) {
    kill_all_of(world, None, is_time);
}

/// The same of the jobs that are tasks of this index in their array.
#[track_caller]
pub(crate) fn kill_all_of(world: &World, index: Option<&str>, is_time: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_time() || harnesses(world, index).is_empty() {
        assert!(began.elapsed() < PATIENCE, "its time never came");
        std::thread::sleep(Duration::from_millis(100));
    }
    while let left = harnesses(world, index)
        && !left.is_empty()
    {
        left.iter().for_each(Process::kill);
    }
}

/// Once Slurm has taken all of them out, one `poll` is enough.
#[track_caller]
fn poll_puts_all_back(world: &World, id: &str) -> Value {
    let status = world.until(id, "Slurm's cancel", |status| {
        ["ok", "each", "last"].iter().all(|task| {
            trials(status, task)
                .iter()
                .all(|trial| text(&trial["reason"]).contains("`nemo-slurm poll` puts it back"))
        })
    });
    assert_eq!(states(&status, "ok"), ["pending"; 2], "{status:#}");
    world.ok(&["poll"]);
    let status = world.until(id, "the end", |status| status["experiment"]["state"] == "completed");
    for task in ["ok", "each", "last"] {
        for trial in trials(&status, task) {
            assert_eq!(causes(trial), ["completed"], "{trial:#}");
        }
    }
    let start = |task: &str| trials(&status, task)[0]["attempts"][0]["start"].as_f64().unwrap();
    let train = trials(&status, "train")[0]["attempts"].as_array().unwrap();
    let over = train.last().unwrap()["end"].as_f64().unwrap();
    assert!(over <= start("ok") && start("ok") <= start("last"), "{status:#}");
    status
}

#[test]
fn what_waits_for_a_first_harness_that_was_killed_runs_after_it() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, 20);
    let id = world.ok(&["submit", "exp.toml"]);
    // It is killed before it knows its trial: in the moment in which it reads it.
    let spec = world.experiment(&id).join("tasks/train/task.json");
    let aside = spec.with_file_name("aside");
    std::fs::rename(&spec, &aside).unwrap();
    nix::unistd::mkfifo(&spec, nix::sys::stat::Mode::S_IRWXU).unwrap();
    kill_all(&world, || true);
    std::fs::remove_file(&spec).unwrap();
    std::fs::rename(&aside, &spec).unwrap();
    let status = poll_puts_all_back(&world, &id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["start_failed", "completed"], "{status:#}");
}

#[test]
fn what_waits_for_a_trial_that_is_done_runs_though_its_harness_was_killed_right_then() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    // Of a job that was requeued, Slurm is told at its end not to run it once more: after the record is written.
    let script = "case \"$*\" in *Requeue=0*) if mkdir \"$NEMO_SLURM_HOME/../settles\"; then sleep 600; fi ;; esac\nexec REAL \"$@\"";
    before(&mut world, "scontrol", script);
    write(&world, 100);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "some steps", |status| trials(status, "train")[0]["step"].as_u64() > Some(3));
    world.ok(&["preempt", &format!("{id}/train")]);
    kill_all(&world, || world.path("settles").exists());
    let status = poll_puts_all_back(&world, &id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["preempted", "completed"], "{status:#}");
}
