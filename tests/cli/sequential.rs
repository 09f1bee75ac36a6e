//! `--sequential`: one trial at a time, also of tasks that don't depend on each other.

use crate::fake::FakeSlurm;
use crate::support::{World, states};

const FILE: &str = r#"
name = "turns"
[task.first]
run = "mkdir busy && sleep 0.3 && rmdir busy && exit 3"
params = { n = [0, 1] }
[task.second]
run = "mkdir busy && sleep 0.3 && rmdir busy"
[task.third]
run = "mkdir busy && sleep 0.3 && rmdir busy"
after = ["second"]
"#;

#[test]
fn on_this_machine_tasks_run_one_after_the_other() {
    let world = World::new();
    world.write("exp.toml", FILE);
    let id = world.ok(&["submit", "exp.toml", "--sequential"]);
    world.run(&["wait", &id]);
    let status = world.status(&id);
    let all: Vec<String> =
        ["first", "second", "third"].iter().flat_map(|task| states(&status, task)).collect();
    assert_eq!(all, ["failed", "failed", "completed", "completed"], "{status:#}");
    let log = |trial: &str| std::fs::read_to_string(world.experiment(&id).join(trial)).unwrap();
    for trial in ["first/trials/0", "first/trials/1"] {
        let log = log(&format!("tasks/{trial}/0.err"));
        assert!(!log.contains("File exists"), "another one ran beside it: {log}");
    }
}

#[test]
fn on_slurm_each_task_waits_for_the_one_before_it() {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        &FILE.replace("[task.first]", "[executor.s]\nkind = \"slurm\"\n[task.first]"),
    );
    fake.world.ok(&["submit", "exp.toml", "--sequential"]);
    let taken = fake.taken();
    assert!(!taken[0].arguments.contains("dependency"), "{taken:?}");
    assert!(taken[1].arguments.contains("afterany:101"), "whatever became of it: {taken:?}");
    assert!(taken[2].arguments.contains("afterok:102"), "its own dependency stays: {taken:?}");
    assert!(!taken[2].arguments.contains("afterany"), "{taken:?}");
    let planned = fake.world.ok(&["plan", "exp.toml", "--json"]);
    assert!(!planned.contains("after_any"), "only where it is asked for: {planned}");
}
