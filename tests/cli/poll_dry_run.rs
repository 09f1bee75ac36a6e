//! `poll --dry-run`: it tells what `poll` then does, writes nothing, and Slurm is only asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::support::text;
use crate::{budget, failed_starts, forgotten, notify, retry_rules, timeouts};

type Files = BTreeMap<PathBuf, (Option<SystemTime>, Vec<u8>)>;

/// All below a folder: when it changed last, and what it holds. A file that comes and goes changes its folder.
fn files(folder: &Path) -> Files {
    let mut all = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(path) = folders.pop() {
        let changed = fs::symlink_metadata(&path).unwrap().modified().ok();
        if path.is_dir() && !path.is_symlink() {
            folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            all.insert(path, (changed, Vec::new()));
        } else {
            let content = fs::read(&path).unwrap_or_default();
            all.insert(path, (changed, content));
        }
    }
    all
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is done about which trial, and what is told.
fn did(polled: &Value) -> Vec<String> {
    let each = |key: &str| polled[key].as_array().unwrap().clone();
    let trial = |it: &Value| format!("{}/{} {}", text(&it["task"]), it["trial"], text(&it["did"]));
    let notice = |it: &Value| format!("{} {}", text(&it["id"]), it["sent"]);
    let (trials, notices) = (each("trials"), each("notifications"));
    let mut all: Vec<String> = trials.iter().map(trial).chain(notices.iter().map(notice)).collect();
    all.sort();
    all
}

/// A dry run tells what the `poll` after it does.
#[track_caller]
fn check(fake: &FakeSlurm, expected: &[impl AsRef<str>]) -> Value {
    let mut expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    expected.sort_unstable();
    let world = &fake.world;
    let home = world.path("home");
    let slurm = ["asked", "jobs", "requeued", "updated", "released", "cancelled"];
    let told = || slurm.map(|name| fake.read(name));
    let (before, told_before) = (files(&home), told());
    let dry = world.run(&["poll", "--dry-run", "--json"]);
    let words = world.run(&["poll", "--dry-run"]);
    let after = files(&home);
    let changed: Vec<&PathBuf> = after
        .iter()
        .filter(|(path, file)| before.get(*path) != Some(file))
        .map(|it| it.0)
        .collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
    assert_eq!(told(), told_before, "Slurm was only asked");
    let dry_run = json(&dry.stdout);
    assert_eq!(dry_run["dry_run"], true, "{dry_run:#}");
    let polled = world.run(&["poll", "--json"]);
    let done = json(&polled.stdout);
    assert_eq!(done["dry_run"], false, "{done:#}");
    assert_eq!(did(&dry_run), did(&done), "{dry:?}\n{polled:?}");
    assert_eq!((dry.code, words.code), (polled.code, polled.code), "{dry:?}\n{polled:?}");
    assert_eq!(words.stderr.matches(" would be ").count(), expected.len(), "{words:?}");
    assert_eq!(did(&dry_run), expected, "{dry_run:#}");
    dry_run
}

#[test]
fn what_is_requeued_and_put_back() {
    let fake = failed_starts::family("0");
    let back = ["ok/0 put_back", "ok/1 put_back", "each/0 put_back", "last/0 put_back"];
    check(&fake, &[&back[..], &["train/0 requeued"]].concat());
}

#[test]
fn what_is_given_up() {
    let (fake, _) = failed_starts::ended("127:0", "2");
    let polled = fake.world.run(&["poll", "--dry-run"]);
    assert_eq!(polled.code, 1, "{polled:?}");
    assert!(polled.stderr.contains("job 101_0 failed to start too often"), "{polled:?}");
}

#[test]
fn what_is_submitted_again() {
    let (fake, _) = forgotten::forgotten();
    let all = ["train/0", "train/1", "train/2", "evaluate/0"];
    check(&fake, &all.map(|trial| format!("{trial} resubmitted")));
}

#[test]
fn what_a_rule_retries() {
    let (fake, _) = retry_rules::half_failed(retry_rules::RULES, "out_of_memory");
    let dry_run = check(&fake, &["train/0 retried"]);
    let trial = &dry_run["trials"][0];
    assert_eq!((&trial["slurm_job"], fake.names().len()), (&Value::Null, 3));
    assert!(text(&trial["reason"]).contains("with executor.mem=1400M"), "{trial:#}");
}

#[test]
fn what_is_ended_since_its_time_is_over() {
    let (fake, _) = timeouts::late();
    check(&fake, &["train/1", "train/2", "after/0"].map(|trial| format!("{trial} timed_out")));
}

#[test]
fn what_has_spent_its_budget() {
    let (fake, _) = budget::spent();
    check(&fake, &["train/0 paused"]);
}

#[test]
fn what_is_told() {
    let (fake, id) = notify::failed("command = 'cat >>told'");
    let all = notify::ALL.map(|name| format!("{id}{name} [\"the command\"]"));
    check(&fake, &all);
    let nothing = fake.world.run(&["poll", "--dry-run"]);
    assert!(nothing.stderr.contains("Nothing to do"), "{nothing:?}");
}

#[test]
fn nothing_is_written_where_nothing_is_to_be_done() {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        "name = \"s\"\n[executor.c]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n",
    );
    fake.world.ok(&["submit", "exp.toml"]);
    check(&fake, &[""; 0]);
}
