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
fn account(state: &str) -> [&str; 7] {
    ["101_0", state, "0:0", "100", "Unknown", "Unknown", "None assigned"]
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

/// Has `squeue` leave the job out of one of its next answers, or of all of them, and after its end.
fn leave_out(fake: &FakeSlurm, answer: &str, verb: &str) {
    let script = "#!/bin/sh\ncd \"$FAKE\" || exit 9\nn=$(( $(cat n) + 1 ))\necho $n >n\n\
        case ODD in $n|all) exit 0 ;; esac\n[ VERB = cancel ] && [ -s cancelled ] || cat squeue.rows\n";
    let head = format!("#!/bin/sh\nFAKE={}\n", fake.state("").display());
    let script =
        script.replace("ODD", answer).replace("VERB", verb).replacen("#!/bin/sh\n", &head, 1);
    std::fs::write(fake.world.path("bin/squeue"), script).unwrap();
    std::fs::write(fake.state("n"), "0").unwrap();
}

/// A command, a state of the job's row, its reason, and how it is seen that the job was told.
type Told = (&'static str, &'static str, &'static str, fn(&FakeSlurm, &str) -> bool);

fn has_mark(fake: &FakeSlurm, id: &str, mark: &str) -> bool {
    fake.world.experiment(id).join("tasks/train/trials/0").join(mark).exists()
}

const TOLD: [Told; 5] = [
    ("pause", "PENDING", "None", |fake, _| fake.read("arguments").contains("hold 101")),
    ("pause", "RUNNING", "None", |fake, id| has_mark(fake, id, "pause-wanted")),
    ("preempt", "RUNNING", "None", |fake, id| has_mark(fake, id, "preempt-wanted")),
    ("resume", "PENDING", "JobHeldUser", |fake, _| fake.read("released").contains("101")),
    ("cancel", "RUNNING", "None", |fake, _| fake.read("cancelled").contains("101")),
];

/// Whichever answer of `squeue` leaves a job out: what a command says that it did, it did.
#[test]
fn nothing_is_called_done_because_one_answer_leaves_the_job_out() {
    for (verb, state, reason, told) in TOLD {
        for odd in ["1", "2", "3", "4", "all"] {
            for target in ["", "/train/0"] {
                let (fake, id) = submitted();
                let what = format!("{verb}{target} of {state}, answer {odd}");
                if verb == "resume" {
                    fake.world.run(&["pause", &id]);
                }
                fake.answer("squeue", Some(&[&["101_0", state, "100", reason]]));
                fake.answer("sacct", Some(&[&account(state)]));
                leave_out(&fake, odd, verb);
                let target = format!("{id}{target}");
                let printed = fake.world.run(&[verb, &target]);
                let (is_done, is_told) = (printed.code == 0, told(&fake, &id));
                assert!(is_told || !is_done, "{what}: {printed:?}");
                assert!(is_done || printed.code == 4, "{what}: {printed:?}");
                let unsure = format!("could not tell whether `{id}/train/0` runs");
                let next = if verb == "preempt" {
                    // Those that are told would be told twice: only the others are asked for.
                    format!("`nemo-slurm {verb} {id}/train/0` asks again")
                } else {
                    format!("`nemo-slurm {verb} {target}` does the rest")
                };
                for said in [unsure, next] {
                    assert_eq!(printed.stderr.contains(&said), !is_done, "{what}: {printed:?}");
                }
                if is_done {
                    continue;
                }
                // What to type next does it.
                leave_out(&fake, "none", verb);
                let again = fake.world.run(&[verb, &target]);
                assert!(again.code == 0 && told(&fake, &id), "{what}: {again:?}");
            }
        }
    }
}
