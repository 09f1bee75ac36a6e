//! Faults of a requeue that no real Slurm has on demand, by a `scontrol` that answers oddly.

use std::fs;

use nemo_core::checksum;

use crate::promises::{Left, hold};
use crate::scheduler::{SAVES, put_into_job};
use crate::support::{Task, wait_until};

/// A task `9_3` of the array 9 whose last task it is, so that its own id is the array's: what is requeued must be named
/// `9_3`, or every task of the array would be. `odd` is shell text that may end the script.
fn job(odd: &str) -> Task {
    let mut task = Task::python(SAVES);
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 20;
    let script = format!(
        r#"#!/bin/sh
{odd}
echo "$*" >> "$TEST/calls"
case $1 in
  requeue) touch "$TEST/requeued"; kill -TERM $PPID; exit 0 ;;
  update) exit 0 ;;
esac
if [ -e "$TEST/requeued" ]; then state="JobState=PENDING Restarts=1"; else state="JobState=RUNNING Restarts=0"; fi
echo "JobId=9 ArrayJobId=9 ArrayTaskId=3 JobName=a UserId=u(1) $state Reason=None StartTime=1000 EndTime={end} PreemptTime=2000"
"#
    );
    put_into_job(&mut task, ("9", "0"), &script);
    task
}

/// Preempts the trial, and answers with the requeues that were asked for.
#[track_caller]
fn preempted(fault: &str, odd: &str, code: i32) -> (Task, Vec<String>) {
    let task = job(odd);
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    if code == 93 {
        // Slurm requeues what it preempts by itself: the harness stays until it is ended.
        wait_until("the mark", || task.dir().requeue_wanted().exists());
        running.signal("TERM");
    }
    assert_eq!(running.finish(), code, "{}", task.stderr(0));
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    hold(fault, &task.dir(), Left::InOrder);
    let calls = fs::read_to_string(task.path("calls")).unwrap_or_default();
    let requeues = calls.lines().filter(|call| call.starts_with("requeue"));
    let requeues: Vec<String> = requeues.map(str::to_owned).collect();
    (task, requeues)
}

#[test]
fn the_array_task_whose_id_is_the_arrays() {
    let (_, requeues) = preempted("D: the array task whose id is the array's", "", 0);
    assert_eq!(requeues, ["requeue Incomplete 9_0"]);
}

#[test]
fn a_slow_answer() {
    let (_, requeues) = preempted("D: slow", "sleep 2", 0);
    assert_eq!(requeues, ["requeue Incomplete 9_0"]);
}

#[test]
fn a_lost_answer() {
    let lost = r#"
if [ "$1" = requeue ] && [ ! -e "$TEST/requeued" ]; then
    echo "$*" >> "$TEST/calls"; touch "$TEST/requeued"
    echo 'slurm_requeue error: Socket timed out on send/recv operation' >&2; exit 1
fi"#;
    let (_, requeues) = preempted("D: the answer lost", lost, 0);
    assert_eq!(requeues, ["requeue Incomplete 9_0"], "it is asked first, and found in the queue");
}

#[test]
fn already_pending() {
    let pending = r#"
if [ "$1" = requeue ]; then
    echo "$*" >> "$TEST/calls"; kill -TERM $PPID
    echo 'Job is pending execution for job 9_0' >&2; exit 1
fi"#;
    let (task, requeues) = preempted("D: already pending", pending, 0);
    assert_eq!(requeues.len(), 1);
    assert!(!task.dir().requeue_wanted().exists());
}

/// A requeue that Slurm refuses in these words.
fn refused(words: &str) -> String {
    format!(
        r#"
if [ "$1" = requeue ]; then
    echo "$*" >> "$TEST/calls"
    echo '{words}' >&2; exit 1
fi"#
    )
}

#[test]
fn disabled() {
    let disabled = refused("Requested operation is presently disabled for job 9_0");
    let (task, _) = preempted("D: disabled", &disabled, 93);
    assert!(task.dir().requeue_wanted().exists());
}

#[test]
fn a_job_that_slurm_was_told_not_to_requeue() {
    let odd = r#"
if [ "$1" = requeue ] && [ ! -e "$TEST/allowed" ]; then
    echo "$*" >> "$TEST/calls"
    echo 'Requested operation is presently disabled for job 9_0' >&2; exit 1
fi
case "$*" in *Requeue=1) touch "$TEST/allowed" ;; esac"#;
    let (task, requeues) = preempted("D: not to be requeued", odd, 0);
    assert_eq!(requeues.len(), 2, "{requeues:?}");
    assert!(!task.dir().requeue_wanted().exists());
}

#[test]
fn the_limit_reached() {
    let limit = refused("Job has reached its maximum number of requeues for job 9_0");
    let (task, requeues) = preempted("D: the limit reached", &limit, 93);
    assert!(requeues.len() > 1, "within its deadline it is tried again: {requeues:?}");
    let mark = fs::read_to_string(task.dir().requeue_wanted()).unwrap();
    assert!(mark.contains("maximum number of requeues"), "{mark}");
}

/// Slurm exits with 0 and does nothing, where the job had ended when the requeue came: in `state`.
fn ended_before(state: &str) -> String {
    r#"
case $1,$2 in
  requeue,Incomplete) echo "$*" >> "$TEST/calls"; touch "$TEST/ended"; kill -TERM $PPID; exit 0 ;;
  requeue,*) echo "$*" >> "$TEST/calls"; touch "$TEST/requeued"; exit 0 ;;
  update,*) [ -e "$TEST/requeued" ] || { echo 'Job has already finished for job 9_0' >&2; exit 1; } ;;
esac
if [ -e "$TEST/ended" ] && [ ! -e "$TEST/requeued" ]; then
    echo "$*" >> "$TEST/calls"
    echo "JobId=9 ArrayJobId=9 ArrayTaskId=0 JobName=a UserId=u(1) STATE Restarts=0 StartTime=1000 EndTime=2000 PreemptTime=None"
    exit 0
fi"#
    .replace("STATE", state)
}

#[test]
fn a_cancel_right_before_the_requeue_is_not_undone() {
    for state in ["JobState=COMPLETING Reason=None", "JobState=CANCELLED Reason=None"] {
        let (task, requeues) =
            preempted("C: scancel right before the requeue", &ended_before(state), 143);
        assert_eq!(requeues, ["requeue Incomplete 9_0"], "{state}");
        assert!(!task.dir().requeue_wanted().exists());
    }
}

#[test]
fn a_time_limit_right_before_the_requeue_keeps_no_job_from_the_queue() {
    let odd = ended_before("JobState=COMPLETING Reason=TimeLimit");
    let (task, requeues) = preempted("C: the time limit right before the requeue", &odd, 0);
    assert_eq!(requeues, ["requeue Incomplete 9_0", "requeue 9_0"]);
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(calls.ends_with("update JobId=9_0 StartTime=now+3\n"), "{calls}");
}

/// Two attempts that a node lost, as their record tells.
fn lost_twice(task: &Task, node: &str) {
    let start = |attempt: u32| {
        serde_json::json!({"event": "start", "attempt": attempt, "slurm_job": "9_0", "restarts": attempt,
            "node": node, "pid": 1, "boot_id": "another", "start_ticks": 1, "time": 1.0, "resume_step": null})
    };
    fs::create_dir_all(task.dir().path()).unwrap();
    let line = |attempt| [checksum::to_vec(&start(attempt)).unwrap(), b"\n".to_vec()].concat();
    fs::write(task.dir().attempts(), [line(0), line(1)].concat()).unwrap();
}

/// A partition of three nodes, and a job that is preempted no more than it was started.
const PARTITION: &str = r#"
if [ "$3" = partition ]; then echo "PartitionName=main TotalNodes=NODES"; exit 0; fi
echo "$*" >> "$TEST/calls"
case $1 in
  requeue) kill -TERM $PPID; exit 0 ;;
  update) exit 0 ;;
esac
echo "JobId=9 ArrayJobId=9 ArrayTaskId=0 JobName=a UserId=u(1) JobState=RUNNING Restarts=2 Reason=None StartTime=1000 EndTime=9999999999 PreemptTime=None Partition=main ReqNodeList=(null) ExcNodeList=(null)"
exit 0"#;

fn after_two_failures(nodes: &str) -> Task {
    let mut task = job(&PARTITION.replace("NODES", nodes));
    task.spec["command"] = serde_json::json!({"shell": "touch $TEST/ran"});
    task.env("SLURM_RESTART_COUNT", "2");
    lost_twice(&task, "n1");
    task
}

#[test]
fn a_node_that_failed_the_trial_twice_is_left() {
    let task = after_two_failures("3");
    assert_eq!(task.run(), 0);
    task.check_ends("NodeFailure Requeue, NodeFailure Requeue, Restart Requeue");
    assert!(!task.path("ran").exists(), "nothing was started here");
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(calls.contains("update JobId=9_0 ExcNodeList=n1\n"), "{calls}");
    hold("E: a node that fails the same trial twice", &task.dir(), Left::InOrder);
    // Slurm chose it again all the same: it is left once only.
    assert_eq!(task.run(), 0);
    assert!(task.path("ran").exists());
    hold("E: a node that fails the same trial twice", &task.dir(), Left::InOrder);
}

#[test]
fn where_no_other_node_is_left_the_trial_runs() {
    let task = after_two_failures("1");
    assert_eq!(task.run(), 0);
    assert!(task.path("ran").exists());
    task.check_ends("NodeFailure Requeue, NodeFailure Requeue, Completed Done");
    hold("E: a node that fails the same trial twice", &task.dir(), Left::InOrder);
}
