//! Experiments of which a part runs on this machine and a part on a real Slurm, in any order.

use std::process::Command;

use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::outside;
use crate::support::{World, states, text, trials};

const EXECUTORS: &str = "[executor.here]\nkind = \"local\"\n[executor.s]\nkind = \"slurm\"\npartition = \"main\"\ntime = \"10m\"\nmem = \"50M\"\n";

/// Tasks one after the other, `a`, `b`, `c` …, on these executors; each appends to the result of the one before.
fn chain(executors: &[&str]) -> String {
    let mut file = format!("name = \"mixed\"\n{EXECUTORS}");
    let names = ["a", "b", "c", "d", "e"];
    for (place, executor) in executors.iter().enumerate() {
        let name = names[place];
        let before = place.checked_sub(1).map(|before| names[before]);
        let after = before.map_or(String::new(), |before| format!("after = [\"{before}\"]\n"));
        let path = before.map_or(String::new(), |before| format!("{{{before}.result.path}}"));
        let task = format!(
            "[task.{name}]\nexecutor = \"{executor}\"\n{after}run = '''\necho run >>\"$NEMO_DIR/../../runs\"\n\
             test ! -e {name}-fails || exit 3\nwhile test -e {name}-waits; do sleep 0.1; done\n\
             echo '{{\"path\": \"'{path}{name}'\"}}' >\"$NEMO_RESULT\"'''\n"
        );
        file.push_str(&task);
    }
    file
}

/// Every task ran once, and saw what the one before it left.
#[track_caller]
fn assert_ran_once(world: &World, id: &str, tasks: &[&str]) {
    for task in tasks {
        let runs = world.experiment(id).join(format!("tasks/{task}/runs"));
        let runs = std::fs::read_to_string(runs).unwrap_or_default();
        assert_eq!(runs, "run\n", "of {task}: {:#}", world.status(id));
    }
    let last = tasks.last().unwrap();
    let result = world.experiment(id).join(format!("tasks/{last}/trials/0/result.json"));
    let result: Value = serde_json::from_slice(&std::fs::read(result).unwrap()).unwrap();
    assert_eq!(result["path"], tasks.concat(), "of {id}");
}

fn waits_for(world: &World, target: &str) {
    world.ok(&["wait", target, "--timeout", "5m"]);
}

#[test]
fn on_slurm_between_two_local_tasks() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("exp.toml", &chain(&["here", "s", "here"]));
    let id = world.ok(&["submit", "exp.toml"]);
    waits_for(&world, &id);
    assert_ran_once(&world, &id, &["a", "b", "c"]);
}

#[test]
fn local_between_two_tasks_on_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("exp.toml", &chain(&["s", "here", "s", "s"]));
    let id = world.ok(&["submit", "exp.toml"]);
    waits_for(&world, &id);
    assert_ran_once(&world, &id, &["a", "b", "c", "d"]);
}

/// The runner is killed at every place, and `poll` or `resume` goes on.
#[test]
fn a_killed_runner_is_started_again_and_nothing_runs_twice() {
    if !cluster::is_here() {
        return;
    }
    for (waits, again) in
        [("a", "poll"), ("b", "poll"), ("c", "resume"), ("d", "poll"), ("b", "resume")]
    {
        let world = World::new();
        world.write("exp.toml", &chain(&["s", "here", "s", "here"]));
        world.write(&format!("{waits}-waits"), "");
        let id = world.ok(&["submit", "exp.toml"]);
        world.until(&id, &format!("{waits} to run"), |status| states(status, waits) == ["running"]);
        kill_runner(&world, &id);
        std::fs::remove_file(world.path(&format!("{waits}-waits"))).unwrap();
        world.until(&id, &format!("{waits} to end"), |status| {
            states(status, waits) == ["completed"]
        });
        world.run(&[again, &id]);
        waits_for(&world, &id);
        assert_ran_once(&world, &id, &["a", "b", "c", "d"]);
    }
}

fn kill_runner(world: &World, id: &str) {
    let log = std::fs::read_to_string(world.experiment(id).join("runner.jsonl")).unwrap();
    let mut records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let runner = records.rfind(|record| record["event"] == "runner").expect("a runner");
    let pid = &runner["pid"];
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_failure_blocks_what_needs_it_and_a_retry_goes_on() {
    if !cluster::is_here() {
        return;
    }
    for fails in ["a", "b"] {
        let world = World::new();
        world.write("exp.toml", &chain(&["here", "s", "here", "s"]));
        world.write(&format!("{fails}-fails"), "");
        let id = world.ok(&["submit", "exp.toml"]);
        let waited = world.run(&["wait", &id, "--timeout", "5m"]);
        assert_eq!(waited.code, 1, "{waited:?}");
        let status = world.status(&id);
        assert_eq!(states(&status, fails), ["failed"], "{status:#}");
        assert_eq!(states(&status, "d"), ["blocked"], "{status:#}");
        std::fs::remove_file(world.path(&format!("{fails}-fails"))).unwrap();
        world.ok(&["retry", &id]);
        let status = world.status(&id);
        assert_ne!(states(&status, "d"), ["blocked"], "pending before it returns: {status:#}");
        waits_for(&world, &id);
        let runs = world.experiment(&id).join(format!("tasks/{fails}/runs"));
        assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\nrun\n");
        let others: Vec<&str> =
            ["a", "b", "c", "d"].into_iter().filter(|it| *it != fails).collect();
        for task in others {
            let runs = world.experiment(&id).join(format!("tasks/{task}/runs"));
            assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n", "{task}");
        }
    }
}

#[test]
fn what_waits_for_this_machine_is_paused_and_cancelled_too() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("exp.toml", &chain(&["here", "s", "here"]));
    world.write("a-waits", "");
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.status(&id);
    let why = text(&trials(&status, "b")[0]["reason"]);
    assert!(why.contains("waits for `a`"), "{why}");
    world.ok(&["pause", &format!("{id}/b")]);
    std::fs::remove_file(world.path("a-waits")).unwrap();
    let status = world.until(&id, "a to end", |status| states(status, "a") == ["completed"]);
    assert_eq!(states(&status, "b"), ["paused"], "{status:#}");
    world.ok(&["poll", &id]);
    assert_eq!(states(&world.status(&id), "b"), ["paused"]);
    world.ok(&["resume", &id]);
    waits_for(&world, &id);
    assert_ran_once(&world, &id, &["a", "b", "c"]);

    world.write("a-waits", "");
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a to run", |status| states(status, "a") == ["running"]);
    world.ok(&["cancel", &id]);
    world.run(&["wait", &id, "--timeout", "5m"]);
    let status = world.status(&id);
    for task in ["a", "b", "c"] {
        assert_eq!(states(&status, task), ["cancelled"], "{status:#}");
    }
}

#[test]
fn a_runner_that_has_done_what_was_asked_is_not_missed() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let text = "name = \"both\"\n[executor.s]\nkind = \"slurm\"\nmem = \"5M\"\ntime = \"5m\"\n\
        [task.here]\nexecutor = \"local\"\nrun = \"sleep 100\"\n[task.far]\nexecutor = \"s\"\nrun = \"sleep 100\"\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "both to run", |status| {
        ["here", "far"].iter().all(|task| states(status, task) == ["running"])
    });
    let cancelled = world.run(&["cancel", &id]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    assert!(!cancelled.stderr.contains("the local runner is not running"), "{cancelled:?}");
}

#[test]
fn a_plan_says_what_comes_later() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", &chain(&["here", "s", "here", "s"]));
    let planned = fake.world.ok(&["plan", "exp.toml"]);
    assert!(planned.contains("a: 1 trial on this machine (`here`)"), "{planned}");
    assert!(planned.contains("b: 1 trial on Slurm (`s`), submitted later, after a"), "{planned}");
    assert!(planned.contains("\n2 trials on this machine, 2 trials on Slurm later."), "{planned}");
    let hinted = fake.world.run(&["plan", "exp.toml"]).stderr;
    assert!(!hinted.contains("--scripts"), "there are none: {hinted}");
    let json: Value =
        serde_json::from_str(&fake.world.ok(&["plan", "exp.toml", "--json"])).unwrap();
    assert_eq!(json["arrays"].as_array().unwrap().len(), 0, "{json:#}");
    assert_eq!(json["local"][1]["task"], "c", "{json:#}");
    assert_eq!(json["later"][1]["task"], "d", "{json:#}");
}

/// What a retry of these tasks says where Slurm has no room: `a` of this machine and `b` on Slurm have failed.
fn said_without_room(task: &str) -> String {
    let fake = FakeSlurm::new(1001);
    let mixed = "name = \"mixed\"\n[executor.here]\nkind = \"local\"\n[executor.s]\nkind = \"slurm\"\n\
         [task.a]\nexecutor = \"here\"\nrun = \"false\"\n[task.b]\nexecutor = \"s\"\nrun = \"true\"\n";
    fake.world.write("mixed.toml", mixed);
    let id = fake.world.ok(&["submit", "mixed.toml"]);
    fake.world.until(&id, "a to end", |status| states(status, "a") == ["failed"]);
    outside::record(&fake, &id, "b", "101_0", "failed");
    std::fs::write(fake.state("no_room"), "b.1\n").unwrap();
    fake.world.run(&["retry", &format!("{id}{task}")]).stderr
}

#[test]
fn a_retry_that_finds_no_room_on_slurm_says_what_runs_here_and_what_comes_later() {
    let slurm = said_without_room("/b");
    let later = "Retried 1 trial: submitted later, once your job limit allows it";
    assert!(slurm.contains(later), "{slurm}");
    let both = said_without_room("");
    let here = "Retried 2 trials on this machine; 1 trial will be submitted later.";
    assert!(both.contains(here), "{both}");
}
