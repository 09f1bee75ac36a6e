//! What a submission asks for and leaves behind, on the scripted Slurm.

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::support::{states, text, trials};

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
    assert_eq!(last.lines().last(), Some(r#"{"trial":4999,"params":{"x":5000}}"#));
}

#[test]
fn the_number_of_files_does_not_depend_on_the_trials() {
    let count = |n| {
        let fake = FakeSlurm::new(10_000);
        let file = fake.world.write("exp.toml", &sweep(n));
        let id = fake.world.ok(&["submit", file.to_str().unwrap()]);
        files_below(&fake.world.experiment(&id))
    };
    assert_eq!(count(10), count(1000));
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
    // The name holds the id, which is not known before: the fake refuses what ends like this.
    let sbatch = fake.world.path("bin").join("sbatch");
    let program = std::fs::read_to_string(&sbatch).unwrap();
    std::fs::write(
        &sbatch,
        program.replace("grep -qx \"$name\" refuse 2>/dev/null", "[ \"${name#*.}\" = t2.0 ]"),
    )
    .unwrap();
    let printed = fake.world.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(printed.code, 2, "{printed:?}");
    assert!(printed.stderr.contains("Invalid partition name specified"), "{printed:?}");
    assert!(
        printed.stderr.contains("the 2 job arrays that were already in are cancelled"),
        "{printed:?}"
    );
    assert_eq!(fake.read("cancelled").trim(), "101 102");
    assert_eq!(fake.names(), ["t0.0", "t1.0"]);
    assert_eq!(fake.read("released"), "");
    let status = fake.world.status("five");
    assert_eq!(states(&status, "t4"), ["cancelled"]);
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
