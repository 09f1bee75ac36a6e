//! Trials that never ran and that Slurm has forgotten are submitted again by `poll`: once, with a claim, whatever is killed.

use std::path::Path;
use std::process::Command;

use nemo_core::checksum;
use serde_json::Value;

use crate::fake::{CHAIN, FakeSlurm};
use crate::support::{printed, text, trials};

/// Calls that change something, or that could come between two that do.
const CALLS: &str = "write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,openat,clone,clone3,vfork,wait4,waitid,close";

/// `prepare` is done by its record. Slurm took it for failed, cancelled all that waits, and has forgotten that.
pub(crate) fn forgotten() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", &CHAIN.replace("{ int = [1, 5] }", "[0, 1, 2]"));
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let trial = fake.world.experiment(&id).join("tasks/prepare/trials/0");
    std::fs::create_dir_all(&trial).unwrap();
    let done = r#"{"event":"start","attempt":0,"slurm_job":"101_0","restarts":0,"node":"n1","pid":1,"boot_id":"b","start_ticks":1,"time":1.0,"resume_step":null}
{"event":"end","attempt":0,"time":2.0,"cause":"completed","exit_code":0,"signal":null,"step":null,"checkpoint_step":null,"next":"done","reason":null}
"#;
    std::fs::write(trial.join("attempts.jsonl"), done).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now.as_secs().to_string();
    let account = |id: &'static str, state: &'static str| {
        [id, state, "0:0", "100", "Unknown", &now, "None assigned"].map(str::to_owned)
    };
    let rows = [
        account("101_0", "FAILED"),
        account("102_[0-2]", "CANCELLED"),
        account("103_[0]", "CANCELLED"),
    ];
    let rows = rows.each_ref().map(|row| row.each_ref().map(String::as_str));
    fake.answer("sacct", Some(&rows.each_ref().map(<[&str; 7]>::as_slice)));
    // The fake's `squeue` shows what was submitted since then.
    std::fs::write(fake.state("forgets"), "3").unwrap();
    (fake, id)
}

fn did(polled: &Value) -> Vec<String> {
    let trials = polled["trials"].as_array().unwrap();
    trials
        .iter()
        .map(|trial| format!("{}/{} {}", text(&trial["task"]), trial["trial"], text(&trial["did"])))
        .collect()
}

fn poll(fake: &FakeSlurm) -> Value {
    serde_json::from_str(&fake.world.ok(&["poll", "--json"])).unwrap()
}

const AGAIN: [&str; 5] = ["prepare.0", "train.0", "evaluate.0", "train.1", "evaluate.1"];

#[test]
fn what_slurm_has_forgotten_is_submitted_once_more() {
    let (fake, id) = forgotten();
    let status = fake.world.status(&id);
    let reason = text(&trials(&status, "train")[1]["reason"]);
    assert!(reason.contains("`nemo-slurm poll` submits it again"), "{reason}");
    let polled = poll(&fake);
    let all = ["train/0", "train/1", "train/2", "evaluate/0"];
    assert_eq!(did(&polled), all.map(|trial| format!("{trial} resubmitted")), "{polled:#}");
    assert_eq!(polled["trials"][1]["slurm_job"], "104_1");
    assert_eq!(fake.names(), AGAIN);
    let taken = fake.taken();
    assert!(!taken[3].arguments.contains("dependency"), "prepare is done: {taken:?}");
    assert!(taken[4].arguments.contains("afterok:104"), "{taken:?}");
    assert_eq!(poll(&fake)["trials"], serde_json::json!([]), "it does nothing twice");
    assert_eq!(fake.names(), AGAIN);
    let status = fake.world.status(&id);
    assert_eq!(trials(&status, "train")[0]["slurm_job"], "104_0", "{status:#}");
    assert_eq!(trials(&status, "train")[0]["state"], "pending", "{status:#}");
}

/// What waits for a trial that still runs is submitted when that is done: Slurm can't be told of both at once.
#[test]
fn what_waits_for_more_is_submitted_later() {
    let (fake, id) = forgotten();
    let attempts = fake.world.experiment(&id).join("tasks/prepare/trials/0/attempts.jsonl");
    let done = std::fs::read_to_string(&attempts).unwrap();
    std::fs::write(&attempts, done.lines().next().unwrap().to_owned() + "\n").unwrap();
    fake.answer("squeue", Some(&[&["101_0", "RUNNING", "100", "None"]]));
    assert_eq!(did(&poll(&fake)), [""; 0]);
    assert_eq!(fake.names(), AGAIN[..3]);
    std::fs::write(&attempts, done).unwrap();
    poll(&fake);
    assert_eq!(fake.names(), AGAIN);
}

#[test]
fn nobody_submits_beside_another_process() {
    let (fake, _) = forgotten();
    std::fs::write(fake.state("slow"), "").unwrap();
    let poll = || fake.world.command(&["poll"]).spawn().unwrap();
    let all = [(); 4].map(|()| poll());
    for mut child in all {
        child.wait().unwrap();
    }
    assert_eq!(fake.names(), AGAIN);
}

/// Kills a `poll` before its `n`-th call; the next one goes on. False when the first ended before that.
fn kill_and_poll_again(n: usize) -> bool {
    let (fake, _) = forgotten();
    let mut strace = Command::new("strace");
    fake.world.surround(&mut strace);
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
    strace.arg("-o").arg(fake.world.path("strace.log"));
    strace.args(["-e", &format!("trace={CALLS}"), "-e", &inject]);
    strace.arg(env!("CARGO_BIN_EXE_nemo-slurm")).arg("poll");
    let first = strace.output().expect("strace is needed: apt-get install strace");
    let killed = !first.status.success();
    let second = printed(&fake.world.command(&["poll"]).output().unwrap());
    assert_eq!(second.code, 0, "killed at {n}: {second:?}");
    assert_eq!(fake.names(), AGAIN, "killed at {n}: {second:?}");
    let released = fake.read("released");
    assert!(released.split_whitespace().any(|job| job == "104"), "killed at {n}: {released}");
    killed
}

#[test]
fn kill_9_of_poll_submits_nothing_twice() {
    let mut points = (1..).step_by(13).take_while(|point| kill_and_poll_again(*point));
    let last = points.by_ref().last().unwrap_or(0);
    assert!(last > 60, "only {last} calls: were the right ones traced?");
}

/// A controller that was killed before it wrote down that it has an array: two answers, five minutes apart, must agree.
#[test]
fn an_array_that_slurm_lost_is_submitted_once_two_answers_agree() {
    let (fake, id) = forgotten();
    fake.answer("sacct", Some(&[]));
    assert_eq!(did(&poll(&fake)), [""; 0]);
    assert_eq!(did(&poll(&fake)), [""; 0], "not five minutes later");
    five_minutes_later(&fake.world.experiment(&id));
    poll(&fake);
    assert_eq!(fake.names(), AGAIN);
}

/// What was seen of an experiment was seen five minutes ago.
pub(crate) fn five_minutes_later(folder: &Path) {
    let path = folder.join("observed.json");
    let mut observed: Value = checksum::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for run in observed["runs"].as_array_mut().unwrap() {
        if let Some(since) = run["certainty"]["agreed"].as_f64() {
            run["certainty"]["agreed"] = (since - 301.0).into();
        }
    }
    observed.as_object_mut().unwrap().remove("checksum");
    std::fs::write(&path, checksum::to_vec(&observed).unwrap()).unwrap();
}
