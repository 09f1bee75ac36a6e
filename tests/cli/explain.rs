//! `explain`: why trials wait, when they may start, and what would start them sooner.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::support::World;

fn explain(world: &World, target: &str) -> Value {
    serde_json::from_str(&world.ok(&["explain", target, "--json"])).unwrap()
}

/// Asks again until Slurm has thought about it.
fn until(world: &World, target: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let explained = explain(world, target);
        if wanted(&explained) {
            return explained;
        }
        assert!(Instant::now() < until, "{explained:#}");
        std::thread::sleep(Duration::from_millis(500)); // the scheduler looks every few seconds
    }
}

#[test]
fn what_waits_for_a_full_cluster_is_told_when_and_where_it_would_start() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(28_317, &[("SLURM_DEV_NODES", "1")]);
    let world = cluster.world();
    world.write(
        "exp.toml",
        "name = \"waits\"\n[executor.all]\nkind = \"slurm\"\npartition = \"main\"\ncpus_per_task = 16\ntime = \"1h\"\n\
         [defaults]\nexecutor = \"all\"\n[task.first]\nrun = \"sleep 600\"\n\
         [task.next]\nrun = \"true\"\n[task.next.params]\nn = [1, 2]\n[task.last]\nrun = \"true\"\nafter = [\"next\"]\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a full node", |status| status["tasks"][0]["counts"]["running"] == 1);
    let is_known = |explained: &Value| {
        let mut trials = explained["trials"].as_array().unwrap().iter();
        trials.all(|trial| trial["reason"].is_string() && trial["expected_start"].is_number())
    };
    let explained = until(&world, &format!("{id}/next"), is_known);
    let trials = explained["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 2, "{explained:#}");
    for trial in trials {
        let reason = trial["reason"].as_str().unwrap();
        assert!(["Resources", "Priority"].contains(&reason), "{trial:#}");
        assert!(trial["meaning"].as_str().unwrap().starts_with("waits for"), "{trial:#}");
        let tries = trial["try"].as_array().unwrap();
        let changes: Vec<&str> = tries.iter().map(|it| it["change"].as_str().unwrap()).collect();
        let expected = ["time=00:30:00", "time=00:15:00", "partition=urgent", "partition=scavenge"];
        assert_eq!(changes, expected.map(|change| format!("executor.all.{change}")), "{trial:#}");
        assert!(tries.iter().all(|it| it["expected_start"].is_number()), "{trial:#}");
    }
    // The others: one runs, and one waits for its parent, which no partition would change.
    assert_eq!(explain(&world, &format!("{id}/first"))["trials"], Value::Array(vec![]));
    let last = &explain(&world, &format!("{id}/last"))["trials"][0];
    assert_eq!((&last["reason"], &last["try"]), (&"Dependency".into(), &Value::Array(vec![])));
    let text = world.ok(&["explain", &id]);
    for part in ["next, trials 0-1 (Slurm job", "Slurm expects", "last/0", "waits for another task"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The command that it shows changes the jobs that wait, and none that runs.
    let typed = text.split("`scontrol update ").nth(1);
    if let Some((typed, _)) = typed.and_then(|rest| rest.split_once('`')) {
        assert!(typed.contains("_["), "{typed}");
        let words: Vec<&str> = std::iter::once("update").chain(typed.split(' ')).collect();
        world.slurm("scontrol", &words);
    }
    let job = trials[0]["slurm_job"].as_str().unwrap().split_once('_').unwrap().0;
    world.slurm("scontrol", &["update", &format!("JobId={job}_[0-1]"), "TimeLimit=00:20:00"]);
    assert!(world.slurm("squeue", &["-h", "-r", "-j", job, "-o", "%l"]).contains("20:00"));
    world.ok(&["cancel", &id]);
}

#[test]
fn what_waits_on_this_machine_is_told_too() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"here\"\n[executor.here]\nkind = \"local\"\nparallel = 1\n[defaults]\nexecutor = \"here\"\n\
         [task.first]\nrun = \"sleep 600\"\n[task.first.params]\nn = [1, 2]\n[task.next]\nrun = \"true\"\nafter = [\"first\"]\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a trial that runs", |status| status["tasks"][0]["counts"]["running"] == 1);
    let explained = explain(&world, &id);
    let trials = explained["trials"].as_array().unwrap();
    let meaning = |at: usize| trials[at]["meaning"].as_str().unwrap().to_owned();
    assert!(meaning(0).contains("until the runner has room"), "{explained:#}");
    assert!(meaning(1) == "waits for `first`", "{explained:#}");
    assert_eq!(trials[0]["slurm_job"], Value::Null);
    world.ok(&["cancel", &id]);
}

#[test]
fn nothing_that_waits_is_said() {
    let world = World::new();
    world.write("exp.toml", "name = \"done\"\n[task.a]\nrun = \"true\"\n");
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    assert_eq!(world.ok(&["explain"]).trim(), format!("Nothing of {id} waits."));
    assert_eq!(explain(&world, "@")["trials"], Value::Array(vec![]));
    let run = world.run(&["explain", "@/b"]);
    assert!(run.code == 3 && run.stderr.contains('b'), "{run:?}");
}
