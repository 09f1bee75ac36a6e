//! GPUs of this machine, given to trials by slots; faked by a program in PATH.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::{World, states};

/// A world whose machine has so many GPUs.
pub(crate) fn world(gpus: usize) -> World {
    let mut world = World::new();
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let line = |gpu| format!("echo 'GPU {gpu}: NVIDIA H100 (UUID: GPU-{gpu})'");
    let lines = (0..gpus).map(line).collect::<Vec<_>>().join("\n");
    std::fs::write(bin.join("nvidia-smi"), format!("#!/bin/sh\n{lines}")).unwrap();
    std::fs::set_permissions(bin.join("nvidia-smi"), PermissionsExt::from_mode(0o755)).unwrap();
    world.path = format!("{}:{}", bin.display(), world.path);
    world
}

/// A task of 6 trials, each of which fails if another one has one of its GPUs.
fn file(keys: &str) -> String {
    format!(
        "name = \"gpus\"\n[executor.here]\nkind = \"local\"\n{keys}\n[task.train]\nparams.n = {{ int = [1, 6] }}\n\
         run = '''\nfor gpu in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir lock-$gpu || exit 3; done\n\
         while test -e waits; do sleep 0.05; done; sleep 0.1; echo $CUDA_VISIBLE_DEVICES >>seen\n\
         for gpu in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir lock-$gpu; done'''\n"
    )
}

fn submit(world: &World, keys: &str, visible: Option<&str>) -> crate::support::Printed {
    world.write("exp.toml", &file(keys));
    let mut command = world.command(&["submit", "exp.toml", "--wait"]);
    command.env_remove("CUDA_VISIBLE_DEVICES");
    command.envs(visible.map(|visible| ("CUDA_VISIBLE_DEVICES", visible)));
    crate::support::printed(&command.output().unwrap())
}

fn seen(world: &World) -> Vec<String> {
    let seen = std::fs::read_to_string(world.path("seen")).unwrap_or_default();
    let mut seen: Vec<String> = seen.lines().map(str::to_owned).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[test]
fn each_trial_has_gpus_of_its_own() {
    let of_machine = world(4);
    let printed = submit(&of_machine, "parallel = 2\ngpus_per_trial = 2", None);
    assert_eq!(printed.code, 0, "{printed:?} {:#}", of_machine.status("@"));
    assert!(seen(&of_machine).iter().all(|it| ["0,1", "2,3"].contains(&&**it)));
    let of_shell = world(4);
    let printed = submit(&of_shell, "gpus_per_trial = 1", Some("5,7"));
    assert_eq!(printed.code, 0, "{printed:?} {:#}", of_shell.status("@"));
    assert_eq!(seen(&of_shell), ["5", "7"], "as many at once as there are");
}

#[test]
fn fewer_than_are_wanted_are_refused() {
    let world = world(2);
    let few = submit(&world, "parallel = 4\ngpus_per_trial = 1", None);
    assert_eq!(few.code, 2, "{few:?}");
    assert!(few.stderr.contains("4 GPUs at once, but it has 2 GPUs"), "{few:?}");
    let none = submit(&world, "gpus_per_trial = 1", Some(""));
    assert!(none.stderr.contains("1 GPU at once, but it has 0 GPUs"), "{none:?}");
    assert_eq!(world.run(&["plan", "exp.toml"]).code, 0, "one is there");
    assert!(!world.path("home/experiments").exists(), "nothing was written");
}

/// A runner that takes over knows which GPUs are in use.
#[test]
fn a_killed_runner_gives_no_gpu_twice() {
    let world = world(1);
    world.write("waits", "");
    world.write("exp.toml", &file("gpus_per_trial = 1"));
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a trial to run", |status| {
        world.path("lock-0").exists() && states(status, "train").contains(&"running".to_owned())
    });
    let log = std::fs::read_to_string(world.experiment(&id).join("runner.jsonl")).unwrap();
    let runner: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let killed = Command::new("kill").args(["-9", &runner["pid"].to_string()]).status().unwrap();
    assert!(killed.success());
    world.ok(&["submit", "--continue", &id]);
    std::fs::remove_file(world.path("waits")).unwrap();
    world.ok(&["wait", &id, "--timeout", "3m"]);
    assert_eq!(states(&world.status(&id), "train"), ["completed"; 6]);
}

#[test]
fn a_key_of_a_built_in_executor_needs_no_kind() {
    let world = World::new();
    world.write("exp.toml", "name = \"x\"\n[task.t]\nrun = \"true\"\n");
    let set = ["--set", "executor.local.parallel=3"];
    world.ok(&["check", "exp.toml", set[0], set[1]]);
    let id = world.ok(&["submit", "exp.toml", set[0], set[1]]);
    let shown = world.ok(&["show", &id, "--json"]);
    assert!(shown.contains("\"parallel\":3") || shown.contains("\"parallel\": 3"), "{shown}");
    let unknown = world.run(&["check", "exp.toml", "--set", "executor.other.parallel=3"]);
    assert!(unknown.stderr.contains("no `kind`"), "{unknown:?}");
}
