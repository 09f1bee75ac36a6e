//! A budget of GPU-hours: what spends it is saved and paused, with that reason; `resume` lets it spend as much again.

use serde_json::{Value, json};

use crate::cluster;
use crate::counting;
use crate::fake::FakeSlurm;
use crate::gpus;
use crate::slurm_word::PROGRAM;
use crate::support::{World, states, text, trials};

fn reasons(status: &Value) -> Vec<String> {
    trials(status, "train").iter().map(|trial| text(&trial["reason"])).collect()
}

#[test]
fn what_spends_its_budget_on_this_machine_is_paused_each_time() {
    let world = gpus::world(3);
    let executor =
        "kind = \"local\"\nparallel = 3\ngpus_per_trial = 1\nbudget = { gpu_hours = 0.002 }";
    counting::write(&world, executor, 600, 0.1);
    let file = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    let notify =
        "[notify]\non = [\"blocked\"]\ncommand = \"echo {subject} >> told\"\n[executor.it]";
    world.write("exp.toml", &file.replacen("[executor.it]", notify, 1));
    let plan = world.ok(&["plan", "exp.toml"]);
    assert!(plan.contains("After 0.002 GPU-hours the trials of `it` (1 GPU each) are"), "{plan}");
    let id = world.ok(&["submit", "exp.toml"]);
    let paused = |world: &World| {
        world.until(&id, "all trials to be paused", |status| {
            world.run(&["poll", &id]);
            states(status, "train") == ["paused"; 3]
        })
    };
    let status = paused(&world);
    for reason in reasons(&status) {
        assert!(reason.starts_with("paused: the budget of executor `it` is spent (0."), "{reason}");
        assert!(reason.contains(" of 0.002 GPU-hours)"), "{reason}");
        assert!(reason.contains(&format!("`nemo-slurm resume {id}/train` lets")), "{reason}");
    }
    let before: Vec<u64> =
        trials(&status, "train").iter().map(|it| it["step"].as_u64().unwrap()).collect();
    world.run(&["poll", &id]);
    let told = std::fs::read_to_string(world.path("told")).unwrap();
    assert!(told.starts_with(&format!("{id} is paused: the budget of executor `it`")), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    world.ok(&["resume", &id]);
    let status = paused(&world);
    let after = trials(&status, "train").iter().map(|it| it["step"].as_u64().unwrap());
    assert!(after.zip(before).all(|(after, before)| after > before), "{status:#}");
    // What they held in order to save is not taken from what they may spend next.
    let reason = &reasons(&status)[0];
    let limit = reason.split(" GPU-hours").next().and_then(|it| it.rsplit(' ').next()).unwrap();
    assert!(limit.parse::<f64>().unwrap() >= 0.004, "{reason}");
    world.ok(&["cancel", &id]);
}

/// Nobody polls but the first of the two that ends.
#[test]
fn on_a_real_slurm_the_end_of_one_pauses_the_others() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("program.py", PROGRAM);
    world.write(
        "exp.toml",
        r#"
name = "budget"
[executor.it]
kind = "slurm"
partition = "main"
gpus_per_node = 1
mem = "100M"
time = "10m"
budget = { gpu_hours = 0.002 }
[task.train]
run = "exec python3 program.py counts {steps}"
params = { steps = [60, 120] }
checkpoint.lead = "15s"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
"#,
    );
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.until(&id, "the other one to be paused", |status| {
        states(status, "train") == ["completed", "paused"]
    });
    let reason = &reasons(&status)[1];
    assert!(reason.starts_with("paused: the budget of executor `it` is spent"), "{reason}");
    world.ok(&["resume", &id]);
    world.ok(&["wait", &id, "--timeout", "3m"]);
    assert_eq!(states(&world.status(&id), "train"), ["completed"; 2]);
}

/// A trial that runs, and whose budget is spent after a millisecond.
pub(crate) fn spent() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        "name = \"spent\"\n[executor.it]\nkind = \"slurm\"\ngpus_per_node = 1000\nbudget = { gpu_hours = 0.0003 }\n\
         [task.train]\nrun = \"true\"\n",
    );
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let start = json!({"event": "start", "attempt": 0, "slurm_job": "101_0", "restarts": 0, "node": "n1", "pid": 1,
        "boot_id": "b", "start_ticks": 1, "time": 100.5, "resume_step": null});
    let trial = fake.world.experiment(&id).join("tasks/train/trials/0");
    std::fs::create_dir_all(&trial).unwrap();
    std::fs::write(trial.join("attempts.jsonl"), format!("{start}\n")).unwrap();
    fake.answer("squeue", Some(&[&["101_0", "RUNNING", "100", "None"]]));
    (fake, id)
}

#[test]
fn a_trial_that_was_not_told_of_its_spent_budget_is_told_by_the_next_poll() {
    let (fake, id) = spent();
    let scancel = fake.world.path("bin/scancel");
    let whole = std::fs::read(&scancel).unwrap();
    // `poll` is killed after the mark is written, and before the signal is sent.
    std::fs::write(&scancel, "#!/bin/sh\nkill -9 $PPID\n").unwrap();
    assert_eq!(fake.world.run(&["poll"]).code, -1);
    assert!(fake.world.experiment(&id).join("tasks/train/trials/0/pause-wanted").exists());
    std::fs::write(&scancel, whole).unwrap();
    fake.world.ok(&["poll"]);
    assert_eq!(fake.read("cancelled"), "101_0\n");
    // Once it is paused nothing more is sent.
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "JobHeldUser"]]));
    assert_eq!(states(&fake.world.status(&id), "train"), ["paused"]);
    fake.world.ok(&["poll"]);
    assert_eq!(fake.read("cancelled"), "101_0\n");
}

#[test]
fn a_budget_that_nothing_spends_is_warned_of() {
    let world = World::new();
    let file = |budget: &str| {
        let text = format!(
            "name = \"b\"\n[executor.it]\nkind = \"slurm\"\nbudget = {budget}\n[task.train]\nrun = \"true\"\n"
        );
        world.write("exp.toml", &text);
        world.run(&["check", "exp.toml"])
    };
    let valid = file("{ gpu_hours = 1.5 }");
    assert_eq!(valid.code, 0, "{valid:?}");
    assert!(
        valid.stderr.contains("executor `it` have no GPUs, so its budget is never"),
        "{valid:?}"
    );
    for wrong in
        ["{ gpu_hours = 0 }", "{ gpu_hours = -1 }", "{ gpu_hours = \"1h\" }", "{}", "{ gpus = 1 }"]
    {
        let printed = file(wrong);
        assert_eq!(printed.code, 2, "{wrong}: {printed:?}");
        assert!(printed.stderr.contains("executor.it.budget"), "{wrong}: {printed:?}");
    }
}
