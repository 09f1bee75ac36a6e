//! At the limit of processes: nothing panics, waits for ever or fails for good.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::Task;

/// A user without other processes: the limit counts all that a user has, and does not hold for root.
fn limited(task: &mut Task, user: u32, limit: u32, before: &str) {
    let root = task.root.path().to_owned();
    task.through = [
        "setpriv",
        &format!("--reuid={user}"),
        "--clear-groups",
        "sh",
        "-c",
        &format!("{before}\nprlimit --nproc={limit} --pid $$; exec \"$@\""),
        "sh",
    ]
    .map(str::to_owned)
    .into();
    task.env("TMPDIR", root.to_str().unwrap());
    for folder in [root.clone(), root.join("tasks"), root.join("tasks/train")] {
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(user), None).unwrap();
    }
}

/// Whether this can be tried here. Who is not root has other processes, which count too.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can give a test a user of its own");
    }
    is_root
}

#[test]
fn where_no_thread_can_start_checkpoints_are_committed_all_the_same() {
    if !is_root() {
        return;
    }
    let mut task = Task::python(
        r#"
children = []
def full():
    try:
        while True:
            child = os.fork()
            if child == 0:
                while True: time.sleep(1)
            children.append(child)
    except OSError:
        pass
full()
ready()
for number in range(step + 1, step + 5):
    save(number)
    folder = os.environ["NEMO_DIR"] + "/checkpoints/step-" + str(number)
    while not os.path.exists(folder): time.sleep(0.01)
sys.exit(0 if number > 4 else 85) # what was committed is verified by the next attempt
"#,
    );
    limited(&mut task, 61_001, 12, "");
    assert_eq!(task.run(), 0);
    task.check_ends("Restart Restart, Completed Done");
    assert_eq!(task.committed(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(task.resume_steps(), [None, Some(4)]);
}

#[test]
fn a_program_that_can_not_start_yet_starts_later() {
    if !is_root() {
        return;
    }
    let mut task = Task::sh("true").with("/restart", json!({"crashes": 0, "no_progress": 1}));
    // Of 8 processes 5 are others' for three seconds; the harness needs some five.
    limited(&mut task, 61_002, 8, "for n in 1 2 3 4 5; do sleep 3 & done");
    assert_eq!(task.run(), 0, "{:?}", task.ends());
    task.check_ends("Completed Done");
}

#[test]
fn an_output_that_is_full_or_closed_is_no_panic() {
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for arguments in
        [&["--help"][..], &["--version"], &["nonsense"], &["run", "--task-dir", "/none"]]
    {
        let harness = Command::new(env!("CARGO_BIN_EXE_nemo-harness"))
            .args(arguments)
            .stdout(full())
            .stderr(full())
            .process_group(0)
            .status()
            .unwrap();
        assert!(harness.code().is_some_and(|code| code < 3), "{arguments:?}: {harness}");
    }
}
