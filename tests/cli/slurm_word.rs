//! On a real Slurm: what waits for a trial goes by the trial's own record, whatever Slurm calls the job.
//!
//! `scripts/versions` runs these on several versions, and with several ways of preemption: `SLURM_DEV_PREEMPT_MODE`,
//! `SLURM_DEV_PREEMPT` and `SLURM_DEV_GRACE` say which cluster this is.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cancel::before;
use crate::cluster::{self, Cluster};
use crate::counting;
use crate::slurm::urgent_job;
use crate::support::{PATIENCE, World, causes, states, text, trials};

/// Counts to its last step, and does in the end, or when it is asked to save, what its mode says.
pub(crate) const PROGRAM: &str = r#"
import os, signal, socket, subprocess, sys, time
mode, steps = sys.argv[1], int(sys.argv[2])
asked = False
def ask(*_):
    global asked
    asked = True
signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGTERM, ask)
def say(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), os.environ["NEMO_SOCKET"])
def save():
    folder = os.environ["NEMO_CHECKPOINT_DIR"]
    with open(folder + "/.tmp", "w") as file:
        file.write(str(step))
    os.rename(folder + "/.tmp", f"{folder}/step-{step}")
step = int(open(os.environ["NEMO_RESUME_FROM"]).read()) if os.environ["NEMO_RESUME_FROM"] else 0
if mode == "memory":
    helper = subprocess.run([sys.executable, "-c", "x = bytearray(300 << 20); print(len(x))"])
    print("the helper ended with", helper.returncode, flush=True)
while step < steps:
    step += 1
    print(f"step {step} loss: {step}", flush=True)
    time.sleep(0.1)
    if asked and mode == "finishes":
        say("FINISHED=1")
        sys.exit(0)
    if asked:
        save()
        sys.exit(75)
if mode == "fails":
    sys.exit(93)
"#;

/// `train` with this mode in each of two trials, and what waits for it in every way.
fn write(world: &World, partition: &str, node: &str, modes: [&str; 2], steps: u32) {
    world.write("program.py", PROGRAM);
    let text = format!(
        r#"
name = "word"
[executor.it]
kind = "slurm"
partition = "{partition}"
mem = "100M"
time = "10m"
sbatch = {{ nodelist = "{node}" }}
[executor.free]
kind = "slurm"
partition = "main"
mem = "10M"
time = "10m"
sbatch = {{ nodelist = "{node}" }}
[task.train]
executor = "it"
run = "exec python3 program.py {{mode}} {steps}"
params = {{ mode = ["{}", "{}"] }}
checkpoint.lead = "15s"
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
[task.ok]
executor = "free"
after = ["train"]
run = "true"
[task.each]
executor = "free"
after = [{{ task = "train", on = "each" }}]
run = "true {{n}}"
params = {{ n = [0, 1] }}
[task.rescue]
executor = "free"
after = [{{ task = "train", on = "failed" }}]
run = "true"
[task.any]
executor = "free"
after = [{{ task = "train", on = "any" }}]
run = "true"
"#,
        modes[0], modes[1]
    );
    world.write("exp.toml", &text);
}

/// Until nothing of it can change any more.
#[track_caller]
fn until_over(world: &World, id: &str) -> Value {
    world.until(id, "the end of all", |status| {
        ["train", "ok", "each", "rescue", "any"].iter().all(|task| {
            let is_over = |state: &String| {
                ["completed", "failed", "blocked", "cancelled", "timeout"].contains(&&**state)
            };
            states(status, task).iter().all(is_over)
        })
    })
}

#[track_caller]
fn until_counting(world: &World, id: &str) {
    world.until(id, "steps of both", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(5))
    });
}

/// What waits for trials that are done runs at once, and what waits for a failure does not.
#[track_caller]
fn assert_all_run(status: &Value) {
    assert_eq!(states(status, "train"), ["completed"; 2], "{status:#}");
    assert_eq!(states(status, "ok"), ["completed"], "{status:#}");
    assert_eq!(states(status, "each"), ["completed"; 2], "{status:#}");
    assert_eq!(states(status, "rescue"), ["blocked"], "{status:#}");
    assert_eq!(states(status, "any"), ["completed"], "{status:#}");
    let end = |trial: &Value| {
        trial["attempts"].as_array().unwrap().last().unwrap()["end"].as_f64().unwrap()
    };
    let ends = trials(status, "train").iter().map(end);
    let over = ends.fold(0.0, f64::max);
    for task in ["ok", "any"] {
        let start = trials(status, task)[0]["attempts"][0]["start"].as_f64().unwrap();
        println!("{task} waited {:.1} s", start - over);
        assert!(start - over < 15.0, "{task} waited {} s: {status:#}", start - over);
    }
}

/// Whether preempted jobs of this cluster are killed without notice.
fn is_without_grace() -> bool {
    std::env::var("SLURM_DEV_GRACE").is_ok_and(|grace| grace == "0")
}

#[test]
fn children_run_behind_what_was_preempted_and_done() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(24_100, &[("SLURM_DEV_NODES", "1")]);
    let world = cluster.world();
    write(&world, "scavenge", "n1", ["counts", "counts"], 150);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    urgent_job(&world, "n1");
    let status = until_over(&world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "no phantom run: {trial:#}");
    }
    assert_all_run(&status);
    world.hold("C: preempted, with children", &id);
}

#[test]
fn children_run_behind_what_is_done_within_the_grace() {
    if !cluster::is_here() || is_without_grace() {
        return;
    }
    let cluster = Cluster::start(24_130, &[("SLURM_DEV_NODES", "1")]);
    let world = cluster.world();
    write(&world, "scavenge", "n1", ["finishes", "finishes"], 600);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    urgent_job(&world, "n1");
    let status = until_over(&world, &id);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["completed"], "no phantom run: {trial:#}");
    }
    assert_all_run(&status);
}

#[test]
fn children_of_what_failed_after_a_preemption_are_blocked() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(24_160, &[("SLURM_DEV_NODES", "1")]);
    let world = cluster.world();
    write(&world, "scavenge", "n1", ["counts", "fails"], 150);
    let id = world.ok(&["submit", "exp.toml"]);
    until_counting(&world, &id);
    urgent_job(&world, "n1");
    let status = until_over(&world, &id);
    assert_eq!(states(&status, "train"), ["completed", "failed"], "{status:#}");
    let second = &trials(&status, "train")[1];
    assert_eq!(causes(second), ["preempted", "failed"], "no phantom run: {second:#}");
    assert_eq!(states(&status, "ok"), ["blocked"], "{status:#}");
    assert_eq!(states(&status, "each"), ["completed", "blocked"], "{status:#}");
    assert_eq!(states(&status, "rescue"), ["completed"], "{status:#}");
    assert_eq!(states(&status, "any"), ["completed"], "{status:#}");
    let reason = text(&trials(&status, "ok")[0]["reason"]);
    assert!(reason.contains("`train` trial 1 is failed"), "{reason}");
}

/// The state of a job in the accounting; nothing where it is not known there yet.
fn accounted(world: &World, job: &str) -> String {
    let mut sacct = Command::new("sacct");
    world.surround(&mut sacct);
    let output = sacct.args(["-Xnj", job, "--format=State%20"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn children_run_behind_what_lost_a_helper_to_memory() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(24_190, &[("SLURM_DEV_NODES", "1"), ("SLURM_DEV_MEMORY", "1")]);
    let world = cluster.world();
    write(&world, "main", "n1", ["memory", "memory"], 10);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = until_over(&world, &id);
    assert_all_run(&status);
    for trial in trials(&status, "train") {
        let job = text(&trial["slurm_job"]);
        let began = Instant::now();
        // The accounting learns of an end a little later than the trial's own record.
        let state = loop {
            let state = accounted(&world, &job);
            let is_open = matches!(state.as_str(), "" | "PENDING" | "RUNNING");
            if !is_open || began.elapsed() > PATIENCE {
                break state;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        assert_eq!(state, "OUT_OF_MEMORY", "else this shows nothing");
    }
}

/// A stranger's `scancel` that comes between the harness's last look and its requeue: Slurm shows nothing of it afterwards
/// if it takes the requeue.
#[test]
fn a_cancel_right_before_the_requeue_is_not_undone() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    let script = "trap '' TERM\ncase \"$1\" in requeue*) for job; do :; done; scancel \"$job\"; echo \"$job\" >>\"$NEMO_SLURM_HOME/../aimed\" ;; esac\nexec REAL \"$@\"";
    before(&mut world, "scontrol", script);
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
    counting::write(&world, executor, 5000, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    world.ok(&["preempt", &id]);
    let status = world.until(&id, "their end", |status| {
        states(status, "train").iter().all(|state| state == "cancelled")
    });
    let aimed = std::fs::read_to_string(world.path("aimed")).unwrap();
    assert_eq!(aimed.lines().count(), 3, "each was aimed at once: {aimed}");
    for trial in trials(&status, "train") {
        let shown = world.slurm("scontrol", &["-o", "show", "job", &text(&trial["slurm_job"])]);
        assert!(
            shown.contains(" JobState=CANCELLED ") && shown.contains(" Restarts=0 "),
            "{shown}"
        );
        assert!(trial["attempts"][0]["checkpoint_step"].as_u64() > Some(3), "{trial:#}");
    }
}

/// A requeue that comes after the cancel brings the job back, and leaves no trace of the cancel in Slurm.
#[test]
fn a_cancelled_job_that_comes_back_is_cancelled_again() {
    if !cluster::is_here() {
        return;
    }
    let cluster = Cluster::start(24_220, &[("SLURM_DEV_NODES", "1")]);
    let world = cluster.world();
    let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
    counting::write(&world, executor, 5000, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    let status = world.status(&id);
    let job = |trial: usize| text(&trials(&status, "train")[trial]["slurm_job"]);

    // Its own record says that it was cancelled.
    world.ok(&["cancel", &format!("{id}/train/0")]);
    world.until(&id, "its end", |status| states(status, "train")[0] == "cancelled");
    world.slurm("scontrol", &["requeue", &job(0)]);
    // The record says that it is requeued, and a wish that it be cancelled came meanwhile.
    world.slurm("scontrol", &["requeue", &job(1)]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let wish = serde_json::json!({"action": "cancel", "task": "train", "trial": 1, "time": now});
    let requests = world.experiment(&id).join("requests");
    std::fs::write(requests.join(format!("{now}-test.json")), wish.to_string()).unwrap();

    for trial in [0, 1] {
        world.until(&id, "the end of what came back", |_| {
            let shown = world.slurm("scontrol", &["-o", "show", "job", &job(trial)]);
            shown.contains(" JobState=CANCELLED ") && shown.contains(" Restarts=1 ")
        });
    }
    let status = world.status(&id);
    assert_eq!(states(&status, "train"), ["cancelled", "cancelled", "running"], "{status:#}");
    for trial in &trials(&status, "train")[..2] {
        let attempts = trial["attempts"].as_array().unwrap();
        let ran = attempts.iter().filter(|attempt| !attempt["number"].is_null()).count();
        assert_eq!(ran, 1, "its program did not run again: {trial:#}");
    }
    world.ok(&["cancel", &id]);
}
