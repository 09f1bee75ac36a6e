//! The local runner where the machine has no more to give: processes, open files, a program that is busy.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{World, harness, states, text, trials};

/// A user that nobody is.
const NOBODY: u32 = 64_321;

/// So many trials, all at once.
fn many(world: &World, n_trials: u32, run: &str) {
    world.write(
        "exp.toml",
        &format!(
            "name = \"many\"\n[executor.it]\nkind = \"local\"\nparallel = {n_trials}\n[task.t]\nrun = \"{run}\"\n\
             params = {{ x = {{ int = [1, {n_trials}], count = {n_trials} }} }}\n"
        ),
    );
}

/// The same command, from a shell with limits.
fn limited(world: &World, limit: &str, arguments: &[&str]) -> Command {
    let program = world.command(arguments);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\""));
    command.arg(program.get_program()).args(program.get_args());
    world.surround(&mut command);
    command
}

#[track_caller]
fn assert_all_completed(world: &World) {
    let status = world.until("@", "the end", |status| {
        !["pending", "running", "preempted"]
            .iter()
            .any(|state| status["experiment"]["state"] == *state)
    });
    let other = states(&status, "t").iter().position(|state| state != "completed");
    assert_eq!(other, None, "{:#}", trials(&status, "t")[other.unwrap_or(0)]);
    let id = text(&status["experiment"]["id"]);
    let said = std::fs::read_to_string(world.experiment(&id).join("runner.out")).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn more_trials_than_processes_run_one_after_the_other() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become a user with a limit of its own");
        return;
    }
    let world = World::new();
    many(&world, 40, "sleep 0.2");
    // Where everybody can run it, whoever may look into the clone.
    for program in [env!("CARGO_BIN_EXE_nemo-slurm").into(), harness()] {
        std::fs::copy(&program, world.path(program.file_name().unwrap().to_str().unwrap()))
            .unwrap();
    }
    chown(world.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(world.folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut submit = Command::new("sh");
    submit.arg("-c").arg("ulimit -u 30; exec ./nemo-slurm submit exp.toml");
    world.surround(&mut submit);
    submit.env("NEMO_HARNESS", world.path("nemo-harness")).uid(NOBODY).gid(NOBODY);
    let output = submit.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_all_completed(&world);
}

#[test]
fn two_hundred_trials_at_once_need_few_open_files() {
    let world = World::new();
    many(&world, 200, "sleep 1");
    let output = limited(&world, "-n 40", &["submit", "exp.toml"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_all_completed(&world);
}

#[test]
fn a_harness_that_can_not_be_run_is_a_failure_with_its_reason() {
    let world = World::new();
    many(&world, 2, "true");
    let harness = world.write("harness", "\u{7f}ELF, but not really");
    let mut submit = world.command(&["submit", "exp.toml"]);
    let output = submit.env("NEMO_HARNESS", harness).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let status = world.until("@", "the end", |status| status["experiment"]["state"] == "failed");
    for trial in trials(&status, "t") {
        assert_eq!(trial["state"], "failed", "nobody cancelled it: {trial:#}");
        let reason = text(&trial["reason"]);
        assert!(reason.contains("its harness can't be started"), "{reason}");
        assert!(reason.contains("Exec format error"), "{reason}");
    }
}

#[test]
fn a_file_without_an_end_is_refused() {
    let world = World::new();
    for words in [
        ["check", "/dev/zero"].as_slice(),
        &["submit", "/dev/zero"],
        &["init", "--from", "/dev/zero", "new"],
    ] {
        let output = limited(&world, "-v 2000000", words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains("it has more than"),
            "{words:?}: {stderr}"
        );
        assert!(stderr.contains("/dev/zero"), "{stderr}");
    }
}
