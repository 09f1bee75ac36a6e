//! Where the rules of `retry = {…}` hold, and where not: after a look, a `cancel`, a `pause` or Slurm's refusal; on a scripted
//! Slurm and on this machine.

use std::process::Command;

use nemo_core::checksum;
use serde_json::{Value, json};

use crate::fake::FakeSlurm;
use crate::retry::wait_in_queue;
use crate::support::{World, causes, printed, states, trials};

pub(crate) const RULES: &str = "failed = 2, out_of_memory = { mem = \"x1.5\" }";

/// `train` has two trials: trial 0 has failed with this cause, and trial 1 waits in the queue. `prepare` is done.
pub(crate) fn half_failed(rules: &str, cause: &str) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    let text = format!(
        "name = \"half\"\n[executor.gpu]\nkind = \"slurm\"\nmem = \"1000M\"\ntime = \"1h\"\n\
         [task.prepare]\nrun = \"true\"\n[task.train]\nrun = \"true {{n}}\"\nparams = {{ n = [0, 1] }}\nretry = {{ {rules} }}\n"
    );
    fake.world.write("exp.toml", &text);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    std::fs::write(fake.state("nodes"), "NodeName=n1 RealMemory=1400 Partitions=main\n").unwrap();
    end(&fake, &id, "prepare/0", "101_0", 0, "done");
    end(&fake, &id, "train/0", "102_0", 0, cause);
    wait_in_queue(&fake, &["102_[1]"]);
    (fake, id)
}

/// Records the end of an attempt.
pub(crate) fn end(fake: &FakeSlurm, id: &str, trial: &str, job: &str, attempt: u32, cause: &str) {
    let (task, index) = trial.split_once('/').unwrap();
    let dir = fake.world.experiment(id).join(format!("tasks/{task}/trials/{index}"));
    std::fs::create_dir_all(&dir).unwrap();
    let (cause, next) = if cause == "done" { ("completed", "done") } else { (cause, "failed") };
    let start = json!({"event": "start", "attempt": attempt, "slurm_job": job, "restarts": 0, "node": "n1", "pid": 1,
        "boot_id": "b", "start_ticks": 1, "time": 100.5, "resume_step": null});
    let end = json!({"event": "end", "attempt": attempt, "time": 200.0, "cause": cause, "exit_code": 1, "signal": null,
        "step": null, "checkpoint_step": null, "next": next, "reason": null});
    let path = dir.join("attempts.jsonl");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, format!("{before}{start}\n{end}\n")).unwrap();
    std::fs::write(dir.join(format!("{attempt}.err")), "it went wrong\n").unwrap();
}

fn script(fake: &FakeSlurm, id: &str, array: usize) -> String {
    let path = fake.world.experiment(id).join(format!("tasks/train/{array}.sbatch"));
    std::fs::read_to_string(path).unwrap_or_default()
}

fn journal(world: &World, id: &str) -> String {
    std::fs::read_to_string(world.experiment(id).join("journal.jsonl")).unwrap()
}

#[test]
fn a_trial_that_was_seen_to_be_over_is_retried_by_its_class_and_once() {
    let (fake, id) = half_failed(RULES, "out_of_memory");
    assert_eq!(states(&fake.world.status(&id), "train"), ["failed", "pending"]);
    let polled = fake.world.run(&["poll"]);
    assert!(
        polled.stderr.contains("it failed: out_of_memory, with executor.mem=1400M"),
        "{polled:?}"
    );
    assert!(script(&fake, &id, 1).contains("--mem=1400M\n"), "{}", script(&fake, &id, 1));
    let journal = journal(&fake.world, &id);
    assert!(journal.contains("\"from_attempt\":1"), "{journal}");
    wait_in_queue(&fake, &["102_[1]", "103_[0]"]);
    assert_eq!(states(&fake.world.status(&id), "train"), ["pending", "pending"]);
    fake.world.run(&["poll"]);
    assert_eq!(fake.names(), ["prepare.0", "train.0", "train.1"]);
}

#[test]
fn what_was_cancelled_is_not_retried_and_what_is_paused_once_it_is_resumed() {
    let (fake, id) = half_failed(RULES, "failed");
    let target = format!("{id}/train/0");
    fake.world.run(&["pause", &target]);
    fake.world.run(&["poll"]);
    assert_eq!(fake.names().len(), 2, "it is paused");
    fake.world.run(&["cancel", &target]);
    fake.world.run(&["resume", &target]);
    fake.world.run(&["poll"]);
    assert_eq!(fake.names().len(), 2, "it was cancelled");
    let waited = fake.world.run(&["wait", &target, "--timeout", "20s"]);
    assert_eq!(waited.code, 1, "{waited:?}");
}

/// Two trials: trial 0 fails at once, trial 1 waits for a file.
fn here() -> (World, String) {
    let world = World::new();
    let text = format!(
        "name = \"here\"\n[task.train]\nrun = \"test {{n}} = 1 || exit 3; until [ -e {}/go ]; do sleep 0.1; done\"\n\
         params = {{ n = [0, 1] }}\nretry = {{ failed = 1 }}\n",
        world.path("").display()
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the failure", |status| states(status, "train") == ["failed", "running"]);
    (world, id)
}

#[test]
fn on_this_machine_no_rule_undoes_a_cancel() {
    let (world, id) = here();
    world.ok(&["cancel", &id]);
    let waited = world.run(&["wait", &id, "--timeout", "1m"]);
    assert_eq!(waited.code, 1, "{waited:?}");
    let polled = world.run(&["poll", &id]);
    let status = world.status(&id);
    assert_eq!(states(&status, "train"), ["failed", "cancelled"], "{polled:?}");
    assert_eq!(causes(&trials(&status, "train")[0]), ["failed"], "{status:#}");
}

#[test]
fn on_this_machine_a_paused_trial_is_retried_after_its_resume() {
    let (world, id) = here();
    let target = format!("{id}/train/0");
    world.run(&["pause", &target]);
    world.write("go", "");
    world.until(&id, "the end", |status| states(status, "train") == ["failed", "completed"]);
    world.run(&["poll", &id]);
    assert!(!journal(&world, &id).contains("\"rule\""), "it is paused");
    let waited = world.run(&["wait", &target, "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "a retry is still to come: {waited:?}");
    world.run(&["resume", &target]);
    let polled: Value = serde_json::from_str(&world.ok(&["poll", &id, "--json"])).unwrap();
    let done = &polled["trials"][0];
    assert_eq!((&done["did"], &done["slurm_job"]), (&json!("retried"), &json!(null)), "{polled:#}");
    let waited = world.run(&["wait", &id, "--timeout", "1m"]);
    assert_eq!(waited.code, 1, "{waited:?}");
}

/// Trial 0 has failed, all else is over, and Slurm refuses further arrays of the task.
fn refused(rules: &str) -> (FakeSlurm, String) {
    let (fake, id) = half_failed(rules, "failed");
    end(&fake, &id, "train/1", "102_1", 0, "done");
    wait_in_queue(&fake, &[]);
    let refused: Vec<String> = (1..20).map(|array| format!("{id}.train.{array}\n")).collect();
    std::fs::write(fake.state("refuse"), refused.concat()).unwrap();
    (fake, id)
}

/// Makes what Slurm has refused, or had no room for, as much older.
fn age_refusals(fake: &FakeSlurm, id: &str, seconds: f64) {
    let aged = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event.as_object_mut().unwrap().remove("checksum");
        if event["event"] == "refused" || event["event"] == "postponed" {
            event["time"] = json!(event["time"].as_f64().unwrap() - seconds);
        }
        String::from_utf8(checksum::to_vec(&event).unwrap()).unwrap() + "\n"
    };
    let text: String = journal(&fake.world, id).lines().map(aged).collect();
    std::fs::write(fake.world.experiment(id).join("journal.jsonl"), text).unwrap();
}

#[test]
fn a_retry_that_slurm_refuses_is_tried_again_later_and_uses_no_rule_up() {
    let (fake, id) = refused("failed = 1");
    let n_asked = || fake.read("asked").lines().count();
    let first = fake.world.run(&["poll", &id]);
    assert_eq!((first.code, n_asked()), (1, 3), "{first:?}");
    assert!(first.stderr.contains("Invalid partition"), "{first:?}");
    assert!(first.stderr.contains("it is tried again in 2m 0s"), "{first:?}");
    let at_once = fake.world.run(&["poll", &id]);
    assert_eq!((at_once.code, n_asked()), (0, 3), "it rests, and that was said: {at_once:?}");
    assert!(!at_once.stderr.contains("refused"), "{at_once:?}");
    let waited = fake.world.run(&["wait", &id, "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "a retry is still to come: {waited:?}");
    std::fs::remove_file(fake.state("refuse")).unwrap();
    age_refusals(&fake, &id, 200.0);
    let later = fake.world.run(&["poll", &id]);
    assert_eq!(later.code, 0, "{later:?}");
    assert_eq!(fake.names(), ["prepare.0", "train.0", "train.2"], "{later:?}");
    end(&fake, &id, "train/0", "103_0", 1, "failed");
    let over = fake.world.run(&["poll", &id]);
    assert_eq!((over.code, fake.names().len()), (0, 3), "now it is used up: {over:?}");
    let waited = fake.world.run(&["wait", &id, "--timeout", "20s"]);
    assert_eq!(waited.code, 1, "{waited:?}");
}

#[test]
fn a_retry_that_slurm_always_refuses_is_given_up() {
    let (fake, id) = refused("failed = 1");
    for n in 1..=6 {
        let polled = fake.world.run(&["poll", &id]);
        let (code, asked) = if n < 6 { (1, 2 + n) } else { (0, 7) };
        assert_eq!(polled.code, code, "{n}: {polled:?}");
        assert_eq!(fake.read("asked").lines().count(), asked, "{n}: {polled:?}");
        assert_eq!(polled.stderr.contains("Invalid partition"), n < 6, "{n}: {polled:?}");
        assert_eq!(polled.stderr.contains("it is not tried again"), n == 5, "{n}: {polled:?}");
        age_refusals(&fake, &id, 40_000.0);
    }
    let waited = fake.world.run(&["wait", &id, "--timeout", "20s"]);
    assert_eq!(waited.code, 1, "{waited:?}");
    std::fs::remove_file(fake.state("refuse")).unwrap();
    fake.world.ok(&["retry", &id]);
    assert_eq!(fake.names().len(), 3);
}

#[test]
fn a_retry_for_which_there_is_no_room_is_submitted_later() {
    let (fake, id) = half_failed("failed = 1", "failed");
    end(&fake, &id, "train/1", "102_1", 0, "done");
    wait_in_queue(&fake, &[]);
    std::fs::write(fake.state("no_room"), "train.1\n").unwrap();
    let first = fake.world.run(&["poll", &id]);
    assert_eq!((first.code, fake.names().len()), (0, 2), "{first:?}");
    let at_once = fake.world.run(&["poll", &id]);
    assert_eq!((at_once.code, fake.read("asked").lines().count()), (0, 3), "{at_once:?}");
    assert_eq!(states(&fake.world.status(&id), "train"), ["pending", "completed"]);
    age_refusals(&fake, &id, 200.0);
    let later = fake.world.run(&["poll", &id]);
    assert_eq!(later.code, 0, "{later:?}");
    assert_eq!(fake.names(), ["prepare.0", "train.0", "train.2"], "{later:?}");
}

/// `mem` of a rule for whatever class, within what the largest node has.
#[test]
fn the_partition_caps_what_any_rule_asks_for() {
    let (fake, id) = half_failed("failed = { mem = \"x10\", time = \"x2\" }", "failed");
    fake.world.run(&["poll"]);
    let script = script(&fake, &id, 1);
    assert!(script.contains("--mem=1400M\n") && script.contains("--time=02:00:00\n"), "{script}");
}

#[test]
fn where_the_rules_are_used_up_no_output_is_read() {
    let (fake, id) = half_failed("failed = 1", "failed");
    let reads_output = || {
        let log = fake.world.path("strace.log");
        let mut strace = Command::new("strace");
        fake.world.surround(&mut strace);
        strace.args(["-f", "-e", "trace=openat", "-o"]).arg(&log);
        let output = strace.arg(env!("CARGO_BIN_EXE_nemo-slurm")).arg("poll").output();
        let polled = printed(&output.expect("strace is needed: apt-get install strace"));
        assert_eq!(polled.code, 0, "{polled:?}");
        std::fs::read_to_string(&log).unwrap().contains("/train/trials/0/")
            && std::fs::read_to_string(log).unwrap().contains(".err\"")
    };
    assert!(reads_output());
    end(&fake, &id, "train/0", "103_0", 1, "failed");
    assert!(!reads_output());
    assert_eq!(fake.names().len(), 3);
}

#[test]
fn only_what_the_target_means_is_waited_for() {
    let (fake, id) = half_failed(RULES, "failed");
    let waited = fake.world.run(&["wait", &format!("{id}/prepare"), "--timeout", "3s"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    let waited = fake.world.run(&["wait", &format!("{id}/train/0"), "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "{waited:?}");
}

#[test]
fn logs_follows_the_attempts_of_a_retry() {
    let (world, id) = here();
    let follower =
        world.command(&["logs", &format!("{id}/train/0"), "--follow", "--stream", "err"]);
    let mut follower = { follower }.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(follower.try_wait().unwrap().is_none(), "a retry is still to come");
    world.write("go", "");
    assert!(follower.wait().unwrap().success());
    let status = world.status(&id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["failed", "failed"], "{status:#}");
}

/// `evaluate` is blocked by a failure of `train`, which its rule retries and which then completes.
fn blocked_here() -> (World, String) {
    let world = World::new();
    let folder = world.path("");
    let folder = folder.display();
    let text = format!(
        "name = \"blocked\"\n[task.train]\nrun = \"mkdir {folder}/ran || exit 0; exit 3\"\nretry = {{ failed = 1 }}\n\
         [task.other]\nrun = \"until [ -e {folder}/go ]; do sleep 0.1; done\"\n\
         [task.evaluate]\nafter = [\"train\"]\nrun = \"true\"\n"
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the failure", |status| states(status, "evaluate") == ["blocked"]);
    (world, id)
}

#[test]
fn what_a_retry_frees_is_waited_for() {
    let (world, id) = blocked_here();
    let target = format!("{id}/evaluate");
    let waited = world.run(&["wait", &target, "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "{waited:?}");
    world.write("go", "");
    let waited = world.run(&["wait", &target, "--timeout", "1m"]);
    assert_eq!(waited.code, 0, "{waited:?}");
}

#[test]
fn what_a_retry_would_free_stays_cancelled() {
    let (world, id) = blocked_here();
    world.run(&["cancel", &format!("{id}/evaluate")]);
    world.write("go", "");
    world.until(&id, "the retry", |status| states(status, "train") == ["completed"]);
    world.run(&["wait", &id, "--timeout", "1m"]);
    let status = world.status(&id);
    assert!(
        trials(&status, "evaluate")[0]["attempts"].as_array().unwrap().is_empty(),
        "{status:#}"
    );
}
