//! Trials of several processes on several nodes of a real Slurm: saved and resumed as one, and ended as one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nemo_core::rundir::TrialDir;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::processes::{self, Process};
use crate::promises::{Left, hold};
use crate::slurm::urgent_job;
use crate::support::{World, causes, text, trials};

/// Ranks that go on in step by files, and save a shard each; rank 0 renames once all are there.
const PROGRAM: &str = r#"
import os, signal, sys, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
steps, mode = int(sys.argv[1]), sys.argv[2]
out, resume, attempt = (os.environ["NEMO_" + name] for name in ("CHECKPOINT_DIR", "RESUME_FROM", "ATTEMPT"))
asked = False
def ask(*_):
    global asked
    asked = True
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, ask)
first = int(open(f"{resume}/rank-{rank}").read()) if resume else 0
meet = os.environ["NEMO_DIR"] + "/meet-" + attempt
os.makedirs(meet, exist_ok=True)
def gather(name, value):
    with open(f"{meet}/.{name}.{rank}", "w") as file:
        file.write(str(value))
    os.rename(f"{meet}/.{name}.{rank}", f"{meet}/{name}.{rank}")
    while any(not os.path.exists(f"{meet}/{name}.{n}") for n in range(size)):
        time.sleep(0.01)
    return [open(f"{meet}/{name}.{n}").read() for n in range(size)]
def save(step):
    folder = f"{out}/step-{step}.tmp"
    os.makedirs(folder, exist_ok=True)
    open(f"{folder}/rank-{rank}", "w").write(str(step))
    gather(f"saved-{step}", "")
    if rank == 0:
        os.rename(folder, f"{out}/step-{step}")
place = [os.environ[name] for name in ("LOCAL_RANK", "GROUP_RANK", "SLURMD_NODENAME", "MASTER_ADDR", "MASTER_PORT")]
gather("pid", os.getpid())
print("rank", rank, "of", size, *place, flush=True)
for step in range(first + 1, steps + 1):
    time.sleep(0.05)
    print(f"step {step} loss: {1 / step}", flush=True)
    if step == 30 and rank == 1 and attempt == "0":
        if mode == "crash":
            sys.exit(3)
        if mode == "kill":
            os.kill(os.getpid(), 9)
        if mode == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            open(f"{meet}/deaf", "w").close()
            while True:
                time.sleep(60)
    if "True" in gather(step, asked):
        save(step)
        sys.exit(0)
    if step % 20 == 0:
        save(step)
"#;

/// Writes the program, and an experiment whose trials run it on several nodes: one trial for each mode.
fn write(world: &World, partition: &str, nodes: &str, steps: u32, modes: &[&str]) {
    world.write("ranks.py", PROGRAM);
    let text = format!(
        "name = \"ranks\"\n[executor.it]\nkind = \"slurm\"\npartition = \"{partition}\"\n{nodes}\nmem = \"100M\"\ntime = \"10m\"\n\
         [task.train]\nrun = [\"python3\", \"ranks.py\", \"{steps}\", \"{{mode}}\"]\nparams = {{ mode = {modes:?} }}\n\
         checkpoint.lead = \"20s\"\n\
         [task.train.metrics]\nstep = '^step (\\d+)'\nloss = 'loss: (\\S+)'\n"
    );
    world.write("exp.toml", &text);
}

fn dir(world: &World, id: &str, trial: usize) -> PathBuf {
    world.experiment(id).join(format!("tasks/train/trials/{trial}"))
}

#[track_caller]
fn until_beyond(world: &World, id: &str, step: u64) {
    world.until(id, "steps", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(step))
    });
}

#[track_caller]
fn until_over(world: &World, id: &str) -> Value {
    world.until(id, "the end", |status| {
        ["completed", "failed", "cancelled"].contains(&&*text(&status["experiment"]["state"]))
    })
}

/// The processes of a trial, of which none may outlive it: all nodes are this machine.
fn processes_of(world: &World, id: &str, trial: usize) -> Vec<Process> {
    let dir = dir(world, id, trial);
    let named = format!("NEMO_DIR={}", fs::canonicalize(&dir).unwrap_or(dir).display());
    processes::find(|process| process.has(&named))
}

/// Nothing of it runs any more, and all that is promised after a fault holds.
#[track_caller]
fn assert_promises(fault: &str, world: &World, id: &str, trial: usize, left: Left) {
    let began = std::time::Instant::now();
    while let left = processes_of(world, id, trial)
        && !left.is_empty()
    {
        assert!(began.elapsed() < crate::support::PATIENCE, "{left:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    hold(fault, &TrialDir(dir(world, id, trial)), left);
}

/// Every step is in the record once, in order.
#[track_caller]
fn assert_steps(world: &World, id: &str, trial: usize, steps: u64) {
    let metrics = fs::read_to_string(dir(world, id, trial).join("metrics.jsonl")).unwrap();
    let seen: Vec<u64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| !line["values"]["loss"].is_null())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(seen, (1..=steps).collect::<Vec<u64>>());
}

/// What the ranks of an attempt printed first, in their order.
fn first_lines(world: &World, id: &str, attempt: u32, ranks: u32) -> Vec<Vec<String>> {
    let file = |rank: u32| match rank {
        0 => format!("{attempt}.out"),
        rank => format!("{attempt}.{rank}.out"),
    };
    let line = |rank: u32| {
        let text = fs::read_to_string(dir(world, id, 0).join(file(rank))).unwrap();
        text.lines().next().unwrap().split(' ').map(str::to_owned).collect()
    };
    (0..ranks).map(line).collect()
}

#[test]
fn ranks_are_preempted_and_resumed_as_one_and_a_deaf_one_is_killed_in_time() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let nodes = "nodes = 2\ntasks_per_node = 2\nsbatch = { nodelist = \"n2,n4\" }";
    write(&world, "scavenge", nodes, 300, &["plain", "deaf"]);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "steps, and a rank that hangs", |status| {
        let is_deaf = dir(&world, &id, 1).join("meet-0/deaf").exists();
        is_deaf && trials(status, "train")[0]["step"].as_u64() > Some(45)
    });
    urgent_job(&world, "n4");
    let status = until_over(&world, &id);
    let deaf = &trials(&status, "train")[1];
    assert_eq!(causes(deaf), ["preempted", "completed"], "{deaf:#}");
    assert_eq!(deaf["attempts"][1]["resume_step"], 20, "{deaf:#}");
    assert_steps(&world, &id, 1, 300);
    let trial = &trials(&status, "train")[0];
    assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    let (first, second) = (&trial["attempts"][0], &trial["attempts"][1]);
    assert_eq!(first["checkpoint_step"], second["resume_step"], "{trial:#}");
    assert!(second["resume_step"].as_u64() > Some(45), "all ranks were asked: {trial:#}");
    assert_steps(&world, &id, 0, 300);
    for attempt in 0..2 {
        let lines = first_lines(&world, &id, attempt, 4);
        for (rank, line) in lines.iter().enumerate() {
            let (local, node) = ((rank % 2).to_string(), (rank / 2).to_string());
            assert_eq!(line[1..6], [&*rank.to_string(), "of", "4", &local, &node], "{lines:?}");
            assert_eq!(line[6], ["n2", "n4"][rank / 2], "{lines:?}");
            assert_eq!(line[7..], lines[0][7..], "all meet at one place: {lines:?}");
        }
    }
    let logs = world.ok(&["logs", &id, "--attempt", "0", "--stream", "out"]);
    for rank in 0..4 {
        assert!(logs.contains(&format!("rank {rank} of 4")), "{logs}");
    }
    assert!(logs.contains("==> train/0 attempt 0, rank 3 <=="), "{logs}");
    for (trial, fault) in
        ["C: several ranks preempted", "C: one of several ranks ignores signals"].iter().enumerate()
    {
        assert_promises(fault, &world, &id, trial, Left::InOrder);
    }
}

#[test]
fn four_nodes_are_seen_and_one_ranks_end_is_named() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, "main", "nodes = 4", 60, &["plain", "crash", "kill"]);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = until_over(&world, &id);
    let trials = trials(&status, "train");
    let reason = |trial: &Value| text(&trial["attempts"][0]["reason"]);
    assert_eq!(causes(&trials[0]), ["completed"], "{status:#}");
    let lines = first_lines(&world, &id, 0, 4);
    let nodes: Vec<&str> = lines.iter().map(|line| &*line[6]).collect();
    assert_eq!(nodes, ["n1", "n2", "n3", "n4"]);
    assert_eq!(causes(&trials[1]), ["failed"], "{status:#}");
    assert!(reason(&trials[1]).contains("rank 1 on n2 exited with code 3"), "{status:#}");
    assert_eq!(trials[1]["attempts"][0]["exit_code"], 3, "{status:#}");
    assert_eq!(causes(&trials[2]), ["failed"], "{status:#}");
    let killed = "rank 1 on n2 was killed by signal 9 (SIGKILL)";
    assert!(reason(&trials[2]).contains(killed), "{status:#}");
    assert_eq!(trials[2]["attempts"][0]["checkpoint_step"], 20, "{status:#}");
    for (trial, fault) in
        ["E: none, on four nodes", "C: one rank exits with 3", "C: one rank killed with -9"]
            .iter()
            .enumerate()
    {
        assert_promises(fault, &world, &id, trial, Left::InOrder);
    }
}

#[test]
fn a_cancelled_trial_of_several_ranks_saves_and_stays_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, "main", "nodes = 2", 2000, &["plain"]);
    let id = world.ok(&["submit", "exp.toml"]);
    until_beyond(&world, &id, 25);
    let status = world.status(&id);
    let job = text(&trials(&status, "train")[0]["slurm_job"]);
    world.slurm("scancel", &[&job]);
    let status = until_over(&world, &id);
    let trial = &trials(&status, "train")[0];
    assert_eq!(causes(trial), ["cancelled"], "{trial:#}");
    assert!(trial["attempts"][0]["checkpoint_step"].as_u64() > Some(25), "{trial:#}");
    assert_promises("C: scancel of several ranks", &world, &id, 0, Left::InOrder);
}

/// The processes whose command line holds these words and this trial's folder.
fn commands(world: &World, id: &str, trial: usize, program: &str) -> Vec<Process> {
    let dir = dir(world, id, trial);
    let dir = fs::canonicalize(&dir).unwrap_or(dir).display().to_string();
    processes::find(|process| {
        let name = process.words.first().and_then(|path| path.rsplit('/').next());
        name.is_some_and(|name| name.starts_with(program)) && process.words.contains(&dir)
    })
}

#[test]
fn a_lost_shim_and_a_lost_srun_end_the_attempt_and_all_processes() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, "main", "nodes = 2", 2000, &["shim", "srun", "told", "harness"]);
    let id = world.ok(&["submit", "exp.toml"]);
    // The last of these jobs to end would bring back the one that is killed whole.
    for program in fs::read_dir(world.path("home/bin")).unwrap().map(|entry| entry.unwrap().path())
    {
        if program.file_name().unwrap().to_string_lossy().starts_with("nemo-slurm") {
            fs::remove_file(program).unwrap();
        }
    }
    until_beyond(&world, &id, 25);
    let shims = commands(&world, &id, 0, "nemo-harness");
    assert_eq!(shims.len(), 2, "one shim for each rank");
    shims.last().unwrap().signal(Signal::SIGKILL);
    // `srun` has threads, but one process that waits; its second one follows it.
    commands(&world, &id, 1, "srun")[0].signal(Signal::SIGKILL);
    // Told to end, `srun` kills its tasks and exits with 0: that is no success.
    commands(&world, &id, 2, "srun")[0].signal(Signal::SIGTERM);
    let harness = fs::read_to_string(dir(&world, &id, 3).join("attempts.jsonl")).unwrap();
    let start: Value = serde_json::from_str(harness.lines().next().unwrap()).unwrap();
    let pid = i32::try_from(start["pid"].as_i64().unwrap()).unwrap();
    // Its guard first, which would have the job requeued.
    let harness = Process::read(pid);
    harness.parent().unwrap().kill();
    harness.kill();
    let status = until_over(&world, &id);
    let reason = text(&trials(&status, "train")[0]["reason"]);
    assert!(reason.contains("rank ") && reason.contains("lost"), "{reason}");
    for (number, trial) in trials(&status, "train").iter().enumerate() {
        assert_eq!(causes(trial).len(), 1, "{trial:#}");
        if number == 3 {
            let fault = "C: several ranks, the harness killed with -9";
            assert_promises(fault, &world, &id, number, Left::Killed);
            continue;
        }
        assert_ne!(causes(trial), ["completed"], "{trial:#}");
        let checkpoint = trial["attempts"][0]["checkpoint_step"].as_u64();
        assert_eq!(checkpoint.map(|step| step % 20), Some(0), "{trial:#}");
        let faults = ["a shim killed with -9", "srun killed with -9", "srun's lying 0"];
        assert_promises(&format!("C: {}", faults[number]), &world, &id, number, Left::InOrder);
    }
    nodes_are_whole(&world);
}

/// Without its `srun`, Slurm's own process for a step may wait for it in vain, though all of the trial's are gone. After
/// a minute Slurm gives up, and drains the node (`Kill task failed`): other tests need it.
fn nodes_are_whole(world: &World) {
    let began = std::time::Instant::now();
    while !world.slurm("squeue", &["-h", "-t", "completing"]).is_empty() {
        assert!(began.elapsed() < crate::support::PATIENCE, "a job never ends");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    for line in world.slurm("sinfo", &["-h", "-N", "-p", "main", "-o", "%N %T"]).lines() {
        if let Some((node, _)) = line.split_once(' ').filter(|(_, state)| state.contains("drain")) {
            world.slurm("scontrol", &["update", &format!("nodename={node}"), "state=resume"]);
        }
    }
}

/// The interpreter that has PyTorch, first in the world's PATH as `python3`.
fn with_torch(world: &mut World) -> bool {
    let has_it = |python: &&str| {
        let mut command = Command::new(python);
        command.args(["-c", "import torch, sklearn"]).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_it) else {
        eprintln!("skipped: no PyTorch here; `scripts/test` installs it");
        return false;
    };
    if python.contains('/') {
        fs::create_dir(world.path("bin")).unwrap();
        std::os::unix::fs::symlink(python, world.path("bin/python3")).unwrap();
        world.path = format!("{}:{}", world.path("bin").display(), world.path);
    }
    true
}

/// The example with two keys that make up for a mistake in PyTorch 1.13 on Python 3.11, whose launcher reads the
/// default of these options wrongly: they name a worker that does not exist.
fn distributed(world: &World, further: &[&str]) -> String {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/distributed/exp.toml");
    let mut arguments = vec!["submit", example];
    for executor in ["cluster", "local"] {
        for name in ["PET_TEE", "PET_REDIRECTS"] {
            let key = format!("executor.{executor}.env.{name}=\"9:1\"");
            arguments.extend(["--set", Box::leak(key.into_boxed_str())]);
        }
    }
    arguments.extend(further);
    world.ok(&arguments)
}

fn weights(world: &World, id: &str) -> Vec<u8> {
    fs::read(dir(world, id, 0).join("artifacts/weights.bin")).unwrap()
}

#[test]
fn torchrun_on_two_nodes_is_preempted_and_its_weights_are_the_same_bit_for_bit() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(27_317, &[("SLURM_DEV_NODES", "2")]);
    let mut world = cluster.world();
    if !with_torch(&mut world) {
        return;
    }
    let id = distributed(&world, &[]);
    until_beyond(&world, &id, 60);
    urgent_job(&world, "n2");
    let undisturbed = ["--set", "task.train.params.pace=0.0", "--wait"];
    let local = distributed(&world, &[&["--executor", "local"], &undisturbed[..]].concat());
    let reference = distributed(&world, &undisturbed);
    let status = until_over(&world, &id);
    let trial = &trials(&status, "train")[0];
    assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    let (first, second) = (&trial["attempts"][0], &trial["attempts"][1]);
    assert_eq!(first["checkpoint_step"], second["resume_step"], "{trial:#}");
    assert!(second["resume_step"].as_u64() > Some(60), "{trial:#}");
    let log = fs::read_to_string(dir(&world, &id, 0).join("0.err")).unwrap();
    assert!(log.contains("the program is asked to save (SIGUSR1)"), "{log}");
    assert!(!log.contains("SIGTERM is sent"), "{log}");
    assert_steps(&world, &id, 0, 200);
    assert_eq!(weights(&world, &id), weights(&world, &reference), "bit for bit");
    let sizes = [(&id, 4), (&local, 2)];
    for (id, size) in sizes {
        let text = fs::read_to_string(dir(&world, id, 0).join("0.out")).unwrap();
        assert!(text.contains(&format!("rank 0 of {size} begins")), "{text}");
        assert_promises("C: torchrun preempted", &world, id, 0, Left::InOrder);
    }
}
