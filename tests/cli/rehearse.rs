//! Rehearsals of programs that are right, and of programs that do one thing wrong: each is told what it is.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Printed, World};

mod believed;
mod slurm;
mod stepless;

/// A world with the training programs and an experiment that runs one of them.
fn world(program: &str, lead: &str, executor: &str) -> World {
    let world = World::new();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    for entry in std::fs::read_dir(programs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            std::fs::copy(&path, world.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
        }
    }
    let text = format!(
        "name = \"rehearsed\"\n{executor}\n[task.before]\nrun = \"echo 1 > {{dir}}/artifacts/one\"\n\
         [task.train]\nafter = [\"before\"]\n\
         run = \"test -e {{before.dir}}/artifacts/one && exec python3 {program}.py\"\n\
         [task.train.params]\nlr = [0.1, 0.2]\n\
         [task.train.checkpoint]\nlead = \"{lead}\"\n\
         [task.train.metrics]\nstep = '^step (\\d+)'\nloss = 'loss: (\\S+)'\nseconds = 'seconds: (\\S+)'\n"
    );
    world.write("exp.toml", &text);
    world
}

fn parse(printed: &Printed) -> Value {
    serde_json::from_str(&printed.stdout).unwrap_or_else(|_| panic!("{printed:?}"))
}

/// The codes of all findings but notes.
fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap().iter();
    let weighty = findings.filter(|finding| finding["level"] != "note");
    weighty.map(|finding| finding["code"].as_str().unwrap()).collect()
}

/// Rehearses a program, which must lead to exactly this finding. Returns its text and the whole report.
#[track_caller]
fn check(program: &str, only: &str, code: i32, finding: &str) -> (String, Value) {
    let world = world(program, "4s", "");
    let arguments = ["rehearse", "exp.toml", "train", "--json", "--only", only, "--seed", "3"];
    let printed = world.run(&arguments);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (code, vec![finding]), "{report:#}");
    assert_eq!(report["safe"], code == 0);
    (report["findings"][0].to_string(), report)
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in {text}");
    }
}

/// Each run as it must be: every interruption took place, was resumed from, and changed nothing.
fn assert_clean(report: &Value, expected: &[&str]) {
    let runs = report["runs"].as_array().unwrap();
    let kinds: Vec<&str> = runs.iter().map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(kinds, expected, "{report:#}");
    for run in &runs[2..] {
        assert_eq!(run["comparison"]["equal"], true, "{run:#}");
        assert!(run["comparison"]["metrics"]["compared"].as_u64() >= Some(60), "{run:#}");
        let attempts = run["attempts"].as_array().unwrap();
        assert!(attempts.len() > 1, "{run:#}");
        for pair in attempts.windows(2) {
            assert!(!pair[0]["injected"].is_null(), "{run:#}");
            let resumed = pair[1]["resume_step"].as_u64().unwrap();
            assert_eq!(pair[1]["first_step"].as_u64(), Some(resumed + 1), "{run:#}");
        }
    }
}

const ALL: [&str; 7] =
    ["undisturbed", "undisturbed", "preempted", "killed", "time-limit", "node-lost", "terminated"];

#[track_caller]
fn is_safe(program: &str, seed: &str) {
    let world = world(program, "20s", "");
    let printed =
        world.run(&["rehearse", "exp.toml", "train", "--json", "--trial", "1", "--seed", seed]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{program} {seed}: {report:#}");
    assert_clean(&report, &ALL);
    assert_eq!(report["advice"]["lead_is_enough"], true, "{report:#}");
    // The user's own experiments are not touched, and nothing is left.
    let list: Value = serde_json::from_str(&world.ok(&["list", "--json"])).unwrap();
    assert_eq!((&list["experiments"], &list["counts"]), (&json!([]), &json!({})));
    assert!(!world.path("home/rehearsals").exists());
}

#[test]
fn a_good_program_is_safe() {
    is_safe("good", "1");
}

#[test]
fn a_good_program_is_safe_with_another_seed() {
    is_safe("good", "5");
}

#[test]
fn a_program_that_saves_only_when_asked_is_safe() {
    is_safe("saves_only_when_asked", "3");
}

#[test]
fn one_that_ignores_the_signal() {
    let (finding, _) = check("ignores_signal", "preempted,terminated", 1, "ignores-signal");
    says(&finding, &["none of its processes catches USR1", "signal.SIGUSR1"]);
}

#[test]
fn one_that_catches_the_signal_and_does_nothing() {
    let (finding, report) = check("hears_and_goes_on", "preempted", 1, "ignores-signal");
    says(&finding, &["it catches USR1", "neither saved nor ended"]);
    let runs = report["runs"].as_array().unwrap();
    assert!(runs.iter().any(|run| run["run"] == "long-notice"), "{report:#}");
}

#[test]
fn one_that_never_saves() {
    let (finding, _) = check("never_saves", "preempted", 1, "never-saves");
    says(&finding, &["nothing was committed", "it catches USR1", "NEMO_CHECKPOINT_DIR"]);
}

#[test]
fn one_that_ignores_the_signal_and_never_saves_is_told_both() {
    let world = world("ignores_signal_and_never_saves", "4s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--only", "preempted"]);
    assert_eq!(printed.code, 1);
    says(
        &printed.stdout,
        &["error[never-saves]", "error[ignores-signal]: the program ignores USR1"],
    );
    // Each run has its number, and no two lines in a row are empty though there is no advice.
    says(&printed.stderr, &["1/3 undisturbed", "2/3 undisturbed", "3/3 preempted"]);
    assert!(!printed.stdout.contains("\n\n\n"), "{}", printed.stdout);
}

#[test]
fn one_that_saves_too_slowly_is_told_its_lead() {
    let (finding, report) = check("saves_too_slowly", "preempted", 1, "lead-too-short");
    says(&finding, &["saves too slowly", "it needs 4."]);
    let lead = report["findings"][0]["paste"].as_str().unwrap();
    let seconds = lead.strip_prefix("lead = \"").unwrap().strip_suffix("s\"").unwrap();
    // With what is advised it is safe.
    let world = world("saves_too_slowly", &format!("{seconds}s"), "");
    let again = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "preempted"]);
    assert_eq!(again.code, 0, "{again:?}");
}

#[test]
fn one_that_saves_in_place() {
    let (finding, _) = check("saves_in_place", "preempted", 1, "in-place-save");
    says(&finding, &["step-10", "is written under its final name", "os.rename"]);
}

#[test]
fn one_that_exits_0_after_a_save() {
    let (finding, _) = check("exits_0_after_save", "preempted", 1, "exits-0-after-save");
    says(&finding, &["exited with 0 after step", "of 60", "sys.exit(75)"]);
}

#[test]
fn one_that_finishes_although_it_should_save() {
    let (finding, report) = check("finishes_anyway", "preempted", 0, "finishes-without-saving");
    says(&finding, &["it ended with exit code 0", "after it was asked", "FINISHED=1"]);
    let attempts = report["runs"][2]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 4, "it was run again: {report:#}");
}

#[test]
fn one_that_does_not_catch_sigterm_is_told_before_slurm_does() {
    let world = world("catches_only_usr1", "4s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "terminated"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{report:#}");
    says(&report["findings"].to_string(), &["term-not-caught", "catch SIGTERM with the same"]);
}

#[test]
fn one_that_saves_and_goes_on() {
    let (finding, _) = check("saves_and_goes_on", "preempted", 0, "goes-on-after-save");
    says(&finding, &["they are done twice"]);
}

#[test]
fn one_that_leaves_a_process_behind() {
    let (finding, _) = check("leaves_a_daemon", "killed", 0, "leaves-processes");
    says(&finding, &["setsid"]);
}

#[test]
fn one_that_forgets_the_optimizer() {
    let (finding, report) = check("forgets_momentum", "preempted", 1, "resume-not-exact");
    says(&finding, &["most likely the optimizer's state is lost", "artifacts/weights.json"]);
    let run = &report["runs"][2];
    let resumed = run["attempts"][1]["resume_step"].as_u64().unwrap();
    // A loss is measured before the update: the first step agrees.
    let first = &run["comparison"]["metrics"]["first"];
    assert_eq!((first["step"].as_u64(), &first["metric"]), (Some(resumed + 2), &"loss".into()));
}

#[test]
fn one_that_does_not_load_the_optimizer() {
    let (finding, _) = check("saves_all_and_loads_half", "killed", 1, "resume-not-exact");
    says(&finding, &["most likely the optimizer's state is saved and not loaded"]);
}

#[test]
fn one_that_begins_the_data_anew() {
    let (finding, report) = check("restarts_data", "preempted", 1, "resume-not-exact");
    says(
        &finding,
        &["most likely the data or the random numbers start from the beginning", "momentum, step"],
    );
    let run = &report["runs"][2];
    let resumed = run["attempts"][1]["resume_step"].as_u64().unwrap();
    let first = run["comparison"]["metrics"]["first"]["step"].as_u64();
    assert_eq!(first, Some(resumed + 1));
}

#[test]
fn one_that_shuffles_the_next_epoch_anew() {
    let (finding, _) = check("shuffles_anew_next_epoch", "killed,node-lost", 1, "resume-not-exact");
    says(&finding, &["what is missing acts late", "a shuffle that only the next epoch makes"]);
}

#[test]
fn one_whose_metric_alone_begins_anew() {
    let (finding, _) = check("averages_since_the_start", "preempted", 0, "metrics-not-restored");
    says(&finding, &["an average or a sum since the start"]);
}

#[test]
fn one_that_finds_what_another_run_has_left() {
    let world = world("shares_a_file", "4s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "killed"]);
    let report = parse(&printed);
    assert_eq!(printed.code, 1);
    assert!(codes(&report).contains(&"finds-other-runs"), "{report:#}");
    says(&report.to_string(), &["began with step 21"]);
}

#[test]
fn what_differs_undisturbed_is_no_fault() {
    let world = world("tells_the_time", "20s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "preempted"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{report:#}");
    says(&report["findings"].to_string(), &["\"noisy\"", "seconds differ between two undisturbed"]);
}

#[test]
fn ones_that_count_wrongly() {
    let (more, _) = check("names_one_step_more", "killed", 1, "wrong-step");
    says(&more, &["is done again after a crash"]);
    let (less, _) = check("names_one_step_less", "preempted", 1, "wrong-step");
    says(&less, &["is taken out of the record and never reported again"]);
    let (both, _) = check("believes_the_name", "killed", 1, "wrong-step");
    says(&both, &["the step counter is wrong", "an earlier step (by 1)"]);
}

#[test]
fn one_that_begins_anew() {
    let (finding, _) = check("starts_over", "preempted", 1, "starts-over");
    says(&finding, &["it began with step 1"]);
}

#[test]
fn one_that_resumes_from_its_own_file() {
    let (finding, _) = check("resumes_from_its_own_file", "killed", 1, "resumes-from-its-own-file");
    says(&finding, &["it read a file of its own"]);
}

#[test]
fn one_that_can_not_read_its_checkpoint() {
    let (finding, _) = check("fails_to_resume", "preempted", 1, "fails-to-resume");
    says(&finding, &["KeyError", "learning_rate"]);
}

#[test]
fn one_that_is_not_deterministic_is_not_blamed_on_the_resume() {
    let (finding, _) = check("is_not_deterministic", "preempted", 1, "not-deterministic");
    says(
        &finding,
        &["the weights of two undisturbed runs differ", "loss at step 1 is", "noise = "],
    );
}

#[test]
fn one_that_fails_undisturbed_is_not_disturbed() {
    let world = World::new();
    world.write("exp.toml", "name = \"x\"\n[task.t]\nrun = \"echo no such file >&2; exit 3\"\n");
    let printed = world.run(&["rehearse"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    says(&printed.stdout, &["error[fails-undisturbed]", "exited with code 3", "is not safe"]);
}

#[test]
fn what_is_kept_can_be_looked_at_and_what_there_is_no_time_for_is_said() {
    let world = world("good", "20s", "");
    let arguments = ["rehearse", "exp.toml", "train", "--keep", "kept", "--time-limit", "4s"];
    let printed = world.run(&arguments);
    // A slow machine disturbs nothing in that time.
    let (code, verdict) = if printed.stdout.contains("error[not-disturbed]") {
        (1, "`train` is not safe to be interrupted: 1 error.")
    } else {
        (0, "as far as it was rehearsed")
    };
    assert_eq!(printed.code, code, "{printed:?}");
    says(&printed.stdout, &["There was no time for:", verdict]);
    let experiments = world.path("kept/experiments");
    assert!(std::fs::read_dir(experiments).unwrap().count() >= 2);
    let again = world.run(&arguments);
    assert_eq!(again.code, 5, "{again:?}");
}

#[test]
fn wrong_use_is_told() {
    let world = world("good", "20s", "");
    let printed = world.run(&["rehearse", "exp.toml"]);
    assert_eq!(printed.code, 2, "{printed:?}");
    says(&printed.stderr, &["`before`, `train`", "hint: `nemo-slurm rehearse exp.toml train`"]);
    let printed = world.run(&["rehearse", "train"]);
    assert_eq!(printed.code, 3, "{printed:?}");
    says(&printed.stderr, &["can't read `train`", "hint: `nemo-slurm rehearse exp.toml train`"]);
    let printed = world.run(&["rehearse", "exp.toml", "train", "--trial", "2"]);
    assert_eq!(printed.code, 3, "{printed:?}");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--only", "requeued"]);
    assert_eq!(printed.code, 2, "{printed:?}");
}

#[test]
fn an_interrupted_rehearsal_leaves_nothing_behind() {
    let world = world("good", "20s", "");
    let mut command = world.command(&["rehearse", "exp.toml", "train"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // A trial of its own folder runs.
    let running = || {
        let runs = std::fs::read_dir(world.path("home/rehearsals")).into_iter().flatten().flatten();
        runs.flat_map(|run| std::fs::read_dir(run.path().join("experiments")).into_iter().flatten())
            .flatten()
            .any(|own| own.path().join("tasks/train/trials/0/metrics.jsonl").exists())
    };
    let began = std::time::Instant::now();
    while !running() {
        assert!(began.elapsed() < crate::support::PATIENCE, "it never ran");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted; nothing of the rehearsal runs any more"), "{stderr}");
    assert!(!world.path("home/rehearsals").exists());
}
