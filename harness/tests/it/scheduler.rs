//! In a Slurm job, with a `scontrol` of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::Task;

/// A job `7_3` whose `scontrol` answers with `state` and notes each call.
pub(crate) fn job(program: &str, state: &str) -> Task {
    let mut task = Task::python(program);
    let script = r#"#!/bin/sh
echo "$*" >> "$TEST/calls"
if [ "$1" = requeue ] || [ "$1" = requeuehold ]; then
    [ -e "$TEST/refuse" ] && { cat "$TEST/refuse"; exit 1; }
    kill -TERM $PPID
    exit 0
fi
[ -e "$TEST/away" ] && { echo 'Unable to contact slurm controller' >&2; exit 1; }
echo "JobId=9 ArrayJobId=7 ArrayTaskId=3 JobName=a UserId=u(1) $(cat "$TEST/state")"
"#;
    fs::write(task.path("state"), state).unwrap();
    put_into_job(&mut task, ("7", "3"), script);
    task
}

/// Has a trial run in job 9, which is this task of this array, with a `scontrol` that is this script. Its `squeue` knows of
/// no job: this machine's own one must not be asked.
pub(crate) fn put_into_job(task: &mut Task, (array, index): (&str, &str), scontrol: &str) {
    task.local = false;
    let bin = task.path("bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in [("scontrol", scontrol), ("squeue", "#!/bin/sh\n")] {
        let path = bin.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for (name, value) in [
        ("PATH", &*path),
        ("SLURM_JOB_ID", "9"),
        ("SLURM_ARRAY_JOB_ID", array),
        ("SLURM_ARRAY_TASK_ID", index),
        ("SLURM_JOB_END_TIME", "9999999999"),
        ("SLURMD_NODENAME", "n1"),
    ] {
        task.env(name, value);
    }
}

/// Nothing can be written where the trial's folder should be: the job says so by its exit code, and asks for its requeue.
#[test]
fn a_trial_that_could_not_begin_may_begin_elsewhere() {
    let mut task = Task::sh("true");
    let poll = task.path("poll");
    fs::write(&poll, "#!/bin/sh\necho \"$*\" >>\"$(dirname \"$0\")/polls\"\n").unwrap();
    fs::set_permissions(&poll, fs::Permissions::from_mode(0o755)).unwrap();
    let named = json!({"program": poll, "harness": poll, "at_ends": "never"});
    task = task.with("/poll", named);
    put_into_job(&mut task, ("9", "0"), "#!/bin/sh\nexit 1\n");
    task.write();
    fs::write(task.path("tasks/train/trials"), "no folder").unwrap();
    let (code, log) = task.start().finish_with_log();
    assert_eq!(code, 74, "{log}");
    assert!(log.contains("can't begin here now") && log.contains("trials/0"), "{log}");
    let polls = fs::read_to_string(task.path("polls")).unwrap();
    assert!(polls.contains("--ended-run=9_0:0"), "{polls}");
    // What no node can read is no reason to try again.
    fs::write(task.path("tasks/train/trials.jsonl"), "").unwrap();
    assert_eq!(task.start().finish(), 1);
    assert_eq!(fs::read_to_string(task.path("polls")).unwrap(), polls);
}

/// A program that saves when it is asked to.
pub(crate) const SAVES: &str = r"
def stop():
    save(step + 1)
    sys.exit(75)
on(signal.SIGUSR1, stop)
ready()
pause()
";
pub(crate) const RUNNING: &str =
    "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime=9999999999 PreemptTime=None";

fn run(task: &Task, signal: &str) -> (i32, String) {
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal(signal);
    let code = running.finish();
    (code, fs::read_to_string(task.path("calls")).unwrap_or_default())
}

#[test]
fn preempted_saves_and_is_requeued_by_the_arrays_form() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 30;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=2000"
    );
    let task = job(SAVES, &state);
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    assert!(calls.starts_with("-o show job 7_3\n"), "{calls}");
    let last: Vec<&str> = calls.lines().rev().take(3).collect();
    // Asked once more while it was saved: it could have been cancelled. Then at once into the queue, and not to wait there.
    let expected =
        ["update JobId=7_3 StartTime=now+3", "requeue Incomplete 7_3", "-o show job 7_3"];
    assert_eq!(last, expected, "{calls}");
    assert_eq!(calls.matches("requeue").count(), 1);
}

#[test]
fn a_script_may_have_another_signal_for_the_preemption() {
    for signal in ["USR2", "HUP"] {
        let task = job(SAVES, &RUNNING.replace("PreemptTime=None", "PreemptTime=2000"));
        let (code, calls) = run(&task, signal);
        assert_eq!(code, 0);
        task.check_ends("Preempted Requeue");
        assert!(calls.contains("requeue Incomplete 7_3\n"), "{calls}");
    }
}

#[test]
fn cancelled_is_not_requeued() {
    let task = job(
        SAVES,
        "JobState=CANCELLED Reason=None Restarts=0 StartTime=1000 EndTime=2000 PreemptTime=None",
    );
    let (code, calls) = run(&task, "TERM");
    assert_eq!(code, 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-1"]);
    assert!(!calls.contains("requeue"), "{calls}");
}

#[test]
fn a_term_that_slurm_knows_nothing_of_is_no_cancel() {
    // A node that is back from a failure may kill the new run for the old one.
    let task = job(SAVES, RUNNING);
    let (code, calls) = run(&task, "TERM");
    assert_eq!(code, 0);
    task.check_ends("Preempted Requeue");
    assert!(calls.contains("requeue Incomplete 7_3\n"), "{calls}");
}

#[test]
fn already_requeued_leaves_and_keeps_its_checkpoint() {
    let state = "JobState=RUNNING Reason=None Restarts=1 StartTime=1000 EndTime=9999999999 PreemptTime=None";
    let task = job(
        &SAVES.replace("sys.exit(75)", "os.kill(os.getppid(), signal.SIGTERM); sys.exit(75)"),
        state,
    );
    let (code, calls) = run(&task, "TERM");
    assert_eq!(code, 0);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    assert!(!calls.contains("requeue"), "{calls}");
    assert!(calls.ends_with("update JobId=7_3 StartTime=now+3\n"), "{calls}");
}

#[test]
fn an_old_run_that_slurm_takes_for_the_new_one_is_requeued() {
    // Its node was given up and came back: with exit code 0 the job would be over.
    let state = "JobState=RUNNING Reason=None Restarts=1 StartTime=1000 EndTime=9999999999 PreemptTime=2000 BatchHost=n1";
    let task = job(SAVES, state);
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    task.check_ends("Preempted Requeue");
    assert!(calls.contains("requeue Incomplete 7_3\n"), "{calls}");
}

#[test]
fn a_request_to_save_is_only_that() {
    let program =
        "on(signal.SIGUSR1, lambda: (save(5), sys.exit(0)))\nready()\nif step == 0: pause()";
    let task = job(program, RUNNING);
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    // It ended as it was asked to: that says nothing of success, so it goes on where it was.
    task.check_ends("Restart Restart, Completed Done");
    assert!(!calls.contains("requeue"), "{calls}");
}

#[test]
fn a_crash_is_93() {
    let task = job("sys.exit(2)", RUNNING);
    assert_eq!(task.run(), 93);
    task.check_ends("Failed Failed");
}

#[test]
fn a_requeue_that_is_refused_leaves_a_mark() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=None"
    );
    let task = job(SAVES, &state);
    fs::write(task.path("refuse"), "Requested operation is presently disabled for job 7\n")
        .unwrap();
    let (code, _) = run(&task, "USR1");
    assert_eq!(code, 93);
    task.check_ends("TimeLimit Requeue");
    let mark = fs::read_to_string(task.dir().path().join("requeue-wanted")).unwrap();
    assert!(mark.contains("presently disabled") && mark.contains("7_3"), "{mark}");
}

#[test]
fn slurm_that_comes_back_is_asked_again_at_the_end() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=2000"
    );
    let program = r"
def stop():
    while not os.path.exists(os.environ['TEST'] + '/calls'): time.sleep(0.01)
    time.sleep(0.3)
    os.remove(os.environ['TEST'] + '/away')
    save(1); sys.exit(75)
on(signal.SIGUSR1, stop)
ready()
pause()";
    let task = job(program, &state);
    fs::write(task.path("away"), "").unwrap();
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    task.check_ends("Preempted Requeue");
    assert!(calls.contains("requeue Incomplete 7_3\n"), "{calls}");
}

#[test]
fn the_program_requeues_itself_while_the_save_runs() {
    let program = r#"
ready()
path = os.path.join(out, "step-%d" % (step + 1))
os.mkdir(path + ".tmp")
import subprocess
assert subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], capture_output=True).stdout == b""
assert subprocess.check_output(["scontrol", "show", "job", "9"]).startswith(b"JobId=9 ")
open(os.path.join(path + ".tmp", "state"), "w").write(str(step + 1))
os.rename(path + ".tmp", path)
pause()"#;
    let task = job(program, RUNNING);
    assert_eq!(task.run(), 0);
    task.check_ends("Restart Requeue");
    assert_eq!(task.checkpoints(), ["step-1"], "it is saved before the requeue");
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert_eq!(calls.matches("requeue").count(), 1, "{calls}");
    assert!(calls.contains("requeue Incomplete 7_3\n"), "{calls}");
}

#[test]
fn a_paused_trial_is_requeued_into_the_hold() {
    let task = job(SAVES, RUNNING);
    let mut running = task.start();
    running.wait_for("ready-0");
    fs::write(task.dir().pause(), "{}").unwrap();
    running.signal("USR1");
    assert_eq!(running.finish(), 0);
    task.check_ends("Paused Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(
        calls.ends_with("-o show job 7_3\nrequeuehold Incomplete 7_3\n-o show job 7_3\n"),
        "{calls}"
    );
}

#[test]
fn a_pause_holds_a_job_that_was_requeued_by_others() {
    let state = "JobState=PENDING Reason=None Restarts=1 StartTime=1000 EndTime=9999999999 PreemptTime=None";
    let task = job(SAVES, state);
    let mut running = task.start();
    running.wait_for("ready-0");
    fs::write(task.dir().pause(), "{}").unwrap();
    running.signal("TERM");
    assert_eq!(running.finish(), 0);
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(calls.ends_with("hold 7_3\n"), "{calls}");
}

#[test]
fn slurmctld_is_away_at_the_requeue() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 12;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=None"
    );
    let task = job(SAVES, &state).with("/requeue_exit", json!(77));
    fs::write(task.path("refuse"), "Unable to contact slurm controller (connect failure)\n")
        .unwrap();
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 77, "Slurm requeues by that code, once it hears of it");
    assert!(
        calls.matches("requeue Incomplete 7_3").count() > 1,
        "it is tried until the deadline: {calls}"
    );
    task.check_ends("TimeLimit Requeue");
    assert!(task.dir().requeue_wanted().exists(), "and `poll` looks after it");
    // Refused is refused: the code would change nothing.
    let task = job(SAVES, &state).with("/requeue_exit", json!(77));
    fs::write(task.path("refuse"), "Requested operation is presently disabled for job 7\n")
        .unwrap();
    assert_eq!(run(&task, "USR1").0, 93);
}

/// A person's request has no deadline of Slurm's: what is left of the lead does not bound how long the requeue is tried.
#[test]
fn slurmctld_is_away_for_longer_than_the_lead_of_a_preemption_by_hand() {
    let state = "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime=9999999999 PreemptTime=None";
    let task = job(SAVES, state).with("/checkpoint/lead", json!(3));
    fs::write(task.path("refuse"), "Unexpected message received for job 7_3\n").unwrap();
    let mut running = task.start();
    running.wait_for("ready-0");
    fs::write(task.dir().preempt(), "").unwrap();
    running.signal("USR1");
    // The mark is there once the lead is over: a harness that is killed from then on is brought back by `poll`.
    let began = std::time::Instant::now();
    while !task.dir().requeue_wanted().exists() {
        assert!(began.elapsed().as_secs() < 60, "no mark was left");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    fs::remove_file(task.path("refuse")).unwrap();
    assert_eq!(running.finish(), 0);
    task.check_ends("Preempted Requeue");
    assert!(!task.dir().requeue_wanted().exists(), "it is requeued");
}

/// The first requeue works, but its answer is lost.
#[test]
fn the_answer_is_lost() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=None"
    );
    let task = job(SAVES, &state);
    let program = r#"#!/bin/sh
echo "$*" >> "$TEST/calls"
case "$1" in
requeue) echo 'JobState=PENDING Reason=BeginTime Restarts=1' > "$TEST/state"; kill -9 $$ ;;
update) exit 0 ;;
esac
echo "JobId=9 ArrayJobId=7 ArrayTaskId=3 JobName=a UserId=u(1) $(cat "$TEST/state")"
"#;
    fs::write(task.path("bin/scontrol"), program).unwrap();
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    assert_eq!(calls.matches("requeue Incomplete 7_3").count(), 1, "{calls}");
    assert!(calls.ends_with("update JobId=7_3 StartTime=now+3\n"), "{calls}");
    assert!(!task.dir().requeue_wanted().exists());
}

/// A job that ended meanwhile is neither delayed nor started once more, and it is not said that it may be.
#[test]
fn that_the_job_has_ended_is_no_trouble() {
    for (refusal, is_told) in [
        ("7_3: Job has already finished", false),
        ("Invalid job id specified for job 7_3", false),
        ("Access/permission denied for job 7_3", true),
    ] {
        let cancelled = RUNNING.replace("RUNNING", "CANCELLED").replace("Restarts=0", "Restarts=1");
        let mut task = job(SAVES, &cancelled);
        task.env("SLURM_RESTART_COUNT", "1");
        let path = task.path("bin/scontrol");
        let refuses =
            format!("#!/bin/sh\n[ \"$1\" = update ] && {{ echo '{refusal}' >&2; exit 1; }}\n");
        let script = fs::read_to_string(&path).unwrap();
        fs::write(&path, script.replace("#!/bin/sh\n", &refuses)).unwrap();
        let mut running = task.start();
        running.wait_for("ready-0");
        running.signal("TERM");
        let (_, log) = running.finish_with_log();
        task.check_ends("Cancelled Cancelled");
        let warns = "Slurm may start this job once more";
        assert_eq!(log.contains(warns), is_told, "{refusal}: {log}");
    }
}

#[test]
fn slurm_is_slow() {
    let task = job(SAVES, RUNNING);
    let path = task.path("bin/scontrol");
    let script = fs::read_to_string(&path).unwrap();
    fs::write(&path, script.replace("#!/bin/sh", "#!/bin/sh\nsleep 1")).unwrap();
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 0);
    task.check_ends("Restart Requeue");
    assert_eq!(calls.matches("requeue Incomplete 7_3").count(), 1, "{calls}");
}

#[test]
fn a_cancel_while_it_saves_is_not_undone() {
    let program = r#"
def stop():
    open(os.environ["TEST"] + "/state", "w").write("JobState=CANCELLED Reason=None Restarts=0 StartTime=1000 EndTime=2000 PreemptTime=None")
    os.kill(os.getppid(), signal.SIGTERM)
    os.kill(os.getppid(), signal.SIGTERM)
    save(1); sys.exit(75)
on(signal.SIGUSR1, stop)
ready()
pause()"#;
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=2000"
    );
    let task = job(program, &state);
    let (code, calls) = run(&task, "USR1");
    assert_eq!(code, 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-1"]);
    assert!(!calls.contains("requeue"), "{calls}");
}

/// `nemo-slurm cancel` leaves its word, and then Slurm's TERM comes. A job that is being preempted shows no sign of it.
fn cancelled_by_word(state: &str) {
    let program = "def stop():\n    ready('asked')\n    while not os.path.exists(os.environ['TEST'] + '/go'): time.sleep(0.01)\n    \
                   save(1)\n    sys.exit(75)\non(signal.SIGUSR1, stop)\non(signal.SIGTERM, lambda: None)\nready()\npause()";
    let task = job(program, state);
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    running.wait_for("asked-0");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    fs::create_dir_all(task.path("requests")).unwrap();
    let wish = |task: &str| json!({"action": "cancel", "task": task, "trial": null, "time": now});
    fs::write(task.path("requests/1.json"), wish("train").to_string()).unwrap();
    running.signal("TERM");
    fs::write(task.path("go"), "").unwrap();
    assert_eq!(running.finish(), 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-1"], "it was saved all the same");
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(!calls.contains("requeue"), "{calls}");
}

/// `nemo-slurm cancel` was typed while Slurm was away: nobody signals, and the harness reads of it by itself.
#[test]
fn a_cancel_that_slurm_does_not_deliver_is_read() {
    let task = job(SAVES, RUNNING);
    fs::create_dir_all(task.path("requests")).unwrap();
    let mut running = task.start();
    running.wait_for("ready-0");
    fs::write(task.path("away"), "").unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let wish = |trial: serde_json::Value| json!({"action": "cancel", "task": "train", "trial": trial, "time": now});
    for (name, trial) in [("1", json!(5)), ("2", json!(null))] {
        let path = task.path(&format!("requests/{name}"));
        fs::write(&path, wish(trial).to_string()).unwrap();
        fs::rename(&path, path.with_extension("json")).unwrap();
    }
    assert_eq!(running.finish(), 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-1"]);
}

/// It was put back into the queue a moment after: nothing of it ever ran, so that no record tells of the cancel.
#[test]
fn cancelled_before_it_ever_ran_it_does_not_run() {
    let mut task = job(SAVES, RUNNING);
    task.spec["command"] = json!({"shell": "touch $TEST/ran"});
    let scancel = task.path("bin/scancel");
    fs::write(&scancel, "#!/bin/sh\necho \"scancel $*\" >> \"$TEST/calls\"\nkill -TERM $PPID\n")
        .unwrap();
    fs::set_permissions(&scancel, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(task.path("requests")).unwrap();
    let wish = json!({"action": "cancel", "task": "train", "trial": null, "time": 1});
    fs::write(task.path("requests/1.json"), wish.to_string()).unwrap();
    assert_eq!(task.run(), 143);
    assert!(!task.path("ran").exists());
    let calls = fs::read_to_string(task.path("calls")).unwrap();
    assert!(calls.contains("scancel --quiet 7_3\n"), "{calls}");
}

#[test]
fn cancelled_in_the_grace_of_a_preemption_stays_cancelled() {
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 30;
    for state in ["RUNNING", "COMPLETING"] {
        cancelled_by_word(&format!(
            "JobState={state} Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=2000"
        ));
    }
}
