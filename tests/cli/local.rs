//! The local executor, with real programs: order, preemption, cancelling, a lost runner, a lost terminal.

use std::process::Command;

use serde_json::Value;

use crate::counting;
use crate::support::{World, causes, printed, states, text, trials};

const HERE: &str = "kind = \"local\"\nparallel = 4";

/// A local experiment that counts.
fn world(steps: u32, pace: f64) -> World {
    let world = World::new();
    counting::write(&world, HERE, steps, pace);
    world
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
    counting::assert_undisturbed(&world, id, 5);
    let trial = &trials(&status, "train")[1];
    assert_eq!(
        (trial["step"].as_u64(), trial["params"]["seed_value"].as_u64()),
        (Some(5), Some(5))
    );
    let logs = world.ok(&["logs", &format!("{id}/train/1"), "--stream", "out"]);
    assert_eq!(logs.lines().count(), 5, "{logs}");
}

/// However few milliseconds lie between two submissions.
#[test]
fn the_newest_experiment_is_the_newest() {
    let world = World::new();
    for name in ["z", "b", "y", "a", "x"] {
        let file = format!("name = \"{name}\"\n[task.only]\nrun = \"true\"\n");
        world.write("exp.toml", &file);
        let id = world.ok(&["submit", "exp.toml"]);
        // By its id, a unique beginning of it, its name, or as the newest of all.
        for target in ["@", &id, &id[..id.len() - 1], name] {
            assert_eq!(text(&world.status(target)["experiment"]["id"]), id);
        }
    }
    let listed: Value = serde_json::from_str(&world.ok(&["list", "--json"])).unwrap();
    let names: Vec<String> = listed["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|experiment| text(&experiment["name"]))
        .collect();
    assert_eq!(names, ["x", "a", "y", "b", "z"]);
}

/// Two that want the same id at the same moment both get one.
#[test]
fn submissions_side_by_side_have_ids_of_their_own() {
    let world = World::new();
    world.write("exp.toml", "name = \"same\"\n[task.only]\nrun = \"true\"\n");
    let mut ids: Vec<String> = std::thread::scope(|scope| {
        let submit = || world.ok(&["submit", "exp.toml"]);
        let under_way: Vec<_> = (0..12).map(|_| scope.spawn(submit)).collect();
        under_way.into_iter().map(|submitted| submitted.join().unwrap()).collect()
    });
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12, "{ids:?}");
}

#[test]
fn a_preempted_trial_runs_again_and_nothing_is_lost() {
    let world = world(40, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    world.ok(&["preempt", &format!("{id}/train")]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
        counting::assert_resumed_beyond(trial, 10);
    }
    counting::assert_undisturbed(&world, &id, 40);
}

#[test]
fn a_cancelled_trial_is_saved_and_stays_cancelled() {
    let world = world(2000, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    world.ok(&["cancel", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "cancelled");
    assert_eq!(states(&status, "train"), ["cancelled"; 3]);
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["cancelled"]);
        assert!(trial["attempts"][0]["checkpoint_step"].as_u64() > Some(3), "{trial:#}");
    }
    let said = |target: &str| {
        let printed = world.run(&["wait", target]);
        (printed.code, printed.stderr)
    };
    let expected = |target: &str| {
        (1, format!("`{target}` is cancelled; `nemo-slurm status {id}` shows more\n"))
    };
    assert_eq!(said(&id), expected(&id));
    let trial = format!("{id}/train/1");
    assert_eq!(said(&trial), expected(&trial));
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
    assert_eq!(trials(&status, "second")[0]["reason"], "`first` trial 0 is failed");
    let reason = text(&trials(&status, "first")[0]["reason"]);
    assert!(reason.contains("code 3") && reason.contains("no such thing"), "{reason}");
    assert_eq!(status["experiment"]["state"], "failed");
}

/// The process of the local runner, as its record has it.
pub(crate) fn runner(world: &World, id: &str) -> i32 {
    let log = std::fs::read_to_string(world.experiment(id).join("runner.jsonl")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    i32::try_from(first["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn a_killed_runner_is_told_and_another_goes_on() {
    let world = world(60, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    let pid = nix::unistd::Pid::from_raw(runner(&world, &id));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // The trials live on, and are still known to run.
    assert_eq!(states(&world.status(&id), "train"), ["running"; 3]);
    world.ok(&["submit", "--continue", &id]);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["completed"], "no trial ran twice: {trial:#}");
    }
    counting::assert_undisturbed(&world, &id, 60);
}

/// Waiting trials go on once somebody starts the runner again: they are not over, `wait` says what to type, and `poll` does it.
#[test]
fn what_waits_for_a_killed_runner_is_not_over() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"one-by-one\"\n[executor.here]\nkind = \"local\"\nparallel = 1\n[task.a]\n\
         run = \"touch began; until [ -e go ]; do sleep 0.05; done\"\nparams.n = [0, 1]\n\
         [task.b]\nafter = [\"a\"]\nrun = \"true\"\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the first", |status| !causes(&trials(status, "a")[0]).is_empty());
    let pid = nix::unistd::Pid::from_raw(runner(&world, &id));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let again = format!("`nemo-slurm submit --continue {id}` starts it again");
    let why = format!("its runner is gone: {again}");
    let status = world.until(&id, "the truth", |status| trials(status, "a")[1]["reason"] == why);
    assert_eq!(states(&status, "a"), ["running", "pending"]);
    assert_eq!(states(&status, "b"), ["pending"]);
    assert_eq!(
        (&status["experiment"]["state"], &trials(&status, "a")[1]["final"]),
        (&"running".into(), &false.into())
    );

    world.write("go", "");
    world.until(&id, "its end", |status| states(status, "a") == ["completed", "pending"]);
    let mut wait = world.command(&["wait", &id]);
    let mut wait = wait.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(wait.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("waits for its runner") && line.contains("submit --continue"), "{line}");

    // A job must not run what belongs to this machine.
    let mut in_job = world.command(&["poll"]);
    let named = printed(&in_job.env("SLURM_JOB_ID", "7").output().unwrap());
    assert!(named.code == 0 && named.stderr.contains(&why), "{named:?}");
    let named = printed(&in_job.arg("--json").output().unwrap());
    let runners = |json: &str| {
        let shown: serde_json::Value = serde_json::from_str(json).unwrap();
        shown["runners"].clone()
    };
    let of = |did: &str| serde_json::json!([{ "experiment": id, "did": did }]);
    assert_eq!(runners(&named.stdout), of("gone"), "{named:?}");
    assert_eq!(runners(&world.ok(&["poll", "--json", "--dry-run"])), of("started"));
    let polled = world.run(&["poll", "--dry-run"]);
    assert!(polled.stderr.contains("would be started again"), "{polled:?}");
    assert!(!polled.stderr.contains("Nothing to do"), "{polled:?}");
    assert_eq!(runners(&world.ok(&["poll", "--json"])), of("started"));
    assert!(wait.wait().unwrap().success());
    let status = world.status(&id);
    assert_eq!(states(&status, "a"), ["completed", "completed"]);
    for trial in trials(&status, "a") {
        assert_eq!(causes(trial), ["completed"], "no trial ran twice: {trial:#}");
    }
}

/// One that is retried while another of its task runs waits for that.
#[test]
fn concurrent_holds_for_a_retry_on_this_machine() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"sweep\"\n[executor.here]\nkind = \"local\"\nparallel = 4\n[task.a]\n\
         run = \"mkdir alone || exit 9; [ -e begun-{n} ] || { touch begun-{n}; [ {n} = 1 ] || { rmdir alone; exit 3; }; }; \
         until [ -e go ]; do sleep 0.05; done; rmdir alone\"\n\
         search.concurrent = 1\nrestart.crashes = 0\nparams.n = [0, 1]\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "one of two", |status| states(status, "a") == ["failed", "running"]);
    world.ok(&["retry", &id]);
    assert_eq!(states(&world.status(&id), "a"), ["pending", "running"]);
    world.write("go", "");
    world.until(&id, "the end", |status| states(status, "a") == ["completed", "completed"]);
}

#[test]
fn killed_with_everything_on_it_the_machine_comes_back_to_the_truth() {
    let world = world(40, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    // As a power cut: the runner and every harness and program at once, without a word.
    let mut pids = vec![runner(&world, &id)];
    for trial in 0..3 {
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
    counting::assert_undisturbed(&world, &id, 40);
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
    counting::assert_undisturbed(&world, &id, 30);
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

#[test]
fn a_metric_that_never_comes_is_warned_of() {
    let world = World::new();
    let file = |name: &str, run: &str| {
        let text = format!(
            "name = \"{name}\"\n[task.t]\nrun = \"{run}\"\nsearch.metric = \"losss\"\n\
             metrics = {{ loss = 'loss: (\\S+)', losss = 'losss: (\\S+)' }}\n"
        );
        world.write(&format!("{name}.toml"), &text);
        world.ok(&["submit", &format!("{name}.toml"), "--wait"]);
        world.status(name)
    };
    let warnings = |status: &Value| status["warnings"].clone();
    let slip = file("slip", "echo loss: 0.5");
    let never = "no trial of `t` reported `losss`; reported: loss";
    assert_eq!(warnings(&slip), serde_json::json!([never]));
    assert_eq!(slip["experiment"]["stale"], false, "that is no source that did not answer");
    let shown = world.ok(&["status", "slip"]);
    assert!(shown.contains(&format!("warning: {never}\n")), "{shown}");
    let whole = file("whole", "echo loss: 0.5; echo losss: 0.5");
    assert_eq!(warnings(&whole), serde_json::json!([]));
    let many = "echo losss: 1; for i in $(seq 200); do echo loss: $i; done";
    let lately =
        "the last reports of `t` do not contain `losss`: the best trial is unknown; reported: loss";
    assert_eq!(warnings(&file("many", many)), serde_json::json!([lately]));
}

/// The log is longer than all the memory that the program may have.
#[test]
fn a_log_that_is_larger_than_the_memory_is_shown() {
    use std::io::{Seek, SeekFrom, Write};
    let world = World::new();
    world.write("exp.toml", "name = \"x\"\n[task.only]\nrun = \"true\"\n");
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    let id = printed.stdout.trim();
    let log = world.experiment(id).join("tasks/only/trials/0/0.out");
    let mut file = std::fs::File::options().write(true).open(log).unwrap();
    file.seek(SeekFrom::Start(1 << 30)).unwrap(); // a hole: it takes no room
    file.write_all(b"\none\ntwo\nthree\n").unwrap();
    let shown = |arguments: &str| {
        let mut shell = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_nemo-slurm");
        let command = format!("ulimit -v 400000; \"{program}\" logs {id} --stream out {arguments}");
        world.surround(shell.args(["-c", &command]));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(shown("-n 2"), "two\nthree\n");
    let objects = shown("-n 3 --json");
    assert_eq!(objects.lines().count(), 3, "{objects}");
    assert_eq!(shown("| wc -c").trim(), ((1_u64 << 30) + 15).to_string());
}

/// A harness that is killed again and again, though it writes its record each time, is started until the trial is done.
#[test]
fn a_harness_that_is_killed_seven_times_loses_no_trial() {
    let world = World::new();
    let text = r#"
name = "killed"
[task.train]
run = 'n=$(cat {dir}/artifacts/n || echo 0); echo $((n + 1)) > {dir}/artifacts/n; [ $n -ge 7 ] || kill -9 $PPID; sleep 1'
restart = { no_progress = 0 }
"#;
    world.write("exp.toml", text);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let status = world.status(printed.stdout.trim());
    assert_eq!(trials(&status, "train")[0]["attempts"].as_array().unwrap().len(), 8, "{status:#}");
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < std::time::Duration::from_mins(2), "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Who removes the home does not find its folders again when what ran in it ends.
#[test]
fn a_home_that_was_removed_is_not_made_anew() {
    let world = World::new();
    let go = world.path("go");
    let program = "touch {dir}/artifacts/began; until [ -e";
    let run = format!("{program} {} ]; do sleep 0.1; done", go.display());
    world.write("exp.toml", &format!("name = \"gone\"\n[task.only]\nrun = '{run}'\n"));
    let id = world.ok(&["submit", "exp.toml"]);
    let began = world.experiment(&id).join("tasks/only/trials/0/artifacts/began");
    until("the program", || began.exists());
    let runner = nix::unistd::Pid::from_raw(runner(&world, &id));
    std::fs::rename(world.path("home"), world.path("removed")).unwrap();
    std::fs::remove_dir_all(world.path("removed")).unwrap();
    std::fs::write(go, "").unwrap();
    until("the runner's end", || nix::sys::signal::kill(runner, None).is_err());
    assert!(!world.path("home").exists());
}
