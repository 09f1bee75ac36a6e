//! `after` at the top of a file: other experiments and jobs of others, also ones that Slurm has forgotten.

use std::process::Command;

use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::forgotten::five_minutes_later;
use crate::retry::wait_in_queue;
use crate::support::{World, states, text, trials};

pub(crate) fn file(name: &str, top: &str, run: &str) -> String {
    format!(
        "name = \"{name}\"\n{top}\n[executor.s]\nkind = \"slurm\"\npartition = \"main\"\ntime = \"10m\"\nmem = \"50M\"\n\
         [task.one]\nrun = \"{run}\"\n[task.two]\nrun = \"true\"\nafter = [\"one\"]\n"
    )
}

pub(crate) fn submit(world: &World, top: &str) -> crate::support::Printed {
    world.write("next.toml", &file("next", top, "true"));
    world.run(&["submit", "next.toml"])
}

pub(crate) fn record(fake: &FakeSlurm, id: &str, task: &str, job: &str, next: &str) {
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
pub(crate) fn blocked_by_prep() -> (FakeSlurm, String, String) {
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
pub(crate) fn did(polled: &crate::support::Printed) -> Vec<String> {
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
