//! `logs`: what is chosen of the output, when it came, and following it over attempts.

use std::process::Stdio;

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::fake::FakeSlurm;
use crate::retry_rules::end;
use crate::support::{World, printed, text};

const HERE: &str = "kind = \"local\"\nparallel = 4";
const SLURM: &str = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";

/// The lines of `logs --json`.
fn lines(world: &World, arguments: &[&str]) -> Vec<Value> {
    let printed = world.ok(&[&["logs"], arguments, &["--json"]].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text of the program's own lines.
fn texts(lines: &[Value]) -> Vec<String> {
    let texts = lines.iter().map(|line| text(&line["line"]));
    texts.filter(|line| !line.starts_with("nemo-harness")).collect()
}

fn run(world: &World, executor: &str, program: &str, keys: &str) -> String {
    let file = format!(
        "name = \"log\"\n[executor.it]\n{executor}\n[task.t]\nrun = '''{program}'''\n{keys}\n"
    );
    world.write("exp.toml", &file);
    world.ok(&["submit", "exp.toml", "--wait"])
}

#[test]
fn only_what_matches_is_printed_and_the_last_of_it() {
    let world = World::new();
    let program = "for i in 1 2 3; do echo loss {x}.$i; echo NaN >&2; done; printf 'loss end'";
    let id = run(&world, HERE, program, "params.x = [7, 8]");
    let grep = |arguments: &[&str]| {
        world.ok(&[&["logs", &id, "--stream", "out", "--grep"], arguments].concat())
    };
    let both = "==> t/0 attempt 0 <==\nloss 7.2\n==> t/1 attempt 0 <==\nloss 8.2";
    assert_eq!(grep(&["^loss .*2$"]), both);
    assert_eq!(grep(&["^loss 7"]), "==> t/0 attempt 0 <==\nloss 7.1\nloss 7.2\nloss 7.3");
    assert_eq!(grep(&["loss 7", "-n", "1"]), "==> t/0 attempt 0 <==\nloss 7.3");
    let trial = format!("{id}/t/1");
    let json = lines(&world, &[&trial, "--grep", "(?i)nan|end$", "--tail", "2"]);
    assert_eq!(texts(&json), ["loss end", "NaN", "NaN"], "{json:#?}");
    let none = world.run(&["logs", &id, "--grep", "t/0"]);
    let said = "No line matches `t/0`.\n";
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "", said));
    let wrong = world.run(&["logs", &id, "--grep", "loss ("]);
    assert!(wrong.code == 2 && wrong.stderr.contains("unclosed group"), "{wrong:?}");
    let wrong = world.run(&["logs", &id, "--since", "yesterday", "--json"]);
    assert!(wrong.code == 2 && wrong.stdout.contains("--since 2d"), "{wrong:?}");
}

/// Two lines with a pause between them.
fn lines_have_times(executor: &str, keys: &str) {
    let world = World::new();
    let id = run(&world, executor, "echo first; sleep 4; echo last; echo why >&2", keys);
    let json = lines(&world, &[&id]);
    let time = |wanted: &str| {
        let line = json.iter().find(|line| text(&line["line"]).contains(wanted));
        line.and_then(|line| line["time"].as_f64()).unwrap_or_else(|| panic!("{wanted}: {json:#?}"))
    };
    let pause = time("last") - time("first");
    assert!((2.0..=6.0).contains(&pause), "{pause}: {json:#?}");
    let attempt = &world.status(&id)["tasks"][0]["trials"][0]["attempts"][0];
    let ran = attempt["start"].as_f64().unwrap()..attempt["end"].as_f64().unwrap() + 1.0;
    assert!(["first", "last", "why"].iter().all(|line| ran.contains(&time(line))), "{json:#?}");
    assert!(json.iter().all(|line| line["time"].is_f64()), "the harness's own too: {json:#?}");
    let between = format!("{:.0}", time("first") + 2.0);
    let late = texts(&lines(&world, &[&id, "--since", &between]));
    assert_eq!(late, ["last", "why"]);
    let over = format!("{:.0}", ran.end + 10.0);
    let printed = world.run(&["logs", &id, "--since", &over]);
    assert_eq!(printed.stderr, "No line since then.\n", "{printed:?}");
    // Without the index nothing is known, and nothing is left out.
    let trial = world.experiment(&id).join("tasks/t/trials/0");
    std::fs::remove_file(trial.join("0.out.times")).unwrap();
    let json = lines(&world, &[&id, "--since", &between, "--stream", "out"]);
    assert_eq!(texts(&json), ["first", "last"]);
    assert!(json.iter().all(|line| line["time"].is_null()), "{json:#?}");
}

/// Lines of the harness tell their own time, also where the times of the program's lines were not recorded.
#[test]
fn what_since_can_not_tell_is_said() {
    let world = World::new();
    let id = run(&world, HERE, "true", "");
    let trial = world.experiment(&id).join("tasks/t/trials/0");
    let line = |hour: u32| format!("nemo-harness: 2026-01-02T{hour:02}:00:00Z info at {hour}\n");
    let write = |text: &str| {
        std::fs::write(trial.join("0.err"), text).unwrap();
        std::fs::remove_file(trial.join("0.err.times")).ok();
    };
    let since = || world.run(&["logs", &id, "--stream", "err", "--since", "2026-01-02T02:30:00Z"]);
    write(&[1, 2, 3, 4].map(line).concat());
    let printed = since();
    assert!(!printed.stdout.contains("at 2") && printed.stdout.contains("at 3"), "{printed:?}");
    assert_eq!(printed.stderr, "", "nothing is shown that is older");
    write(&[&line(1), "of the program\n", &line(3)].concat());
    let printed = since();
    assert!(printed.stdout.contains("of the program") && !printed.stdout.contains("at 1"));
    assert!(printed.stderr.contains("were not recorded"), "{printed:?}");
}

/// What Slurm says of a job has no times.
#[test]
fn since_says_that_it_leaves_out_the_words_of_slurm() {
    let fake = FakeSlurm::new(1001);
    let file = "name = \"log\"\n[executor.c]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n";
    fake.world.write("exp.toml", file);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["101_[0]", "FAILED", "100", "None"]]));
    fake.answer("sacct", Some(&[&["101_0", "FAILED", "1:0", "100", "100", "101", "n1"]]));
    let folder = fake.world.experiment(&id).join("tasks/t/slurm");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("101_0.out"), "slurmstepd: error: no room\n").unwrap();
    assert!(fake.world.ok(&["logs", &id]).contains("no room"));
    let printed = fake.world.run(&["logs", &id, "--since", "2h"]);
    assert!(!printed.stdout.contains("no room"), "{printed:?}");
    let hint = format!("left out; `nemo-slurm logs {id} --slurm` shows them");
    assert_eq!(
        printed.stderr.lines().filter(|line| line.contains(&hint)).count(),
        1,
        "{printed:?}"
    );
    let out = fake.world.run(&["logs", &id, "--since", "2h", "--stream", "out"]);
    assert!(!out.stderr.contains("left out"), "nobody asked for it: {out:?}");
}

#[test]
fn lines_have_times_here() {
    lines_have_times(HERE, "");
}

#[test]
fn lines_have_times_where_the_harness_reads_them() {
    lines_have_times(HERE, "metrics = { loss = 'loss (\\S+)' }");
}

#[test]
fn lines_have_times_on_slurm() {
    if cluster::is_here() {
        lines_have_times(SLURM, "");
    }
}

#[test]
fn lines_of_all_ranks_have_times_on_slurm() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let keys = "nodes = 2\ntasks_per_node = 1";
    let file = format!(
        "name = \"log\"\n[executor.it]\n{SLURM}\n{keys}\n[task.t]\nrun = \"echo rank $SLURM_PROCID\"\n"
    );
    world.write("exp.toml", &file);
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let json = lines(&world, &[&id, "--stream", "out"]);
    assert_eq!(texts(&json), ["rank 0", "rank 1"], "{json:#?}");
    assert!(json.iter().all(|line| line["time"].is_f64()), "{json:#?}");
}

fn following_goes_on_over_attempts(executor: &str) {
    let world = World::new();
    counting::write_trials(&world, executor, 60, 0.1, &[3]);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 5);
    let target = format!("{id}/train");
    let mut following = world.command(&["logs", &target, "-f", "--stream", "out", "--json"]);
    let following = following.stdout(Stdio::piped()).spawn().unwrap();
    world.ok(&["preempt", &id]);
    let printed = printed(&following.wait_with_output().unwrap());
    assert_eq!(printed.code, 0, "{printed:?}");
    let lines: Vec<Value> =
        printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = lines.iter().map(|line| text(&line["line"]));
    let steps: Vec<u32> =
        steps.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<u32>>(), "each line once, in order");
    let attempts: Vec<u64> = lines.iter().map(|line| line["attempt"].as_u64().unwrap()).collect();
    assert!(attempts.is_sorted() && attempts.ends_with(&[1]) && attempts[0] == 0, "{attempts:?}");
    assert!(lines.last().unwrap()["time"].is_f64(), "{lines:#?}");
}

#[test]
fn following_goes_on_over_attempts_here() {
    following_goes_on_over_attempts(HERE);
}

#[test]
fn following_goes_on_over_attempts_on_slurm() {
    if cluster::is_here() {
        following_goes_on_over_attempts(SLURM);
    }
}

/// The output and the attempt of each line.
fn places(world: &World, arguments: &[&str]) -> Vec<String> {
    let place = |line: &Value| format!("{} {}", text(&line["stream"]), line["attempt"]);
    lines(world, arguments).iter().map(place).collect()
}

/// Slurm's own words of a job stand behind the last attempt that ran in it.
#[test]
fn what_slurm_says_of_a_job_stands_in_its_place() {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        "name = \"slurm\"\n[executor.it]\nkind = \"slurm\"\n[task.train]\nrun = \"true\"\n",
    );
    let id = fake.world.ok(&["submit", "exp.toml"]);
    end(&fake, &id, "train/0", "101_0", 0, "failed");
    end(&fake, &id, "train/0", "101_0", 1, "failed");
    end(&fake, &id, "train/0", "102_0", 2, "done");
    let folder = fake.world.experiment(&id).join("tasks/train/slurm");
    std::fs::create_dir_all(&folder).unwrap();
    let said = "slurmstepd: error: *** JOB 101 ON n1 CANCELLED AT 2026-11-29T20:00:00 DUE TO PREEMPTION ***";
    std::fs::write(folder.join("101_0.out"), format!("{said}\n")).unwrap();
    std::fs::write(folder.join("102_0.out"), "").unwrap();
    assert_eq!(places(&fake.world, &[&id]), ["err 0", "err 1", "slurm null", "err 2"]);
    assert_eq!(places(&fake.world, &[&id, "--attempt", "1"]), ["err 1"]);
    assert_eq!(places(&fake.world, &[&id, "--slurm"]), ["slurm null"]);
    assert!(fake.world.ok(&["logs", &id]).contains(said));
}
