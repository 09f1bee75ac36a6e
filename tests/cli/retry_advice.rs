//! `retry --advise` and `retry = {…}` of the file: what changes by why a trial failed, on a scripted Slurm, on this machine
//! and on a real Slurm.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::fake::FakeSlurm;
use crate::retry::{retry, wait_in_queue};
use crate::support::{Printed, World, causes, printed, states, trials};

/// Four trials that failed: for memory, for a time limit, with their node, and for a module.
pub(crate) fn failed_in_four_ways() -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    let text = "name = \"four\"\n[executor.gpu]\nkind = \"slurm\"\nmem = \"1000M\"\ntime = \"1h\"\n\
        [task.train]\nrun = \"true {n}\"\nparams = { n = [0, 1, 2, 3, 4] }\n";
    fake.world.write("exp.toml", text);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    for (trial, cause, reason) in [
        (0, "out_of_memory", "out of memory"),
        (1, "time_limit", "given up: 3 attempts in a row without a new checkpoint"),
        (2, "node_failure", "the node was lost"),
        (3, "failed", "the program exited with code 1"),
        (4, "failed", "the program exited with code 1"),
    ] {
        let dir = fake.world.experiment(&id).join(format!("tasks/train/trials/{trial}"));
        std::fs::create_dir_all(&dir).unwrap();
        let start = json!({"event": "start", "attempt": 0, "slurm_job": format!("101_{trial}"), "restarts": 0,
            "node": "n2", "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 100.5, "resume_step": null});
        let end = json!({"event": "end", "attempt": 0, "time": 200.0, "cause": cause, "exit_code": 1, "signal": null,
            "step": null, "checkpoint_step": null, "next": "failed", "reason": reason});
        std::fs::write(dir.join("attempts.jsonl"), format!("{start}\n{end}\n")).unwrap();
    }
    let module = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    import nothing\n\
        ModuleNotFoundError: No module named 'nothing'\n";
    let dir = fake.world.experiment(&id).join("tasks/train/trials/3/0.err");
    std::fs::write(dir, module).unwrap();
    std::fs::write(fake.state("forgets"), "1").unwrap();
    let node = |n| format!("NodeName=n{n} RealMemory=1400 State=IDLE Partitions=main,other\n");
    let nodes = [1, 2, 3, 4].map(node).concat();
    std::fs::write(fake.state("nodes"), nodes).unwrap();
    (fake, id)
}

#[test]
fn advice_changes_resources_by_cause_and_leaves_alone_what_would_fail_again() {
    let (fake, id) = failed_in_four_ways();
    let world = &fake.world;
    let calls = fake.calls("sbatch");
    let planned = retry(world, &[&id, "--advise", "--dry-run"]);
    assert_eq!(fake.calls("sbatch"), calls);
    let advice = |value: &Value| -> Vec<Value> {
        let rows = value["advice"].as_array().unwrap();
        rows.iter()
            .map(|row| json!([row["trials"], row["class"], row["retry"], row["set"]]))
            .collect()
    };
    let expected = [
        json!(["0", "out_of_memory", true, {"executor.mem": "1400M"}]),
        json!(["1", "time_limit", true, {"executor.time": "7200s"}]),
        json!(["2", "node_failure", true, {"executor.sbatch.exclude": "n2"}]),
        json!(["3", "missing_module", false, {}]),
    ];
    assert_eq!(advice(&planned)[..4], expected, "{planned:#}");
    assert_eq!(planned["left"][0]["trials"], "3", "{planned:#}");
    let shown = world.run(&["retry", &id, "--advise", "--dry-run"]);
    assert!(
        shown.stdout.contains("train/0") && shown.stdout.contains("executor.mem=1400M"),
        "{shown:?}"
    );
    assert!(shown.stdout.contains("not retried"), "{shown:?}");
    let retried = retry(world, &[&id, "--advise"]);
    assert_eq!(retried["trials"], json!({"train": "0-2,4"}), "{retried:#}");
    let shown: Value = serde_json::from_str(&world.ok(&["show", &id, "--json"])).unwrap();
    let changes = shown["generations"][1]["changes"].as_array().unwrap().iter();
    let mut changes: Vec<Value> =
        changes.map(|it| json!([it["trials"], it["changed"], it["advice"]])).collect();
    changes.sort_by_key(Value::to_string);
    let told = [
        json!(["0", {"executor.mem": "1400M"}, "out_of_memory"]),
        json!(["1", {"executor.time": "7200s"}, "time_limit"]),
        json!(["2", {"executor.sbatch.exclude": "n2"}, "node_failure"]),
    ];
    assert_eq!(changes, told, "{shown:#}");
    let script = |n: usize| {
        let path = world.experiment(&id).join(format!("tasks/train/{n}.sbatch"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let all: Vec<String> = (1..=4).map(script).collect();
    for (line, trial) in
        [("--mem=1400M", 0), ("--time=120", 1), ("--time=02:00:00", 1), ("--exclude=n2", 2)]
    {
        let own = all.iter().filter(|text| text.contains(line));
        assert!(
            own.clone().all(|text| text.contains(&format!("--array={trial}\n"))),
            "{line}: {all:?}"
        );
    }
    assert!(all.iter().any(|text| text.contains("--mem=1400M")), "{all:?}");
    assert!(all.iter().any(|text| text.contains("--exclude=n2")), "{all:?}");
    assert!(
        all.iter().any(|text| text.contains("--array=4\n") && text.contains("--mem=1000M")),
        "{all:?}"
    );
}

#[test]
fn without_an_answer_of_slurm_nothing_is_advised() {
    let (fake, id) = failed_in_four_ways();
    let scontrol = fake.world.path("bin/scontrol");
    std::fs::write(scontrol, "#!/bin/sh\necho 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2\nexit 1\n").unwrap();
    let printed = fake.world.run(&["retry", &id, "--advise"]);
    assert_ne!(printed.code, 0, "{printed:?}");
    assert_eq!(fake.names().len(), 1);
}

const RULES: &str = "retry = { failed = 2, out_of_memory = { mem = \"x1.5\" } }\n";

/// Says how often it ran; the third time it succeeds.
fn fails_twice(executor: &str) -> World {
    let world = World::new();
    let text = format!(
        "name = \"twice\"\n[executor.it]\n{executor}\n[task.train]\n\
         run = \"echo x >>{}/runs; test $(wc -l <{}/runs) -gt 2\"\n{RULES}[task.after]\nafter = [\"train\"]\nrun = \"true\"\n",
        world.path("").display(),
        world.path("").display()
    );
    world.write("exp.toml", &text);
    world
}

/// `wait` sees the retries through.
fn retried_until_it_completes(world: &World) {
    let id = world.ok(&["submit", "exp.toml"]);
    let printed = world.run(&["wait", &id, "--timeout", "3m"]);
    let status = world.status(&id);
    assert_eq!(printed.code, 0, "{printed:?} {status:#}");
    assert_eq!(causes(&trials(&status, "train")[0]), ["failed", "failed", "completed"]);
    assert_eq!(states(&status, "after"), ["completed"], "{status:#}");
    let journal = std::fs::read_to_string(world.experiment(&id).join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"rule\":\"failed\"").count(), 2, "{journal}");
}

#[test]
fn on_this_machine_a_failed_trial_is_retried_by_itself() {
    retried_until_it_completes(&fails_twice("kind = \"local\""));
}

#[test]
fn on_slurm_a_failed_trial_is_retried_by_itself() {
    if cluster::is_here() {
        let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
        retried_until_it_completes(&fails_twice(executor));
    }
}

/// What Slurm itself says of memory: what the job had, and what a node of the partition has.
#[test]
fn on_slurm_a_trial_without_memory_gets_more() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write(
        "program.py",
        "import os\nif int(os.environ['SLURM_MEM_PER_NODE']) < 140:\n    raise MemoryError()\n",
    );
    let text = "name = \"memory\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"\n\
        [task.train]\nrun = \"python3 program.py\"\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    assert_eq!(world.run(&["wait", &id, "--timeout", "2m"]).code, 1);
    let planned = retry(&world, &[&id, "--advise", "--dry-run"]);
    let advice = &planned["advice"][0];
    assert_eq!(advice["set"], json!({"executor.mem": "150M"}), "{planned:#}");
    let retried = retry(&world, &[&id, "--advise", "--set", "executor.mem=120M"]);
    assert_eq!(retried["changes"][0]["set"]["executor.mem"], "120M", "a person counts more");
}

/// Saves after each step, and needs 230 MB from step 6 on.
const NEEDS_MEMORY: &str = r#"
import os, pathlib
folder, resumed = pathlib.Path(os.environ["NEMO_CHECKPOINT_DIR"]), os.environ["NEMO_RESUME_FROM"]
start = int(pathlib.Path(resumed).read_text() if os.path.isfile(resumed) else (pathlib.Path(resumed) / "step").read_text()) if resumed else 0
print("began after step", start, flush=True)
for step in range(start + 1, 11):
    if step == 6:
        needed = os.urandom(1 << 20) * 230
    print("step", step, flush=True)
    (folder / ".tmp").mkdir()
    (folder / ".tmp" / "step").write_text(str(step))
    (folder / ".tmp").rename(folder / f"step-{step}")
"#;

/// The kernel kills it, as the site's limit wants. The rule asks for what it needs, and it goes on from its checkpoint.
#[test]
fn on_slurm_a_trial_that_is_killed_for_memory_gets_more_and_goes_on() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(24_220, &[("SLURM_DEV_NODES", "1"), ("SLURM_DEV_MEMORY", "1")]);
    let world = cluster.world();
    world.write("program.py", NEEDS_MEMORY);
    let text = "name = \"killed\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"200M\"\ntime = \"10m\"\n\
        [task.train]\nrun = \"exec python3 program.py\"\nrestart.crashes = 0\nretry = { out_of_memory = { mem = \"x1.5\" } }\n\
        [task.train.metrics]\nstep = '^step (\\d+)'\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    let printed = world.run(&["wait", &id, "--timeout", "4m"]);
    let status = world.status(&id);
    assert_eq!(printed.code, 0, "{printed:?} {status:#}");
    let trial = &trials(&status, "train")[0];
    assert_eq!(causes(trial), ["out_of_memory", "completed"], "{status:#}");
    assert_eq!(trial["attempts"][1]["resume_step"], 5, "{status:#}");
    let journal = std::fs::read_to_string(world.experiment(&id).join("journal.jsonl")).unwrap();
    assert!(journal.contains("\"executor.mem\":\"300M\""), "{journal}");
    let logs = world.ok(&["logs", &id, "--stream", "out", "--attempt", "1"]);
    assert!(logs.contains("began after step 5\n") && logs.ends_with("step 10"), "{logs}");
}

#[test]
fn a_rule_is_used_up() {
    let world = World::new();
    let text = "name = \"never\"\n[task.train]\nrun = \"exit 3\"\nretry = { failed = 1 }\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    assert_eq!(world.run(&["wait", &id, "--timeout", "1m"]).code, 1);
    let status = world.status(&id);
    assert_eq!(causes(&trials(&status, "train")[0]), ["failed", "failed"], "{status:#}");
    let polled = world.run(&["poll", &id]);
    assert!(polled.stderr.contains("Nothing to do"), "{polled:?}");
    // A person gives it all of its chances again.
    retry(&world, &[&id]);
    assert_eq!(world.run(&["wait", &id, "--timeout", "1m"]).code, 1);
    let status = world.status(&id);
    assert_eq!(causes(&trials(&status, "train")[0]).len(), 4, "{status:#}");
}

/// More memory with each retry, by `poll`.
/// Polls, perhaps as a job does: with the program in the home, which has no harness beside it.
fn poll(fake: &FakeSlurm, as_a_job: bool) -> Printed {
    let mut command = fake.world.command(&["poll"]);
    if as_a_job {
        let kept = std::fs::read_dir(fake.world.path("home/bin")).unwrap();
        let mut kept = kept.map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.to_string_lossy().contains("/nemo-slurm-");
        command = Command::new(kept.find(is_it).unwrap());
        fake.world.surround(command.arg("poll"));
        command.env_remove("NEMO_HARNESS");
    }
    printed(&command.output().unwrap())
}

#[test]
fn poll_gives_more_memory_as_often_as_the_file_says() {
    let (fake, id) = {
        let fake = FakeSlurm::new(1001);
        let text = format!(
            "name = \"grow\"\n[executor.gpu]\nkind = \"slurm\"\nmem = \"1000M\"\n[task.train]\nrun = \"true\"\n{RULES}"
        );
        fake.world.write("exp.toml", &text);
        let id = fake.world.ok(&["submit", "exp.toml"]);
        std::fs::write(fake.state("nodes"), "NodeName=n1 RealMemory=64000 Partitions=main\n")
            .unwrap();
        (fake, id)
    };
    let dir = fake.world.experiment(&id).join("tasks/train");
    std::fs::create_dir_all(dir.join("trials/0")).unwrap();
    let mut record = String::new();
    for (attempt, mem) in [(0, Some("1500M")), (1, Some("2250M")), (2, None)] {
        std::fs::write(fake.state("forgets"), (attempt + 1).to_string()).unwrap();
        let start = json!({"event": "start", "attempt": attempt, "slurm_job": format!("{}_0", 101 + attempt), "restarts": 0,
            "node": "n1", "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 100.5, "resume_step": null});
        let end = json!({"event": "end", "attempt": attempt, "time": 200.0, "cause": "out_of_memory", "exit_code": null,
            "signal": 9, "step": null, "checkpoint_step": null, "next": "failed", "reason": "out of memory"});
        record = [record, start.to_string(), "\n".into(), end.to_string(), "\n".into()].concat();
        std::fs::write(dir.join("trials/0/attempts.jsonl"), &record).unwrap();
        wait_in_queue(&fake, &[]);
        let polled = poll(&fake, attempt == 0);
        assert_eq!(polled.code, 0, "{polled:?}");
        let script = std::fs::read_to_string(dir.join(format!("{}.sbatch", attempt + 1)));
        match mem {
            Some(mem) => {
                let script =
                    script.unwrap_or_else(|error| panic!("{attempt}: {error}: {polled:?}"));
                assert!(script.contains(&format!("--mem={mem}\n")), "{attempt}: {script}");
                assert!(polled.stderr.contains("out_of_memory"), "{polled:?}");
            }
            None => assert!(script.is_err(), "the rule is used up: {polled:?}"),
        }
        let again = fake.world.run(&["poll"]);
        assert_eq!(fake.names().len(), attempt + 1 + usize::from(mem.is_some()), "{again:?}");
    }
}
