//! Pausing, resuming and requeueing: on this machine and on a real Slurm.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::processes::Process;
use crate::slurm::write_wide;
use crate::support::{World, causes, states, text, trials};

const HERE: &str = "kind = \"local\"\nparallel = 4";
const SLURM: &str = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";

/// Pauses one trial and then all in the middle, and lets them go on.
fn paused_trials_wait_and_go_on(executor: &str) {
    let world = World::new();
    counting::write(&world, executor, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 5);
    world.ok(&["pause", &format!("{id}/train/1")]);
    let status = world.until(&id, "one is paused", |status| states(status, "train")[1] == "paused");
    assert_eq!(states(&status, "train"), ["running", "paused", "running"], "{status:#}");
    assert_eq!(status["experiment"]["state"], "running");
    world.ok(&["pause", &id]);
    let paused = |status: &Value| states(status, "train") == ["paused"; 3];
    let status = world.until(&id, "all are paused", paused);
    assert_eq!(status["experiment"]["state"], "paused", "{status:#}");
    assert_eq!(status["tasks"][1]["counts"]["paused"], 3);
    let jobs = |status: &Value| -> Vec<String> {
        trials(status, "train").iter().map(|trial| text(&trial["slurm_job"])).collect()
    };
    let before = jobs(&status);
    assert!(world.ok(&["pause", &id]).is_empty(), "a second time changes nothing");
    world.ok(&["resume", &format!("{id}/train/1")]);
    world.until(&id, "one goes on", |status| {
        let state = &*states(status, "train")[1];
        assert_ne!(state, "preempted", "it was paused");
        matches!(state, "running" | "completed")
    });
    world.ok(&["resume", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["paused", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 5);
    }
    assert_eq!(jobs(&status), before, "they keep their jobs");
    counting::assert_undisturbed(&world, &id, 60);
}

#[test]
fn paused_trials_wait_and_go_on_here() {
    paused_trials_wait_and_go_on(HERE);
}

#[test]
fn paused_trials_wait_and_go_on_on_slurm() {
    if cluster::is_here() {
        paused_trials_wait_and_go_on(SLURM);
    }
}

/// A set of trials stands wherever one may.
fn some_trials_are_named_at_once(executor: &str) {
    let world = World::new();
    counting::write(&world, executor, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    let some = format!("{id}/train/2,0");
    world.ok(&["pause", &some]);
    let paused = |status: &Value| states(status, "train") == ["paused", "running", "paused"];
    let status = world.until(&id, "two are paused", paused);
    let hint = format!("`nemo-slurm resume {id}/train/0,2` resumes it");
    assert!(text(&trials(&status, "train")[2]["reason"]).contains(&hint), "{status:#}");
    let shown: Value = serde_json::from_str(&world.ok(&["status", &some, "--json"])).unwrap();
    assert_eq!(states(&shown, "train"), ["paused"; 2], "{shown:#}");
    let attempts = world.ok(&["status", &some, "--attempts"]);
    assert!(attempts.contains("train/2  0        paused"), "{attempts}");
    assert!(!world.ok(&["logs", &some, "--stream", "out"]).contains("train/1"));
    world.ok(&["resume", &some]);
    world.ok(&["cancel", &format!("{id}/train/0-1")]);
    let status = world
        .until(&id, "two are cancelled", |status| states(status, "train")[..2] == ["cancelled"; 2]);
    assert_ne!(states(&status, "train")[2], "cancelled", "{status:#}");
    let none = world.run(&["pause", &format!("{id}/train/1,3")]);
    assert_eq!(none.code, 3, "{none:?}");
    world.ok(&["cancel", &id]);
}

#[test]
fn some_trials_are_named_at_once_here() {
    some_trials_are_named_at_once(HERE);
}

#[test]
fn some_trials_are_named_at_once_on_slurm() {
    if cluster::is_here() {
        some_trials_are_named_at_once(SLURM);
    }
}

#[test]
fn what_waits_is_held_by_its_array_and_released() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write_wide(&world, 1500, "[task.child]\nafter = [\"t\"]\nrun = \"true\"\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.ok(&["pause", &format!("{id}/t")]);
    let status = world.status(&id);
    assert_eq!(status["tasks"][0]["counts"]["paused"], 1500, "{}", status["tasks"][0]["counts"]);
    assert_eq!(states(&status, "child"), ["pending"], "what waits for it goes on waiting");
    world.ok(&["resume", &format!("{id}/t/3")]);
    let status = world.status(&id);
    assert_eq!(states(&status, "t")[3], "pending");
    assert_eq!(
        status["tasks"][0]["counts"]["paused"],
        1499,
        "{} {} {}",
        status["tasks"][0]["counts"],
        trials(&status, "t")[5],
        trials(&status, "t")[755]
    );
    world.ok(&["resume", &id]);
    assert_eq!(world.status(&id)["tasks"][0]["counts"]["pending"], 1500);
    world.ok(&["cancel", &id]);
}

#[test]
fn a_job_that_somebody_releases_by_hand_stays_paused() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    counting::write(&world, SLURM, 40, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    world.ok(&["pause", &format!("{id}/train/0")]);
    let paused = |status: &Value| states(status, "train")[0] == "paused";
    let status = world.until(&id, "it is paused", paused);
    let job = text(&trials(&status, "train")[0]["slurm_job"]);
    world.slurm("scontrol", &["release", &job]);
    world.slurm("scontrol", &["update", &format!("JobId={job}"), "StartTime=now+3"]);
    let log = world.experiment(&id).join("tasks/train/slurm");
    let says = || {
        let files = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().any(|file| said(&file, "the trial is paused"))
    };
    world.until(&id, "the harness sees that", |_| says());
    world.until(&id, "it is paused again", paused);
    world.ok(&["resume", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    assert_eq!(causes(&trials(&status, "train")[0]), ["paused", "completed"], "{status:#}");
    counting::assert_undisturbed(&world, &id, 40);
}

fn said(file: &Path, what: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(what))
}

/// A `scontrol` before the real one, which answers a requeue with the text in `refusal`, if that is there.
fn with_refusals(world: &mut World) {
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = world.slurm("sh", &["-c", "command -v scontrol"]);
    let refusal = world.path("refusal");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{calls}\nif [ \"$1\" = requeue ] && [ -e {refusal} ]; then cat {refusal} >&2; exit 1; fi\nexec {real} \"$@\"\n",
        refusal = refusal.display(),
        calls = world.path("calls").display(),
        real = real.trim(),
    );
    std::fs::write(bin.join("scontrol"), script).unwrap();
    std::fs::set_permissions(bin.join("scontrol"), PermissionsExt::from_mode(0o755)).unwrap();
    world.path = format!("{}:{}", bin.display(), world.path);
}

/// Until the three trials stand like this, and `poll` is hinted at.
fn until_poll_is_wanted(world: &World, id: &str, state: &str) {
    let hint = |trial: &Value| text(&trial["reason"]).contains("`nemo-slurm poll`");
    let waits = |status: &Value| trials(status, "train").iter().all(hint);
    let status = world.until(id, "hints at poll", waits);
    assert_eq!(states(&status, "train"), [state; 3], "{status:#}");
}

/// All three, and none twice.
fn assert_poll_requeues(world: &World) {
    let poll = || serde_json::from_str::<Value>(&world.ok(&["poll", "--json"])).unwrap();
    let polled = poll();
    let did: Vec<String> =
        polled["trials"].as_array().unwrap().iter().map(|trial| text(&trial["did"])).collect();
    assert_eq!(did, ["requeued"; 3], "{polled:#}");
    assert_eq!(poll()["trials"], serde_json::json!([]), "it does nothing twice");
}

#[test]
fn disabled_leaves_a_mark_that_poll_honours_once() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    with_refusals(&mut world);
    counting::write(&world, SLURM, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    assert!(world.ok(&["poll"]).is_empty());
    world.write("refusal", "Requested operation is presently disabled for job 7\n");
    world.ok(&["preempt", &format!("{id}/train")]);
    until_poll_is_wanted(&world, &id, "preempted");
    let refused: Value = {
        let printed = world.run(&["poll", "--json"]);
        assert_eq!(printed.code, 1, "{printed:?}");
        serde_json::from_str(&printed.stdout).unwrap()
    };
    assert_eq!(refused["trials"][0]["did"], "refused", "{refused:#}");
    std::fs::remove_file(world.path("refusal")).unwrap();
    assert_poll_requeues(&world);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        assert_eq!(trial["counters"]["preemptions"], 1, "{trial:#}");
        counting::assert_resumed_beyond(trial, 3);
    }
    counting::assert_undisturbed(&world, &id, 60);
}

/// The harness's process of each trial, as its last attempt wrote it.
pub(crate) fn harnesses(world: &World, id: &str) -> Vec<i32> {
    let trial =
        |n: u32| world.experiment(id).join(format!("tasks/train/trials/{n}/attempts.jsonl"));
    let pid = |n: u32| {
        let text = std::fs::read_to_string(trial(n)).unwrap();
        let start = text.lines().rfind(|line| line.contains("\"start\"")).unwrap();
        let last: Value = serde_json::from_str(start).unwrap();
        i32::try_from(last["pid"].as_i64().unwrap()).unwrap()
    };
    (0..3).map(pid).collect()
}

#[test]
fn a_job_whose_harness_and_guard_were_killed_is_requeued_by_poll() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    counting::write(&world, SLURM, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 25);
    for pid in harnesses(&world, &id) {
        let harness = Process::read(pid);
        // Its guard first, which would have the job requeued.
        harness.parent().unwrap().kill();
        harness.kill();
    }
    until_poll_is_wanted(&world, &id, "failed");
    assert_poll_requeues(&world);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["node_failure", "completed"], "{trial:#}");
        assert_eq!(trial["counters"]["node_failures"], 1, "{trial:#}");
    }
    counting::assert_undisturbed(&world, &id, 60);
}
