//! Answers of Slurm that are wrong for a moment: nothing is taken for over because of one.

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::support::trials;

const ONE: &str = "name = \"odd\"\n[executor.c]\nkind = \"slurm\"\n[task.train]\nrun = \"true\"\n";

fn submitted() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", ONE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    (fake, id)
}

fn trial(fake: &FakeSlurm, id: &str) -> Value {
    trials(&fake.world.status(id), "train")[0].clone()
}

/// `sacct`'s row of the only job.
fn account(state: &str) -> [&str; 9] {
    ["101_0", "101", state, "0:0", "100", "Unknown", "Unknown", "None assigned", "None"]
}

#[test]
fn a_job_that_one_look_does_not_see_is_still_ours_to_cancel() {
    for state in ["PENDING", "RUNNING", "CANCELLED by 0", "FAILED", ""] {
        let (fake, id) = submitted();
        fake.answer("squeue", Some(&[]));
        let row = account(state);
        let rows: &[&[&str]] = if state.is_empty() { &[] } else { &[&row] };
        fake.answer("sacct", Some(rows));
        let during = trial(&fake, &id);
        assert_eq!(during["final"], false, "{state}: {during:#}");
        if matches!(state, "PENDING" | "RUNNING" | "") {
            assert_eq!(during["state"], "unknown", "{state}: {during:#}");
        }
        let reason = during["reason"].as_str().unwrap();
        assert!(reason.contains("the next `status` asks"), "{reason}");
        fake.answer("squeue", None);
        assert_eq!(trial(&fake, &id)["state"], "pending", "{state}");
        fake.world.run(&["cancel", &id]); // this queue goes on to show it, and `cancel` says so
        assert!(fake.read("cancelled").contains("101"), "{state}");
    }
}

#[test]
fn what_an_older_version_took_for_final_is_asked_again() {
    let (fake, id) = submitted();
    let runs = r#"[{"task":"train","first":0,"last":0,"state":"cancelled","reason":null}]"#;
    std::fs::write(fake.world.experiment(&id).join("observed.json"), runs).unwrap();
    assert_eq!(trial(&fake, &id)["state"], "pending");
    // By the rule of today: then it stays, and nobody is asked.
    let runs: Value =
        serde_json::from_str(&runs.replace("null", "null,\"certainty\":\"final\"")).unwrap();
    let text = nemo_core::checksum::to_vec(&serde_json::json!({ "runs": runs })).unwrap();
    std::fs::write(fake.world.experiment(&id).join("observed.json"), text).unwrap();
    let kept = trial(&fake, &id);
    assert_eq!((&kept["state"], &kept["final"]), (&"cancelled".into(), &true.into()));
}

#[test]
fn wait_does_not_believe_one_answer() {
    let (fake, id) = submitted();
    fake.answer("squeue", Some(&[]));
    fake.answer("sacct", Some(&[&account("FAILED")]));
    let began = std::time::Instant::now();
    let mut waiting = fake.world.command(&["wait", &id, "--timeout", "4s"]).spawn().unwrap();
    while fake.world.experiment(&id).join("observed.json").metadata().is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20)); // its first look
    }
    fake.answer("squeue", None);
    assert_eq!(waiting.wait().unwrap().code(), Some(4), "after {:?}", began.elapsed());
}
