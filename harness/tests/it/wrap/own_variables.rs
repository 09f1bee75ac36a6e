//! Variables that are not the job's own: those of the job that submitted it, and those that a tool has taken out.

use super::*;

/// A tool may start `wrap` in a step with an environment of its own making, as Snakemake's plugin does.
#[test]
fn a_step_that_lost_the_number_of_restarts_is_no_first_run() {
    let site = Site::new();
    site.show(("100", "train"), 2, 1000);
    let script = "echo ${SLURM_RESTART_COUNT-none} >>$TEST/ran";
    let mut command = site.job(("100", "train"), &["--dir", "state", "--", "sh", "-c", script]);
    command.env("SLURM_STEP_ID", "0");
    let ended = end(command);
    assert_eq!((ended.code, site.ran()), (Some(0), vec!["2".to_owned()]), "{ended:?}");
    let rows = fs::read_to_string(site.path("state/tasks/job/trials/0/attempts.jsonl")).unwrap();
    assert!(rows.contains("\"restarts\":2"), "{rows}");
}

/// A job that was submitted from within a step has that step's variables, in its batch script too. Slurm says in the title of
/// its daemon what it started.
#[test]
fn a_batch_script_is_not_the_step_that_submitted_it() {
    let site = Site::new();
    site.show(("100", "train"), 0, 1000);
    let script = "echo ${SLURM_STEP_ID-none} >>$TEST/ran";
    for (title, found) in [("slurmstepd: [100.batch]", "none"), ("slurmstepd: [100.3]", "3")] {
        let own = site.job(("100", "train"), &[]);
        let mut command = Command::new("bash");
        let text = r#"exec -a "$0" sh -c '"$@"; exit $?' sh "$@""#;
        command.args(["-c", text, title]).arg(own.get_program());
        command.args(["wrap", "--dir", found, "--", "sh", "-c", script]);
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("SLURM_STEP_ID", "3").stdin(Stdio::null()).current_dir(site.path(""));
        let ended = end(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(site.ran().last().map(String::as_str), Some(found), "{ended:?}");
        assert_eq!(ended.stderr.contains("this is no step"), found == "none", "{ended:?}");
    }
}

/// The shell of such a script looks like a task of that step, and is not ended with the steps of the program.
#[test]
fn the_shell_of_a_batch_script_is_no_step_of_the_program() {
    let site = Site::new();
    site.show(("100", "train"), 0, 1000);
    let own = site.job(("100", "train"), &[]);
    let program = "(exec -a srun sleep 600) & sleep 1";
    let script = r#""$HARNESS" wrap --dir state -- bash -c "$PROGRAM"; echo $? >"$TEST/survived""#;
    let mut command = Command::new("sh");
    command.args(["-c", "export SLURM_TASK_PID=$$; exec sh -c \"$SCRIPT\""]);
    command.env("SCRIPT", script).env("PROGRAM", program).env("HARNESS", own.get_program());
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("SLURM_STEP_ID", "3").stdin(Stdio::null()).current_dir(site.path(""));
    let ended = end(command);
    let survived = fs::read_to_string(site.path("survived"));
    assert_eq!(survived.ok().as_deref(), Some("0\n"), "{ended:?}");
}

/// `sbatch` hands on the variables of the job that submits.
#[test]
fn a_job_is_not_the_task_that_submitted_it() {
    let site = Site::new();
    let scontrol = r#"#!/bin/sh
[ "$*" = "-o show job 100" ] || exit 1
echo >>"$TEST/asked"
[ "$(wc -l <"$TEST/asked")" -ge 3 ] && cat "$TEST/shown" # does not answer at once
"#;
    write_program(&site.path("bin/scontrol"), scontrol);
    site.show(("100", "train"), 0, 1000);
    let script = "echo ${SLURM_ARRAY_JOB_ID-none} $SLURM_ARRAY_TASK_ID >>$TEST/ran";
    let mut command = site.job(("100", "train"), &["--dir", "state", "--", "sh", "-c", script]);
    command.env("SLURM_ARRAY_JOB_ID", "50").env("SLURM_ARRAY_TASK_ID", "3");
    let ended = end(command);
    assert_eq!((ended.code, site.ran()), (Some(0), vec!["none 3".to_owned()]), "{ended:?}");
    assert!(ended.stderr.contains("`SLURM_ARRAY_JOB_ID=50` is another job's"), "{ended:?}");
    assert_eq!(site.links()[0].0, "100");
    assert_eq!(
        (site.n_starts("state"), site.path("state/tasks/job/trials/3").exists()),
        (1, false)
    );
}

/// The number of one task is the array's, under which Slurm shows all of its tasks.
#[test]
fn a_task_is_told_from_the_others_of_its_array() {
    let site = Site::new();
    let shown = |(number, index): (&str, u32)| {
        site.show((number, "train"), index, 1000);
        let text = fs::read_to_string(site.path("shown")).unwrap();
        text.replace(" JobName", &format!(" ArrayJobId=100 ArrayTaskId={index} JobName"))
    };
    let all: String = [("101", 7), ("100", 2), ("102", 9)].map(shown).concat();
    fs::write(site.path("shown"), all).unwrap();
    let mut command = site.job(("100", "train"), &["--dir", "state", "--", "true"]);
    command.env("SLURM_ARRAY_JOB_ID", "100").env("SLURM_ARRAY_TASK_ID", "2");
    command.env("SLURM_ARRAY_TASK_MIN", "2").env("SLURM_ARRAY_TASK_MAX", "9");
    command.env("SLURM_RESTART_COUNT", "4");
    let ended = end(command);
    let rows = fs::read_to_string(site.path("state/tasks/job/trials/2/attempts.jsonl")).unwrap();
    assert!(rows.contains("\"restarts\":2"), "{ended:?} {rows}");
}

#[test]
fn a_first_run_has_no_restarts_of_the_job_that_submitted_it() {
    let site = Site::new();
    let job = ("100", "train");
    let run = |restarts: &str| {
        let script = saves(1);
        let arguments = ["--dir", "state", "--", "sh", "-c", &script, "sh", "a"];
        let mut command = site.job(job, &arguments);
        command.env("SLURM_RESTART_COUNT", restarts);
        end(command)
    };
    site.show(job, 0, 1000);
    let ended = run("5");
    assert!(ended.stderr.contains("`SLURM_RESTART_COUNT=5` is another job's"), "{ended:?}");
    site.show(job, 1, 2000);
    let ended = run("1");
    assert_eq!(site.ran(), ["a", "a step-10"], "{ended:?}");
    let rows = fs::read_to_string(site.path("state/tasks/job/trials/0/attempts.jsonl")).unwrap();
    assert!(rows.contains("\"restarts\":0") && rows.contains("\"restarts\":1"), "{rows}");
}

#[test]
fn a_program_is_not_the_rank_that_the_shell_is() {
    let site = Site::new();
    let foreign = [
        ("RANK", "1"),
        ("PMIX_RANK", "1"),
        ("NEMO_PARAM_LR", "7"),
        ("WATCHDOG_USEC", "9"),
        ("WATCHDOG_PID", "9"),
    ];
    let kept = [("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "n1")];
    let printed = |task: &str| {
        let mut command = site.job(("100", "train"), &["--", "sh", "-c", "env >$TEST/env"]);
        command.envs(foreign).envs(kept).env("SLURM_PROCID", task);
        let ended = end(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        (fs::read_to_string(site.path("env")).unwrap(), ended.stderr)
    };
    let has = |env: &str, (name, value): (&str, &str)| {
        env.lines().any(|line| line == format!("{name}={value}"))
    };
    let (env, log) = printed("0");
    assert!(!foreign.iter().any(|variable| has(&env, *variable)), "{env}");
    assert!(kept.iter().all(|variable| has(&env, *variable)), "{env}");
    assert!(
        log.contains("left out of the program's environment: `PMIX_RANK=1`, `RANK=1`"),
        "{log}"
    );
    let (env, _) = printed("1");
    assert!(
        has(&env, ("RANK", "1")) && !has(&env, ("WATCHDOG_PID", "9")),
        "a task of a step: {env}"
    );
}
