//! The local executor, with real programs: order, preemption, cancelling, a lost runner, a lost terminal.

use std::process::Command;

use serde_json::Value;

use crate::support::{World, causes, printed, states, text, trials};

/// Counts to `steps`, saves when asked to and exits 75, goes on where it was. Says its state in `loss`.
const COUNT: &str = r#"
import os, signal, sys, time
asked = False
def ask(*_):
    global asked
    asked = True
signal.signal(signal.SIGUSR1, ask)
steps, pace = int(sys.argv[1]), float(sys.argv[2])
step, total = 0, int(sys.argv[3])
if os.environ["NEMO_RESUME_FROM"]:
    step, total = map(int, open(os.environ["NEMO_RESUME_FROM"]).read().split())
while step < steps:
    step += 1
    total = total * 31 % 1000003
    print(f"step {step} loss: {total}", flush=True)
    time.sleep(pace)
    if asked:
        folder = os.environ["NEMO_CHECKPOINT_DIR"]
        with open(folder + "/.tmp", "w") as file:
            file.write(f"{step} {total}")
        os.rename(folder + "/.tmp", f"{folder}/step-{step}")
        sys.exit(75)
os.makedirs(os.environ["NEMO_DIR"] + "/artifacts", exist_ok=True)
open(os.environ["NEMO_DIR"] + "/artifacts/total", "w").write(str(total))
"#;

fn counting(steps: u32, pace: f64) -> String {
    format!(
        r#"
name = "count"
[executor.here]
kind = "local"
parallel = 4
[task.prepare]
run = "echo ready > {{dir}}/ready"
[task.train]
after = ["prepare"]
run = "test -e {{prepare.dir}}/ready && exec python3 count.py {steps} {pace} {{seed_value}}"
[task.train.params]
seed_value = [3, 5, 7]
[task.train.metrics]
step = 'step (\d+)'
loss = 'loss: (\d+)'
[task.after]
after = ["train"]
run = ["sh", "-c", "cat \"$@\" > \"$0\"", "{{dir}}/all", "{{train.dirs}}"]
"#
    )
}

fn totals(world: &World, id: &str) -> Vec<String> {
    let trial =
        |n: u32| world.experiment(id).join(format!("tasks/train/trials/{n}/artifacts/total"));
    (0..3).map(|n| std::fs::read_to_string(trial(n)).unwrap()).collect()
}

/// A counting experiment without the last task, whose `cat` of folders only the undisturbed run needs not.
fn world(steps: u32, pace: f64) -> World {
    let world = World::new();
    world.write("count.py", COUNT);
    let toml = counting(steps, pace);
    let (toml, _) = toml.split_once("[task.after]").unwrap();
    world.write("exp.toml", toml);
    world
}

/// What three undisturbed trials end with.
fn expected(steps: u32) -> Vec<String> {
    let one = |seed: u64| (0..steps).fold(seed, |total, _| total * 31 % 1_000_003).to_string();
    [3, 5, 7].map(one).to_vec()
}

#[test]
fn tasks_run_in_their_order_and_wait_exits_0() {
    let world = world(5, 0.0);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let id = printed.stdout.trim();
    let status = world.status(id);
    assert_eq!(status["experiment"]["state"], "completed", "{status:#}");
    assert_eq!(states(&status, "train"), ["completed"; 3]);
    assert_eq!(totals(&world, id), expected(5));
    let trial = &trials(&status, "train")[1];
    assert_eq!(
        (trial["step"].as_u64(), trial["params"]["seed_value"].as_u64()),
        (Some(5), Some(5))
    );
    assert_eq!(trial["metrics"]["loss"].as_f64().unwrap().to_string(), expected(5)[1]);
    let logs = world.ok(&["logs", &format!("{id}/train/1"), "--stream", "out"]);
    assert_eq!(logs.lines().count(), 5, "{logs}");
}

#[test]
fn a_gentle_cancel_preempts_and_nothing_is_lost() {
    let world = world(40, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "ten steps of every trial", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(10))
    });
    world.ok(&["cancel", &format!("{id}/train"), "--gentle"]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        let attempts = trial["attempts"].as_array().unwrap();
        assert_eq!(attempts[0]["checkpoint_step"], attempts[1]["resume_step"], "{trial:#}");
        assert!(attempts[1]["resume_step"].as_u64() > Some(10), "{trial:#}");
    }
    assert_eq!(totals(&world, &id), expected(40));
    assert_steps_once(&world, &id, 40);
}

/// Every step is in the record once, whatever came between.
fn assert_steps_once(world: &World, id: &str, steps: u64) {
    for trial in 0..3 {
        let path = world.experiment(id).join(format!("tasks/train/trials/{trial}/metrics.jsonl"));
        let metrics = std::fs::read_to_string(path).unwrap();
        let line =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
        let seen: Vec<u64> = metrics.lines().map(line).collect();
        assert_eq!(seen, (1..=steps).collect::<Vec<_>>(), "trial {trial}");
    }
}

#[test]
fn a_cancelled_trial_is_saved_and_stays_cancelled() {
    let world = world(2000, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "steps", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(3))
    });
    world.ok(&["cancel", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "cancelled");
    assert_eq!(states(&status, "train"), ["cancelled"; 3]);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["cancelled"]);
        assert!(trial["attempts"][0]["checkpoint_step"].as_u64() > Some(3), "{trial:#}");
    }
    assert_eq!(world.run(&["wait", &id]).code, 1);
}

#[test]
fn a_failed_task_blocks_those_that_need_it() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"fails\"\n[task.first]\nrun = \"echo no such thing >&2; exit 3\"\n\
         [task.second]\nafter = [\"first\"]\nrun = \"true\"\n\
         [task.rescue]\nafter = [{ task = \"first\", on = \"failed\" }]\nrun = \"true\"\n",
    );
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let status = world.status("fails");
    let all: Vec<String> =
        ["first", "second", "rescue"].iter().map(|task| states(&status, task).remove(0)).collect();
    assert_eq!(all, ["failed", "blocked", "completed"], "{status:#}");
    let reason = text(&trials(&status, "first")[0]["reason"]);
    assert!(reason.contains("code 3") && reason.contains("no such thing"), "{reason}");
    assert_eq!(status["experiment"]["state"], "failed");
}

/// The process of the local runner, as its record has it.
fn runner(world: &World, id: &str) -> i32 {
    let log = std::fs::read_to_string(world.experiment(id).join("runner.jsonl")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    i32::try_from(first["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn a_killed_runner_is_told_and_another_goes_on() {
    let world = world(60, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "steps", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(3))
    });
    let pid = nix::unistd::Pid::from_raw(runner(&world, &id));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // The trials live on, and are still known to run.
    assert_eq!(states(&world.status(&id), "train"), ["running"; 3]);
    world.ok(&["submit", "--continue", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["completed"], "no trial ran twice: {trial:#}");
    }
    assert_eq!(totals(&world, &id), expected(60));
}

#[test]
fn killed_with_everything_on_it_the_machine_comes_back_to_the_truth() {
    let world = world(40, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    let status = world.until(&id, "steps", |status| {
        trials(status, "train").iter().all(|trial| trial["step"].as_u64() > Some(3))
    });
    // As a power cut: the runner and every harness and program at once, without a word.
    let mut pids = vec![runner(&world, &id)];
    for trial in 0..trials(&status, "train").len() {
        let path = world.experiment(&id).join(format!("tasks/train/trials/{trial}/attempts.jsonl"));
        let first: Value =
            serde_json::from_str(std::fs::read_to_string(path).unwrap().lines().next().unwrap())
                .unwrap();
        pids.push(i32::try_from(first["pid"].as_i64().unwrap()).unwrap());
    }
    for pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }
    let status = world.until(&id, "the truth", |status| status["experiment"]["state"] == "failed");
    let reason = text(&trials(&status, "train")[0]["reason"]);
    assert!(reason.contains("submit --continue"), "{reason}");
    world.ok(&["submit", "--continue", &id]);
    world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    assert_eq!(totals(&world, &id), expected(40));
    assert_steps_once(&world, &id, 40);
}

#[test]
fn the_terminal_may_close() {
    let world = world(30, 0.05);
    // A shell with a terminal of its own, which ends right after `submit` returned.
    let program = env!("CARGO_BIN_EXE_nemo-slurm");
    let mut script = Command::new("script");
    world.surround(&mut script);
    let output = script.args(["-qec", &format!("{program} submit exp.toml"), "/dev/null"]).output();
    let printed = printed(&output.expect("`script` is a part of every Linux (util-linux)"));
    assert_eq!(printed.code, 0, "{printed:?}");
    let status =
        world.until("count", "the end", |status| status["experiment"]["state"] == "completed");
    let id = text(&status["experiment"]["id"]);
    assert_eq!(totals(&world, &id), expected(30));
}

#[test]
fn values_are_only_ever_data() {
    let world = World::new();
    let canary = world.write("canary", "");
    let hostile = format!("'; rm -rf {}; '", canary.display());
    world.write(
        "exp.toml",
        &format!(
            "name = \"hostile\"\n[task.t]\nrun = \"printf %s {{value}} > {{dir}}/plain; printf '%s' \\\"{{value}}\\\" > {{dir}}/quoted\"\n\
             [task.t.params]\nvalue = [{hostile:?}, \"two\\nlines\", \"$(rm {0})\", \"`rm {0}`\", \"*\", \"\"]\n",
            canary.display()
        ),
    );
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let id = printed.stdout.trim();
    let status = world.status(id);
    for (n, trial) in trials(&status, "t").iter().enumerate() {
        for name in ["plain", "quoted"] {
            let path = world.experiment(id).join(format!("tasks/t/trials/{n}/{name}"));
            assert_eq!(
                std::fs::read_to_string(path).unwrap(),
                text(&trial["params"]["value"]),
                "{name}"
            );
        }
    }
    assert!(canary.exists(), "a value was run");
}

#[test]
fn following_into_a_pipe_prints_plain_lines() {
    let world = world(3, 0.0);
    let printed = world.run(&["submit", "exp.toml", "--follow"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("train/2 completed"), "{}", printed.stderr);
    assert!(
        !printed.stderr.contains('\u{1b}'),
        "no escapes where nobody looks: {}",
        printed.stderr
    );
}
