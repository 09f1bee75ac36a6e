//! `doctor`: what it finds on a scripted Slurm, on a real one with a job on a node, and without Slurm.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::support::{Printed, World};

fn json(printed: &Printed) -> Value {
    serde_json::from_str(&printed.stdout).unwrap_or_else(|error| panic!("{error}: {printed:?}"))
}

#[track_caller]
fn finding<'a>(seen: &'a Value, topic: &str) -> &'a Value {
    let all = seen["findings"].as_array().unwrap();
    all.iter().find(|it| it["topic"] == topic).unwrap_or_else(|| panic!("no {topic}: {seen:#}"))
}

/// What is left in the home of a look at it.
fn left(world: &World) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(world.path("home")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".doctor")).collect()
}

#[test]
fn without_slurm_this_machine_is_looked_at() {
    let mut world = World::new();
    world.path = world.path("empty").display().to_string();
    world.slurm_conf = None;
    let seen = json(&world.run(&["doctor", "--json"]));
    assert!(seen["slurm"].is_null(), "{seen:#}");
    assert_eq!(finding(&seen, "hard links")["level"], "ok");
    assert_eq!(finding(&seen, "notifications")["level"], "advice", "no curl: {seen:#}");
    assert!(!world.path("home").exists(), "nothing is made");
    let text = world.run(&["doctor"]);
    assert_eq!(text.code, 0, "{text:?}");
    assert!(text.stdout.contains("ok: rename: "), "{text:?}");
}

#[test]
fn a_site_s_settings_are_named_with_the_lines_that_mend_them() {
    let fake = FakeSlurm::new(100);
    let config = fake.read("config")
        + "MinJobAge = 10 sec\nPreemptType = preempt/partition_prio\nPreemptMode = REQUEUE\n";
    std::fs::write(fake.state("config"), config).unwrap();
    let partitions = "PartitionName=main Default=YES GraceTime=0 MaxTime=UNLIMITED Nodes=n[1-4] PreemptMode=REQUEUE State=UP\n";
    std::fs::write(fake.state("partitions"), partitions).unwrap();
    let printed = fake.world.run(&["doctor", "--json"]);
    assert_eq!(printed.code, 0, "advice is no problem: {printed:?}");
    let seen = json(&printed);
    assert_eq!(seen["slurm"]["version"], "22.05.8");
    for (topic, line) in [
        ("job age", "MinJobAge=300"),
        ("arrays", "MaxArraySize=10001"),
        ("preemption", "PartitionName=main … GraceTime=120"),
        ("accounting", "AccountingStorageType=accounting_storage/slurmdbd"),
    ] {
        let found = finding(&seen, topic);
        assert_eq!((&found["level"], &found["slurm_conf"]), (&"advice".into(), &line.into()));
    }
    assert_eq!(seen["promises"][0]["holds"], false, "{seen:#}");
    assert_eq!(left(&fake.world), [""; 0]);
}

#[test]
fn a_slurm_that_is_away_and_a_home_that_others_may_change_are_problems() {
    let fake = FakeSlurm::new(1001);
    std::fs::remove_file(fake.state("config")).unwrap();
    let home = fake.world.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
    let printed = fake.world.run(&["doctor", "--json"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let seen = json(&printed);
    assert_eq!(finding(&seen, "Slurm")["level"], "problem");
    let found = finding(&seen, "home");
    assert_eq!(found["level"], "problem", "{found:#}");
    assert!(found["fix"].as_str().unwrap().contains("chmod go-w"), "{found:#}");
}

#[test]
fn a_job_that_does_not_start_is_cancelled() {
    let fake = FakeSlurm::new(1001);
    let printed = fake.world.run(&["doctor", "--job", "main", "--timeout", "1s", "--json"]);
    let seen = json(&printed);
    let found = finding(&seen, "node");
    assert_eq!(found["level"], "advice", "{found:#}");
    assert!(found["what"].as_str().unwrap().contains("did not start"), "{found:#}");
    assert_eq!(fake.read("cancelled"), "101\n");
    assert_eq!(left(&fake.world), [""; 0]);
}

#[test]
fn ctrl_c_cancels_the_job_and_leaves_nothing() {
    let fake = FakeSlurm::new(1001);
    let mut command = fake.world.command(&["doctor", "--job", "main", "--timeout", "5min"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("scancel 101") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it says the job");
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(fake.read("cancelled"), "101\n");
    assert_eq!(left(&fake.world), [""; 0]);
}

#[test]
fn a_job_looks_at_the_home_from_a_node() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let printed = world.run(&["doctor", "--job", "main", "--json"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let seen = json(&printed);
    for topic in ["accounting", "arrays", "node", "node: hard links", "node: clock", "node: Slurm"]
    {
        assert_eq!(finding(&seen, topic)["level"], "ok", "{topic}: {seen:#}");
    }
    let is_told = |it: &Value| it["promise"] == "what is killed runs again without cron";
    assert!(seen["promises"].as_array().unwrap().iter().any(is_told), "{seen:#}");
    assert_eq!(left(&world), [""; 0]);
    let refused = world.run(&["doctor", "--job", "no-such-partition"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("problem: node: "), "{refused:?}");
}
