//! Trials that nobody could requeue until Slurm had forgotten their jobs: brought back once, retried or cancelled.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::fake::{CHAIN, FakeSlurm};
use crate::forgotten::five_minutes_later;
use crate::support::{World, causes, states, text, trials};

const SLURM: &str = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
const SAVED: &str = concat!(
    r#"{"event":"start","attempt":0,"slurm_job":"101_0","restarts":0,"node":"n1","boot_id":"b","pid":1,"start_ticks":1,"time":100.0,"resume_step":null}"#,
    "\n",
    r#"{"event":"end","attempt":0,"time":200.0,"cause":"preempted","exit_code":75,"signal":null,"step":7,"checkpoint_step":7,"next":"requeue","reason":"preempted","stopped":null,"saving":null}"#,
    "\n"
);

/// `prepare` was saved and could not be requeued; Slurm cancelled what waits for it. It has forgotten all of that.
fn dropped() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", &CHAIN.replace("{ int = [1, 5] }", "[0, 1, 2]"));
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let trial = fake.world.experiment(&id).join("tasks/prepare/trials/0");
    std::fs::create_dir_all(&trial).unwrap();
    std::fs::write(trial.join("attempts.jsonl"), SAVED).unwrap();
    std::fs::write(trial.join("requeue-wanted"), r#"{"slurm_job":"101_0"}"#).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now.as_secs().to_string();
    let rows: [[&str; 7]; 3] = [
        ["101_0", "FAILED", "93:0", "100", "100", &now, "n1"],
        ["102_[0-2]", "CANCELLED", "0:0", "100", "Unknown", &now, "None assigned"],
        ["103_[0]", "CANCELLED", "0:0", "100", "Unknown", &now, "None assigned"],
    ];
    fake.answer("sacct", Some(&rows.each_ref().map(<[&str; 7]>::as_slice)));
    let job = "JobId=104 ArrayJobId=104 ArrayTaskId=0 JobName=a UserId=u(1) GroupId=u(1) JobState=PENDING Reason=None Requeue=1 Restarts=0 ExitCode=0:0 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n";
    std::fs::write(fake.state("job"), job).unwrap();
    // The fake's `squeue` shows what was submitted since then.
    std::fs::write(fake.state("forgets"), "3").unwrap();
    (fake, id)
}

fn did(world: &World) -> Vec<String> {
    let polled: Value = serde_json::from_str(&world.ok(&["poll", "--json"])).unwrap();
    let trials = polled["trials"].as_array().unwrap();
    let one = |it: &Value| format!("{}/{} {}", text(&it["task"]), it["trial"], text(&it["did"]));
    trials.iter().map(one).collect()
}

const ONCE: [&str; 3] = ["prepare.0", "train.0", "evaluate.0"];
const AGAIN: [&str; 6] =
    ["prepare.0", "train.0", "evaluate.0", "prepare.1", "train.1", "evaluate.1"];

#[test]
fn two_answers_have_it_submitted_once_with_what_waits_for_it() {
    let (fake, id) = dropped();
    let trial = trials(&fake.world.status(&id), "prepare")[0].clone();
    assert_eq!(trial["state"], "preempted", "{trial:#}");
    let reason = text(&trial["reason"]);
    assert!(reason.contains("submits it again once two answers agree"), "{reason}");
    assert_eq!(did(&fake.world), ["prepare/0 unconfirmed"]);
    assert_eq!(fake.names(), ONCE, "not five minutes later");
    five_minutes_later(&fake.world.experiment(&id));
    let polls = [(); 4].map(|()| fake.world.command(&["poll"]).spawn().unwrap());
    for mut child in polls {
        child.wait().unwrap();
    }
    assert_eq!(fake.names(), AGAIN);
    let taken = fake.taken();
    assert!(taken[4].arguments.contains("afterok:104"), "{taken:?}");
    assert_eq!(did(&fake.world), [""; 0], "it does nothing twice");
    assert_eq!(fake.names(), AGAIN);
    let trial = trials(&fake.world.status(&id), "prepare")[0].clone();
    assert_eq!(
        (text(&trial["state"]), text(&trial["slurm_job"])),
        ("preempted".to_owned(), "104_0".to_owned())
    );
}

#[test]
fn what_squeue_shows_again_is_not_submitted() {
    let (fake, id) = dropped();
    did(&fake.world);
    five_minutes_later(&fake.world.experiment(&id));
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "BeginTime"]]));
    did(&fake.world);
    assert_eq!(fake.names(), ONCE);
}

#[test]
fn it_can_be_retried_at_once() {
    let (fake, id) = dropped();
    fake.world.ok(&["retry", &format!("{id}/prepare")]);
    assert_eq!(fake.names()[3], "prepare.1", "{:?}", fake.names());
    let names = fake.names();
    did(&fake.world);
    assert_eq!(
        fake.names().iter().filter(|name| name.starts_with("prepare")).count(),
        2,
        "{names:?}"
    );
}

#[test]
fn what_is_cancelled_stays_so() {
    let (fake, id) = dropped();
    fake.world.ok(&["cancel", &id]);
    let trial = trials(&fake.world.status(&id), "prepare")[0].clone();
    assert_eq!(
        (&trial["state"], &trial["final"]),
        (&"cancelled".into(), &true.into()),
        "{trial:#}"
    );
    five_minutes_later(&fake.world.experiment(&id));
    assert_eq!(did(&fake.world), [""; 0]);
    assert_eq!(fake.names(), ONCE);
}

#[test]
fn what_is_paused_waits_for_a_resume() {
    let (fake, id) = dropped();
    fake.world.ok(&["pause", &format!("{id}/prepare")]);
    let trial = trials(&fake.world.status(&id), "prepare")[0].clone();
    assert_eq!(trial["state"], "paused", "{trial:#}");
    did(&fake.world);
    five_minutes_later(&fake.world.experiment(&id));
    did(&fake.world);
    assert_eq!(fake.names(), ONCE);
}

/// Programs before the real ones: a `scontrol` that refuses requeues, and a `squeue` that does not know the arrays of `forgotten`.
fn with_forgetful_slurm(world: &mut World) {
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let forgotten = world.path("forgotten");
    for (name, script) in [
        (
            "scontrol",
            "case \"$1\" in requeue*) echo 'Requested operation is presently disabled' >&2; exit 1 ;; esac\nexec REAL \"$@\"\n",
        ),
        (
            "squeue",
            "[ -e FORGOTTEN ] || exec REAL \"$@\"\nREAL \"$@\" | grep -av \"^$(cat FORGOTTEN)_\"\nexit 0\n",
        ),
    ] {
        let real = world.slurm("sh", &["-c", &format!("command -v {name}")]);
        let script = script.replace("REAL", real.trim());
        let script = script.replace("FORGOTTEN", &forgotten.display().to_string());
        std::fs::write(bin.join(name), format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    world.path = format!("{}:{}", bin.display(), world.path);
}

#[test]
fn it_goes_on_from_its_checkpoint() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    with_forgetful_slurm(&mut world);
    counting::write(&world, SLURM, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    world.ok(&["preempt", &id]);
    let is_marked =
        |trial: &Value| text(&trial["reason"]).contains("`nemo-slurm poll` requeues it");
    world.until(&id, "marks", |status| trials(status, "train").iter().all(is_marked));
    let job = text(&trials(&world.status(&id), "train")[0]["slurm_job"]);
    world.write("forgotten", job.split('_').next().unwrap());
    let is_dropped = |trial: &Value| text(&trial["reason"]).contains("no longer knows its job");
    let status =
        world.until(&id, "dropped", |status| trials(status, "train").iter().all(is_dropped));
    assert_eq!(states(&status, "train"), ["preempted"; 3], "{status:#}");
    let all = |what: &str| [0, 1, 2].map(|trial| format!("train/{trial} {what}"));
    assert_eq!(did(&world), all("unconfirmed"));
    five_minutes_later(&world.experiment(&id));
    assert_eq!(did(&world), all("resubmitted"));
    assert_eq!(did(&world), [""; 0], "it does nothing twice");
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 3);
    }
    counting::assert_undisturbed(&world, &id, 60);
}
