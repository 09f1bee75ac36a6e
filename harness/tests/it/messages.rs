//! Programs that tell the harness where they are, and are told what to do.

use std::fs;

use nemo_core::rundir::{AttemptRecord, ExperimentDir, TaskDir, notes};
use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, wait_until};

/// A client in a few lines: what any language can do.
const CLIENT: &str = r#"
import socket, select
harness = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
harness.bind("")
harness.connect(os.environ["NEMO_SOCKET"])
assert os.environ["NEMO_SOCKET"] == os.environ["NOTIFY_SOCKET"]
def say(*lines): harness.send("\n".join(lines).encode())
def hear(seconds=10):
    assert select.select([harness], [], [], seconds)[0], "no answer"
    return dict(line.split("=", 1) for line in harness.recv(65536).decode().splitlines())
def hear_until(key, value):
    while True:
        state = hear()
        if state.get(key) == value: return state
"#;

fn client(text: &str) -> Task {
    Task::python(&format!("{CLIENT}\n{text}"))
}

fn count(task: &Task, is_meant: fn(&AttemptRecord) -> bool) -> usize {
    task.records().iter().filter(|record| is_meant(record)).count()
}

#[test]
fn reports_by_message_are_metrics() {
    let task = client(
        r#"
say("READY=1", "STATUS=warm", "TOTAL=3")
for step in range(1, 4):
    say("ID=a", "SEQ=%d" % step, "STEP=%d" % step, 'METRICS={"loss":%s}' % (1 / step))
    say("ID=a", "SEQ=%d" % step, "STEP=%d" % step, 'METRICS={"loss":%s}' % (1 / step))
say("STEP=2", "garbage", 'METRICS={"loss":')
say('VALIDATION={"acc":0.5,"bad":NaN}', "STEP=3")
harness.send(b"\xff\x00=")
"#,
    );
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
    let lines = task.metrics();
    let shown: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {} {:?}", line.step.unwrap(), line.validation, line.values))
        .collect();
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert!(shown[3].starts_with("3 true") && shown[3].contains("Null"), "{shown:#?}");
    assert_eq!(task.ends()[0].step, Some(3));
    assert_eq!(count(&task, |record| matches!(record, AttemptRecord::Ready { .. })), 1);
    let progress = fs::read_to_string(task.dir().progress()).unwrap();
    assert!(
        progress.contains(r#""step":3"#) && progress.contains(r#""status":"warm""#),
        "{progress}"
    );
}

#[test]
fn a_step_in_the_output_is_told_where_no_metric_comes_with_it() {
    let steps = "for step in 1 2 30; do echo step $step loss $step; done";
    let alone = Task::sh(steps).with("/metrics", json!({"step": r"step (\d+)"}));
    assert_eq!(alone.run(), 0);
    let progress = fs::read_to_string(alone.dir().progress()).unwrap();
    assert!(progress.contains(r#""step":30"#), "{progress}");
    assert_eq!((alone.metrics().len(), alone.ends()[0].step), (0, Some(30)));
    let with_metric =
        Task::sh(steps).with("/metrics", json!({"step": r"step (\d+)", "loss": r"loss (\d+)"}));
    assert_eq!(with_metric.run(), 0);
    assert!(!with_metric.dir().progress().exists(), "its rows tell the step");
}

#[test]
fn a_result_by_message_is_kept_over_attempts() {
    let task = client(
        r#"
if os.environ["NEMO_ATTEMPT"] == "0":
    say('RESULT={"lr":0.1,"name":"a","bad":NaN}', "STEP=1")
    save(1)
    sys.exit(85)
say('RESULT={"name":"b"}')
say('RESULT=["no", "table"]')
"#,
    );
    assert_eq!(task.run(), 0);
    let text = fs::read_to_string(task.dir().reported_result()).unwrap();
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result, json!({"lr": 0.1, "name": "b", "bad": null}));
}

/// Saves and ends when it is told to by message alone: it catches no signal.
const OBEYS: &str = r#"
say("ASK=1"); hear()
ready()
state = hear_until("STOP", "1")
assert state["SAVE"] != "0" and state["REASON"] == "preempted" and float(state["DEADLINE"]) > time.time(), state
say("SAVE=begin", f"STEP={step + 1}")
save(step + 1)
say("CKPT_DONE=step-%d" % (step + 1), f"STEP={step + 1}")
hear_until("COMMITTED", str(step + 1))
if step == 1: say("FINISHED=1")
"#;

#[test]
fn a_stop_is_told_by_message_and_a_finished_program_is_done() {
    let task = client(OBEYS);
    for (attempt, code) in [(0, 75), (1, 0)] {
        let mut running = task.start();
        running.wait_for(&format!("ready-{attempt}"));
        running.signal("USR1");
        assert_eq!(running.finish(), code);
    }
    task.check_ends("Preempted Requeue, Completed Done");
    assert_eq!(task.resume_steps(), [None, Some(1)]);
    let ends = task.ends();
    assert!(ends[0].stopped.is_some() && ends[0].saving.is_some(), "{ends:#?}");
    let saving = |record: &AttemptRecord| {
        matches!(record, AttemptRecord::Checkpoint { saving: Some(_), .. })
    };
    assert!(task.records().iter().any(saving));
}

#[test]
fn a_save_is_asked_for_at_its_interval() {
    let task = client(
        r#"
say("ASK=1", "STEP=1"); hear()
for number in (1, 2):
    say(f"STEP={number * 2}")
    state = hear_until("SAVE", str(number))
    assert (state["STOP"], state["REASON"]) == ("0", "interval"), state
    save(number * 2)
    hear_until("COMMITTED", str(number * 2))
"#,
    )
    .with("/checkpoint/every", json!({"steps": 2}));
    assert_eq!(task.run(), 0);
    assert_eq!(task.committed(), [2, 4]);
    let by_time = client(
        r#"
say("ASK=1", "READY=1"); hear()
hear_until("SAVE", "1"); save(7); hear_until("COMMITTED", "7")
"#,
    )
    .with("/checkpoint/every", json!({"seconds": 1}));
    assert_eq!(by_time.run(), 0);
}

#[test]
fn a_folder_that_is_said_to_be_complete_is_committed_where_it_lies() {
    let task = client(
        r#"
os.mkdir(os.path.join(out, "model")); open(os.path.join(out, "model", "state"), "w").write("12")
say("ASK=1"); hear()
say("CKPT_DONE=model", "STEP=12"); hear_until("COMMITTED", "12")
"#,
    );
    assert_eq!(task.run(), 0);
    assert_eq!(task.checkpoints(), ["step-12"]);
}

#[test]
fn workloads_follow_the_documented_order() {
    let task = client(
        r#"
say('WORKLOADS={"total":500,"unit":100,"validate_every":200,"checkpoint_every":400}')
done, step = [], 0
while True:
    say("NEXT=1"); work = hear()
    kind = work["WORKLOAD"]
    if kind == "stop": break
    if kind == "train": step += int(work["STEPS"]); say(f"DID=train:{work['STEPS']}", "STEP=%d" % step); done.append("T")
    if kind == "validate": say("DID=validate", "STEP=%d" % step); done.append("V(%d)" % step)
    if kind == "checkpoint": save(step); say("DID=checkpoint", "STEP=%d" % step); done.append("C(%d)" % step)
assert " ".join(done) == "T T V(200) T T V(400) C(400) T C(500) V(500)", done
"#,
    );
    assert_eq!(task.run(), 0);
    assert_eq!(task.committed(), [400, 500]);
}

#[test]
fn a_wish_to_be_requeued_comes_after_the_commit() {
    let task = client(
        r#"
on(signal.SIGUSR1, lambda: (save(5), say("REQUEUE=1")))
ready()
while True: time.sleep(1)
"#,
    );
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-5"]);
    let by_itself = client(r#"save(6); say("REQUEUE=1")"#);
    assert_eq!(by_itself.run(), 75);
    by_itself.check_ends("Restart Requeue");
    hold("D: the program requeues itself while the save runs", &task.dir(), Left::InOrder);
}

#[test]
fn another_user_can_not_speak_for_the_trial() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: sending as another user needs root");
        return;
    }
    let task = client(
        r#"
if os.fork() == 0:
    os.setgid(65534); os.setuid(65534)
    say("STEP=9", "FINISHED=1", 'METRICS={"loss":9}')
    os._exit(0)
os.wait()
say("STEP=1", 'METRICS={"loss":1}')
"#,
    );
    assert_eq!(task.run(), 0);
    assert_eq!(task.metrics().len(), 1);
    assert_eq!(task.ends()[0].step, Some(1));
}

#[test]
fn a_hang_is_found_kept_on_record_and_restarted_once() {
    let task = client("say('READY=1'); ready(); pause()").with("/restart/hang", json!(1));
    let code = task.run();
    assert_eq!(code, 1);
    task.check_ends("Hung Restart, Hung Failed");
    assert_eq!(count(&task, |record| matches!(record, AttemptRecord::Hang { .. })), 2);
    let evidence = fs::read_to_string(task.dir().evidence(0)).unwrap();
    assert!(evidence.contains("python3") && evidence.contains("  thread: "), "{evidence}");
    hold("E: a hang", &task.dir(), Left::InOrder);
}

#[test]
fn signs_of_life_keep_a_program() {
    let text = r#"
for n in range(8): say("WATCHDOG=1"); time.sleep(0.25)
say("EXTEND_TIMEOUT_USEC=3000000"); time.sleep(1.5)
for n in range(8): print("alive", flush=True); time.sleep(0.25)
os.mkdir(out + "/.tmp-1")
with open(out + "/.tmp-1/model", "wb") as file:
    for n in range(8): file.write(b"x"); file.flush(); time.sleep(0.25)
"#;
    let task = client(text).with("/restart/hang", json!(1));
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
}

#[test]
fn a_log_policy_acts() {
    let policy =
        |action: &str| json!([{"name": "ECC", "pattern": "uncorrectable ECC", "action": action}]);
    let crash = r#"print("an uncorrectable ECC error", flush=True); time.sleep(0.1); sys.exit(1)"#;
    let spec = |action| {
        let task = client(crash).with("/restart/crashes", json!(1));
        task.with("/log_policy", policy(action))
    };
    let never = spec("stop_restarting");
    assert_eq!(never.run(), 1);
    never.check_ends("Failed Failed");
    let elsewhere = spec("exclude_node");
    assert_eq!(elsewhere.run(), 75);
    elsewhere.check_ends("Failed Requeue");
    let excluded = |record: &AttemptRecord| matches!(record, AttemptRecord::ExcludeNode { .. });
    assert_eq!(count(&elsewhere, excluded), 1);
    let label = spec("label");
    assert_eq!(label.run(), 1);
    label.check_ends("Failed Restart, Failed Failed");
    assert_eq!(count(&label, |record| matches!(record, AttemptRecord::Label { .. })), 2);
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let missing = Task::python("import no_such_module").with("/restart/crashes", json!(5));
    assert_eq!(missing.run(), 1);
    missing.check_ends("Failed Failed");
    let usage = "import argparse; argparse.ArgumentParser().parse_args(['--lrr'])";
    let usage = Task::python(usage).with("/restart/crashes", json!(5));
    assert_eq!(usage.run(), 1);
    usage.check_ends("Failed Failed");
}

#[test]
fn the_socket_is_gone_with_its_attempt() {
    let task =
        client(r#"open(os.environ["TEST"] + "/socket", "w").write(os.environ["NEMO_SOCKET"])"#);
    assert_eq!(task.run(), 0);
    let path = fs::read_to_string(task.path("socket")).unwrap();
    wait_until("the socket is gone", || !std::path::Path::new(&path).parent().unwrap().exists());
}

#[test]
fn notes_metadata_and_artifacts_by_message_stay_with_the_experiment() {
    let task = client(
        r#"
open("plot.png", "w").write("first")
here = os.path.abspath("plot.png")
for _ in range(2): say("NOTE=looks odd\\nfrom step 3 on")
say('METADATA={"data.version":7,"bad":NaN}', "NOTE= ", "ARTIFACT=plot.png", "ARTIFACT=/no/such/file")
say("ARTIFACT=" + here)
time.sleep(0.5)
open("plot.png", "w").write("second, and longer")
say("ARTIFACT=" + here)
"#,
    );
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
    let experiment =
        ExperimentDir::of_task(&TaskDir(task.dir().path().join("../..").canonicalize().unwrap()))
            .unwrap();
    let notes = notes::read_all(&experiment).unwrap();
    assert!(notes.damaged.is_empty());
    let shown: Vec<String> = notes
        .whole
        .iter()
        .map(|(_, note)| {
            format!("{} {}{} {:?} {:?}", note.user, note.scope(), "", note.text, note.metadata)
        })
        .collect();
    assert_eq!(shown.len(), 2, "the same twice is one: {shown:#?}");
    assert!(shown[0].contains("looks odd\\nfrom step 3 on"), "{shown:#?}");
    assert!(shown[0].starts_with("program /train/0"), "{shown:#?}");
    assert!(shown[1].contains("data.version") && shown[1].contains("Null"), "{shown:#?}");
    let artifacts: Vec<_> =
        fs::read_dir(task.dir().artifacts()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(artifacts, ["plot.png"]);
    assert_eq!(
        fs::read_to_string(task.dir().artifacts().join("plot.png")).unwrap(),
        "second, and longer"
    );
}
