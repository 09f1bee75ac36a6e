//! The `timeout` of an experiment, where no harness runs that could honour it: `poll` ends what waits.

use std::fs;

use nemo_core::checksum;
use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::retry::wait_in_queue;
use crate::retry_rules::end;
use crate::support::{World, states, text, trials};

const FILE: &str = "name = \"late\"\ntimeout = \"1h\"\n[executor.gpu]\nkind = \"slurm\"\n\
    [task.train]\nrun = \"true {n}\"\nparams = { n = [0, 1, 2] }\n[task.after]\nrun = \"true\"\nafter = [\"train\"]\n";

/// As if the submission was so many seconds earlier.
fn age(world: &World, id: &str, seconds: f64) {
    let path = world.experiment(id).join("journal.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let older = lines.lines().map(|line| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "submitter" {
            let event = event.as_object_mut().unwrap();
            event.remove("checksum");
            let time = event["time"].as_f64().unwrap();
            event.insert("time".to_owned(), (time - seconds).into());
            let text = checksum::to_vec(event).unwrap();
            return String::from_utf8(text).unwrap() + "\n";
        }
        format!("{line}\n")
    });
    let older: String = older.collect();
    fs::write(path, older).unwrap();
}

/// One trial is done, three wait, and the time is over.
pub(crate) fn late() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FILE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    end(&fake, &id, "train/0", "101_0", 0, "done");
    wait_in_queue(&fake, &["101_[1-2]", "102_[0]"]);
    age(&fake.world, &id, 3680.0);
    (fake, id)
}

#[test]
fn what_waits_when_the_time_is_over_is_ended_with_that_reason() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FILE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    end(&fake, &id, "train/0", "101_0", 0, "done");
    wait_in_queue(&fake, &["101_[1-2]", "102_[0]"]);
    assert_eq!(fake.world.run(&["poll"]).stderr, "Nothing to do: no trial needs to be requeued.\n");
    age(&fake.world, &id, 3620.0);
    fake.world.run(&["poll"]);
    assert_eq!(fake.read("cancelled"), "", "a harness that starts now would do it itself");
    age(&fake.world, &id, 60.0);
    let polled = fake.world.run(&["poll", "--json"]);
    let told: Value = serde_json::from_str(&polled.stdout).unwrap();
    let did: Vec<String> =
        told["trials"].as_array().unwrap().iter().map(|it| text(&it["did"])).collect();
    assert_eq!(did, ["timed_out"; 3], "{polled:?}");
    assert_eq!(fake.read("cancelled").split_whitespace().count(), 3, "{}", fake.read("cancelled"));
    // Slurm shows them no more.
    fake.answer("squeue", Some(&[]));
    let status = fake.world.status(&id);
    assert_eq!(states(&status, "train"), ["completed", "timeout", "timeout"], "{status:#}");
    let reason = text(&trials(&status, "train")[1]["reason"]);
    assert!(reason.contains("`timeout` of the experiment was over"), "{reason}");
    assert_eq!(states(&status, "after"), ["timeout"], "{status:#}");
    let requests = fs::read_dir(fake.world.experiment(&id).join("requests")).unwrap().count();
    fake.world.run(&["poll"]);
    let again = fs::read_dir(fake.world.experiment(&id).join("requests")).unwrap().count();
    assert_eq!((requests, again), (2, 2), "one for each task, once");
}

/// `squeue` shows the jobs once, and then leaves them out: nothing was sent, and nothing is called ended.
#[test]
fn what_one_answer_leaves_out_is_ended_by_the_next_poll() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FILE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    age(&fake.world, &id, 3700.0);
    let squeue = fake.world.path("bin/squeue");
    let whole = fs::read_to_string(&squeue).unwrap();
    let once =
        whole.replacen("#!/bin/sh\n", "#!/bin/sh\nmkdir \"$0.asked\" 2>/dev/null || exit 0\n", 1);
    fs::write(&squeue, once).unwrap();
    let polled = fake.world.run(&["poll"]);
    assert_eq!(fake.read("cancelled"), "", "{polled:?}");
    assert!(!polled.stderr.contains("`timeout`"), "{polled:?}");
    fs::write(&squeue, whole).unwrap();
    let polled = fake.world.run(&["poll"]);
    assert!(fake.read("cancelled").contains("101"), "{polled:?}");
}

#[test]
fn a_cluster_that_is_away_keeps_no_other_waiting() {
    let fake = FakeSlurm::new(1001);
    let away = FILE.replace("kind = \"slurm\"", "kind = \"slurm\"\nsbatch.clusters = \"b\"");
    fake.world.write("away.toml", &away);
    fake.world.write("exp.toml", FILE);
    let ids = [fake.world.ok(&["submit", "away.toml"]), fake.world.ok(&["submit", "exp.toml"])];
    let scancel = fake.world.path("bin/scancel");
    let script = fs::read_to_string(&scancel).unwrap();
    let refuse = "case \"$*\" in *--clusters=b*) echo 'scancel: error: Unable to contact slurm controller (connect failure)' >&2; exit 1 ;; esac\n";
    fs::write(&scancel, script.replacen('\n', &format!("\n{refuse}"), 1)).unwrap();
    wait_in_queue(&fake, &["101_[0-2]", "102_[0]", "103_[0-2]", "104_[0]"]);
    for id in &ids {
        age(&fake.world, id, 3680.0);
    }
    let polled = fake.world.run(&["poll"]);
    assert_eq!(polled.code, 4, "{polled:?}");
    assert!(polled.stderr.contains("Unable to contact slurm controller"), "{polled:?}");
    let cancelled = fake.read("cancelled");
    assert!(cancelled.contains("103_") && !cancelled.contains("101_"), "{cancelled}");
}

#[test]
fn on_a_real_slurm_a_trial_that_could_not_start_is_ended() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let file = "name = \"late\"\ntimeout = \"1h\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\nsbatch = { begin = \"now+2hours\" }\n\
        [task.train]\nrun = \"true\"\n";
    world.write("exp.toml", file);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the queue", |status| states(status, "train") == ["pending"]);
    age(&world, &id, 3700.0);
    world.run(&["poll"]);
    let status = world.until(&id, "its end", |status| states(status, "train") == ["timeout"]);
    assert_eq!(status["experiment"]["state"], "timeout", "{status:#}");
    let queue = world.slurm("squeue", &["--noheader", "--name", &format!("{id}.train.0")]);
    assert_eq!(queue, "");
}
