//! The example of a program that resumes by itself from a file in its own folder: preempted, killed, and equal to an
//! undisturbed run. The harness's tests try what such programs do otherwise.

use std::path::Path;

use serde_json::Value;

use crate::cluster;
use crate::support::{World, causes, printed, text, trials};

const STEPS: u64 = 60;

/// The example with another executor. Half way its program waits for a file `go`: the disturbance must not come late.
fn write(world: &World, executor: &str) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/own-folder");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let pace = "    time.sleep(float(os.environ.get(\"PACE\", \"0.2\")))";
    let gate = "    time.sleep(0.05 if state[\"step\"] <= 30 else 0.3)\n    \
                while state[\"step\"] > 30 and not os.path.exists(os.environ[\"OLDPWD\"] + \"/go\"): time.sleep(0.05)";
    let program = read("train.py");
    assert!(program.contains(pace), "{program}");
    world.write("train.py", &program.replace(pace, gate));
    let whole = read("exp.toml");
    world.write("exp.toml", &whole.replace("executor = \"local\"", executor));
}

/// What each step's loss must be, and that each step is in the record once.
#[track_caller]
fn assert_undisturbed(world: &World, id: &str) {
    let rows: Value =
        serde_json::from_str(&world.ok(&["metrics", id, "--metric", "loss", "--json"])).unwrap();
    for (trial, lr) in [0.01, 0.02, 0.05].into_iter().enumerate() {
        let own = rows["rows"].as_array().unwrap().iter();
        let own: Vec<(u64, f64)> = own
            .filter(|row| row["trial"].as_u64() == Some(trial as u64))
            .map(|row| (row["step"].as_u64().unwrap(), row["value"].as_f64().unwrap()))
            .collect();
        let step = |loss: &mut f64, step| {
            *loss *= 1.0 - lr;
            Some((step, *loss))
        };
        let expected: Vec<(u64, f64)> = (1..=STEPS).scan(100.0, step).collect();
        assert_eq!(own, expected, "trial {trial}");
    }
}

/// Waits until every trial has committed something.
fn until_saved(world: &World, id: &str) -> Value {
    world.until(id, "a checkpoint of every trial", |status| {
        let trials = trials(status, "train");
        trials.iter().all(|trial| trial["attempts"][0]["checkpoint_step"].as_u64() > Some(3))
    })
}

/// Ends one trial's program with `kill -9`.
fn kill(world: &World, id: &str, trial: usize) {
    let folder = world.experiment(id).join(format!("tasks/train/trials/{trial}"));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter(|entry| {
        let cwd = std::fs::read_link(entry.path().join("cwd"));
        cwd.is_ok_and(|cwd| cwd == folder)
    });
    for entry in pids {
        let pid = entry.file_name().into_string().unwrap();
        let mut command = std::process::Command::new("kill");
        printed(&command.args(["-9", &pid]).output().unwrap());
    }
}

fn disturb(world: &World, id: &str) {
    until_saved(world, id);
    world.write("go", "");
    kill(world, id, 0);
    world.ok(&["preempt", &format!("{id}/train/1,2")]);
    assert_eq!(world.run(&["wait", id, "--timeout", "3m"]).code, 0, "{:#}", world.status(id));
    let status = world.status(id);
    for (trial, cause) in trials(&status, "train").iter().zip(["failed", "preempted", "preempted"])
    {
        assert_eq!(causes(trial), [cause, "completed"], "{trial:#}");
        let attempts = &trial["attempts"];
        assert!(attempts[1]["resume_step"].as_u64() > Some(3), "{trial:#}");
        assert!(!text(&attempts[0]["reason"]).contains("asked"), "{trial:#}");
    }
    assert_undisturbed(world, id);
}

#[test]
fn on_this_machine() {
    let world = World::new();
    write(&world, "executor = \"local\"");
    let id = world.ok(&["submit", "exp.toml"]);
    disturb(&world, &id);
}

#[test]
fn on_a_real_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(&world, "executor = \"cluster\"");
    let id = world.ok(&["submit", "exp.toml"]);
    disturb(&world, &id);
}

#[test]
fn trials_that_would_share_a_file_are_refused() {
    let world = World::new();
    write(&world, "executor = \"local\"");
    for (from, expected) in [
        ("snapshot.json", "the 3 trials of `train` would share \"snapshot.json\""),
        ("{lr}/**", "is no pattern of paths"),
        ("{checkpoint_dir}/x", "`{checkpoint_dir}` can't be a part of this path"),
        ("$HOME/{lr}.pt", "no shell replaces `$HOME` in"),
    ] {
        let own = format!("task.train.checkpoint.from='{from}'");
        let printed = world.run(&["check", "exp.toml", "--set", &own]);
        assert!(printed.code != 0 && printed.stderr.contains(expected), "{printed:?}");
    }
    world.ok(&["check", "exp.toml", "--set", "task.train.checkpoint.from=out/{lr}/*.pt"]);
    for (to, expected) in [
        ("out", "write the file that the program looks for, or \"out/\""),
        ("{dir}", "it is a whole folder of the trial"),
        ("../{lr}.pt", "`..` may lead"),
        ("~/{lr}.pt", "no shell replaces `~` in"),
    ] {
        let from = "task.train.checkpoint.from=out/{lr}/*.pt";
        let to = format!("task.train.checkpoint.restore_to={to}");
        let printed = world.run(&["check", "exp.toml", "--set", from, "--set", &to]);
        assert!(printed.code != 0 && printed.stderr.contains(expected), "{printed:?}");
    }
}

#[test]
fn what_goes_wrong_in_a_trial_is_in_its_status() {
    let world = World::new();
    let program = "for n in 1 2 3; do mkfifo \"$NEMO_CHECKPOINT_DIR/step-$n\"; done";
    world.write("exp.toml", &format!("name = \"odd\"\n[task.only]\nrun = '''{program}'''\n"));
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let warnings = world.status(&id)["warnings"].as_array().unwrap().clone();
    let warning = text(&warnings[0]);
    assert!(warning.starts_with("only/0: 3 saves in a row were not committed"), "{warning}");
    assert!(warning.contains("rename"), "{warning}");
    assert!(world.ok(&["status", &id]).contains("warning: only/0: 3 saves in a row"));
}

#[test]
fn paths_that_mean_what_others_save_are_refused() {
    let world = World::new();
    let values = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]";
    let task = |name: &str, own: &str| {
        format!("[task.{name}]\nrun = \"true\"\nparams = {{ n = {values} }}\n{own}\n")
    };
    let keys = |from: &str| format!("checkpoint = {{ signal = \"none\", from = \"{from}\" }}");
    let check = |a: &str, b: &str, expected: &str| {
        let (a, b) = (task("a", &keys(a)), task("b", &keys(b)));
        world.write("exp.toml", &format!("name = \"own\"\n{a}{b}"));
        let printed = world.run(&["check", "exp.toml"]);
        assert_eq!(printed.code == 0, expected.is_empty(), "{printed:?}");
        assert!(printed.stderr.contains(expected), "{printed:?}");
    };
    check("a/ckpt-{trial}*.pt", "b/{trial}.pt", "of trial 1 would take what trial 10 saves");
    check("a/{n}*.pt", "b/{trial}.pt", "let no wildcard follow");
    check("a/{trial}/*.pt", "a/{trial}/last.pt", "of task `a` would take what task `b` saves");
    check("a/{trial}.pt", "a/{trial}.pt", "out/{task}/ckpt*.pt");
    check("a/ckpt-{trial}-*.pt", "b/{trial}/*.pt", "");
    check("{dir}/*.pt", "{dir}/*.pt", "");
    check("{task}/{n}/*.pt", "{task}/{n}/*.pt", "");
}

#[test]
fn a_target_that_is_never_saved_is_warned_of() {
    let world = World::new();
    for (from, to, is_told) in [
        ("out/ckpt.pt", "out/ckpt.pt", false),
        ("out/ckpt.pt", "out/ckpt.p", true),
        ("out/ckpt*.pt", "out/resume.pt", false),
        ("out/ckpt.pt", "out/", false),
    ] {
        let task = "[task.train]\nrun = \"true\"";
        let checkpoint = format!("checkpoint = {{ from = {from:?}, restore_to = {to:?} }}");
        world.write("exp.toml", &format!("name = \"typo\"\n{task}\n{checkpoint}\n"));
        let output = world.run(&["check", "exp.toml"]);
        let said = &output.stderr;
        assert_eq!(said.contains("that is never committed"), is_told, "{from} {to}: {said}");
    }
}
