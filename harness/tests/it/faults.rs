//! Signals at awkward moments, and programs that make it hard: each fault by its name.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::promises::{Left, hold};
use crate::support::{Task, is_alive, signal, wait_until};

#[test]
fn term_before_usr1() {
    let task = Task::python("on(signal.SIGTERM, lambda: (save(3), sys.exit(0)))\nready()\npause()");
    assert_eq!(task.signalled(&["TERM", "USR1"]), 143);
    task.check_ends("Cancelled Cancelled");
    assert_eq!(task.checkpoints(), ["step-3"]);
    hold("C: TERM before USR1", &task.dir(), Left::InOrder);
}

#[test]
fn usr1_during_a_periodic_save() {
    let task = Task::python(
        r#"
asked = []
on(signal.SIGUSR1, lambda: asked.append(1))
os.mkdir(out + "/step-1.tmp")
ready()
while not asked: time.sleep(0.01)
open(out + "/step-1.tmp/state", "w").write("1")
os.rename(out + "/step-1.tmp", out + "/step-1")
save(2)
sys.exit(75)
"#,
    );
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1", "step-2"]);
    hold("C: during a periodic save", &task.dir(), Left::InOrder);
}

#[test]
fn usr1_after_the_training_ended_in_the_last_commit() {
    let task = Task::python(
        r#"
os.mkdir(out + "/step-9.tmp")
with open(out + "/step-9.tmp/state", "wb") as file:
    for part in range(64): file.write(bytes(1 << 20))
os.rename(out + "/step-9.tmp", out + "/step-9")
ready()
"#,
    );
    let mut running = task.start();
    running.wait_for("ready-0");
    for _ in 0..200 {
        running.try_signal("USR1");
    }
    // A signal that came while the program still ran says that it was about to be stopped; its exit code 0 counts,
    // since it never heard of it.
    assert_eq!(running.finish(), 0);
    task.check_ends("Completed Done");
    assert_eq!(task.checkpoints(), ["step-9"]);
    hold("C: after the training ended, in the last commit", &task.dir(), Left::InOrder);
}

#[test]
fn usr1_while_validating() {
    let task = Task::python(
        r"
asked = []
on(signal.SIGUSR1, lambda: asked.append(1))
ready()
while not asked: time.sleep(0.01)
time.sleep(2)  # the rest of the validation
save(4)
sys.exit(85)
",
    );
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-4"]);
    hold("C: while validating", &task.dir(), Left::InOrder);
}

#[test]
fn a_thousand_zombies() {
    let task = Task::python(
        r"
for n in range(500):
    if os.fork() == 0: os._exit(0)       # a zombie of the program's own
for n in range(500):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)   # an orphan, which becomes the harness's
        os._exit(0)
on(signal.SIGUSR1, lambda: (save(1), sys.exit(0)))
ready()
pause()
",
    );
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    hold("C: 1,000 zombies", &task.dir(), Left::InOrder);
}

#[test]
fn stopped_and_continued() {
    let task = Task::python(
        r#"
on(signal.SIGUSR1, lambda: (save(6), sys.exit(0)))
open(os.environ["TEST"] + "/pid", "w").write(str(os.getpid()))
ready()
pause()
"#,
    )
    .with("/restart/hang", json!(60));
    let mut running = task.start();
    running.wait_for("ready-0");
    let pid: u32 = running.wait_for("pid").parse().unwrap();
    signal(pid, "STOP");
    running.signal("STOP");
    running.signal("CONT");
    running.signal("USR1");
    signal(pid, "CONT");
    assert_eq!(running.finish(), 75);
    assert_eq!(task.checkpoints(), ["step-6"]);
    hold("C: SIGSTOP and SIGCONT", &task.dir(), Left::InOrder);
}

#[test]
fn a_stopped_program_is_ended_too() {
    let task = Task::python(
        "on(signal.SIGUSR1, lambda: save(6))\nopen(os.environ['TEST'] + '/pid', 'w').write(str(os.getpid()))\nready()\npause()",
    )
    .with("/checkpoint/lead", json!(4));
    let mut running = task.start();
    running.wait_for("ready-0");
    let pid: u32 = running.wait_for("pid").parse().unwrap();
    signal(pid, "STOP");
    running.signal("USR1");
    assert_eq!(running.finish(), 75);
    task.check_ends("Preempted Requeue");
    hold("C: SIGSTOP and SIGCONT", &task.dir(), Left::InOrder);
}

#[test]
fn a_reused_pid() {
    let task = Task::python("on(signal.SIGUSR1, lambda: (save(1), sys.exit(0)))\nready()\npause()");
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("KILL");
    running.finish();
    // The dead harness's number now belongs to somebody else.
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let lease = task.dir().path().join("lease.0.json");
    let mut holder: serde_json::Value = serde_json::from_slice(&fs::read(&lease).unwrap()).unwrap();
    holder["pid"] = json!(stranger.id());
    fs::write(&lease, holder.to_string()).unwrap();
    let mut next = task.start();
    next.wait_for("ready-1");
    next.signal("USR1");
    assert_eq!(next.finish(), 75);
    assert!(is_alive(&stranger.id().to_string()), "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    hold("C: a reused pid", &task.dir(), Left::InOrder);
}

#[test]
fn the_same_trial_started_twice() {
    let task =
        Task::python("on(signal.SIGUSR1, lambda: (save(step + 1), sys.exit(0)))\nready()\npause()");
    let mut first = task.start();
    first.wait_for("ready-0");
    let mut second = task.start();
    second.wait_for("ready-1");
    wait_until("the first one leaves", || first.has_ended());
    second.signal("USR1");
    assert_eq!(second.finish(), 75);
    hold("E: the same trial started twice", &task.dir(), Left::InOrder);
}

#[test]
fn a_crash_loop() {
    let task = Task::sh("exit 3")
        .with("/restart/crashes", json!(100))
        .with("/restart/no_progress", json!(3));
    assert_eq!(task.run(), 1);
    task.check_ends("Failed Restart, Failed Restart, Failed Failed");
    hold("E: a crash loop", &task.dir(), Left::InOrder);
}

#[test]
fn a_deadline_that_is_shorter_than_a_save() {
    let task = Task::python(
        r#"
def stop():
    os.mkdir(out + "/step-2.tmp")
    time.sleep(60)
    os.rename(out + "/step-2.tmp", out + "/step-2")
on(signal.SIGUSR1, stop)
save(1)
ready()
pause()
"#,
    )
    .with("/checkpoint/lead", json!(3));
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-1"]);
    hold("E: a deadline shorter than a save", &task.dir(), Left::InOrder);
}

#[test]
fn a_missing_module_or_a_bad_interpreter() {
    let missing = Task::python("import no_such_module").with("/restart/crashes", json!(9));
    assert_eq!(missing.run(), 1);
    missing.check_ends("Failed Failed");
    hold("E: a missing module or a bad interpreter", &missing.dir(), Left::InOrder);
    let interpreter = Task::new(&json!({"exec": ["./bad.sh"]})).with("/restart/crashes", json!(9));
    let script = interpreter.path("bad.sh");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&script, executable).unwrap();
    assert_eq!(interpreter.run(), 1);
    interpreter.check_ends("Failed Failed");
    hold("E: a missing module or a bad interpreter", &interpreter.dir(), Left::InOrder);
}

/// A control group with a limit of memory, removed at the end.
struct Group(std::path::PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("nemo-harness-test-{}", std::process::id());
        let (folder, limit) =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
                .into_iter()
                .find(|(folder, _)| std::path::Path::new(folder).join("cgroup.procs").exists())?;
        let folder = std::path::Path::new(folder).join(name);
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn out_of_memory() {
    let Some(group) = Group::new(64 << 20) else {
        eprintln!(
            "NOT TESTED: an out-of-memory kill needs root and a writable memory control group"
        );
        return;
    };
    let mut task = Task::python("save(1)\nready()\ntime.sleep(0.5)\nx = bytearray(256 << 20)")
        .with("/restart/crashes", json!(100));
    let enter = format!("echo $$ >'{}/cgroup.procs' && exec \"$@\"", group.0.display());
    task.through = ["sh", "-c", &enter, "enter"].map(str::to_owned).to_vec();
    assert_eq!(task.run(), 1);
    // The first came further than those before; the second did not.
    task.check_ends("OutOfMemory Restart, OutOfMemory Failed");
    hold("E: out of memory", &task.dir(), Left::InOrder);
}

#[test]
fn a_stale_lease() {
    let mut task = Task::python("ready()\nsave(step + 1)\nsys.exit(75 if step == 0 else 0)");
    assert_eq!(task.run(), 75);
    task.local = false;
    task.env("SLURM_JOB_ID", "9");
    task.env("SLURM_JOB_END_TIME", "9999999999");
    let holder = |restarts: u32| {
        json!({"slurm_job": "9", "restarts": restarts, "node": "n7", "boot_id": "another",
               "pid": 1, "start_ticks": 1, "nonce": "n"})
        .to_string()
    };
    // A later run of this job holds the trial: this one is a remnant, and touches nothing.
    fs::write(task.dir().path().join("lease.1.json"), holder(5)).unwrap();
    assert_eq!(task.run(), 94);
    assert_eq!(task.ends().len(), 1);
    hold("E: a stale lease", &task.dir(), Left::InOrder);
    // An earlier run of it, on a node that nobody hears of, is overtaken.
    fs::remove_file(task.dir().path().join("lease.1.json")).unwrap();
    fs::write(task.dir().path().join("lease.1.json"), holder(0)).unwrap();
    task.env("SLURM_RESTART_COUNT", "1");
    assert_eq!(task.run(), 0);
    assert_eq!(task.resume_steps(), [None, None, Some(1)], "the one before is on record too");
    hold("E: a stale lease", &task.dir(), Left::InOrder);
}
