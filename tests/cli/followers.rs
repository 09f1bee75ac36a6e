//! Experiments that wait for another one of which a part has no jobs yet: they follow it, are blocked with it, and wait again
//! once it is retried.

use serde_json::Value;

use crate::cluster;
use crate::crash::strace;
use crate::fake::FakeSlurm;
use crate::forgotten::five_minutes_later;
use crate::outside::{blocked_by_prep, did, file, record, submit};
use crate::support::{World, states, text, trials};

/// `two` has more trials than there is room for.
const IN_WINDOWS: &str = "name = \"prep\"\n[executor.s]\nkind = \"slurm\"\n[task.one]\nrun = \"true\"\n\
     [task.two]\nrun = \"true {x}\"\nparams.x = [1, 2]\n";

/// `prep`, of which `two` found no room. Its id.
pub(crate) fn half_submitted(fake: &FakeSlurm) -> String {
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
    assert!(retried.stderr.contains("submitted later, once experiment"), "{retried:?}");
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

/// `prep`, all of which has jobs by now, and `next`, which waits for it and has none yet. Their ids, and the journal of `prep`
/// from before its last window.
fn before_and_after_the_last_window() -> (FakeSlurm, [String; 2], Vec<u8>) {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let next = submit(world, "after = [\"prep\"]").stdout.trim().to_owned();
    world.ok(&["poll", &prep]);
    let before = std::fs::read(world.experiment(&prep).join("journal.jsonl")).unwrap();
    let mark = world.experiment(&prep).join("followers").join(&next);
    std::fs::remove_file(&mark).unwrap();
    world.ok(&["poll", &prep]);
    std::fs::write(&mark, "").unwrap();
    assert_eq!(fake.names(), ["one.0", "two.1", "two.2"]);
    (fake, [prep, next], before)
}

/// When the `n`-th question is asked, `prep` becomes incomplete, as by a retry without room. Says whether `next` was submitted.
fn is_submitted_beside_a_retry(n: usize) -> bool {
    let (fake, [prep, next], before) = before_and_after_the_last_window();
    let world = &fake.world;
    let journal = world.experiment(&prep).join("journal.jsonl");
    std::fs::write(world.path("before"), before).unwrap();
    let asked = fake.calls("squeue") + n;
    let hook = format!(
        "#!/bin/sh\n[ \"$(grep -cx squeue {calls})\" -lt {} ] || cp {} {}\n",
        asked.saturating_sub(1),
        world.path("before").display(),
        journal.display(),
        calls = fake.state("calls").display(),
    );
    let squeue = world.path("bin/squeue");
    let program = std::fs::read_to_string(&squeue).unwrap().replacen("#!/bin/sh\n", &hook, 1);
    std::fs::write(&squeue, program).unwrap();
    world.run(&["poll", &next]);
    let new: Vec<String> = fake.taken().into_iter().skip(3).map(|taken| taken.arguments).collect();
    let waits_for_all = |arguments: &String| arguments.contains("afterok:101:102:103");
    assert!(new.first().is_none_or(waits_for_all), "at question {n}: {new:?}");
    !new.is_empty()
}

#[test]
fn what_became_incomplete_between_two_looks_is_waited_for() {
    let submitted: Vec<bool> = (1..=8).map(is_submitted_beside_a_retry).collect();
    assert!(!submitted[0], "it was seen at the first look");
    assert!(submitted[7], "it came too late: {submitted:?}");
}

/// Calls that make something lasting.
const LASTING: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat";

/// Kills the submission of what waits for another experiment before its `n`-th lasting call. False when it ended before that.
fn kill_and_look_for_it(n: usize) -> bool {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let prep = half_submitted(&fake);
    let file = world.write("next.toml", &file("next", "after = [\"prep\"]", "true"));
    let log = world.path("strace.log");
    let (trace, inject) =
        (format!("trace={LASTING}"), format!("inject={LASTING}:signal=SIGKILL:when={n}"));
    let arguments = ["submit".as_ref(), file.as_os_str()];
    let first = strace(&fake, &["-e", &trace, "-e", &inject], &arguments, &log).output();
    let killed = !first.expect("strace is needed: apt-get install strace").status.success();
    let is_there = |id: &str| {
        let journal = std::fs::read_to_string(world.experiment(id).join("journal.jsonl"));
        journal.is_ok_and(|journal| journal.contains("\"complete\""))
    };
    let experiments = std::fs::read_dir(world.path("home/experiments")).unwrap();
    let ids = experiments.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for id in ids.filter(|id| id.starts_with("next-") && is_there(id)) {
        let follower = world.experiment(&prep).join("followers").join(&id);
        assert!(follower.exists(), "killed at {n}: nobody would submit `{id}`");
    }
    killed
}

#[test]
fn a_killed_submission_is_known_to_what_it_waits_for() {
    let n_kills = (1..200).take_while(|n| kill_and_look_for_it(*n)).count();
    assert!((5..199).contains(&n_kills), "{n_kills}");
}

#[test]
fn a_resume_submits_what_waits_for_it() {
    let fake = FakeSlurm::new(1001);
    let prep = half_submitted(&fake);
    submit(&fake.world, "after = [\"prep\"]");
    fake.world.ok(&["poll", &prep]);
    fake.world.ok(&["pause", &format!("{prep}/two/1")]);
    fake.world.ok(&["poll", &prep]);
    assert_eq!(fake.names(), ["one.0", "two.1"]);
    fake.world.ok(&["resume", &format!("{prep}/two/1")]);
    assert_eq!(fake.names(), ["one.0", "two.1", "two.2", "one.0", "two.0"]);
}
