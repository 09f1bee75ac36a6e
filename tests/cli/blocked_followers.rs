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
fn a_cancel_of_what_is_blocked_tells_what_it_did() {
    let (fake, [prep, next, last]) = blocked_chain();
    let world = &fake.world;
    let cancelled: Value = serde_json::from_str(&world.ok(&["cancel", &next, "--json"])).unwrap();
    assert_eq!(cancelled["trials"], 2, "{cancelled:#}");
    assert_eq!(listed(world)[..2], ["blocked", "cancelled"], "nobody else has looked");
    let again = world.run(&["cancel", &next]);
    assert!(again.stderr.contains("it is over already"), "{again:?}");
    world.ok(&["retry", &prep]);
    assert_eq!(states(&world.status(&next), "one"), ["cancelled"]);
    assert_eq!(states(&world.status(&last), "one"), ["blocked"]);
}

#[test]
fn what_waits_for_an_experiment_that_was_deleted_is_over() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let next = submit(world, "after = [{ experiment = \"prep\", on = \"any\" }]");
    let next = next.stdout.trim();
    let aside = world.path("aside");
    std::fs::rename(world.experiment(&prep), &aside).unwrap();
    let waited = world.run(&["wait", next, "--timeout", "1m"]);
    assert_eq!(waited.code, 1, "{waited:?}");
    let status = world.status(next);
    let trial = &trials(&status, "one")[0];
    let reason = format!("experiment `{prep}`, which it waits for, was deleted");
    assert!(trial["state"] == "blocked" && trial["reason"] == reason, "{trial:#}");
    // Whoever brings it back brings back what waits for it.
    std::fs::rename(aside, world.experiment(&prep)).unwrap();
    assert_eq!(states(&world.status(next), "one"), ["pending"]);
}

/// How often Slurm is asked for the queue where `prep` alone is looked after.
fn n_questions(fake: &FakeSlurm, prep: &str) -> usize {
    let before = fake.calls("squeue");
    fake.world.run(&["poll", prep, "--dry-run"]);
    fake.calls("squeue") - before
}

#[test]
fn what_is_over_is_not_looked_into_with_what_it_waited_for() {
    let (fake, [prep, next, _]) = blocked_chain();
    let blocked = n_questions(&fake, &prep);
    fake.world.ok(&["cancel", &next]);
    let cancelled = n_questions(&fake, &prep);
    std::fs::remove_dir_all(fake.world.experiment(&prep).join("followers")).unwrap();
    let alone = n_questions(&fake, &prep);
    assert!(alone > 0);
    assert_eq!((blocked, cancelled), (alone, alone));
}

/// `last` waits for two that wait for `prep`.
#[test]
fn what_waits_for_several_is_submitted_after_the_last_of_them() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    for (name, after) in
        [("left", "[\"prep\"]"), ("right", "[\"prep\"]"), ("last", "[\"left\", \"right\"]")]
    {
        let path = format!("{name}.toml");
        world.write(&path, &file(name, &format!("after = {after}"), "true"));
        world.ok(&["submit", &path]);
    }
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    for name in ["left", "right", "last"] {
        assert_eq!(states(&world.status(name), "one"), ["blocked"]);
    }
    world.ok(&["retry", &prep]);
    submit_all_of(&fake, &prep);
    let is_of_last = |name: &str| name.starts_with("last");
    let names: Vec<String> = fake.taken().into_iter().map(|taken| taken.name).collect();
    assert_eq!(names.iter().filter(|name| is_of_last(name)).count(), 2, "{names:?}");
    assert!(names[names.len() - 2..].iter().all(|name| is_of_last(name)), "{names:?}");
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
    let secrets = fake.world.experiment(&next).join("secrets");
    assert!(secrets.exists());
    fake.world.ok(&["cancel", &next]);
    assert!(!secrets.exists(), "nothing runs any more");
}

/// `prep`, and `next`, which waits for it and has a task `two` on this machine below `one` on Slurm, and `more`. Their ids.
fn with_a_runner(more: &str) -> (FakeSlurm, String, String) {
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
    world.write("next.toml", &format!("{next}{more}"));
    let next = world.ok(&["submit", "next.toml"]);
    assert_eq!(states(&world.status(&next), "two"), ["pending"]);
    (fake, prep, next)
}

/// How often a runner wrote an event of a kind.
fn n_told(world: &World, id: &str, event: &str) -> usize {
    let log = std::fs::read_to_string(world.experiment(id).join("runner.jsonl")).unwrap();
    log.matches(&format!("\"{event}\"")).count()
}

/// Slurm ran `one` of `next`.
fn one_is_done(fake: &FakeSlurm, next: &str) {
    let job = fake.taken().iter().position(|taken| taken.name.starts_with(next)).unwrap() + 101;
    record(fake, next, "one", &format!("{job}_0"), "done");
}

#[test]
fn a_pause_keeps_no_runner_alive_for_what_is_blocked() {
    let (fake, prep, next) = with_a_runner("");
    let world = &fake.world;
    world.ok(&["pause", &format!("{next}/two")]);
    assert_eq!(states(&world.status(&next), "two"), ["paused"]);
    // The runner has heard of it.
    std::thread::sleep(std::time::Duration::from_secs(1));
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    world.until(&next, "the runner to end", |_| n_told(world, &next, "finished") == 1);
    world.ok(&["cancel", &next]);
    assert_eq!(states(&world.status(&next), "two"), ["cancelled"]);
    world.ok(&["retry", &prep]);
    assert_eq!(states(&world.status(&next), "two"), ["cancelled"]);
}

/// `busy` keeps the runner alive meanwhile.
#[test]
fn a_pause_holds_after_what_blocked_the_trial_is_retried() {
    let busy = "[task.busy]\nexecutor = \"here\"\nafter = [{ task = \"one\", on = \"any\" }]\nrun = \"while test -e waits; do sleep 0.1; done\"\n";
    let (fake, prep, next) = with_a_runner(busy);
    let world = &fake.world;
    world.write("waits", "");
    world.ok(&["pause", &format!("{next}/two")]);
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    world.until(&next, "busy to run", |status| states(status, "busy") == ["running"]);
    world.ok(&["retry", &prep]);
    submit_all_of(&fake, &prep);
    one_is_done(&fake, &next);
    std::fs::remove_file(world.path("waits")).unwrap();
    world.until(&next, "busy to end", |status| states(status, "busy") == ["completed"]);
    // By now the runner has looked where `one` stands.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(states(&world.status(&next), "two"), ["paused"]);
    assert_eq!(n_told(world, &next, "started"), 1, "busy alone");
    world.ok(&["resume", &format!("{next}/two")]);
    world.until(&next, "two to run", |status| states(status, "two") == ["completed"]);
}

#[test]
fn the_runner_of_what_is_blocked_ends_and_is_started_again_after_the_retry() {
    let (fake, prep, next) = with_a_runner("");
    let world = &fake.world;
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    let n_ends = || n_told(world, &next, "finished");
    let status = world.until(&next, "the runner to end", |_| n_ends() == 1);
    for task in ["one", "two"] {
        let trial = &trials(&status, task)[0];
        assert!(trial["state"] == "blocked" && trial["final"] == true, "{status:#}");
    }
    world.ok(&["poll", &next]);
    assert_eq!(n_told(world, &next, "runner"), 1);
    world.ok(&["retry", &prep]);
    assert_eq!(states(&world.status(&next), "two"), ["pending"]);
    submit_all_of(&fake, &prep);
    one_is_done(&fake, &next);
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
