//! `retry`: trials that are over run again, as a new generation, with the tasks that they had blocked: on a scripted Slurm,
//! on this machine and on a real Slurm.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster;
use crate::fake::{CHAIN, FakeSlurm};
use crate::support::{World, causes, printed, states, text, trials};

/// Calls that change something, or that could come between two that do.
const CALLS: &str = "write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,openat,clone,clone3,vfork,wait4,waitid,close";

pub(crate) fn record(job: &str, next: &str) -> String {
    let start = if job.starts_with("104") { 300 } else { 100 };
    let cause = if next == "done" { "completed" } else { next };
    format!(
        r#"{{"event":"start","attempt":0,"slurm_job":"{job}","restarts":0,"node":"n1","pid":1,"boot_id":"b","start_ticks":1,"time":{start}.5,"resume_step":null}}
{{"event":"checkpoint","attempt":0,"step":5,"time":{start}.6}}
{{"event":"end","attempt":0,"time":{start}.9,"cause":"{cause}","exit_code":0,"signal":null,"step":null,"checkpoint_step":5,"next":"{next}","reason":null}}
"#
    )
}

pub(crate) fn write_record(fake: &FakeSlurm, id: &str, trial: &str, text: &str) {
    let (task, index) = trial.split_once('/').unwrap();
    let dir = fake.world.experiment(id).join(format!("tasks/{task}/trials/{index}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("attempts.jsonl"), text).unwrap();
}

/// `prepare` is done, and so is trial 0 of `train`. Trial 1 failed, trial 2 was cancelled, and so Slurm took `evaluate` out.
pub(crate) fn failed() -> (FakeSlurm, String) {
    let file = CHAIN.replace("{ int = [1, 5] }", "[0, 1, 2]");
    failed_of(&file, ("done", "COMPLETED"), "103_[0]")
}

/// The same of another file, where `prepare` may have another end, and `evaluate` other array indices.
pub(crate) fn failed_of(
    file: &str,
    (prepared, state): (&str, &'static str),
    taken_out: &'static str,
) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", file);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let ends = [
        ("prepare/0", "101_0", prepared),
        ("train/0", "102_0", "done"),
        ("train/1", "102_1", "failed"),
        ("train/2", "102_2", "cancelled"),
    ];
    for (trial, job, next) in ends {
        write_record(&fake, &id, trial, &record(job, next));
    }
    let row = |id: &'static str, state: &'static str| [id, state, "0:0", "100", "100", "200", "n1"];
    let taken_out = [taken_out, "CANCELLED", "0:0", "100", "Unknown", "200", "None assigned"];
    let rows = [
        row("101_0", state),
        row("102_0", "COMPLETED"),
        row("102_1", "FAILED"),
        row("102_2", "FAILED"),
        taken_out,
    ];
    fake.answer("sacct", Some(&rows.each_ref().map(<[&str; 7]>::as_slice)));
    // The fake's `squeue` shows what was submitted since then.
    std::fs::write(fake.state("forgets"), "3").unwrap();
    (fake, id)
}

/// From now on Slurm shows these arrays of the new generation waiting.
pub(crate) fn wait_in_queue(fake: &FakeSlurm, arrays: &[&str]) {
    let rows: Vec<[&str; 4]> =
        arrays.iter().map(|array| [*array, "PENDING", "300", "Dependency"]).collect();
    let rows: Vec<&[&str]> = rows.iter().map(<[&str; 4]>::as_slice).collect();
    fake.answer("squeue", Some(&rows));
}

pub(crate) fn retry(world: &World, arguments: &[&str]) -> Value {
    let text = world.ok(&[&["retry"], arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap()
}

fn listed(world: &World) -> Value {
    let listed: Value = serde_json::from_str(&world.ok(&["list", "--json"])).unwrap();
    listed["experiments"][0].clone()
}

const BEFORE: [&str; 3] = ["prepare.0", "train.0", "evaluate.0"];
pub(crate) const AFTER: [&str; 5] = ["prepare.0", "train.0", "evaluate.0", "train.1", "evaluate.1"];

#[test]
fn what_failed_runs_again_with_what_it_blocked() {
    let (fake, id) = failed();
    assert_eq!(states(&fake.world.status(&id), "train"), ["completed", "failed", "cancelled"]);
    assert_eq!(states(&fake.world.status(&id), "evaluate"), ["blocked"]);
    assert_eq!(listed(&fake.world)["state"], "failed");
    let retried = retry(&fake.world, &[&id]);
    assert_eq!(retried["generation"], 1, "{retried:#}");
    assert_eq!(retried["id"], *id);
    let jobs: Vec<Value> = retried["jobs"].as_array().unwrap().clone();
    let shown = |job: &Value| json!([job["task"], job["slurm_job"], job["set"]]);
    let shown: Vec<Value> = jobs.iter().map(shown).collect();
    assert_eq!(shown, [json!(["train", "104", "1-2"]), json!(["evaluate", "105", "0"])]);
    assert_eq!(fake.names(), AFTER);
    let taken = fake.taken();
    let script = fake.world.experiment(&id).join("tasks/train/1.sbatch");
    let script = std::fs::read_to_string(script).unwrap();
    assert!(
        script.contains(
            "#SBATCH --array=1-2
"
        ),
        "{script}"
    );
    assert!(!taken[3].arguments.contains("dependency"), "`prepare` is done: {taken:?}");
    assert!(taken[4].arguments.contains("afterok:104"), "{taken:?}");

    wait_in_queue(&fake, &["104_[1-2]", "105_[0]"]);
    let status = fake.world.status(&id);
    assert_eq!(states(&status, "train"), ["completed", "pending", "pending"], "{status:#}");
    assert_eq!(states(&status, "evaluate"), ["pending"], "{status:#}");
    let trial = &trials(&status, "train")[1];
    assert_eq!((&trial["slurm_job"], &trial["final"]), (&json!("104_1"), &json!(false)));
    assert_eq!(causes(trial), ["failed"], "its earlier attempts stay: {trial:#}");
    assert_eq!(listed(&fake.world)["state"], "running", "the list does not stick to the end");
    let show: Value = serde_json::from_str(&fake.world.ok(&["show", &id, "--json"])).unwrap();
    let generation = &show["generations"][1];
    assert_eq!((&generation["why"], &generation["trials"]), (&json!("retry"), &json!(3)));
    assert_eq!(generation["jobs"], json!(["104", "105"]));

    let again = retry(&fake.world, &[&id]);
    assert_eq!((&again["generation"], &again["jobs"]), (&Value::Null, &json!([])), "{again:#}");
    assert_eq!(again["left"][0]["why"], "it is pending", "{again:#}");
    assert_eq!(fake.names(), AFTER, "nothing is submitted twice");
}

/// The index of a home believes for good what is over: not after a retry, nor after the next end.
#[test]
fn a_final_experiment_is_listed_as_it_is_after_a_retry() {
    let (fake, id) = failed();
    fake.world.ok(&["status", &id]);
    listed(&fake.world);
    assert_eq!(listed(&fake.world)["trials"]["failed"], 1, "now it is in the index");
    let remembered = ["summary.json", "observed.json"].map(|name| {
        let path = fake.world.experiment(&id).join(name);
        (std::fs::read(&path).unwrap(), path)
    });
    retry(&fake.world, &[&format!("{id}/train"), "--state", "failed", "--trials", "1"]);
    wait_in_queue(&fake, &["104_[1]"]);
    // A process that looked before writes only now what it saw, or `retry` was killed before its own look.
    for (before, path) in &remembered {
        std::fs::write(path, before).unwrap();
    }
    assert_eq!(listed(&fake.world)["trials"]["pending"], 1);
    let end = record("104_1", "done").replace("\"attempt\":0", "\"attempt\":1");
    write_record(&fake, &id, "train/1", &(record("102_1", "failed") + &end));
    let status = fake.world.status(&id);
    assert_eq!(states(&status, "train"), ["completed", "completed", "cancelled"], "{status:#}");
    assert_eq!(causes(&trials(&status, "train")[1]), ["failed", "completed"]);
    listed(&fake.world);
    assert_eq!(listed(&fake.world)["trials"]["completed"], 3);
    assert!(fake.names().iter().all(|name| name != "evaluate.1"), "trial 2 still blocks it");
}

#[test]
fn a_dry_run_changes_nothing() {
    let (fake, id) = failed();
    let would = retry(&fake.world, &[&id, "--dry-run"]);
    assert_eq!(would["trials"], json!({"train": "1-2", "evaluate": "0"}), "{would:#}");
    assert_eq!(would["jobs"][0]["slurm_job"], Value::Null);
    assert_eq!(fake.names(), BEFORE);
    assert_eq!(states(&fake.world.status(&id), "train"), ["completed", "failed", "cancelled"]);
    let several = fake.world.run(&["retry", &id, "--trials", "1"]);
    assert_eq!(several.code, 2, "{several:?}");
    assert!(several.stderr.contains("/TASK --trials 1"), "{several:?}");
    let parent = fake.world.run(&["retry", &format!("{id}/evaluate")]);
    assert!(parent.stderr.contains("`train` trial 1 is failed; retry that too"), "{parent:?}");
    assert_eq!(fake.names(), BEFORE);
}

/// Trials of a task with `concurrent`, of which the last still runs and all others have failed. Retries those, and returns what
/// `sbatch` was told of them.
fn retried_beside_one_that_runs(concurrent: u32, n_trials: u32) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    let text = format!(
        "name = \"sweep\"\n[executor.gpu]\nkind = \"slurm\"\n[task.train]\nrun = \"true {{x}}\"\n\
         search.concurrent = {concurrent}\nparams.x = {{ int = [1, {n_trials}] }}\n"
    );
    fake.world.write("exp.toml", &text);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let last = n_trials - 1;
    let jobs: Vec<String> = (0..n_trials).map(|trial| format!("101_{trial}")).collect();
    for trial in 0..last {
        let job = &jobs[trial as usize];
        write_record(&fake, &id, &format!("train/{trial}"), &record(job, "failed"));
    }
    let rows: Vec<[&str; 7]> = jobs
        .iter()
        .map(|job| [job, "FAILED", "0:0", "100", "100", "200", "n1"])
        .take(last as usize)
        .collect();
    fake.answer("sacct", Some(&rows.iter().map(<[&str; 7]>::as_slice).collect::<Vec<_>>()));
    fake.answer("squeue", Some(&[&[jobs[last as usize].as_str(), "RUNNING", "100", "None"]]));
    assert_eq!(states(&fake.world.status(&id), "train").last().unwrap(), "running");
    retry(&fake.world, &[&id]);
    let arguments = fake.taken()[1].arguments.clone();
    let script = fake.world.experiment(&id).join("tasks/train/1.sbatch");
    (fake, std::fs::read_to_string(script).unwrap() + &arguments)
}

#[test]
fn concurrent_holds_beside_what_still_runs() {
    let (_, told) = retried_beside_one_that_runs(1, 2);
    assert!(told.contains("--dependency=afterany:101 "), "{told}");
    let (_, told) = retried_beside_one_that_runs(2, 3);
    assert!(told.contains("--array=0-1%1\n") && !told.contains("afterany"), "{told}");
}

/// A cancelled trial that is retried is not cancelled any more, until somebody cancels it again.
#[test]
fn a_cancellation_before_the_retry_holds_no_more() {
    let (fake, id) = failed();
    let trial = format!("{id}/train/2");
    fake.world.ok(&["cancel", &trial]);
    retry(&fake.world, &[&trial]);
    wait_in_queue(&fake, &["104_[2]"]);
    let state = |fake: &FakeSlurm| states(&fake.world.status(&id), "train").remove(2);
    assert_eq!(state(&fake), "pending");
    let cancelled = ["104_2", "CANCELLED", "0:0", "300", "Unknown", "400", "None assigned"];
    fake.answer("sacct", Some(&[&cancelled]));
    wait_in_queue(&fake, &[]);
    let is_final = |fake: &FakeSlurm| trials(&fake.world.status(&id), "train")[2]["final"].clone();
    assert_eq!(is_final(&fake), false, "Slurm alone says so, and nobody asked for it");
    fake.world.ok(&["cancel", &trial]);
    assert_eq!((state(&fake).as_str(), is_final(&fake)), ("cancelled", json!(true)));
}

/// What Slurm refuses never was: the trials stand as before, and can be retried again.
#[test]
fn a_refused_retry_leaves_all_as_it_was() {
    let (fake, id) = failed();
    std::fs::write(fake.state("refuse"), format!("{id}.train.1\n")).unwrap();
    let refused = fake.world.run(&["retry", &id]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let status = fake.world.status(&id);
    assert_eq!(states(&status, "train"), ["completed", "failed", "cancelled"], "{status:#}");
    assert_eq!(status["experiment"]["state"], "failed");
    std::fs::remove_file(fake.state("refuse")).unwrap();
    assert_eq!(retry(&fake.world, &[&id])["generation"], 2);
    assert_eq!(fake.names()[3..], ["train.2", "evaluate.2"]);
    wait_in_queue(&fake, &["104_[1-2]", "105_[0]"]);
    assert_eq!(states(&fake.world.status(&id), "train"), ["completed", "pending", "pending"]);
}

/// Kills a `retry` with these options before its `n`-th call; `again` goes on, and a repeat finds nothing left to do.
/// None when the first ended before that.
pub(crate) fn kill_and_go_on(n: usize, options: &[&str], again: &[&str]) -> (bool, FakeSlurm) {
    let (fake, id) = failed();
    let this = [&["retry", &id], options].concat();
    let mut strace = Command::new("strace");
    fake.world.surround(&mut strace);
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
    strace.arg("-o").arg(fake.world.path("strace.log"));
    strace.args(["-e", &format!("trace={CALLS}"), "-e", &inject]);
    strace.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(&this);
    let first = strace.output().expect("strace is needed: apt-get install strace");
    let killed = !first.status.success();
    let again = if again.is_empty() { &this } else { again };
    let second = printed(&fake.world.command(again).output().unwrap());
    assert_eq!(second.code, 0, "killed at {n}: {second:?}");
    let third = printed(&fake.world.command(&this).output().unwrap());
    assert_eq!(third.code, 0, "killed at {n}: {third:?}");
    assert_eq!(fake.names(), AFTER, "killed at {n}: {second:?} {third:?}");
    let released = fake.read("released");
    assert!(released.split_whitespace().any(|job| job == "104"), "killed at {n}: {released}");
    (killed, fake)
}

/// Ways to go on from a retry that was killed; the first is the retry itself.
pub(crate) const AGAIN: [&[&str]; 3] = [&[], &["poll"], &["submit", "--continue", "@"]];

#[test]
fn kill_9_of_retry_submits_nothing_twice() {
    let points = (1..).step_by(17).zip(AGAIN.into_iter().cycle());
    let mut points = points.take_while(|(point, again)| kill_and_go_on(*point, &[], again).0);
    let (last, _) = points.by_ref().last().unwrap_or_default();
    assert!(last > 60, "only {last} calls: were the right ones traced?");
}

/// Counts to ten, saves at four, and fails after that as long as `broken` is there.
const PROGRAM: &str = r#"
import os, sys
step = 0
if os.environ["NEMO_RESUME_FROM"]:
    step = int(open(os.environ["NEMO_RESUME_FROM"]).read())
while step < 10:
    step += 1
    print(f"step {step}", flush=True)
    if step == 4:
        folder = os.environ["NEMO_CHECKPOINT_DIR"]
        open(folder + "/.tmp", "w").write(str(step))
        os.rename(folder + "/.tmp", f"{folder}/step-{step}")
    if step == 5 and sys.argv[2] == "1" and os.path.exists(sys.argv[1]):
        sys.exit("it is broken")
"#;

pub(crate) fn broken(executor: &str) -> World {
    let world = World::new();
    world.write("program.py", PROGRAM);
    let marker = world.write("broken", "");
    let text = format!(
        r#"
name = "broken"
[executor.it]
{executor}
[task.train]
run = "exec python3 program.py {} {{n}}"
params = {{ n = [0, 1] }}
restart.crashes = 0
[task.train.metrics]
step = 'step (\d+)'
[task.after]
after = ["train"]
run = "true"
"#,
        marker.display()
    );
    world.write("exp.toml", &text);
    world
}

/// One trial fails, and blocks the task after it. Repaired and retried, it goes on from its checkpoint, and all completes.
fn repaired_and_retried(world: &World) {
    let id = world.ok(&["submit", "exp.toml"]);
    let is_failed = |status: &Value| {
        states(status, "train") == ["completed", "failed"] && states(status, "after") == ["blocked"]
    };
    let before = world.until(&id, "a failed trial", is_failed);
    let saved = trials(&before, "train")[1]["attempts"][0]["checkpoint_step"].clone();
    assert_eq!(saved, 4, "{before:#}");
    std::fs::remove_file(world.path("broken")).unwrap();
    let retried = retry(world, &[&id]);
    assert_eq!(retried["generation"], 1, "{retried:#}");
    assert_eq!(retried["trials"], json!({"train": "1", "after": "0"}), "{retried:#}");
    let status = world.status(&id);
    let state = states(&status, "train").remove(1);
    assert!(["pending", "running", "completed"].contains(&state.as_str()), "{status:#}");
    let printed = world.run(&["wait", &id]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let status = world.status(&id);
    let trial = &trials(&status, "train")[1];
    assert_eq!(causes(trial), ["failed", "completed"], "{trial:#}");
    assert_eq!(
        (&trial["attempts"][1]["number"], &trial["attempts"][1]["resume_step"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(causes(&trials(&status, "train")[0]), ["completed"], "it was left alone");
    assert_eq!(states(&status, "after"), ["completed"]);
    let logs = world.ok(&["logs", &format!("{id}/train/1"), "--attempt", "1", "--stream", "out"]);
    assert_eq!(text(&Value::from(logs.lines().next().unwrap_or_default())), "step 5", "{logs}");
    world.hold("retried", &id);
}

#[test]
fn on_this_machine_a_repaired_trial_goes_on_from_its_checkpoint() {
    repaired_and_retried(&broken("kind = \"local\""));
}

#[test]
fn on_slurm_a_repaired_trial_goes_on_from_its_checkpoint() {
    if cluster::is_here() {
        let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
        repaired_and_retried(&broken(executor));
    }
}
