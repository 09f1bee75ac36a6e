//! `after` at the top of a file: other experiments and jobs of others, also ones that Slurm has forgotten.

use std::process::Command;

use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::forgotten::five_minutes_later;
use crate::retry::wait_in_queue;
use crate::support::{World, states, text, trials};

fn file(name: &str, top: &str, run: &str) -> String {
    format!(
        "name = \"{name}\"\n{top}\n[executor.s]\nkind = \"slurm\"\npartition = \"main\"\ntime = \"10m\"\nmem = \"50M\"\n\
         [task.one]\nrun = \"{run}\"\n[task.two]\nrun = \"true\"\nafter = [\"one\"]\n"
    )
}

fn submit(world: &World, top: &str) -> crate::support::Printed {
    world.write("next.toml", &file("next", top, "true"));
    world.run(&["submit", "next.toml"])
}

fn record(fake: &FakeSlurm, id: &str, task: &str, job: &str, next: &str) {
    let dir = fake.world.experiment(id).join(format!("tasks/{task}/trials/0"));
    std::fs::create_dir_all(&dir).unwrap();
    let cause = if next == "done" { "completed" } else { next };
    let text = format!(
        r#"{{"event":"start","attempt":0,"slurm_job":"{job}","restarts":0,"node":"n1","pid":1,"boot_id":"b","start_ticks":1,"time":100.5,"resume_step":null}}
{{"event":"end","attempt":0,"time":100.9,"cause":"{cause}","exit_code":0,"signal":null,"step":null,"checkpoint_step":null,"next":"{next}","reason":null}}
"#
    );
    std::fs::write(dir.join("attempts.jsonl"), text).unwrap();
}

#[test]
fn another_experiment_is_waited_for_as_its_record_says() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    world.write("prep.toml", &file("prep", "", "true"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let local = "name = \"here\"\nafter = [\"prep\"]\n[task.t]\nrun = \"true\"\n";
    world.write("here.toml", local);
    let here = world.run(&["submit", "here.toml"]);
    assert!(here.stderr.contains("on this machine nothing can wait for"), "{here:?}");
    let open = submit(world, "after = [\"prep\"]");
    assert_eq!(open.code, 0, "{open:?}");
    let taken = fake.taken();
    assert!(taken[2].arguments.contains("--dependency=afterok:101:102"), "{taken:?}");
    assert!(taken[2].arguments.contains("--kill-on-invalid-dep=yes"), "{taken:?}");
    assert!(taken[3].arguments.contains("afterok:103"), "{taken:?}");
    assert!(!taken[3].arguments.contains("101"), "{taken:?}");
    let show: Value = serde_json::from_str(&world.ok(&["show", "next", "--json"])).unwrap();
    assert_eq!(show["parents"], serde_json::json!([prep]), "by its id: {show:#}");
    // Slurm has forgotten it: the record counts.
    std::fs::write(fake.state("forgets"), "2").unwrap();
    record(&fake, &prep, "one", "101_0", "done");
    record(&fake, &prep, "two", "102_0", "done");
    let done = submit(world, "after = [{ experiment = \"prep\" }]");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!fake.taken()[4].arguments.contains("dependency"), "{:?}", fake.taken());
    assert_eq!(world.run(&["submit", "here.toml"]).code, 0);
    record(&fake, &prep, "two", "102_0", "failed");
    let failed = submit(world, &format!("after = [\"{prep}\"]"));
    assert_eq!(failed.code, 2, "{failed:?}");
    assert!(failed.stderr.contains("has a trial that is failed"), "{failed:?}");
    let any = submit(world, "after = [{ experiment = \"prep\", on = \"any\" }]");
    assert_eq!(any.code, 0, "{any:?}");
    let unknown = submit(world, "after = [\"nobody\"]");
    assert_eq!(unknown.code, 3, "{unknown:?}");
    let slip = submit(world, "after = [{ experiment = \"prep\", job = 7 }]");
    assert!(slip.stderr.contains("unknown key `job`"), "{slip:?}");
}

/// `next` waits for `prep`, whose jobs 101 and 102 are in the queue. Its own trials were cancelled. Its id is returned, and
/// that of `prep`.
fn cancelled_while_prep_waits() -> (FakeSlurm, String, String) {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    world.write("prep.toml", &file("prep", "", "true"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    let gone =
        |id: &'static str| [id, "CANCELLED", "0:0", "100", "Unknown", "200", "None assigned"];
    fake.answer("sacct", Some(&[&gone("103_[0]"), &gone("104_[0]")]));
    wait_in_queue(&fake, &["101_[0]", "102_[0]"]);
    world.ok(&["cancel", &format!("{next}/one/0")]);
    assert_eq!(states(&world.status(&next), "one"), ["cancelled"]);
    (fake, next, prep)
}

#[test]
fn what_is_waited_for_outside_is_named() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    world.write("prep.toml", &file("prep", "", "true"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    wait_in_queue(&fake, &["103_[0]", "104_[0]"]);
    let why = text(&trials(&world.status(&next), "one")[0]["reason"]);
    assert!(why.contains(&format!("waits for experiment `{prep}`")), "{why}");
    let explained = world.ok(&["explain", &next]);
    assert!(explained.contains(&prep), "{explained}");
    let planned = world.ok(&["plan", "next.toml"]);
    assert!(planned.contains("after experiment `prep`"), "{planned}");
    assert!(!planned.contains("at once"), "{planned}");
}

#[test]
fn a_retry_waits_for_what_the_experiment_waits_for() {
    let (fake, next, _) = cancelled_while_prep_waits();
    fake.world.ok(&["retry", &next]);
    let taken = fake.taken();
    assert!(taken[4].arguments.contains("--dependency=afterok:101:102"), "{taken:?}");
    assert!(!taken[5].arguments.contains("101"), "a child waits for its parent: {taken:?}");
}

#[test]
fn a_retry_is_refused_where_what_is_waited_for_has_failed() {
    let (fake, next, prep) = cancelled_while_prep_waits();
    record(&fake, &prep, "one", "101_0", "failed");
    let journal = fake.world.experiment(&next).join("journal.jsonl");
    let before = std::fs::read(&journal).unwrap();
    for options in [&["--dry-run"][..], &["--dry-run", "--json"], &[]] {
        let refused = fake.world.run(&[&["retry", &next], options].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        let told = format!("{}{}", refused.stdout, refused.stderr);
        assert!(told.contains("has a trial that is failed"), "{refused:?}");
    }
    assert_eq!(std::fs::read(&journal).unwrap(), before);
    assert_eq!(states(&fake.world.status(&next), "one"), ["cancelled"], "nothing was changed");
    assert_eq!(fake.taken().len(), 4);
}

/// `next` waits for `prep`, which has failed: Slurm took both tasks of `next` out. Its id is returned, and that of `prep`.
fn blocked_by_prep() -> (FakeSlurm, String, String) {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    world.write("prep.toml", &file("prep", "", "true"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    record(&fake, &prep, "one", "101_0", "failed");
    let ended =
        |id: &'static str| [id, "CANCELLED", "0:0", "100", "Unknown", "200", "None assigned"];
    let failed = ["101_0", "FAILED", "1:0", "100", "100", "101", "n1"];
    fake.answer("sacct", Some(&[&failed, &ended("102_[0]"), &ended("103_[0]"), &ended("104_[0]")]));
    std::fs::write(fake.state("forgets"), "4").unwrap();
    for _ in 0..2 {
        let status = world.status(&next);
        assert_eq!(
            (states(&status, "one"), states(&status, "two")),
            (vec!["blocked".to_owned()], vec!["blocked".to_owned()]),
            "{status:#}"
        );
    }
    (fake, next, prep)
}

#[test]
fn what_another_experiment_blocked_is_retried_after_that_one() {
    let (fake, next, prep) = blocked_by_prep();
    let refused = fake.world.run(&["retry", &next]);
    assert_eq!((refused.code, fake.taken().len()), (2, 4), "{refused:?}");
    assert!(
        refused.stderr.contains(&format!("`nemo-slurm retry {prep}` runs it again")),
        "{refused:?}"
    );
    fake.world.ok(&["retry", &prep]);
    let child = fake.world.run(&["retry", &format!("{next}/two")]);
    assert!(
        child
            .stderr
            .contains("left alone: it is blocked: `one` trial 0 is blocked; retry that too"),
        "{child:?}"
    );
    let retried = fake.world.run(&["retry", &next]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let taken = fake.taken();
    assert_eq!(taken.len(), 8, "{retried:?}: {taken:?}");
    assert!(taken[6].arguments.contains("--dependency=afterok:105:106"), "{taken:?}");
    assert!(taken[7].arguments.contains("afterok:107"), "{taken:?}");
}

/// `two` has more trials than there is room for.
const IN_WINDOWS: &str = "name = \"prep\"\n[executor.s]\nkind = \"slurm\"\n[task.one]\nrun = \"true\"\n\
     [task.two]\nrun = \"true {x}\"\nparams.x = [1, 2]\n";

/// `prep`, of which `two` found no room. Its id.
fn half_submitted(fake: &FakeSlurm) -> String {
    fake.world.write("prep.toml", IN_WINDOWS);
    std::fs::write(fake.state("no_room"), "two.0\n").unwrap();
    let prep = fake.world.ok(&["submit", "prep.toml"]);
    std::fs::remove_file(fake.state("no_room")).unwrap();
    assert_eq!(fake.names(), ["one.0"]);
    prep
}

#[test]
fn what_waits_for_an_experiment_in_windows_is_submitted_after_the_last_one() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let submitted = submit(world, "after = [\"prep\"]");
    assert_eq!(submitted.code, 0, "{submitted:?}");
    assert!(submitted.stderr.contains("2 trials will be submitted later"), "{submitted:?}");
    assert!(submitted.stderr.contains("by the jobs of what it waits for"), "{submitted:?}");
    let next = submitted.stdout.trim();
    let status = world.status(next);
    let child = text(&trials(&status, "two")[0]["reason"]);
    assert!(child.contains("waits for `one`; it is submitted together with that"), "{child}");
    let why = text(&trials(&status, "one")[0]["reason"]);
    assert!(why.contains(&format!("waits for experiment `{prep}`")), "{why}");
    let polled = world.run(&["poll", next]);
    assert_eq!((polled.code, fake.taken().len()), (0, 1), "{polled:?}");
    // A window of one trial, then the last one.
    world.ok(&["poll", &prep]);
    assert_eq!(fake.names(), ["one.0", "two.1"]);
    let polled = world.run(&["poll", &prep, "--json"]);
    assert_eq!(fake.names(), ["one.0", "two.1", "two.2", "one.0", "two.0"], "{polled:?}");
    assert!(polled.stdout.contains(next), "{polled:?}");
    let taken = fake.taken();
    assert!(taken[3].arguments.contains("--dependency=afterok:101:102:103"), "{taken:?}");
    assert!(taken[4].arguments.contains("afterok:104"), "{taken:?}");
    world.ok(&["poll"]);
    assert_eq!(fake.taken().len(), 5, "nothing is submitted twice");
    let shown: Value = serde_json::from_str(&world.ok(&["show", next, "--json"])).unwrap();
    assert_eq!(shown["generations"][1]["why"], "later", "{shown:#}");
}

#[test]
fn what_waits_for_an_experiment_that_fails_before_its_last_window_is_blocked() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let submitted = submit(world, "after = [\"prep\"]");
    let next = submitted.stdout.trim();
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    let status = world.status(next);
    assert_eq!(states(&status, "one"), ["blocked"], "{status:#}");
    let why = text(&trials(&status, "one")[0]["reason"]);
    assert!(why.contains(&format!("`{prep}`")) && why.contains("failed"), "{why}");
    let explained = world.ok(&["explain", next]);
    assert!(explained.contains("a trial that is failed"), "{explained}");
    let observed = std::fs::read_to_string(world.experiment(next).join("observed.json")).unwrap();
    assert!(!observed.contains("pending"), "it is remembered as `status` shows it: {observed}");
    world.ok(&["retry", &prep]);
    assert_eq!(states(&world.status(next), "one"), ["pending"], "it may be met again");
}

/// `prep`, one of whose tasks was cancelled before there was room for it, and `next`, which waits for it `on` that and has no
/// jobs yet. Their ids.
fn held_by_prep(on: &str) -> (FakeSlurm, String, String) {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    let top = format!("after = [{{ experiment = \"prep\", on = \"{on}\" }}]");
    let next = submit(&fake.world, &top).stdout.trim().to_owned();
    fake.world.ok(&["cancel", &format!("{prep}/two")]);
    assert_eq!(fake.names(), ["one.0"]);
    (fake, next, prep)
}

#[test]
fn an_end_that_slurm_alone_tells_submits_nothing_before_it_is_certain() {
    let (fake, next, prep) = held_by_prep("any");
    let gone = ["101_[0]", "CANCELLED", "0:0", "100", "Unknown", "200", "None assigned"];
    fake.answer("sacct", Some(&[&gone]));
    std::fs::write(fake.state("forgets"), "1").unwrap();
    let polled = fake.world.run(&["poll", &next]);
    assert_eq!(states(&fake.world.status(&prep), "one"), ["cancelled"]);
    assert_eq!((polled.code, fake.names()), (0, vec!["one.0".to_owned()]), "{polled:?}");
    five_minutes_later(&fake.world.experiment(&prep));
    let polled = fake.world.run(&["poll", &next]);
    assert_eq!(fake.names(), ["one.0", "one.0", "two.0"], "{polled:?}");
    assert!(!fake.taken()[1].arguments.contains("dependency"), "{:?}", fake.taken());
}

#[test]
fn a_failed_trial_whose_rule_retries_it_is_waited_for() {
    let fake = FakeSlurm::new(1001);
    let rule = "[task.one.retry]\nfailed = 1\n[task.two]";
    fake.world.write("prep.toml", &file("prep", "", "true").replacen("[task.two]", rule, 1));
    let prep = fake.world.ok(&["submit", "prep.toml"]);
    record(&fake, &prep, "one", "101_0", "failed");
    let submitted = submit(&fake.world, "after = [\"prep\"]");
    assert_eq!((submitted.code, fake.taken().len()), (0, 2), "{submitted:?}");
    let next = submitted.stdout.trim();
    assert_eq!(states(&fake.world.status(next), "one"), ["pending"]);
    fake.world.ok(&["poll", &prep]);
    assert_eq!(fake.taken().len(), 6, "the retry, then what waits for it: {:?}", fake.taken());
    assert!(fake.taken()[4].arguments.contains("afterok:103:104"), "{:?}", fake.taken());
}

#[test]
fn that_what_is_waited_for_is_lost_is_told_once() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    let notify = "after = [\"prep\"]\n[notify]\non = [\"blocked\"]\nof = [\"experiment\"]\ncommand = \"echo {subject} >> told\"";
    let next = submit(&fake.world, notify).stdout.trim().to_owned();
    fake.world.run(&["poll", &next]);
    assert!(!fake.world.path("told").exists());
    record(&fake, &prep, "one", "101_0", "failed");
    fake.world.status(&prep);
    for _ in 0..2 {
        fake.world.run(&["poll", &next]);
    }
    let told = std::fs::read_to_string(fake.world.path("told")).unwrap();
    assert!(told.lines().count() == 1 && told.contains(&next), "{told}");
}

#[test]
fn an_archived_experiment_is_not_submitted_later() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    record(&fake, &prep, "one", "101_0", "failed");
    world.status(&prep);
    world.ok(&["archive", &next]);
    world.ok(&["retry", &prep]);
    for target in [&prep, &next] {
        world.run(&["poll", target]);
    }
    assert!(fake.taken().iter().all(|taken| !taken.name.starts_with("next")), "{:?}", fake.taken());
    world.ok(&["restore", &next]);
    while fake.names().iter().filter(|name| name.starts_with("two")).count() < 2 {
        world.ok(&["poll", &prep]);
    }
    world.ok(&["poll", &next]);
    assert!(fake.taken().iter().any(|taken| taken.name.starts_with("next")), "{:?}", fake.taken());
}

/// `two` is for the case that `one` fails, which it does not.
#[test]
fn a_task_that_was_not_needed_is_no_loss_for_what_follows() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let rescue = "[task.rescue]\nrun = \"true\"\nafter = [{ task = \"one\", on = \"failed\" }]\n";
    world.write("prep.toml", &format!("{IN_WINDOWS}{rescue}"));
    std::fs::write(fake.state("no_room"), "two.0\n").unwrap();
    let prep = world.ok(&["submit", "prep.toml"]);
    std::fs::remove_file(fake.state("no_room")).unwrap();
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    let job = fake.names().iter().position(|name| name == "one.0").unwrap() + 101;
    record(&fake, &prep, "one", &format!("{job}_0"), "done");
    // Slurm took it out, since what it waited for completed.
    let gone = ["102_[0]", "CANCELLED", "0:0", "100", "Unknown", "200", "None assigned"];
    fake.answer("sacct", Some(&[&gone]));
    std::fs::write(fake.state("forgets"), "2").unwrap();
    let status = world.status(&prep);
    let rescue = &trials(&status, "rescue")[0];
    assert!(rescue["state"] == "blocked" && rescue["final"] == true, "{rescue:#}");
    assert_eq!(states(&world.status(&next), "one"), ["pending"]);
    world.ok(&["cancel", &format!("{prep}/two")]);
    let again = submit(world, "after = [{ experiment = \"prep\", on = \"any\" }]");
    assert_eq!(again.code, 0, "{again:?}");
    assert!(!fake.taken().last().unwrap().arguments.contains(":101"), "{:?}", fake.taken());
}

#[test]
fn a_rescue_that_was_not_needed_leaves_the_whole_done() {
    let fake = FakeSlurm::new(1001);
    let prep = file("prep", "", "true")
        .replace("after = [\"one\"]", "after = [{ task = \"one\", on = \"failed\" }]");
    fake.world.write("prep.toml", &prep);
    let prep = fake.world.ok(&["submit", "prep.toml"]);
    record(&fake, &prep, "one", "101_0", "done");
    let next = submit(&fake.world, "after = [\"prep\"]");
    assert_eq!((next.code, fake.taken().len()), (0, 4), "{next:?}");
    assert!(!fake.taken()[2].arguments.contains("dependency"), "{:?}", fake.taken());
}

#[test]
fn what_goes_on_with_an_experiment_submits_what_waits_for_it() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    submit(&fake.world, "after = [\"prep\"]");
    for _ in 0..2 {
        fake.world.ok(&["submit", "--continue", &prep]);
    }
    assert_eq!(fake.names(), ["one.0", "two.1", "two.2", "one.0", "two.0"]);
}

#[test]
fn a_retry_submits_what_waits_for_it() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    submit(&fake.world, "after = [\"prep\"]");
    fake.world.ok(&["poll", &prep]);
    fake.world.ok(&["cancel", &format!("{prep}/two/1")]);
    assert_eq!(fake.names(), ["one.0", "two.1"]);
    fake.world.ok(&["retry", &prep]);
    assert_eq!(fake.names(), ["one.0", "two.1", "two.2", "one.0", "two.0"]);
}

#[test]
fn a_retry_by_a_rule_is_known_to_what_it_waits_for() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    world.write("prep.toml", &file("prep", "", "true"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let rule = "[task.one.retry]\nfailed = 1\n[task.two]";
    let next = file("next", "after = [\"prep\"]", "true").replacen("[task.two]", rule, 1);
    world.write("next.toml", &next);
    let next = world.ok(&["submit", "next.toml"]);
    record(&fake, &next, "one", "103_0", "failed");
    record(&fake, &prep, "one", "101_0", "failed");
    std::fs::write(fake.state("no_room"), "two.1\n").unwrap();
    world.ok(&["retry", &prep]);
    std::fs::remove_file(fake.state("no_room")).unwrap();
    world.run(&["poll", &next]);
    let followers = fake.world.experiment(&prep).join("followers");
    assert!(followers.join(&next).exists(), "{:?}", fake.taken());
}

#[test]
fn a_dry_run_tells_what_would_be_submitted_after_an_experiment() {
    let (fake, next, prep) = held_by_prep("any");
    let told = fake.world.run(&["poll", &prep, "--dry-run", "--json"]);
    assert_eq!(did(&told), ["one submitted", "two submitted"], "{told:?}");
    assert!(told.stdout.contains(&next), "{told:?}");
    assert_eq!(fake.names(), ["one.0"]);
}

#[test]
fn a_retry_waits_for_an_experiment_in_windows_too() {
    let (fake, next, prep) = blocked_by_prep();
    let world = &fake.world;
    std::fs::write(fake.state("no_room"), "two.1\n").unwrap();
    world.ok(&["retry", &prep]);
    std::fs::remove_file(fake.state("no_room")).unwrap();
    let before = fake.taken().len();
    let told: Value =
        serde_json::from_str(&world.ok(&["retry", &next, "--dry-run", "--json"])).unwrap();
    assert_eq!(told["jobs"], serde_json::json!([]), "{told:#}");
    let retried = world.run(&["retry", &next]);
    assert_eq!((retried.code, fake.taken().len()), (0, before), "{retried:?}");
    assert!(retried.stderr.contains("submitted later, once Slurm has all of"), "{retried:?}");
    assert!(retried.stderr.contains(&format!("experiment `{prep}`")), "{retried:?}");
    assert_eq!(states(&world.status(&next), "two"), ["pending"], "{retried:?}");
}

#[test]
fn what_waits_for_this_machine_is_waited_for_on_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let prep = "name = \"prep\"\n[executor.here]\nkind = \"local\"\n[executor.s]\nkind = \"slurm\"\npartition = \"main\"\ntime = \"10m\"\nmem = \"50M\"\n\
                [task.a]\nexecutor = \"here\"\nrun = \"while test -e waits; do sleep 0.1; done\"\n\
                [task.b]\nexecutor = \"s\"\nafter = [\"a\"]\nrun = \"sleep 3; touch prepared\"\n";
    world.write("prep.toml", prep);
    world.write("waits", "");
    let prep = world.ok(&["submit", "prep.toml"]);
    world.until(&prep, "a to run", |status| states(status, "a") == ["running"]);
    world.write("next.toml", &file("next", "after = [\"prep\"]", "test -e prepared"));
    let next = world.ok(&["submit", "next.toml"]);
    assert_eq!(states(&world.status(&next), "one"), ["pending"]);
    std::fs::remove_file(world.path("waits")).unwrap();
    let waited = world.run(&["wait", &next, "--timeout", "3m"]);
    assert_eq!(waited.code, 0, "{waited:?} {:#}", world.status(&next));
}

/// A job of somebody else's that runs.
const FOREIGN: &str = "JobId=4711 JobName=x UserId=u(1) GroupId=u(1) JobState=RUNNING Reason=None Requeue=1 Restarts=0 ExitCode=0:0 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n";

/// Submits `next`, which waits for job 4711 of somebody else. Then Slurm forgets that job, and loses `next` too.
fn lost_with(on: &str) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    std::fs::write(fake.state("job"), FOREIGN).unwrap();
    let top = format!("after = [{{ slurm_job = 4711, on = \"{on}\" }}]");
    let next = submit(&fake.world, &top);
    assert_eq!(next.code, 0, "{next:?}");
    let next = next.stdout.trim().to_owned();
    assert!(fake.taken()[0].arguments.contains(":4711"), "{:?}", fake.taken());
    std::fs::write(fake.state("job"), "").unwrap();
    std::fs::write(fake.state("forgets"), "2").unwrap();
    fake.answer("sacct", Some(&[]));
    (fake, next)
}

#[test]
fn a_forgotten_job_of_others_is_over() {
    let (fake, next) = lost_with("any");
    fake.world.run(&["poll"]);
    five_minutes_later(&fake.world.experiment(&next));
    assert_eq!(did(&fake.world.run(&["poll", "--json"])), ["one resubmitted", "two resubmitted"]);
    let taken = fake.taken();
    assert!(!taken[2].arguments.contains("4711"), "{taken:?}");
}

#[test]
fn poll_tells_what_it_does_not_submit_again() {
    let (fake, next) = lost_with("ok");
    fake.world.run(&["poll"]);
    five_minutes_later(&fake.world.experiment(&next));
    let polled = fake.world.run(&["poll", "--json"]);
    assert_eq!(polled.code, 1, "{polled:?}");
    assert_eq!(did(&polled), ["one not_submitted", "two not_submitted"]);
    assert!(polled.stdout.contains("whether it completed is not known"), "{polled:?}");
    assert_eq!(polled.stderr, "", "it is no error of the experiment");
    assert_eq!(fake.taken().len(), 2);
    // What waited for the job has run since: it had completed.
    record(&fake, &next, "one", "101_0", "failed");
    let retried = fake.world.run(&["retry", &next]);
    assert_eq!(retried.code, 0, "{retried:?}");
}

/// The first array is in, then Slurm is away; meanwhile it forgets job 4711.
fn interrupted_with(on: &str) -> (FakeSlurm, crate::support::Printed) {
    let fake = FakeSlurm::new(1001);
    std::fs::write(fake.state("job"), FOREIGN).unwrap();
    std::fs::write(fake.state("stop_after"), "1").unwrap();
    let top = format!("after = [{{ slurm_job = 4711, on = \"{on}\" }}]");
    assert_eq!(submit(&fake.world, &top).code, 4);
    std::fs::remove_file(fake.state("stop_after")).unwrap();
    std::fs::write(fake.state("job"), "").unwrap();
    let printed = fake.world.run(&["submit", "--continue", "next"]);
    (fake, printed)
}

#[test]
fn a_submission_goes_on_where_only_the_end_of_a_forgotten_job_counts() {
    let (fake, printed) = interrupted_with("any");
    assert_eq!((printed.code, fake.taken().len()), (0, 2), "{printed:?}");
    let (fake, printed) = interrupted_with("ok");
    assert_eq!((printed.code, fake.taken().len()), (2, 1), "{printed:?}");
    assert!(printed.stderr.contains("take it out of"), "{printed:?}");
}

/// What `poll --json` did, by task.
fn did(polled: &crate::support::Printed) -> Vec<String> {
    let value: Value = serde_json::from_str(&polled.stdout).unwrap();
    let rows = value["trials"].as_array().unwrap().clone();
    rows.iter().map(|row| format!("{} {}", text(&row["task"]), text(&row["did"]))).collect()
}

/// A job of somebody else's; its id.
fn foreign(world: &World, command: &str) -> String {
    let mut sbatch = Command::new("sbatch");
    world.surround(&mut sbatch);
    let wrap = format!("--wrap={command}");
    let output = sbatch.args(["--parsable", "--mem=50M", "--output=/dev/null", &wrap]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn on_slurm_experiments_and_foreign_jobs_are_waited_for() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("prep.toml", &file("prep", "", "sleep 3; touch prepared"));
    let prep = world.ok(&["submit", "prep.toml"]);
    let job = foreign(&world, "sleep 4");
    let top = format!("after = [\"prep\", {{ slurm_job = {job} }}]");
    world.write("next.toml", &file("next", &top, "test -e prepared"));
    let next = world.ok(&["submit", "next.toml"]);
    assert_eq!(states(&world.status(&next), "one"), ["pending"]);
    assert_eq!(world.run(&["wait", &next, "--timeout", "3m"]).code, 0);
    let start = |id: &str, task: &str, key: &str| -> f64 {
        let status = world.status(id);
        trials(&status, task)[0]["attempts"][0][key].as_f64().unwrap()
    };
    assert!(start(&next, "one", "start") >= start(&prep, "two", "end"));
    let known = submit(&world, &format!("after = [{{ slurm_job = {job} }}]"));
    assert_eq!(known.code, 0, "it is over: {known:?}");
    let unknown = submit(&world, "after = [{ slurm_job = 99999999 }]");
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("Slurm knows no job 99999999"), "{unknown:?}");
    let lost = foreign(&world, "sleep 2; exit 3");
    let blocked = submit(&world, &format!("after = [{{ slurm_job = {lost} }}]"));
    assert_eq!(blocked.code, 0, "{blocked:?}");
    let id = blocked.stdout.trim().to_owned();
    let is_blocked = |status: &Value| {
        states(status, "one") == ["blocked"] && states(status, "two") == ["blocked"]
    };
    world.until(&id, "that it is blocked", is_blocked);
    world.run(&["poll", &id]);
    assert!(is_blocked(&world.status(&id)), "nobody puts it back");
    let after = submit(&world, &format!("after = [{{ slurm_job = {lost} }}]"));
    assert!(after.stderr.contains("ended as FAILED"), "{after:?}");
    let any = submit(&world, &format!("after = [{{ slurm_job = {lost}, on = \"any\" }}]"));
    assert_eq!(any.code, 0, "{any:?}");
    world.run(&["wait", any.stdout.trim(), "--timeout", "2m"]);
}
