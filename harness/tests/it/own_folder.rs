//! Programs that resume by themselves, from a file in a folder of their own.

use std::fs;

use serde_json::json;

use crate::support::{Task, wait_until};

/// What most public code does: it goes on from `snapshot.pt` where there is one, and rewrites it as `SAVE` says.
const PROGRAM: &str = r#"
import json, os, time
def ready(): open(os.environ["TEST"] + "/ready-" + os.environ["NEMO_ATTEMPT"], "w").close()
state = json.load(open("snapshot.pt")) if os.path.exists("snapshot.pt") else {"step": 0, "sum": 0}
print("begins after", state["step"], flush=True)
def save_over():
    with open("snapshot.pt", "w") as f: json.dump(state, f)
def save_by_rename():
    with open("new", "w") as f: json.dump(state, f)
    os.replace("new", "snapshot.pt")
while state["step"] < 40:
    state["step"] += 1
    state["sum"] += state["step"] ** 2
    print("step", state["step"], "sum:", state["sum"], flush=True)
    SAVE()
    if state["step"] == 10: ready()
    time.sleep(PAUSE)
"#;

const PRINT: &str = "    print(\"step\", state[\"step\"], \"sum:\", state[\"sum\"], flush=True)\n";

/// The program in a folder of its own, with the three lines of the recipe.
fn own_folder(save: &str, pause: &str) -> Task {
    let program = PROGRAM.replace("SAVE", save).replace("PAUSE", pause);
    let task = Task::new(&json!({"exec": ["python3", "-c", program]}));
    let work = task.path("work");
    fs::create_dir(&work).unwrap();
    task.with("/workdir", json!(work))
        .with("/checkpoint/signal", json!("none"))
        .with("/checkpoint/from", json!(["snapshot.pt"]))
        .with("/checkpoint/restore_to", json!("snapshot.pt"))
        .with("/checkpoint/lead", json!(4))
        .with("/metrics", json!({"step": r"step (\d+)", "sum": r"sum: (\d+)"}))
}

/// Each step once, in order, with the sum that an undisturbed run has.
#[track_caller]
fn check_undisturbed(task: &Task) {
    let rows: Vec<(u64, u64)> =
        task.metrics().iter().map(|row| (row.step.unwrap(), whole(&row.values["sum"]))).collect();
    let expected: Vec<(u64, u64)> =
        (1..=40).map(|step| (step, (1..=step).map(|one| one * one).sum())).collect();
    assert_eq!(rows, expected, "{}", task.newest_log());
}

/// A number that is reported as a float, and is none.
fn whole(value: &serde_json::Value) -> u64 {
    value.to_string().trim_end_matches(".0").parse().unwrap()
}

/// Kills the program, without a word to it, once it is in the middle.
fn kill_program(task: &Task) {
    let mut running = task.start();
    running.wait_for("ready-0");
    let text = format!("{}/snapshot.pt", task.path("work").display());
    wait_until("something is committed", || !task.checkpoints().is_empty());
    assert!(fs::exists(text).unwrap());
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", harness(task)));
    for pid in children.unwrap().split_whitespace() {
        crate::support::signal(pid.parse().unwrap(), "KILL");
    }
    running.finish();
}

/// What the program found when it began again.
fn begins_after(task: &Task) -> u64 {
    let begin = task.stdout(1).lines().next().unwrap().to_owned();
    begin.strip_prefix("begins after ").unwrap().parse().unwrap()
}

fn harness(task: &Task) -> u32 {
    task.records().iter().find_map(|record| record.as_start().cloned()).unwrap().process.pid
}

#[test]
fn what_came_by_a_rename_is_resumed_from_after_a_kill() {
    let task = own_folder("save_by_rename", "0.1").with("/restart/crashes", json!(1));
    // As the working folder of a trial with a package.
    let workdir = format!("{}/", task.path("work").display());
    let task = task.with("/workdir", json!(workdir));
    kill_program(&task);
    task.check_ends("Failed Restart, Completed Done");
    let from = task.resume_steps()[1].unwrap();
    assert!(from >= 9, "each save was complete at once: {from}");
    // The step may have been read after the save of it was seen.
    assert!(begins_after(&task) >= from, "{from}: {}", task.stdout(1));
    assert!(task.stderr(1).contains("put the checkpoint of step"), "{}", task.stderr(1));
    check_undisturbed(&task);
}

/// Saves at each 25th step of 20 ms, by a rename or over the file. `order` says what a step does: `PRINT`, `SAVE`, `REST`.
fn saver_of_each_25th(save: &str, order: &str) -> Task {
    let program = PROGRAM
        .replace(PRINT, "")
        .replace("    time.sleep(PAUSE)\n", "")
        .replace("    SAVE()\n", &format!("    {order}\n"))
        .replace("SAVE", &format!("(state[\"step\"] % 25 or {save}())"))
        .replace("PRINT", PRINT.trim())
        .replace("REST", "time.sleep(0.02)")
        .replace("< 40", "< 210");
    let task = own_folder("", "").with("/command", json!({"exec": ["python3", "-c", program]}));
    task.with(
        "/checkpoint/keep",
        json!({"trial_latest": 99, "trial_best": 0, "experiment_best": 0}),
    )
}

/// What was committed: as which step, and what its content says.
fn committed_steps(task: &Task) -> Vec<(u64, u64)> {
    let content = |step| {
        let text = fs::read(task.dir().checkpoint(step).join("snapshot.pt")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["step"].as_u64().unwrap()
    };
    task.committed().into_iter().map(|step| (step, content(step))).collect()
}

/// The record of the metrics is cut to the step of the folder: one that is too low loses rows, one that is too high would have
/// them twice.
fn is_never_after((step, content): &(u64, u64)) -> bool {
    step <= content && step + 24 >= *content
}

#[test]
fn a_save_is_committed_as_the_step_at_which_it_was_renamed() {
    let task = saver_of_each_25th("save_by_rename", "PRINT; REST; SAVE");
    assert_eq!(task.run(), 0);
    let steps = committed_steps(&task);
    assert!(steps.len() >= 7, "{steps:?}");
    assert!(steps.iter().all(is_never_after), "{steps:?}");
    // On a machine that is kept from running, the earlier step counts.
    let exact = steps.iter().filter(|(step, content)| step == content).count();
    assert!(exact >= 3, "{steps:?}");
}

#[test]
fn a_save_is_never_committed_as_a_step_after_it() {
    for (save, order) in [
        ("save_by_rename", "SAVE; PRINT; REST"),
        ("save_by_rename", "PRINT; SAVE; REST"),
        ("save_over", "PRINT; SAVE; REST"),
    ] {
        let task = saver_of_each_25th(save, order);
        assert_eq!(task.run(), 0);
        let steps = committed_steps(&task);
        assert!(steps.len() >= 7, "{save}: {steps:?}");
        // A program that was seen to save right after a report is taken to do so where both were seen at once.
        let may_be_next = order.starts_with("PRINT");
        let is_right = |it: &&(u64, u64)| is_never_after(it) || (may_be_next && it.0 == it.1 + 1);
        let wrong = steps.iter().find(|it| !is_right(it));
        assert_eq!(wrong, None, "{save} {order}: {steps:?}");
    }
}

/// Its last save has no report of its own, and the step that was reported last is that of an earlier save.
#[test]
fn a_program_that_saves_more_often_than_it_reports_keeps_its_newest_save() {
    let program = PROGRAM.replace("SAVE", "save_by_rename").replace("PAUSE", "0.05");
    let rarely =
        program.replace("    print(\"step\"", "    if state[\"step\"] % 9 == 0: print(\"step\"");
    assert_ne!(program, rarely);
    let keep = json!({"trial_latest": 99, "trial_best": 0, "experiment_best": 0});
    let task = own_folder("save_by_rename", "0.05")
        .with("/command", json!({"exec": ["python3", "-c", rarely]}))
        .with("/checkpoint/keep", keep);
    assert_eq!(task.run(), 0);
    let steps = committed_steps(&task);
    assert!(steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{steps:?}");
    assert_eq!(steps.last().map(|it| it.1), Some(40), "{steps:?}");
    assert!(!task.stderr(0).contains("with other content"), "{}", task.stderr(0));
}

#[test]
fn a_file_that_is_rewritten_all_the_time_is_resumed_from_after_a_kill() {
    let task = own_folder("save_over", "0.4").with("/restart/crashes", json!(1));
    kill_program(&task);
    task.check_ends("Failed Restart, Completed Done");
    let from = task.resume_steps()[1].unwrap();
    assert!(from >= 3, "{from}: {}", task.stderr(0));
    check_undisturbed(&task);
}

#[test]
fn a_program_that_is_never_asked_is_stopped_after_its_next_save() {
    let task = own_folder("save_by_rename", "0.1");
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert!(!task.stderr(0).contains("asked to save"), "{}", task.stderr(0));
    assert_eq!(task.run(), 0);
    check_undisturbed(&task);
}

/// What is saved and printed at once has no order for who reads both: the step of the checkpoint may be too low by one.
#[test]
fn a_step_that_is_printed_beside_its_save_is_in_the_record_once() {
    for save in ["save_by_rename", "save_over"] {
        let task = own_folder(save, "0.3").with("/restart/crashes", json!(1));
        let task = saves_first(task, save);
        kill_program(&task);
        task.check_ends("Failed Restart, Completed Done");
        let from = task.resume_steps()[1].unwrap();
        assert!(from >= 3, "{from}: {}", task.stderr(0));
        assert!(begins_after(&task) > from, "{from}: {}", task.stdout(1));
        check_undisturbed(&task);
    }
}

/// The same program, which reports a step after it has saved it.
fn saves_first(task: Task, save: &str) -> Task {
    let program = task.spec["command"]["exec"][2].as_str().unwrap();
    let save = format!("    {save}()\n");
    let turned = program.replace(&format!("{PRINT}{save}"), &format!("{save}{PRINT}"));
    assert_ne!(turned, program);
    task.with("/command", json!({"exec": ["python3", "-c", turned]}))
}

#[test]
fn a_fresh_start_does_not_read_what_lies_there() {
    let task = own_folder("save_by_rename", "0");
    let old = r#"{"step": 30, "sum": 7}"#;
    fs::write(task.path("work/snapshot.pt"), old).unwrap();
    assert_eq!(task.run(), 0);
    check_undisturbed(&task);
    let aside = fs::read_dir(task.path("work")).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains(".nemo-aside-"));
    assert_eq!(fs::read_to_string(aside.unwrap()).unwrap(), old, "nothing is deleted");
    assert!(task.stderr(0).contains("was set aside"), "{}", task.stderr(0));
    assert_eq!(warnings(&task, 0), ["set-aside-at-start"]);
}

#[test]
fn a_file_of_which_nothing_was_ever_committed_is_left_to_the_program() {
    // A typing mistake.
    let task = own_folder("save_by_rename", "0.1").with("/checkpoint/from", json!(["snapshot.p"]));
    fs::write(task.path("work/snapshot.pt"), r#"{"step": 30, "sum": 7}"#).unwrap();
    let mut running = task.start();
    running.wait_for("ready-0");
    running.try_signal("USR1");
    assert_eq!(running.finish(), 75);
    assert!(task.stdout(0).starts_with("begins after 0\n"), "it was set aside at first");
    assert_eq!(task.run(), 0);
    assert!(!task.stdout(1).starts_with("begins after 0\n"), "{}", task.stderr(1));
    check_undisturbed(&task);
    let warns = |record: &nemo_core::rundir::AttemptRecord| {
        matches!(record,
        nemo_core::rundir::AttemptRecord::Warning { code, attempt: 1, .. } if code == "nothing-collected")
    };
    assert!(task.records().iter().any(warns), "{:#?}", task.records());
}

#[test]
fn what_was_put_there_is_no_new_checkpoint() {
    let task = own_folder("save_by_rename", "0.1");
    assert_eq!(task.signalled(&["USR1"]), 75);
    let before = task.committed();
    let idle = json!({"exec": ["true"]});
    let task = task.with("/command", idle);
    assert_eq!(task.run(), 0);
    assert_eq!(task.committed(), before);
}

#[test]
fn a_torn_save_is_never_found_by_the_program() {
    // It goes on from the newest of its files, and the last one is torn.
    let task = Task::python(
        r#"
import glob
found = sorted(glob.glob("out/ckpt_*.pt"))
print("finds", [os.path.basename(path) for path in found], flush=True)
os.makedirs("out", exist_ok=True)
if not found:
    for n in (10, 20):
        open("out/new", "w").write(str(n)); os.replace("out/new", "out/ckpt_%d.pt" % n)
    while not os.path.exists(os.environ["NEMO_DIR"] + "/checkpoints/step-20"): time.sleep(0.01)
    open("out/ckpt_30.pt", "w").write("3")
    os.kill(os.getpid(), 9)
"#,
    )
    .with("/checkpoint/from", json!(["out/ckpt_*.pt"]))
    .with("/checkpoint/restore_to", json!("out/"))
    .with("/restart/crashes", json!(1));
    let work = task.path("work");
    fs::create_dir(&work).unwrap();
    let task = task.with("/workdir", json!(work));
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), "finds []\n");
    assert_eq!(task.stdout(1), "finds ['ckpt_10.pt', 'ckpt_20.pt']\n", "{}", task.stderr(1));
    let log = task.stderr(0);
    assert!(log.contains("ckpt_30.pt` was not committed: the program was ended"), "{log}");
}

#[test]
fn nested_paths_folders_and_numbers_that_are_no_step() {
    let task = Task::python(
        r#"
os.makedirs("runs/v0/a/saved.new")
open("runs/v0/a/saved.new/model", "w").write("5")
os.rename("runs/v0/a/saved.new", "runs/v0/a/saved-5")
open("runs/resnet50.pt.tmp", "w").write("x")
os.rename("runs/resnet50.pt.tmp", "runs/resnet50.pt")
open("runs/step-99999999999999999999999", "w").write("y")
"#,
    )
    .with("/checkpoint/from", json!(["runs/**/saved-*", "runs/resnet50.pt", "runs/step-*"]))
    .with("/checkpoint/keep", json!({"trial_latest": 9, "trial_best": 0, "experiment_best": 0}));
    assert_eq!(task.run(), 0);
    let mut steps = task.committed();
    steps.sort_unstable();
    assert!(steps.contains(&5) && !steps.contains(&50) && steps.len() == 2, "{steps:?}");
    assert!(task.dir().checkpoint(5).join("model").exists(), "{}", task.stderr(0));
    let log = task.stderr(0);
    assert!(log.contains("999999` was not committed: its number is larger than any step"), "{log}");
}

#[test]
fn a_checkpoint_is_never_the_same_file_as_the_programs_own() {
    let task = own_folder("save_over", "0");
    assert_eq!(task.run(), 0);
    let step = *task.committed().iter().max().unwrap();
    let committed = task.dir().checkpoint(step).join("snapshot.pt");
    let before = fs::read(&committed).unwrap();
    fs::write(task.path("work/snapshot.pt"), "rewritten in place").unwrap();
    assert_eq!(fs::read(&committed).unwrap(), before);
}

/// One that keeps its own backup, as Keras' `BackupAndRestore` does, and of which nobody here knows more.
fn left_alone(pause: &str) -> Task {
    let program = PROGRAM.replace("SAVE", "save_by_rename").replace("PAUSE", pause);
    let task = Task::new(&json!({"exec": ["python3", "-c", program]}));
    let work = task.path("work");
    fs::create_dir(&work).unwrap();
    task.with("/workdir", json!(work))
        .with("/checkpoint/signal", json!("none"))
        .with("/checkpoint/lead", json!(1))
        .with("/restart", json!({"crashes": 0, "no_progress": 1}))
        .with("/metrics", json!({"step": r"step (\d+)", "sum": r"sum: (\d+)"}))
}

#[test]
fn a_program_that_goes_on_by_itself_keeps_its_record_and_is_not_given_up() {
    let task = left_alone("0.1").with("/restart/no_progress", json!(2));
    let mut ready = 0;
    loop {
        let mut running = task.start();
        if ready < 2 {
            let from = task.metrics().len();
            wait_until("ten more steps", || running.has_ended() || task.metrics().len() > from + 3);
            running.try_signal("USR1");
        }
        ready += 1;
        match running.finish() {
            75 => {}
            code => {
                assert_eq!(code, 0, "{}", task.newest_log());
                break;
            }
        }
    }
    assert!(ready >= 3, "{:#?}", task.ends());
    check_undisturbed(&task);
    let went_on = task.records().into_iter().filter_map(|record| match record {
        nemo_core::rundir::AttemptRecord::WentOn { step, .. } => Some(step),
        _ => None,
    });
    let went_on: Vec<u64> = went_on.collect();
    assert!(went_on.len() >= 2 && went_on.is_sorted() && went_on[0] > 3, "{went_on:?}");
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    let task = Task::python(
        r#"
print("one line"); print("step 1")
if not resume: save(50); sys.exit(75)
for n in (1, 2, 3): os.mkfifo(out + "/step-%d" % n)
"#,
    )
    .with("/metrics", json!({"step": r"step (\d+)", "loss": r"lossy: (\S+)"}));
    assert_eq!((task.run(), task.run()), (75, 0));
    let codes = warnings(&task, 1);
    let expected = ["starts-below-checkpoint", "pattern-never-matched", "saves-dropped"];
    assert_eq!(codes, expected, "{}", task.stderr(1));
    assert!(task.stderr(1).contains("load $NEMO_RESUME_FROM"), "{}", task.stderr(1));
}

/// The codes of the warnings of an attempt.
fn warnings(task: &Task, own: u32) -> Vec<String> {
    let of = |record| match record {
        nemo_core::rundir::AttemptRecord::Warning { code, attempt, .. } if attempt == own => {
            Some(code)
        }
        _ => None,
    };
    task.records().into_iter().filter_map(of).collect()
}

#[test]
fn an_attempt_that_begins_at_the_start_again_is_told() {
    let program = "time.sleep(1); sys.exit(0 if os.environ['NEMO_ATTEMPT'] == '2' else 75)";
    let task = Task::python(program);
    assert_eq!((task.run(), task.run(), task.run()), (75, 75, 0));
    assert_eq!(warnings(&task, 0), [""; 0]);
    assert_eq!(
        (warnings(&task, 1), warnings(&task, 2)),
        (vec!["starts-over".to_owned()], vec!["starts-over".to_owned()])
    );
    assert!(task.stderr(2).contains("the 2 attempts before this one left no checkpoint"));
    let alone = Task::python(program).with("/checkpoint/signal", json!("none"));
    assert_eq!((alone.run(), alone.run()), (75, 75));
    assert_eq!(warnings(&alone, 1), [""; 0], "it may go on from a file of its own");
}

/// One that is resumed at its last step prints nothing more.
#[test]
fn a_pattern_that_has_matched_in_an_earlier_attempt_is_not_told() {
    let task =
        Task::python("print('one line'); resume or (print('step 3'), save(3), sys.exit(75))")
            .with("/metrics", json!({"step": r"step (\d+)"}));
    assert_eq!((task.run(), task.run()), (75, 0));
    assert_eq!(task.resume_steps(), [None, Some(3)]);
    assert_eq!(warnings(&task, 1), [""; 0]);
}

/// Saves `snapshot.pt` twice for each step that it reports, each time once the save before is committed.
const SAVES_TWICE: &str = r#"
import glob, os, sys, time
begun = open("snapshot.pt").read() if os.path.exists("snapshot.pt") else "0,b"
print("begins after", begun, "told", os.environ["NEMO_RESUME_STEP"], flush=True)
def is_committed(state):
    found = glob.glob(os.environ["NEMO_DIR"] + "/checkpoints/step-*/snapshot.pt")
    try: return any(open(path).read() == state for path in found)
    except FileNotFoundError: return False
for step in range(int(begun.split(",")[0]) + 1, 11):
    print("step", step, "sum:", step, flush=True)
    for half in "ab":
        state = "%d,%s" % (step, half)
        with open("new", "w") as f: f.write(state)
        os.replace("new", "snapshot.pt")
        end = time.monotonic() + 15
        while not is_committed(state):
            if time.monotonic() > end: sys.exit(state + " is not kept")
            time.sleep(0.01)
    if step == 8 and os.environ["NEMO_ATTEMPT"] == "0": os.kill(os.getpid(), 9)
"#;

#[test]
fn a_program_that_saves_twice_for_each_report_loses_no_save() {
    let task = own_folder("", "0")
        .with("/command", json!({"exec": ["python3", "-c", SAVES_TWICE]}))
        .with("/restart/crashes", json!(1));
    assert_eq!(task.run(), 0);
    assert_eq!(
        task.stdout(1).lines().next(),
        Some("begins after 8,b told 8"),
        "{}",
        task.stderr(1)
    );
    let steps: Vec<u64> = task.metrics().iter().filter_map(|row| row.step).collect();
    assert_eq!(steps, (1..=10).collect::<Vec<u64>>(), "{}", task.stderr(1));
    let last = *task.committed().last().unwrap();
    let content = fs::read_to_string(task.dir().checkpoint(last).join("snapshot.pt")).unwrap();
    assert_eq!(content, "10,b", "{:?}", task.committed());
}
