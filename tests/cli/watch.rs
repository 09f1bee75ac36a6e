//! `watch`: what it shows while a target changes, and the exit code at its end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::cluster;
use crate::counting;
use crate::fake::{CHAIN, FakeSlurm};
use crate::support::{World, text};

const SLURM: &str = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";

/// `watch --json` of a target, and the events that it prints.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(world: &World, target: &str) -> Self {
        let mut command = world.command(&["watch", target, "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next event.
    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["schema"], 1, "{event}");
        assert!(event["time"].as_f64().is_some_and(|time| time > 1e9), "{event}");
        Some(event)
    }

    /// All that is left to come, and the exit code.
    fn into_events(mut self) -> (Vec<Value>, Option<i32>) {
        let events = std::iter::from_fn(|| self.next()).collect();
        (events, self.child.wait().unwrap().code())
    }
}

/// The states that a trial went through.
fn states(events: &[Value], task: &str, trial: u32) -> Vec<String> {
    let own = |event: &&Value| {
        event["event"] == "trial" && event["task"] == task && event["trial"] == trial
    };
    events.iter().filter(own).map(|event| text(&event["state"])).collect()
}

fn watch_to_the_end(executor: &str) {
    let world = World::new();
    counting::write(&world, executor, 60, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    let watching = Watching::start(&world, &format!("{id}/train/1-2"));
    world.ok(&["cancel", &format!("{id}/train/2")]);
    let (events, code) = watching.into_events();
    assert_eq!(states(&events, "train", 1).last().unwrap(), "completed", "{events:#?}");
    assert_eq!(states(&events, "train", 2).last().unwrap(), "cancelled", "{events:#?}");
    assert!(states(&events, "train", 0).is_empty(), "it is no part of the target: {events:#?}");
    assert!(states(&events, "prepare", 0).is_empty(), "{events:#?}");
    assert_eq!(events[0]["event"], "state", "{events:#?}");
    let end = events.last().unwrap();
    let target = format!("{id}/train/1-2");
    let told = [&end["event"], &end["target"], &end["state"], &end["exit_code"]];
    assert_eq!(told, [&json!("end"), &json!(target), &json!("cancelled"), &json!(1)]);
    assert_eq!(code, Some(1));
    assert_eq!(world.run(&["wait", &target]).code, 1);
    let shown = world.run(&["watch", &format!("{id}/train/1")]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.starts_with("train/1 completed"), "{shown:?}");
    assert!(!shown.stdout.contains("prepare") && !shown.stdout.contains('\u{1b}'), "{shown:?}");
    assert!(shown.stderr.is_empty(), "{shown:?}");
}

#[test]
fn watching_ends_with_the_target_and_with_its_exit_code_here() {
    watch_to_the_end("kind = \"local\"\nparallel = 4");
}

#[test]
fn watching_ends_with_the_target_and_with_its_exit_code_on_slurm() {
    if cluster::is_here() {
        watch_to_the_end(SLURM);
    }
}

#[test]
fn a_warning_is_shown_as_long_as_it_holds_and_slurm_is_asked_every_ten_seconds() {
    let fake = FakeSlurm::new(100);
    fake.world.write("exp.toml", CHAIN);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["no row of squeue"]]));
    let (before, began) = (fake.calls("squeue"), Instant::now());
    let mut watching = Watching::start(&fake.world, &id);
    let mut warning = || loop {
        let event = watching.next().unwrap();
        if event["event"] == "warning" {
            return (text(&event["text"]), event["active"] == true);
        }
    };
    let (first, is_active) = warning();
    assert!(is_active && first.starts_with("squeue: 1 row can't be read"), "{first}");
    fake.answer("squeue", None);
    assert_eq!(warning(), (first, false));
    assert!(began.elapsed().as_secs() >= 9, "the answer is kept for ten seconds");
    assert_eq!(fake.calls("squeue") - before, 2);
    watching.child.kill().unwrap();
    watching.child.wait().unwrap();
}

#[test]
fn a_target_that_is_not_there_is_an_error_in_json_too() {
    let world = World::new();
    world.write("exp.toml", "name = \"here\"\n[task.only]\nrun = \"true\"\n");
    world.ok(&["submit", "exp.toml", "--wait"]);
    let printed = world.run(&["watch", "here/only/7", "--json"]);
    assert_eq!(printed.code, 3, "{printed:?}");
    let error: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(error["error"]["exit_code"], 3, "{error}");
}
