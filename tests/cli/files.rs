//! What a submission asks for and leaves behind, on the scripted Slurm.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::support::{printed, states, text, trials};

fn sweep(trials: u32) -> String {
    format!(
        "name = \"sweep\"\n[executor.gpu]\nkind = \"slurm\"\n[task.train]\nrun = \"true {{x}}\"\n\
         [task.train.params]\nx = {{ int = [1, {trials}] }}\n"
    )
}

fn files_below(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn five_thousand_trials_are_five_arrays() {
    let fake = FakeSlurm::new(1001);
    let file = fake.world.write("exp.toml", &sweep(5000));
    let printed = fake.world.ok(&["submit", file.to_str().unwrap(), "--json"]);
    let answer: Value = serde_json::from_str(&printed).unwrap();
    let sizes: Vec<u64> = answer["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["trials"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [1000; 5]);
    let id = text(&answer["id"]);
    let task = fake.world.experiment(&id).join("tasks/train");
    let script = std::fs::read_to_string(task.join("4.sbatch")).unwrap();
    assert!(script.contains("--array=0-999\n") && script.contains("--offset 4000\n"), "{script}");
    let last = std::fs::read_to_string(task.join("trials.jsonl")).unwrap();
    let last = last.lines().last().unwrap();
    assert!(last.starts_with(r#"{"trial":4999,"params":{"x":5000},"checksum":""#), "{last}");
}

/// A limit on the size of files stands for a disk that has room for small ones only.
#[test]
fn where_there_is_no_room_for_the_program_the_experiment_is_submitted_all_the_same() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", &sweep(2));
    let harness = fake.world.write("small-harness", "#!/bin/sh\n");
    std::fs::set_permissions(&harness, std::fs::Permissions::from_mode(0o755)).unwrap();
    let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" submit exp.toml";
    let mut shell = std::process::Command::new("/bin/sh");
    fake.world.surround(shell.args(["-c", limited, env!("CARGO_BIN_EXE_nemo-slurm")]));
    let submitted = printed(&shell.env("NEMO_HARNESS", &harness).output().unwrap());
    assert_eq!((submitted.code, fake.names().len()), (0, 1), "{submitted:?}");
    assert!(submitted.stderr.contains("`nemo-slurm poll` from time to time"), "{submitted:?}");
}

#[test]
fn files_do_not_grow_with_the_trials() {
    let measure = |n: u32| {
        let fake = FakeSlurm::new(10_000);
        let file = fake.world.write("exp.toml", &sweep(n));
        let id = fake.world.ok(&["submit", file.to_str().unwrap()]);
        let folder = fake.world.experiment(&id);
        let length = std::fs::metadata(folder.join("experiment.json")).unwrap().len();
        (files_below(&folder), length - n.to_string().len() as u64)
    };
    assert_eq!(measure(10), measure(1000));
}

/// From now on Slurm refuses arrays of this name. It holds the id, which is not known before.
fn refuse(fake: &FakeSlurm, array: &str) {
    let sbatch = fake.world.path("bin").join("sbatch");
    let program = std::fs::read_to_string(&sbatch).unwrap();
    let refuses = format!("[ \"${{name#*.}}\" = {array} ]");
    let program = program.replace("grep -qx \"$name\" refuse 2>/dev/null", &refuses);
    std::fs::write(&sbatch, program).unwrap();
}

#[test]
fn what_slurm_refused_has_failed_and_is_not_the_newest() {
    let fake = FakeSlurm::new(1001);
    refuse(&fake, "train.0");
    fake.world.write("exp.toml", &sweep(2));
    let submit = || assert_eq!(fake.world.run(&["submit", "exp.toml"]).code, 2);
    submit();
    let name = |status: &Value| text(&status["experiment"]["name"]);
    assert_eq!(name(&fake.world.status("@")), "sweep", "there is no other");
    fake.world.write("other.toml", "name = \"other\"\n[task.t]\nrun = \"true\"\n");
    fake.world.ok(&["submit", "other.toml", "--wait"]);
    submit();
    assert_eq!(name(&fake.world.status("@")), "other");
    let status = fake.world.status("sweep");
    assert_eq!(status["experiment"]["state"], "failed", "{status:#}");
    let reason = text(&status["experiment"]["reason"]);
    assert_eq!(reason, "Slurm refused the submission: Invalid partition name specified");
    assert_eq!(states(&status, "train"), ["failed"; 2]);
}

#[test]
fn the_third_of_five_is_refused() {
    let fake = FakeSlurm::new(1001);
    let tasks = [0, 1, 2, 3, 4]
        .map(|n| {
            let after = if n == 0 { String::new() } else { format!("after = [\"t{}\"]\n", n - 1) };
            format!("[task.t{n}]\nrun = \"true\"\n{after}")
        })
        .concat();
    let file = fake
        .world
        .write("exp.toml", &format!("name = \"five\"\n[executor.gpu]\nkind = \"slurm\"\n{tasks}"));
    refuse(&fake, "t2.0");
    let printed = fake.world.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(printed.code, 2, "{printed:?}");
    assert!(printed.stderr.contains("Invalid partition name specified"), "{printed:?}");
    assert!(
        printed.stderr.contains("the 2 job arrays that Slurm had accepted already are cancelled"),
        "{printed:?}"
    );
    assert_eq!(fake.read("cancelled").trim(), "101 102");
    assert_eq!(fake.names(), ["t0.0", "t1.0"]);
    assert_eq!(fake.read("released"), "");
    let status = fake.world.status("five");
    assert_eq!(states(&status, "t4"), ["failed"]);
    assert!(
        text(&trials(&status, "t4")[0]["reason"]).contains("Invalid partition name"),
        "{status:#}"
    );
    let again = fake.world.run(&["submit", "--continue", "five"]);
    assert_eq!(again.code, 5, "{again:?}");
    assert_eq!(fake.read("asked").lines().count(), 3, "nothing more was asked");
}

#[test]
fn an_answer_that_never_comes_is_found_again() {
    let fake = FakeSlurm::new(1001);
    let file = fake.world.write("exp.toml", &sweep(3));
    let sbatch = fake.world.path("bin").join("sbatch");
    let program = std::fs::read_to_string(&sbatch).unwrap();
    // It takes the job, then says nothing.
    std::fs::write(&sbatch, program.replace("echo $((", "sleep 60; echo $((")).unwrap();
    let printed = fake.world.run(&["submit", file.to_str().unwrap(), "--slurm-timeout", "1"]);
    assert_eq!(printed.code, 4, "{printed:?}");
    assert!(printed.stderr.contains("`nemo-slurm submit --continue sweep-"), "{printed:?}");
    std::fs::write(&sbatch, program).unwrap();
    fake.world.ok(&["submit", "--continue", "sweep"]);
    assert_eq!(fake.names(), ["train.0"]);
    let status = fake.world.status("sweep");
    assert_eq!(trials(&status, "train")[2]["slurm_job"], "101_2");
}

/// A chain of 300 tasks makes 1,200 files: they are not all open at once.
#[test]
fn three_hundred_tasks_are_submitted_with_few_open_files() {
    let fake = FakeSlurm::new(1001);
    let task = |number: u32| match number.checked_sub(1) {
        None => format!("[task.t{number}]\nrun = \"true\"\n"),
        Some(before) => format!("[task.t{number}]\nrun = \"true\"\nafter = [\"t{before}\"]\n"),
    };
    let tasks: String = (0..300).map(task).collect();
    let text = format!("name = \"chain\"\n[executor.s]\nkind = \"slurm\"\n{tasks}");
    fake.world.write("exp.toml", &text);
    let mut shell = std::process::Command::new("sh");
    fake.world.surround(&mut shell);
    shell.args(["-c", "ulimit -n 256; exec \"$0\" submit exp.toml"]);
    let printed = printed(&shell.arg(env!("CARGO_BIN_EXE_nemo-slurm")).output().unwrap());
    assert_eq!(printed.code, 0, "{printed:?}");
    assert_eq!(fake.names().len(), 300);
}

#[test]
fn what_a_killed_submission_left_half_made_is_removed_by_the_next_one() {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        "name = \"x\"\n[executor.s]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n",
    );
    let experiments = fake.world.path("home/experiments");
    let host = nemo_slurm::process::ProcessId::current();
    // No process has these start ticks.
    let left = experiments.join(format!(".new-x-1rs0xg11~{}~1~{}", host.pid, host.node));
    std::fs::create_dir_all(left.join("tasks/t")).unwrap();
    fake.world.ok(&["submit", "exp.toml"]);
    let names: Vec<_> =
        std::fs::read_dir(experiments).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.exists() && names.len() == 1, "{names:?}");
}
