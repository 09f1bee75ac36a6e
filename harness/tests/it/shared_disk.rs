//! A shared disk that hangs, fails, or loses an answer: no signal waits for it, and every promise holds afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nemo_core::environment;
use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, ExperimentDir};
use serde_json::json;

use crate::promises::{Left, hold};
use crate::scheduler::{RUNNING, put_into_job};
use crate::support::{SharedDisk, Task, wait_until};

/// Says on the local disk what came: `asked`, `term`.
const TELLS: &str = r#"
def tell(word): open(os.environ["LOCAL"] + "/" + word + "-" + os.environ["NEMO_ATTEMPT"], "w").close()
"#;

/// A task on a shared disk, and a folder that is not.
fn on_disk(program: &str) -> Option<(SharedDisk, Task, tempfile::TempDir)> {
    let disk = SharedDisk::mount()?;
    let local = tempfile::tempdir().unwrap();
    let mut task = disk.hold(Task::python(&format!("{TELLS}\n{program}")));
    task.env("LOCAL", local.path().to_str().unwrap());
    Some((disk, task, local))
}

/// How long something takes to come.
fn until(path: &Path) -> Duration {
    let began = Instant::now();
    wait_until(&path.display().to_string(), || path.exists());
    began.elapsed()
}

#[test]
fn while_the_disk_hangs_signals_reach_the_program_at_once() {
    let program = "
def stop():
    tell('asked')
    while not os.path.exists(os.environ['LOCAL'] + '/go'): time.sleep(0.01)
    save(step + 1); sys.exit(0)
on(signal.SIGUSR1, lambda: stop())
on(signal.SIGTERM, lambda: tell('term'))
tell('ready')
n = 0
while True:
    n += 1
    print('loss', n, flush=True)
    time.sleep(0.002)
";
    for signals in [&["USR1"][..], &["TERM"]] {
        let Some((disk, task, local)) = on_disk(program) else { return };
        // Lines of the output and metrics are written, folders are looked at, and leases.
        let task =
            task.with("/metrics", json!({"loss": r"loss (\d+)"})).with("/restart/hang", json!(4));
        let running = task.start();
        let is_told = |word: &str| local.path().join(format!("{word}-0"));
        until(&is_told("ready"));
        wait_until("metrics", || task.dir().metrics().exists());
        disk.fault("* * delay:9");
        std::thread::sleep(Duration::from_secs(6)); // a look for the lease, for signs of life, and full pipes
        let began = Instant::now();
        for signal in signals {
            running.signal(signal);
        }
        let took = until(&is_told("asked"));
        assert!(took < Duration::from_millis(500), "{signals:?} took {took:?}");
        println!("{signals:?}: {:?} after the signal", began.elapsed());
        disk.fault("");
        fs::write(local.path().join("go"), "").unwrap();
        let code = running.finish();
        assert_eq!(code, if signals == ["USR1"] { 75 } else { 143 }, "{}", task.stderr(0));
        assert_eq!(
            task.checkpoints(),
            ["step-1"],
            "what the disk held back is done once it answers"
        );
        let losses = task.metrics();
        assert!(losses.is_sorted_by(|a, b| a.values["loss"].as_f64() < b.values["loss"].as_f64()));
        hold("A: a shared disk that hangs", &task.dir(), Left::InOrder);
    }
}

#[test]
fn an_end_that_the_disk_does_not_take_is_written_once_it_answers() {
    let program =
        "on(signal.SIGUSR1, lambda: (tell('asked'), sys.exit(85)))\ntell('ready')\npause()";
    let Some((disk, task, local)) = on_disk(program) else { return };
    let task = task.with("/checkpoint/lead", json!(6));
    let mut running = task.start();
    until(&local.path().join("ready-0"));
    disk.fault("* * delay:9");
    running.signal("USR1");
    until(&local.path().join("asked-0"));
    std::thread::sleep(Duration::from_secs(7)); // the deadline is over
    assert!(!running.has_ended(), "what it has to say is not said");
    disk.fault("");
    assert_eq!(running.finish(), 75);
    task.check_ends("Preempted Requeue");
    hold("A: a shared disk that hangs", &task.dir(), Left::InOrder);
}

/// Every operation of a kind fails once, at any place of an attempt that saves; the next attempts go on as if nothing was.
#[test]
fn an_error_or_a_lost_answer_costs_no_checkpoint() {
    let program = "
for own in range(step + 1, step + 4): save(own); time.sleep(0.3)
sys.exit(75 if step < 6 else 0)";
    let faults = [
        "rename * lose:EIO 3",
        "rename * lose:ESTALE 3",
        "link * lose:EIO 1",
        "create * lose:EIO 2",
        "mkdir * lose:EIO 2",
        "lookup * ESTALE 1\ngetattr * ESTALE 1\nopen * ESTALE 2\nreaddir * ESTALE 2",
        "fsync * EIO 2\nfsyncdir * EIO 1\nwrite * EIO 1",
        "rename * delay:0.05\nlink * delay:0.05\nfsync * delay:0.05\nwrite * delay:0.05\ncreate * delay:0.05",
    ];
    for fault in faults {
        let Some((disk, task, _local)) = on_disk(program) else { return };
        task.write();
        disk.fault(fault);
        let mut codes = Vec::new();
        while codes.len() < 12 && codes.last() != Some(&0) {
            codes.push(task.run());
        }
        disk.fault("");
        assert_eq!(codes.last(), Some(&0), "{fault}: {codes:?}");
        let rows: Vec<AttemptRecord> = lines::read(&task.dir().attempts()).unwrap().rows;
        let steps: Vec<u64> = rows
            .iter()
            .filter_map(|row| match row {
                AttemptRecord::Checkpoint { step, .. } => Some(*step),
                _ => None,
            })
            .collect();
        assert!(steps.contains(&9), "{fault}: {steps:?}");
        hold("A: a shared disk with errors", &task.dir(), Left::InOrder);
    }
}

/// The node remembers that the lease was not there before it was made.
#[test]
fn a_lease_whose_answer_was_lost_is_seen_in_spite_of_the_cache() {
    let Some(disk) = SharedDisk::mount_with_cache(30) else { return };
    let task = disk.hold(Task::python("for own in range(1, 4): save(own); time.sleep(0.3)"));
    disk.fault("link lease lose:EIO 2");
    assert_eq!(task.run(), 0);
    assert_eq!(task.committed(), [1, 2, 3]);
    assert!(!task.stderr(0).contains("could not be committed"));
    hold("A: a shared disk with errors", &task.dir(), Left::InOrder);
}

#[test]
fn a_disk_that_fails_for_a_moment_costs_no_line_of_the_metrics() {
    let program = "
for n in range(100):
    print('loss', n, flush=True)
    time.sleep(0.01)";
    let faults = [
        "write metrics ESTALE 3",
        "write metrics lose:EIO 3",
        "write metrics EIO 1\nopen metrics ESTALE 1\nlookup metrics ESTALE 1",
        "write metrics ENOSPC 2",
    ];
    for fault in faults {
        let Some((disk, task, _local)) = on_disk(program) else { return };
        let task = task.with("/metrics", json!({"loss": r"loss (\d+)"}));
        disk.fault(fault);
        assert_eq!(task.run(), 0, "{fault}: {}", task.stderr(0));
        let found: Vec<f64> =
            task.metrics().iter().filter_map(|row| row.values["loss"].as_f64()).collect();
        assert_eq!(found, (0..100).map(f64::from).collect::<Vec<_>>(), "{fault}");
    }
}

#[test]
fn a_disk_that_is_full_for_a_moment_costs_no_attempt() {
    let Some((disk, task, local)) = on_disk(
        "
tell('ready')
while not os.path.exists(os.environ['LOCAL'] + '/go'): time.sleep(0.01)
",
    ) else {
        return;
    };
    // At the start: of the trial's folder, the lease, the record, the folders of the attempt.
    let full = |operations: &[&str], part: &str, errno: &str| {
        let rule = |operation: &&str| format!("{operation} {part} {errno}\n");
        operations.iter().map(rule).collect::<String>()
    };
    let places = [
        full(&["mkdir", "create", "write"], "trials", "ENOSPC"),
        full(&["create", "write"], "lease", "ENOSPC"),
        full(&["create", "write"], "attempts", "ENOSPC"),
        full(&["mkdir"], "staging", "ENOSPC"),
    ];
    for place in places {
        task.write();
        drop(fs::remove_dir_all(task.dir().path()));
        drop(fs::remove_file(local.path().join("ready-0")));
        drop(fs::remove_file(local.path().join("go")));
        disk.fault(&place);
        let mut running = task.start();
        std::thread::sleep(Duration::from_secs(3));
        assert!(!running.has_ended(), "{place}: it waits");
        disk.fault("");
        until(&local.path().join("ready-0"));
        // At the end.
        disk.fault(&full(&["create", "write"], "*", "EDQUOT"));
        fs::write(local.path().join("go"), "").unwrap();
        std::thread::sleep(Duration::from_secs(3));
        assert!(!running.has_ended(), "{place}: the end is to be written");
        disk.fault("");
        assert_eq!(running.finish(), 0, "{place}");
        task.check_ends("Completed Done");
        hold("A: a shared disk that is full for a moment", &task.dir(), Left::InOrder);
    }
}

#[test]
fn who_waits_for_a_full_disk_hears_that_it_shall_stop() {
    let Some((disk, task, _local)) = on_disk("tell('ready')") else { return };
    task.write();
    disk.fault("mkdir * ENOSPC\ncreate * ENOSPC\nwrite * ENOSPC");
    let running = task.start();
    std::thread::sleep(Duration::from_millis(500)); // it is in its first pauses
    let began = Instant::now();
    running.signal("TERM");
    assert_eq!(running.finish(), 74, "another node, or a later attempt, may find room");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_save_that_there_was_no_time_to_commit_is_committed_by_the_next_attempt() {
    let program = "
on(signal.SIGUSR1, lambda: (save(step + 1), sys.exit(85)))
tell('ready')
if step < 3: pause()
";
    let Some((disk, task, local)) = on_disk(program) else { return };
    let task = task.with("/checkpoint/lead", json!(8)).with("/restart/no_progress", json!(1));
    for attempt in 0..3 {
        let running = task.start();
        until(&local.path().join(format!("ready-{attempt}")));
        // The disk does not take it in time: a model that is too large for the grace.
        disk.fault("fsync .tmp-step EIO");
        running.signal("USR1");
        assert_eq!(running.finish(), 75, "it is progress: {}", task.stderr(attempt));
        let end = task.ends().pop().unwrap();
        let reason = end.reason.unwrap();
        assert!(reason.contains("the next attempt commits it"), "{reason}");
        disk.fault("");
    }
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, Some(1), Some(2), Some(3)]);
    assert_eq!(task.committed(), [1, 2, 3]);
    let names = task.checkpoints();
    assert!(names.iter().all(|name| name.starts_with("step-")), "{names:?}");
    hold("A: killed before a save was hashed", &task.dir(), Left::InOrder);
}

/// The variables of the submission and its secrets are in files that `task.json` names.
#[test]
fn a_task_that_can_not_be_read_for_a_moment_costs_no_variable() {
    let Some((disk, task, _local)) = on_disk("print(os.environ.get('KEPT'))") else { return };
    let task = task.with("/inherit", json!({"only": null, "secrets": []}));
    task.write();
    let path = std::env::var_os("PATH").unwrap();
    let mut kept = vec![("KEPT".into(), "yes".into()), ("PATH".into(), path)];
    kept.extend(task.env.iter().map(|(name, value)| (name.into(), value.into())));
    let file = ExperimentDir(task.root.path().to_owned()).environment();
    fs::write(file, environment::to_file(&kept)).unwrap();
    // It can be read later, by who needs the rest of it: the program does not run without its variables all the same.
    disk.fault("open task.json EIO 3");
    assert_eq!(task.run(), 75, "{}", task.stderr(0));
    task.check_ends("NodeFailure Requeue");
    disk.fault("open task.json ESTALE 1\nopen task.json EIO 1");
    assert_eq!(task.run(), 0, "{}", task.stderr(1));
    assert_eq!((task.stdout(0), task.stdout(1)), (String::new(), "yes\n".to_owned()));
}

#[test]
fn a_record_that_can_not_be_read_for_a_moment_is_not_empty() {
    let Some((disk, task, _local)) = on_disk("print('runs')") else { return };
    assert_eq!(task.run(), 0);
    disk.fault("open attempts EIO 1");
    assert_eq!(task.run(), 0);
    assert_eq!(task.ends().len(), 1, "the trial is done already");
}

/// It knows a running job, and ends it when it is requeued.
fn scontrol() -> String {
    format!("#!/bin/sh\n[ \"$1\" = requeue ] && kill -TERM $PPID\necho JobId=9 {RUNNING}\n")
}

/// Slurm starts a job again that was cancelled while its node was lost.
#[test]
fn a_request_that_can_not_be_read_for_a_moment_is_not_passed_over() {
    let Some((disk, mut task, local)) = on_disk("print('runs')") else { return };
    put_into_job(&mut task, ("7", "3"), &scontrol());
    let scancel = "#!/bin/sh\necho \"$*\" > \"$LOCAL/cancelled\"\nkill -TERM $PPID\n";
    fs::write(task.path("bin/scancel"), scancel).unwrap();
    fs::set_permissions(task.path("bin/scancel"), fs::Permissions::from_mode(0o755)).unwrap();
    task.write();
    let requests = ExperimentDir(task.root.path().to_owned()).requests();
    fs::create_dir(&requests).unwrap();
    let cancel = json!({"action": "cancel", "task": null, "trial": null, "time": 1});
    fs::write(requests.join("1.json"), cancel.to_string()).unwrap();
    disk.fault("open requests EIO 1");
    let code = task.run();
    assert_eq!(task.records(), [], "{}", task.stderr(0));
    assert_eq!(code, 143);
    assert_eq!(fs::read_to_string(local.path().join("cancelled")).unwrap(), "--quiet 7_3\n");
}

/// The harness takes a request while the disk is slow, and is told again meanwhile.
#[test]
fn a_preemption_that_the_disk_tells_late_is_not_lost_by_a_second_signal() {
    let program = "on(signal.SIGUSR1, lambda: tell('asked'))\ntell('ready')\npause()";
    let Some((disk, mut task, local)) = on_disk(program) else { return };
    put_into_job(&mut task, ("7", "3"), &scontrol());
    let task = task.with("/checkpoint/lead", json!(1));
    let mut running = task.start();
    until(&local.path().join("ready-0"));
    fs::write(task.dir().preempt(), "").unwrap();
    disk.fault("unlink preempt delay:3");
    running.signal("USR1");
    until(&local.path().join("asked-0")); // the loop does not wait for the disk
    running.signal("USR1");
    wait_until("the stop", || running.has_ended());
    assert_eq!(running.finish(), 0);
    task.check_ends("Preempted Requeue");
}
