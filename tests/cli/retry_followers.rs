//! `retry` and the tasks that wait for what is retried: which of them run too, and why others are left alone.

use serde_json::{Value, json};

use crate::fake::{CHAIN, FakeSlurm};
use crate::retry::{failed, failed_of, retry, wait_in_queue};
use crate::support::{World, states, text};

/// What a retry says of `task`, which it leaves alone.
fn why_left(retried: &Value, task: &str) -> Value {
    let left = retried["left"].as_array().unwrap();
    left.iter().find(|it| it["task"] == task).map_or(Value::Null, |it| it["why"].clone())
}

/// `evaluate` waits for two trials of `train`, which are retried one after the other: it waits for the jobs of both.
#[test]
fn what_was_blocked_waits_for_what_was_retried_before_too() {
    let (fake, id) = failed();
    let first = retry(&fake.world, &[&id, "--dry-run", "--state", "timeout"]);
    assert_eq!(
        why_left(&first, "evaluate"),
        "it is blocked: `train` trial 1 is failed; retry that too"
    );
    retry(&fake.world, &[&format!("{id}/train/1")]);
    wait_in_queue(&fake, &["104_[1]"]);
    let second = retry(&fake.world, &[&id]);
    assert_eq!(second["trials"], json!({ "train": "2", "evaluate": "0" }), "{second:#}");
    assert_eq!(why_left(&second, "evaluate"), Value::Null);
    let taken = fake.taken();
    let is_told = |told: &str| {
        told.contains("evaluate/1.sbatch") && told.contains("=afterok:105,afterany:104 ")
    };
    assert!(taken.iter().any(|it| is_told(&it.arguments)), "{taken:?}");
    wait_in_queue(&fake, &["104_[1]", "105_[2]", "106_[0]"]);
    assert_eq!(states(&fake.world.status(&id), "evaluate"), ["pending"]);
}

/// `prepare` failed too, so that `evaluate`, with `n` trials, is still blocked once trial 1 of `train` runs again.
fn blocked_by_two(on: &str, n: usize) -> (FakeSlurm, String) {
    let after = format!("after = [\"prepare\", {{ task = \"train\", on = \"{on}\" }}]");
    let file = CHAIN.replace("{ int = [1, 5] }", "[0, 1, 2]");
    let file = file.replace("after = [\"prepare\"]\n", "");
    let file = file.replace("after = [\"train\"]", &after);
    let (file, taken_out) = match n {
        1 => (file, "103_[0]"),
        _ => (format!("{file}params.y = [0, 1, 2]\n"), "103_[0-2]"),
    };
    let (fake, id) = failed_of(&file, ("failed", "FAILED"), taken_out);
    let first = retry(&fake.world, &[&format!("{id}/train/1")]);
    assert_eq!(first["trials"], json!({ "train": "1" }), "{first:#}");
    wait_in_queue(&fake, &["104_[1]"]);
    (fake, id)
}

/// Slurm can't be told "if one of these two fails" and more: where the one completes, it would drop the task, though the
/// other fails later.
#[test]
fn what_is_for_a_failure_is_left_alone_while_some_of_it_runs_already() {
    let (fake, id) = blocked_by_two("failed", 1);
    let second = retry(&fake.world, &[&id]);
    assert_eq!(second["trials"], json!({ "prepare": "0", "train": "2" }), "{second:#}");
    let why = text(&why_left(&second, "evaluate"));
    assert!(why.contains("`train`, which runs again: retry it after that"), "{why}");
    assert!(fake.taken().iter().skip(3).all(|it| !it.name.ends_with("evaluate.1")));
}

/// Trial by trial: 1 waits for the job of the earlier retry, and 2 for what is retried now.
#[test]
fn each_trial_waits_for_what_was_retried_before_too() {
    let (fake, id) = blocked_by_two("each", 3);
    let second = retry(&fake.world, &[&id]);
    let trials = json!({ "prepare": "0", "train": "2", "evaluate": "0-2" });
    assert_eq!(second["trials"], trials, "{second:#}");
    let taken = fake.taken();
    let told: Vec<&str> = taken.iter().map(|it| it.arguments.as_str()).collect();
    let is_told = |what: &str| told.iter().any(|it| it.contains("evaluate") && it.contains(what));
    assert!(is_told("=afterok:105,afterany:104_1 "), "{told:#?}");
    assert!(is_told("=afterok:105,aftercorr:106 "), "{told:#?}");
}

/// The same on this machine, where the runner has given `evaluate` up: it waits again, or runs where all is done by now.
#[test]
fn on_this_machine_what_was_blocked_runs_though_what_it_waits_for_was_retried_before() {
    let program = "[ -e ok ] || exit 3; until [ -e go ]; do sleep 0.05; done";
    let file = format!(
        "name = \"two\"\n[executor.here]\nkind = \"local\"\nparallel = 4\n[task.train]\nrun = \"{program}\"\n\
         restart.crashes = 0\nparams.n = [0, 1]\n[task.evaluate]\nrun = \"true\"\nafter = [\"train\"]\n\
         [task.repair]\nrun = \"true\"\nafter = [{{ task = \"train\", on = \"failed\" }}]\n\
         [task.broken]\nrun = \"exit 3\"\n\
         [task.both]\nrun = \"true\"\nafter = [\"train\", {{ task = \"broken\", on = \"failed\" }}]\n"
    );
    for is_late in [false, true] {
        let world = World::new();
        world.write("exp.toml", &file);
        let id = world.run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
        world.write("ok", "");
        let one = retry(&world, &[&format!("{id}/train/0")]);
        assert_eq!(one["trials"], json!({ "train": "0" }), "train/1 still blocks it: {one:#}");
        if is_late {
            world.write("go", "");
            world
                .until(&id, "its end", |status| states(status, "train") == ["completed", "failed"]);
        }
        let other = retry(&world, &[&format!("{id}/train/1")]);
        let freed = json!({ "train": "1", "evaluate": "0", "both": "0" });
        assert_eq!(other["trials"], freed, "{other:#}");
        world.write("go", "");
        let is_done = |status: &Value, task: &str| states(status, task) == ["completed"];
        let done = |status: &Value| is_done(status, "evaluate") && is_done(status, "both");
        let status = world.until(&id, "the end of all", done);
        assert_eq!(states(&status, "train"), ["completed"; 2], "{status:#}");
    }
}

/// `cleanup` runs only if `train` fails. Where that has completed, no retry lets it run, nor what waits for it.
#[test]
fn what_is_for_a_failure_that_did_not_come_is_left_alone() {
    let world = World::new();
    let only_if_failed = "{ task = \"train\", on = \"failed\" }";
    let file = format!(
        "name = \"rescue\"\n[task.train]\nrun = \"[ -e ok ]\"\n\
         [task.cleanup]\nrun = \"exit 3\"\nafter = [{only_if_failed}]\n\
         [task.report]\nrun = \"true\"\nafter = [\"cleanup\"]\n\
         [task.other]\nrun = \"exit 3\"\n\
         [task.both]\nrun = \"true\"\nafter = [\"other\", {only_if_failed}]\n"
    );
    world.write("exp.toml", &file);
    let id = world.run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
    let before = retry(&world, &[&id, "--dry-run"]);
    let all = json!({ "train": "0", "cleanup": "0", "report": "0", "other": "0", "both": "0" });
    assert_eq!(before["trials"], all, "it may fail again: {before:#}");
    world.write("ok", "");
    retry(&world, &[&format!("{id}/train")]);
    world.run(&["wait", &id]);
    let after = retry(&world, &[&id]);
    assert_eq!(after["trials"], json!({ "other": "0" }), "{after:#}");
    let why = "it runs only if `train` fails, which has completed";
    assert_eq!((why_left(&after, "cleanup"), why_left(&after, "both")), (why.into(), why.into()));
    let why = "it waits for `cleanup`, which can't run any more";
    assert_eq!(why_left(&after, "report"), why);
    let alone = retry(&world, &[&format!("{id}/report")]);
    assert_eq!(why_left(&alone, "report"), why, "whatever is named: {alone:#}");
    world.run(&["wait", &id]);
    assert_eq!(states(&world.status(&id), "cleanup"), ["failed"], "as it was");
}
