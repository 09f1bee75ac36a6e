//! Experiments that wait for one that has failed: blocked for good before they had a job, until somebody retries it.

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::followers::half_submitted;
use crate::outside::{file, record, submit};
use crate::support::{World, states, text, trials};

/// `prep`, one of whose trials failed before there was room for all, `next`, which waits for it, and `last`, which waits for
/// `next`: both are blocked for good. Their ids.
fn blocked_chain() -> (FakeSlurm, [String; 3]) {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    world.write("last.toml", &file("last", "after = [\"next\"]", "true"));
    let last = world.ok(&["submit", "last.toml"]);
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    for id in [&next, &last] {
        let status = world.status(id);
        for task in ["one", "two"] {
            let trial = &trials(&status, task)[0];
            assert!(trial["state"] == "blocked" && trial["final"] == true, "{id}: {status:#}");
        }
        let waited = world.run(&["wait", id, "--timeout", "1m"]);
        assert_eq!(waited.code, 1, "it is over: {waited:?}");
    }
    // Both are in the index now: nobody looks into them by itself.
    assert_eq!(listed(world)[..2], ["blocked", "blocked"]);
    (fake, [prep, next, last])
}

/// The states that a list shows without a look: `last`, `next`, `prep`.
fn listed(world: &World) -> Vec<String> {
    let list = |options: &[&str]| world.ok(&[&["list", "--json"], options].concat());
    list(&["--cached"]);
    let list: Value = serde_json::from_str(&list(&["--cached"])).unwrap();
    let rows = list["experiments"].as_array().unwrap();
    rows.iter().map(|row| text(&row["state"])).collect()
}

/// Gives jobs to all that `prep` has left.
fn submit_all_of(fake: &FakeSlurm, prep: &str) {
    for _ in 0..3 {
        fake.world.ok(&["poll", prep]);
    }
}

#[test]
fn what_is_blocked_for_good_waits_again_once_what_blocked_it_is_retried() {
    let (fake, [prep, next, last]) = blocked_chain();
    let world = &fake.world;
    let retried = world.run(&["retry", &next]);
    assert!(retried.stderr.contains("has a trial that is failed"), "{retried:?}");
    world.ok(&["retry", &prep]);
    assert_eq!(listed(world)[..2], ["pending", "pending"], "by the retry, nobody else has looked");
    submit_all_of(&fake, &prep);
    world.ok(&["poll"]);
    let submitted = |name: &str| fake.taken().iter().any(|taken| taken.name.starts_with(name));
    assert!(submitted(&next) && submitted(&last), "{:?}", fake.taken());
}

/// The retry was killed before it came to them: `poll` finds them, though they are over as far as anybody knows.
#[test]
fn poll_finds_what_was_blocked_by_an_experiment_that_runs_again() {
    let (fake, [prep, next, last]) = blocked_chain();
    let world = &fake.world;
    let of = |id: &str| ["summary.json", "observed.json"].map(|it| world.experiment(id).join(it));
    let files: Vec<_> = [&next, &last].into_iter().flat_map(|id| of(id)).collect();
    let before: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    world.ok(&["retry", &prep]);
    for (file, text) in files.iter().zip(before) {
        std::fs::write(file, text).unwrap();
    }
    std::fs::remove_dir_all(world.path("home/index")).unwrap();
    assert_eq!(listed(world)[..2], ["blocked", "blocked"]);
    world.ok(&["poll"]);
    assert_eq!(listed(world)[..2], ["pending", "pending"]);
}

#[test]
fn what_was_archived_while_it_was_blocked_waits_again_once_it_is_restored() {
    let (fake, [prep, _, last]) = blocked_chain();
    let world = &fake.world;
    world.ok(&["archive", &last]);
    world.ok(&["retry", &prep]);
    world.ok(&["restore", &last]);
    assert_eq!(listed(world)[..2], ["pending", "pending"]);
}

#[test]
fn a_secret_is_kept_for_what_may_run_after_a_retry_elsewhere() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    let text =
        file("next", "after = [\"prep\"]", "true").replacen("mem", "secrets = [\"HOME\"]\nmem", 1);
    fake.world.write("next.toml", &text);
    let next = fake.world.ok(&["submit", "next.toml"]);
    record(&fake, &prep, "one", "101_0", "failed");
    fake.world.status(&prep);
    assert_eq!(states(&fake.world.status(&next), "one"), ["blocked"]);
    assert!(fake.world.experiment(&next).join("secrets").exists());
}

/// `next` has a task on this machine below one on Slurm.
#[test]
fn the_runner_of_what_is_blocked_ends_and_is_started_again_after_the_retry() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let next = file("next", "after = [\"prep\"]", "true")
        .replacen(
            "[task.one]",
            "[executor.here]\nkind = \"local\"\n[task.one]\nexecutor = \"s\"",
            1,
        )
        .replacen("[task.two]", "[task.two]\nexecutor = \"here\"", 1);
    world.write("next.toml", &next);
    let next = world.ok(&["submit", "next.toml"]);
    assert_eq!(states(&world.status(&next), "two"), ["pending"]);
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    let log = world.experiment(&next).join("runner.jsonl");
    let n_ends = || std::fs::read_to_string(&log).unwrap().matches("\"finished\"").count();
    let status = world.until(&next, "the runner to end", |_| n_ends() == 1);
    for task in ["one", "two"] {
        let trial = &trials(&status, task)[0];
        assert!(trial["state"] == "blocked" && trial["final"] == true, "{status:#}");
    }
    world.ok(&["poll", &next]);
    assert_eq!(std::fs::read_to_string(&log).unwrap().matches("\"runner\"").count(), 1);
    world.ok(&["retry", &prep]);
    assert_eq!(states(&world.status(&next), "two"), ["pending"]);
    submit_all_of(&fake, &prep);
    let job = fake.taken().iter().position(|taken| taken.name.starts_with(&next)).unwrap() + 101;
    record(&fake, &next, "one", &format!("{job}_0"), "done");
    world.until(&next, "two to run", |status| states(status, "two") == ["completed"]);
    world.until(&next, "the runner to end", |_| n_ends() == 2);
}

/// As where Slurm itself cancels the job of a task: what waits for its end, however it ended, runs.
#[test]
fn what_runs_in_any_case_runs_after_a_task_that_is_blocked_for_good() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    let text = file("next", "after = [\"prep\"]", "true")
        .replace("after = [\"one\"]", "after = [{ task = \"one\", on = \"any\" }]");
    fake.world.write("next.toml", &text);
    let next = fake.world.ok(&["submit", "next.toml"]);
    fake.world.ok(&["poll", &next]);
    assert_eq!(fake.names(), ["one.0"]);
    record(&fake, &prep, "one", "101_0", "failed");
    fake.world.status(&prep);
    fake.world.ok(&["poll", &next]);
    assert_eq!(fake.names(), ["one.0", "two.0"]);
    let status = fake.world.status(&next);
    assert_eq!(
        (states(&status, "one"), states(&status, "two")),
        (vec!["blocked".to_owned()], vec!["pending".to_owned()])
    );
}
