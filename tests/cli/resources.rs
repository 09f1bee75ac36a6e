//! `resources`: what trials use, seen by their harnesses or by Slurm.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::support::World;

/// It fills memory and works until a file is there. A quarter of it is done by a child.
const PROGRAM: &str = "\
import os, sys, time
held = bytearray(120 * 1000 * 1000)
if os.fork() == 0:
    held = bytearray(40 * 1000 * 1000)
until = time.time() + 100
while not os.path.exists(sys.argv[1]) and time.time() < until:
    sum(range(10000))
";

fn resources(world: &World, target: &str) -> Value {
    let shown: Value = serde_json::from_str(&world.ok(&["resources", target, "--json"])).unwrap();
    assert_eq!(shown["schema"], 1);
    shown["trials"][0].clone()
}

fn until_sampled(world: &World, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    world.until(id, "a sample", |_| wanted(&resources(world, id)));
    resources(world, id)
}

fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row:#}"))
}

#[test]
fn what_a_trial_uses_is_seen_while_it_runs_and_afterwards() {
    let mut world = World::new();
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = world.write(
        "bin/nvidia-smi",
        "#!/bin/sh\necho 'GPU-a, 30, 1000, 8000'\necho 'GPU-b, 50, 500, 8000'\n",
    );
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.path = format!("{}:{}", bin.display(), world.path);
    world.write("train.py", PROGRAM);
    world.write("exp.toml", "name = \"used\"\n[task.train]\nrun = \"python3 train.py stop\"\n");
    let id = world.ok(&["submit", "exp.toml"]);
    let running = until_sampled(&world, &id, |row| {
        row["memory_bytes"].as_u64() > Some(150_000_000) && !row["gpu_percent"].is_null()
    });
    assert_eq!((&running["state"], &running["source"]), (&json!("running"), &json!("harness")));
    assert!(number(&running, "cpu_percent") > 1.0 && number(&running, "memory_percent") > 0.0);
    assert_eq!(
        (&running["gpu_percent"], &running["gpu_memory_bytes"]),
        (&json!(40.0), &json!(1500 << 20))
    );
    assert_eq!((&running["efficiency"], &running["advice"]), (&Value::Null, &Value::Null));
    let table = world.ok(&["resources"]);
    assert!(
        table.contains("train/0") && table.contains("MEMORY") && table.contains("40%"),
        "{table}"
    );
    world.write("stop", "");
    world.ok(&["wait", &id, "--timeout", "1m"]);
    let over = resources(&world, "@/train/0");
    assert!(number(&over, "memory_peak_bytes") >= number(&running, "memory_bytes"), "{over:#}");
    let (cpu, memory) = (&over["efficiency"]["cpu"], &over["efficiency"]["memory"]);
    assert!(cpu.as_f64() > Some(0.0) && cpu.as_f64() <= Some(1.0), "{over:#}");
    assert!(memory.as_f64() > Some(0.0) && memory.as_f64() < Some(1.0), "{over:#}");
    assert_eq!(over["efficiency"]["gpu"], json!(0.4));
    // This machine was not asked for anything.
    assert_eq!(over["advice"], Value::Null);
}

/// A driver that hangs holds up neither the samples nor the trial's end, and is none of its processes.
#[test]
fn a_question_for_gpus_that_hangs_holds_nobody_up() {
    let mut world = World::new();
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = world.write("bin/nvidia-smi", "#!/bin/sh\necho $$ >asked\nexec sleep 1000\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.path = format!("{}:{}", bin.display(), world.path);
    world.write("train.py", PROGRAM);
    let asked = "while [ ! -s asked ]; do sleep 0.1; done; touch stop";
    let text =
        format!("name = \"held\"\n[task.train]\nrun = \"({asked}) & python3 train.py stop\"\n");
    world.write("exp.toml", &text);
    world.ok(&["submit", "exp.toml", "--wait"]);
    let row = resources(&world, "@");
    assert!(number(&row, "memory_peak_bytes") > 100e6 && row["gpu_percent"].is_null(), "{row:#}");
    let id = world.status("@")["experiment"]["id"].as_str().unwrap().to_owned();
    let log = world.experiment(&id).join("tasks/train/trials/0/0.err");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("are killed"), "{log}");
    let pid = std::fs::read_to_string(world.path("asked")).unwrap();
    world.until(&id, "the question's end", |_| {
        !std::path::Path::new("/proc").join(pid.trim()).join("exe").exists()
    });
}

#[test]
fn a_program_that_is_over_at_once_has_a_peak() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"short\"\n[task.train]\nrun = \"python3 -c 'x = bytearray(90_000_000)'\"\n",
    );
    world.ok(&["submit", "exp.toml", "--wait"]);
    let row = resources(&world, "@");
    assert!(number(&row, "memory_peak_bytes") > 80e6, "{row:#}");
    assert!(number(&row["efficiency"], "cpu") > 0.0, "{row:#}");
    // A file that is damaged is named, and decides nothing.
    let path = world.experiment(world.status("@")["experiment"]["id"].as_str().unwrap());
    let path = path.join("tasks/train/trials/0/0.usage.json");
    std::fs::write(&path, "{").unwrap();
    let damaged = world.run(&["resources"]);
    assert!(damaged.code == 0 && damaged.stderr.contains("0.usage.json"), "{damaged:?}");
    assert!(damaged.stderr.contains("was measured"), "{damaged:?}");
}

/// Without a sample of the harness, Slurm's accounting tells.
#[test]
fn slurm_is_the_second_source() {
    let fake = FakeSlurm::new(1001);
    let text = "name = \"told\"\n[executor.it]\nkind = \"slurm\"\nmem = \"1000M\"\ncpus_per_task = 4\n\
        [task.train]\nrun = \"true\"\n";
    fake.world.write("exp.toml", text);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let dir = fake.world.experiment(&id).join("tasks/train/trials/0");
    std::fs::create_dir_all(&dir).unwrap();
    let start = json!({"event": "start", "attempt": 0, "slurm_job": "101_0", "restarts": 0, "node": "n2", "pid": 1,
        "boot_id": "b", "start_ticks": 1, "time": 100.5, "resume_step": null});
    let end = json!({"event": "end", "attempt": 0, "time": 200.0, "cause": "completed", "exit_code": 0, "signal": null,
        "step": null, "checkpoint_step": null, "next": "done", "reason": "done"});
    std::fs::write(dir.join("attempts.jsonl"), format!("{start}\n{end}\n")).unwrap();
    let of_job: &[&str] = &["101_0", "", "billing=4,cpu=4,mem=1000M,node=1", "01:40", "400"];
    let of_step: &[&str] = &["101_0.batch", "102400K", "cpu=4,mem=1000M,node=1", "01:40", "400"];
    fake.answer("sacct", Some(&[of_job, of_step]));
    let shown = resources(&fake.world, &id);
    assert_eq!(shown["source"], "slurm", "{shown:#}");
    assert_eq!(
        (&shown["memory_peak_bytes"], &shown["cpu_percent"]),
        (&json!(100 << 20), &json!(100.0))
    );
    assert_eq!(shown["efficiency"], json!({"cpu": 0.25, "memory": 0.1, "gpu": null}));
    let advice = shown["advice"].as_str().unwrap();
    assert!(
        advice.contains("`mem = \"130M\"` is enough") && advice.contains("1.0 of 4"),
        "{advice}"
    );
    // Slurm looked at most once: it tells what was used, and nothing follows from it.
    let of_job: &[&str] = &["101_0", "", "billing=4,cpu=4,mem=1000M,node=1", "00:00", "40"];
    let of_step: &[&str] = &["101_0.batch", "0", "cpu=4,mem=1000M,node=1", "00:00", "40"];
    fake.answer("sacct", Some(&[of_job, of_step]));
    let shown = resources(&fake.world, &id);
    assert_eq!((&shown["memory_peak_bytes"], &shown["advice"]), (&json!(0), &Value::Null));
}

/// Ranks on two nodes are one trial, and what Slurm gave is what they are held against.
#[test]
fn ranks_add_up_on_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("train.py", PROGRAM);
    let text = "name = \"ranks\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nnodes = 2\ntasks_per_node = 1\n\
        mem = \"600M\"\ntime = \"10m\"\n[task.train]\nrun = \"python3 train.py stop\"\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    let running = until_sampled(&world, &id, |row| {
        let nodes = row["nodes"].as_array().map_or(0, Vec::len);
        nodes == 2 && row["memory_bytes"].as_u64() > Some(150_000_000)
    });
    assert_eq!(running["memory_limit_bytes"], json!(600 << 20), "{running:#}");
    // Advice needs two samples.
    until_sampled(&world, &id, |row| number(row, "as_of") > number(&running, "as_of") + 1.5);
    assert!(number(&running, "memory_bytes") < 300e6, "of one node: {running:#}");
    world.write("stop", "");
    world.ok(&["wait", &id, "--timeout", "2m"]);
    let over = resources(&world, &id);
    assert!(over["advice"].as_str().unwrap().contains("of 600 MiB memory"), "{over:#}");
}
