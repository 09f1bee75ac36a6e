//! Faults of requeueing, cancelling and time limits on a real Slurm, each on a cluster of its own: after each all promises hold.

use std::process::Command;

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, TrialDir};
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::counting;
use crate::promises;
use crate::slurm::whole_nodes;
use crate::support::{PATIENCE, World, causes, harness, states, text, trials};

const SCAVENGE: &str = "kind = \"slurm\"\npartition = \"scavenge\"\nmem = \"100M\"\ntime = \"10m\"";

#[track_caller]
fn until_state(world: &World, id: &str, state: &str) -> Value {
    world.until(id, state, |status| status["experiment"]["state"] == state)
}

fn job(world: &World, id: &str, trial: usize) -> String {
    text(&trials(&world.status(id), "train")[trial]["slurm_job"])
}

fn array(world: &World, id: &str) -> String {
    job(world, id, 0).split('_').next().unwrap().to_owned()
}

#[test]
fn fifty_trials_are_requeued_at_once() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(23_900, &[("SLURM_DEV_NODES", "4"), ("SLURM_DEV_GRACE", "40")]);
    let world = cluster.world();
    let seeds: Vec<u64> = (1..=50).collect();
    counting::write_trials(&world, SCAVENGE, 400, 0.1, &seeds);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 5);
    whole_nodes(&world, &["--partition=urgent", "--nodes=4"]);
    let status = until_state(&world, &id, "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    }
    counting::assert_trials_undisturbed(&world, &id, 400, &seeds);
    world.hold("D: fifty at once", &id);
}

#[test]
fn the_controller_is_away_when_trials_are_requeued() {
    if !cluster::is_here() {
        return;
    }
    let full = std::env::var_os("NEMO_FAULTS_FULL").is_some();
    let away: &[u64] = if full { &[5, 20, 60] } else { &[5] };
    let options = [("SLURM_DEV_NODES", "1"), ("SLURM_DEV_GRACE", "100")];
    let cluster = Cluster::start(23_930, &options);
    for seconds in away {
        let world = cluster.world();
        counting::write(&world, SCAVENGE, 300, 0.1);
        let id = world.ok(&["submit", "exp.toml"]);
        // The controller saves its state every few seconds: killed earlier, it would not know of these jobs.
        counting::until_beyond(&world, &id, 100);
        cluster.dev(&["kill", "slurmctld"]);
        // The node's daemon passes a signal on without the controller's help: what a time limit or a person would send.
        let batch = batch_processes(&world, &id);
        assert_eq!(batch.len(), 3, "three trials run");
        for pid in batch {
            world.slurm("kill", &["-USR1", &pid]);
        }
        std::thread::sleep(std::time::Duration::from_secs(*seconds));
        cluster.dev(&["revive", "slurmctld"]);
        until_state(&world, &id, "completed");
        counting::assert_undisturbed(&world, &id, 300);
        world.hold(&format!("D: slurmctld away for {seconds} s"), &id);
    }
}

/// The harnesses that run an experiment's trials, as their leases name them.
fn batch_processes(world: &World, id: &str) -> Vec<String> {
    let process = |trial: usize| {
        let dir = world.experiment(id).join(format!("tasks/train/trials/{trial}/lease.0.json"));
        let lease: Value = serde_json::from_slice(&std::fs::read(dir).unwrap()).unwrap();
        lease["pid"].to_string()
    };
    (0..3).map(process).collect()
}

#[test]
fn cancelled_again_and_again_stays_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let options =
        [("SLURM_DEV_NODES", "1"), ("SLURM_DEV_GRACE", "30"), ("SLURM_DEV_KILL_WAIT", "20")];
    let cluster = Cluster::start(23_960, &options);
    let twice = cluster.world();
    counting::write(&twice, SCAVENGE, 5000, 0.1);
    let id = twice.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&twice, &id, 3);
    let array = array(&twice, &id);
    twice.slurm("scancel", &[&array]);
    twice.slurm("scancel", &[&array]);
    let status = until_state(&twice, &id, "cancelled");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["cancelled"], "{trial:#}");
    }
    twice.hold("C: scancel twice", &id);

    // Cancelled in the moment in which it is requeued: it may have ended for Slurm as either, but it never runs again.
    let meanwhile = cluster.world();
    counting::write(&meanwhile, SCAVENGE, 5000, 0.1);
    let id = meanwhile.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&meanwhile, &id, 3);
    let array = self::array(&meanwhile, &id);
    whole_nodes(&meanwhile, &["--partition=urgent", "--nodes=1"]);
    meanwhile.until(&id, "a checkpoint on the way out", |status| {
        trials(status, "train")
            .iter()
            .any(|trial| !trial["attempts"][0]["checkpoint_step"].is_null())
    });
    meanwhile.slurm("scancel", &[&array]);
    let status = until_state(&meanwhile, &id, "cancelled");
    assert_eq!(states(&status, "train"), ["cancelled"; 3], "{status:#}");
    meanwhile.hold("C: scancel while requeueing", &id);
    cancelled_in_the_grace(&cluster, |world, id, _| drop(world.ok(&["cancel", id])));
    cancelled_in_the_grace(&cluster, |world, _, array| drop(world.slurm("scancel", &[array])));
}

/// Slurm shows a cancel in no way while a preemption's grace runs, and the program still saves.
fn cancelled_in_the_grace(cluster: &Cluster, cancel: impl Fn(&World, &str, &str)) {
    let world = cluster.world();
    // A job that has left before the `scancel` is requeued by Slurm, and nobody can know of the `scancel` then.
    counting::write(&world, SCAVENGE, 5000, 8.0);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 1);
    let array = array(&world, &id);
    whole_nodes(&world, &["--partition=urgent", "--nodes=1"]);
    world.until(&id, "the preemption", |_| {
        let told = world.slurm("scontrol", &["-o", "show", "job", &array]);
        told.lines().any(|job| job.contains("=RUNNING") && !job.contains("PreemptTime=None"))
    });
    cancel(&world, &id, &array);
    until_state(&world, &id, "cancelled");
    std::thread::sleep(std::time::Duration::from_secs(8)); // a requeue would start again after three
    let status = until_state(&world, &id, "cancelled");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["cancelled"], "{trial:#}");
    }
    world.hold("C: scancel in the grace of a preemption", &id);
}

#[test]
fn an_administrator_moves_the_time_limit() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(23_990, &[("SLURM_DEV_NODES", "1")]);
    let executor = |time: &str| {
        format!("kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"{time}\"")
    };
    let extended = cluster.world();
    counting::write(&extended, &executor("1m"), 900, 0.1);
    let id = extended.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&extended, &id, 3);
    for trial in 0..3 {
        let name = format!("JobId={}", job(&extended, &id, trial));
        extended.slurm("scontrol", &["update", &name, "TimeLimit=5"]);
    }
    let lowered = cluster.world();
    counting::write(&lowered, &executor("5m"), 700, 0.1);
    let second = lowered.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&lowered, &second, 3);
    for trial in 0..3 {
        let name = format!("JobId={}", job(&lowered, &second, trial));
        lowered.slurm("scontrol", &["update", &name, "TimeLimit=1"]);
    }
    let status = until_state(&lowered, &second, "completed");
    for trial in trials(&status, "train") {
        assert!(causes(trial).contains(&"time_limit".to_owned()), "{trial:#}");
    }
    counting::assert_undisturbed(&lowered, &second, 700);
    lowered.hold("E: a limit lowered by the administrator", &second);
    until_state(&extended, &id, "completed");
    counting::assert_undisturbed(&extended, &id, 900);
    extended.hold("E: a limit extended by the administrator", &id);
}

/// A job of two parts; the batch script, and so the harness, runs in the first.
const HETEROGENEOUS: &str = "#!/bin/sh
#SBATCH --requeue --open-mode=append --signal=B:USR1@30 --ntasks=1 --mem=100M --time=5 --output=/dev/null
#SBATCH hetjob
#SBATCH --ntasks=1 --mem=100M --time=5
exec HARNESS run --task-dir TASK --trial 0
";

#[test]
fn a_heterogeneous_job_is_requeued_as_a_whole() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let task = world.path("experiments/x/tasks/train");
    std::fs::create_dir_all(&task).unwrap();
    let program = "import os, signal, sys, time
def stop(*_):
    path = os.environ['NEMO_CHECKPOINT_DIR']
    open(path + '/.new', 'w').write('x')
    os.rename(path + '/.new', path + '/step-1')
    sys.exit(75)
if os.environ['NEMO_RESUME_STEP'] == '1': sys.exit(0)
signal.signal(signal.SIGUSR1, stop)
open(os.environ['NEMO_DIR'] + '/waits', 'w')
while True: time.sleep(1)";
    let spec = serde_json::json!({
        "schema": 1, "experiment": "x", "task": "train", "command": {"exec": ["python3", "-c", program]},
        "workdir": world.path(""), "seed": 0, "checkpoint": {"signal": "USR1", "lead": 30},
        "restart": {"crashes": 0, "no_progress": 3},
    });
    std::fs::write(task.join("task.json"), spec.to_string()).unwrap();
    std::fs::write(task.join("trials.jsonl"), "{\"trial\":0,\"params\":{}}\n").unwrap();
    let script = HETEROGENEOUS
        .replace("HARNESS", &harness().display().to_string())
        .replace("TASK", &task.display().to_string());
    let script = world.write("het.sh", &script);
    let job = world.slurm("sbatch", &["--parsable", script.to_str().unwrap()]).trim().to_owned();
    let dir = TrialDir(task.join("trials/0"));
    until("the program waits", || dir.path().join("waits").exists());
    world.slurm("scancel", &["--signal=USR1", "--batch", &job]);
    let ends = || {
        let records = lines::read::<AttemptRecord>(&dir.attempts()).unwrap_or_default().rows;
        records.iter().filter(|record| record.as_end().is_some()).count()
    };
    until("a second run ends", || ends() == 2);
    promises::hold("D: a heterogeneous job", &dir, promises::Left::InOrder);
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "waited too long: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50)); // looks again
    }
}

#[test]
fn held_by_somebody_after_the_requeue() {
    if !cluster::is_here() {
        return;
    }
    let options = [("SLURM_DEV_NODES", "1"), ("SLURM_DEV_GRACE", "30")];
    let cluster = Cluster::start(24_020, &options);
    let world = cluster.world();
    counting::write(&world, SCAVENGE, 250, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    let jobs: Vec<String> = (0..3).map(|trial| job(&world, &id, trial)).collect();
    whole_nodes(&world, &["--partition=urgent", "--nodes=1"]);
    world.until(&id, "all are requeued", |status| {
        trials(status, "train").iter().all(|trial| causes(trial) == ["preempted"])
    });
    for job in &jobs {
        // One that has started again by now can't be held any more: the others can.
        let mut hold = Command::new("scontrol");
        world.surround(&mut hold);
        hold.args(["hold", job]).output().unwrap();
    }
    for job in &jobs {
        world.slurm("scontrol", &["release", job]);
    }
    until_state(&world, &id, "completed");
    counting::assert_undisturbed(&world, &id, 250);
    world.hold("D: held after the requeue", &id);
}

#[test]
fn a_node_is_given_up_while_its_jobs_live_on() {
    if !cluster::is_here() {
        return;
    }
    let options = [("SLURM_DEV_NODES", "2"), ("SLURM_DEV_NODE_TIMEOUT", "10")];
    let cluster = Cluster::start(24_050, &options);
    let world = cluster.world();
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
    counting::write(&world, executor, 500, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    let node = text(&trials(&world.status(&id), "train")[0]["attempts"][0]["node"]);
    cluster.dev(&["kill", &node]);
    let status = until_state(&world, &id, "completed");
    assert!(causes(&trials(&status, "train")[0]).len() > 1, "it ran on elsewhere: {status:#}");
    counting::assert_undisturbed(&world, &id, 500);
    world.hold("E: slurmd killed while the job lives on elsewhere", &id);
}

#[test]
fn one_waiting_trial_is_cancelled_alone() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"5m\"\nsbatch = { begin = \"now+1hour\" }";
    counting::write(&world, executor, 10, 0.1);
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    world.write(
        "exp.toml",
        &text.replace("after = [\"prepare\"]\n", "").replace("test -e {prepare.dir}/ready && ", ""),
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.ok(&["cancel", &format!("{id}/train/1")]);
    // Accounting may still show the whole array waiting.
    world.until(&id, "one is cancelled", |status| {
        let states = states(status, "train");
        assert_eq!((&*states[0], &*states[2]), ("pending", "pending"), "{status:#}");
        states[1] == "cancelled"
    });
    world.ok(&["cancel", &id]);
    until_state(&world, &id, "cancelled");
}
