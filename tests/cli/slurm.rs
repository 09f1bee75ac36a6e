//! Experiments on a real Slurm: preemption with and without notice, time limits, failures, crashes, daemons away.
//!
//! Tests run side by side on one cluster; those that preempt have a node of their own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::counting;
use crate::support::{World, causes, printed, states, text, trials};

/// An executor on one node, from which an urgent job takes it.
fn scavenging(node: &str) -> String {
    format!(
        "kind = \"slurm\"\npartition = \"scavenge\"\nmem = \"100M\"\ntime = \"10m\"\nsbatch = {{ nodelist = \"{node}\" }}"
    )
}

/// Takes a whole node for two seconds.
pub(crate) fn urgent_job(world: &World, node: &str) {
    whole_nodes(world, &["--partition=urgent", &format!("--nodelist={node}")]);
}

/// Takes whole nodes for two seconds.
pub(crate) fn whole_nodes(world: &World, further: &[&str]) {
    let whole = ["--exclusive", "--mem=0", "--output=/dev/null", "--wrap=sleep 2"];
    world.slurm("sbatch", &[&whole[..], further].concat());
}

#[track_caller]
fn until_completed(world: &World, id: &str) -> Value {
    world.until(id, "the end", |status| status["experiment"]["state"] == "completed")
}

/// Preempts three trials in the middle; each is told, saves, runs again and ends as if nothing had been.
fn preempted_trials_go_on(world: &World, node: &str) {
    counting::write(world, &scavenging(node), 250, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(world, &id, 10);
    urgent_job(world, node);
    let status = until_completed(world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 10);
    }
    counting::assert_undisturbed(world, &id, 250);
    world.hold("C: preempted with a grace", &id);
}

#[test]
fn preempted_trials_are_told_by_their_own_signal() {
    if cluster::is_here() {
        preempted_trials_go_on(&World::new(), "n1");
    }
}

#[test]
fn without_that_signal_a_sentinel_tells_them_and_daemons_may_go_away() {
    if !cluster::is_here() {
        return;
    }
    let options = [("SLURM_DEV_USER_SIGNAL", "0"), ("SLURM_DEV_NODES", "1")];
    let cluster = Cluster::start(23_817, &options);
    preempted_trials_go_on(&cluster.world(), "n1");
    daemons_go_away(&cluster);
}

#[test]
fn a_grace_that_belongs_to_the_qos_is_heard_by_a_sentinel() {
    if !cluster::is_here() {
        return;
    }
    let options = [
        ("SLURM_DEV_PREEMPT", "qos"),
        ("SLURM_DEV_USER_SIGNAL", "0"),
        ("SLURM_DEV_NODES", "1"),
        ("SLURM_DEV_GRACE", "30"),
    ];
    let cluster = Cluster::start(23_917, &options);
    let world = cluster.world();
    let executor =
        "kind = \"slurm\"\nmem = \"100M\"\ntime = \"10m\"\nsbatch = { qos = \"scavenge\" }";
    counting::write(&world, executor, 250, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    let began = Instant::now();
    whole_nodes(&world, &["--qos=urgent"]);
    world.until(&id, "the first attempts' ends", |status| {
        trials(status, "train").iter().all(|trial| !causes(trial).is_empty())
    });
    // Told at the grace's beginning, they have left long before its end.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let status = until_completed(&world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 10);
    }
    counting::assert_undisturbed(&world, &id, 250);
    world.hold("C: preempted by a QOS with a grace", &id);
}

/// What was known stays known, marked as old; nothing becomes failed.
fn daemons_go_away(cluster: &Cluster) {
    let world = cluster.world();
    counting::write(&world, &scavenging("n1"), 400, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    // Slurm's controller saves its state every few seconds: killed earlier, it comes back to a time before these jobs.
    counting::until_beyond(&world, &id, 100);
    cluster.dev(&["kill", "slurmdbd"]);
    let status = world.status(&id);
    assert_eq!(states(&status, "train"), ["running"; 3], "{status:#}");
    // The queue tells all of them: the accounts are not missed.
    assert_eq!(status["experiment"]["stale"], false, "{status:#}");
    cluster.dev(&["kill", "slurmctld"]);
    let asked: Value = {
        let printed = world.ok(&["status", &id, "--json", "--slurm-timeout", "3"]);
        serde_json::from_str(&printed).unwrap()
    };
    assert_eq!(states(&asked, "train"), ["running"; 3], "{asked:#}");
    assert_eq!(states(&asked, "prepare"), ["completed"], "{asked:#}");
    assert_eq!(asked["warnings"].as_array().unwrap().len(), 2, "{asked:#}");
    let refused = world.run(&["submit", "exp.toml", "--slurm-timeout", "3"]);
    assert_eq!(refused.code, 4, "no answer is no refusal: {refused:?}");
    let id_of_second = world.ok(&["list", "--json", "-n", "1"]);
    let second: Value = serde_json::from_str(&id_of_second).unwrap();
    let second = text(&second["experiments"][0]["id"]);
    cluster.dev(&["revive", "slurmdbd"]);
    cluster.dev(&["revive", "slurmctld"]);
    world.ok(&["submit", "--continue", &second]);
    until_completed(&world, &id);
    let status = until_completed(&world, &second);
    assert_eq!(causes(&trials(&status, "train")[0]), ["completed"]);
    counting::assert_undisturbed(&world, &id, 400);
    world.hold("E: slurmctld and slurmdbd away while trials run", &id);
}

#[test]
fn a_time_limit_is_a_segment_not_an_end() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"1m\"";
    counting::write(&world, executor, 900, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.until(&id, "the end", |status| {
        trials(status, "train").iter().for_each(assert_last_attempt_runs);
        status["experiment"]["state"] == "completed"
    });
    for trial in trials(&status, "train") {
        let causes = causes(trial);
        let (last, before) = causes.split_last().unwrap();
        assert_eq!(last, "completed");
        assert!(
            !before.is_empty() && before.iter().all(|cause| cause == "time_limit"),
            "{trial:#}"
        );
        counting::assert_resumed_beyond(trial, 10);
    }
    counting::assert_undisturbed(&world, &id, 900);
    world.hold("C: USR1 at the time limit", &id);
}

/// The run before was requeued seconds ago: its end must not be taken for that of the run that followed.
#[track_caller]
fn assert_last_attempt_runs(trial: &Value) {
    let last = trial["attempts"].as_array().and_then(|attempts| attempts.last());
    if let Some(last) = last.filter(|_| trial["state"] == "running") {
        assert!(last["end"].is_null() && last["cause"].is_null(), "{trial:#}");
    }
}

#[test]
fn a_cancelled_job_stays_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    counting::write(&world, &scavenging("n2"), 5000, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    world.ok(&["cancel", &format!("{id}/train/1")]);
    world.until(&id, "one trial cancelled", |status| states(status, "train")[1] == "cancelled");
    assert_eq!(states(&world.status(&id), "train"), ["running", "cancelled", "running"]);
    // Somebody who does not know of us.
    let status = world.status(&id);
    let job = text(&trials(&status, "train")[0]["slurm_job"]);
    world.slurm("scancel", &[job.split('_').next().unwrap()]);
    let status =
        world.until(&id, "all cancelled", |status| status["experiment"]["state"] == "cancelled");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["cancelled"], "{trial:#}");
        assert!(
            trial["attempts"][0]["checkpoint_step"].as_u64() > Some(3),
            "saved on the way: {trial:#}"
        );
    }
    assert_eq!(world.run(&["wait", &id]).code, 1);
    world.hold("C: scancel once", &id);
}

#[test]
fn a_failure_blocks_what_needs_it_and_starts_what_waits_for_it() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"fails\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"10M\"\n\
         [task.first]\nrun = \"test {x} != 1 || exit 3\"\n[task.first.params]\nx = [0, 1, 2]\n\
         [task.each]\nafter = [{ task = \"first\", on = \"each\" }]\nrun = \"true {y}\"\n[task.each.params]\ny = [0, 1, 2]\n\
         [task.second]\nafter = [\"first\"]\nrun = \"true\"\n\
         [task.rescue]\nafter = [{ task = \"first\", on = \"failed\" }]\nrun = \"true\"\n\
         [task.last]\nafter = [{ task = \"second\", on = \"any\" }]\nrun = \"true\"\n",
    );
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let status = world.status("fails");
    assert_eq!(states(&status, "first"), ["completed", "failed", "completed"], "{status:#}");
    assert_eq!(states(&status, "each"), ["completed", "blocked", "completed"], "{status:#}");
    assert_eq!(states(&status, "second"), ["blocked"], "{status:#}");
    assert_eq!(states(&status, "rescue"), ["completed"], "{status:#}");
    assert_eq!(states(&status, "last"), ["completed"], "{status:#}");
    let reason = text(&trials(&status, "first")[1]["reason"]);
    assert!(reason.contains("code 3"), "{reason}");
}

/// Writes an experiment of many trials that begin in an hour.
pub(crate) fn write_wide(world: &World, trials: u32, further: &str) {
    let text = format!(
        "name = \"wide\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"10M\"\n\
         sbatch = {{ begin = \"now+1hour\" }}\n[task.t]\nrun = \"true {{x}}\"\n\
         params.x = {{ int = [1, {trials}] }}\n{further}"
    );
    world.write("exp.toml", &text);
}

#[test]
fn five_thousand_trials_wait_and_are_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write_wide(&world, 5000, "[task.t.search]\nconcurrent = 12\n");
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.status(&id);
    assert_eq!(status["tasks"][0]["counts"]["pending"], 5000);
    let jobs: std::collections::BTreeSet<String> = trials(&status, "t")
        .iter()
        .map(|trial| text(&trial["slurm_job"]).split('_').next().unwrap().to_owned())
        .collect();
    assert_eq!(jobs.len(), 5);
    world.ok(&["cancel", &id]);
    world.until(&id, "all cancelled", |status| status["tasks"][0]["counts"]["cancelled"] == 5000);
}

/// Kills a submission before its `n`-th call that could matter, on the real Slurm, and goes on.
fn kill_and_go_on(world: &World, n: usize) {
    let mut strace = Command::new("strace");
    world.surround(&mut strace);
    let inject = format!("inject=fdatasync,clone3,vfork,wait4:signal=SIGKILL:when={n}");
    strace.args(["-o", "/dev/null", "-e", "trace=fdatasync,clone3,vfork,wait4", "-e", &inject]);
    let program = env!("CARGO_BIN_EXE_nemo-slurm");
    let first = strace.arg(program).args(["submit", "exp.toml"]).output();
    let first = printed(&first.expect("strace is needed: apt-get install strace"));
    let Some(id) = newest(world) else { return };
    if first.code != 0 {
        world.ok(&["submit", "--continue", &id]);
    }
    let status = until_completed(world, &id);
    for task in ["a", "b", "c"] {
        assert_eq!(causes(&trials(&status, task)[0]), ["completed"], "killed at {n}: {status:#}");
    }
    let names = world.slurm("squeue", &["-h", "-t", "all", "-o", "%F %j"]);
    let ours: std::collections::BTreeSet<&str> =
        names.lines().filter(|line| line.contains(&id)).collect();
    assert_eq!(ours.len(), 3, "killed at {n}: each array once: {ours:?}");
    std::fs::remove_dir_all(world.experiment(&id)).unwrap();
}

fn newest(world: &World) -> Option<String> {
    let list: Value = serde_json::from_str(&world.ok(&["list", "--json", "-n", "1"])).unwrap();
    list["experiments"].get(0).map(|experiment| text(&experiment["id"]))
}

#[test]
fn kill_9_of_a_submission_on_the_real_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"killed\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"10M\"\n\
         [task.a]\nrun = \"true\"\n[task.b]\nafter = [\"a\"]\nrun = \"true\"\n[task.c]\nafter = [\"b\"]\nrun = \"true\"\n",
    );
    for n in 1..=12 {
        kill_and_go_on(&world, n);
    }
}

#[test]
fn without_accounting_and_long_forgotten_the_truth_is_still_told() {
    if !cluster::is_here() {
        return;
    }
    let options =
        [("SLURM_DEV_ACCOUNTING", "0"), ("SLURM_DEV_MIN_JOB_AGE", "2"), ("SLURM_DEV_NODES", "1")];
    let cluster = Cluster::start(24_817, &options);
    let world = cluster.world();
    world.write(
        "exp.toml",
        "name = \"forgotten\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"10M\"\n\
         [task.t]\nrun = \"exit {code}\"\n[task.t.params]\ncode = [0, 4]\n",
    );
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let status = world.status("forgotten");
    let job = text(&trials(&status, "t")[0]["slurm_job"]);
    let job = job.split('_').next().unwrap();
    until_forgotten(&world, job);
    let status = world.status("forgotten");
    assert_eq!(states(&status, "t"), ["completed", "failed"], "{status:#}");
    assert_eq!(
        status["warnings"],
        serde_json::json!([]),
        "no accounting is no silence: {status:#}"
    );
}

fn until_forgotten(world: &World, job: &str) {
    let began = std::time::Instant::now();
    loop {
        let mut squeue = Command::new("squeue");
        world.surround(&mut squeue);
        let known = squeue.args(["-h", "-t", "all", "-j", job]).output().unwrap();
        if known.stdout.is_empty() {
            return;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "Slurm never forgets {job}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

/// The final weights of each trial of the example.
fn weights(world: &World, id: &str) -> Vec<Vec<u8>> {
    let trial =
        |n: u32| world.experiment(id).join(format!("tasks/train/trials/{n}/artifacts/weights.npz"));
    (0..6).map(|n| std::fs::read(trial(n)).unwrap()).collect()
}

#[test]
fn the_example_is_preempted_and_its_weights_are_the_same_bit_for_bit() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/exp.toml");
    let example = example.to_str().unwrap();
    let node = "executor.cluster.sbatch.nodelist=\"n3\"";
    let pace = "task.train.params.pace=0.15"; // the last trial is beyond 50 long before the first ends
    let id = world.ok(&["submit", example, "--executor", "cluster", "--set", node, "--set", pace]);
    counting::until_beyond(&world, &id, 50);
    urgent_job(&world, "n3");
    let status = until_completed(&world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 50);
    }
    let undisturbed =
        world.run(&["submit", example, "--set", "task.train.params.pace=0.0", "--wait"]);
    assert_eq!(undisturbed.code, 0, "{undisturbed:?}");
    assert_eq!(weights(&world, &id), weights(&world, undisturbed.stdout.trim()), "bit for bit");
    let logs = world.ok(&["logs", &format!("{id}/evaluate"), "--stream", "out"]);
    assert!(logs.contains("best trial: "), "{logs}");
}
