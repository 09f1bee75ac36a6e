//! Damaged files: what was written wrong is told, and decides nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nemo_core::scope::Scope;
use nemo_slurm::observe;
use nemo_slurm::query::SlurmSource;
use nemo_slurm::slurm::Client;
use nemo_slurm::status::{self, Status, TrialStatus};
use nemo_slurm::store::{Home, StoreError};

use crate::support::{World, text, trials};

/// Writes a small local experiment one of whose trials fails.
pub(crate) fn write_small(world: &World, run: &str, crashes: u32, further: &str) {
    let text = format!(
        r#"
name = "small"
[executor.here]
kind = "local"
parallel = 4
[task.prep]
run = "true"
[task.train]
run = "{run}"
after = [{{ task = "prep", on = "any" }}]
restart.crashes = {crashes}
params.code = [0, 1]
{further}
"#
    );
    world.write("exp.toml", &text);
}

/// Runs it here to its end. Returns its id.
pub(crate) fn submit_small(world: &World) -> String {
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    printed.stdout.trim().to_owned()
}

/// A small experiment that is over: one of its trials failed.
fn finished() -> (World, String) {
    let world = World::new();
    write_small(&world, "exit {code}", 0, "");
    let id = submit_small(&world);
    (world, id)
}

fn look(home: &Home, id: &str) -> Result<Status, StoreError> {
    let stored = home.load(&id.parse().unwrap())?;
    // Nothing is remembered: only the files themselves speak.
    std::fs::remove_file(stored.dir.0.join("observed.json")).ok();
    let client = Client::new(Duration::from_secs(1));
    let sources =
        observe::sources(&stored, SlurmSource::Slurm(&client), observe::Depth::All).unwrap();
    let mut status = status::join(&sources);
    status::set_params(&mut status, observe::params(&stored, &Scope::default()));
    Ok(status)
}

/// All that a status says of the past.
fn told(status: &Status) -> String {
    let task = |task: &status::TaskStatus| format!("{:?}", task.trials);
    let tasks: Vec<String> = status.tasks.iter().map(task).collect();
    format!("{:?} {tasks:?}", status.experiment.state)
}

/// The same, but for what the trials were given.
fn decided(status: &Status) -> String {
    let without = |trial: &TrialStatus| TrialStatus { params: None, ..trial.clone() };
    let mut status = status.clone();
    for task in &mut status.tasks {
        task.trials = task.trials.iter().map(without).collect();
    }
    told(&status)
}

fn files(world: &World, id: &str) -> Vec<PathBuf> {
    let folder = world.experiment(id);
    let trial = |task: &str, trial: u32| {
        folder.join(format!("tasks/{task}/trials/{trial}")).join("attempts.jsonl")
    };
    let mut files = vec![trial("prep", 0), trial("train", 0), trial("train", 1)];
    files
        .extend(["journal.jsonl", "runner.jsonl", "experiment.json"].map(|name| folder.join(name)));
    for name in ["task.json", "trials.jsonl"] {
        files.extend(["prep", "train"].map(|task| folder.join(format!("tasks/{task}/{name}"))));
    }
    files
}

fn is_warned(status: &Status, file: &Path) -> bool {
    status.warnings.iter().any(|warning| names(warning, file))
}

fn names(text: &str, file: &Path) -> bool {
    text.contains(&file.display().to_string())
}

/// Else each new attempt would end before it begins, and nobody would know why.
#[test]
fn a_retry_names_a_damaged_file() {
    let world = World::new();
    world.write("exp.toml", "name = \"r\"\n[task.t]\nrun = \"exit 1\"\nparams.x = [1, 2]\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.run(&["wait", &id, "--timeout", "1m"]);
    for (file, from, to) in
        [("task.json", "exit 1", "exit 0"), ("trials.jsonl", "\"x\":2", "\"x\":3")]
    {
        let path = world.experiment(&id).join("tasks/t").join(file);
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.contains(from), "{whole}");
        std::fs::write(&path, whole.replace(from, to)).unwrap();
        for words in [["retry", &id, "--dry-run"].as_slice(), &["retry", &id]] {
            let refused = world.run(words);
            assert!(refused.code == 5 && refused.stderr.contains(file), "{refused:?}");
            assert!(refused.stderr.contains("is damaged"), "{refused:?}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(world.run(&["retry", &id]).code, 0);
    world.run(&["wait", &id, "--timeout", "1m"]);
}

#[test]
fn a_flipped_bit_changes_nothing_or_is_told() {
    let (world, id) = finished();
    let home = Home::new(world.path("home"));
    let sound = look(&home, &id).unwrap();
    assert_eq!(sound.warnings, Vec::<String>::new());
    for file in files(&world, &id) {
        let content = std::fs::read(&file).unwrap();
        for place in 0..content.len() {
            let mut flipped = content.clone();
            flipped[place] ^= 1 << (place % 8);
            std::fs::write(&file, &flipped).unwrap();
            let is_right = match look(&home, &id) {
                Ok(status) if told(&status) == told(&sound) => true,
                Ok(status) if file.ends_with("trials.jsonl") => {
                    decided(&status) == decided(&sound) && is_warned(&status, &file)
                }
                Ok(status) => is_warned(&status, &file),
                Err(error) => names(&error.to_string(), &file),
            };
            assert!(is_right, "{}: byte {place}, bit {}", file.display(), place % 8);
        }
        std::fs::write(&file, &content).unwrap();
    }
}

/// Replaces a word in a file.
fn spoil(file: &Path, word: &str, by: &str) {
    let content = std::fs::read_to_string(file).unwrap();
    assert!(content.contains(word), "{content}");
    std::fs::write(file, content.replace(word, by)).unwrap();
}

#[test]
fn a_damaged_line_is_named_by_every_command() {
    let (world, id) = finished();
    let attempts = &files(&world, &id)[1];
    spoil(attempts, "\"completed\"", "\"cancelled\"");
    std::fs::remove_file(world.experiment(&id).join("observed.json")).unwrap();
    let status = world.status(&id);
    let lines = text(&status["warnings"]);
    assert!(names(&lines, attempts) && lines.contains("line "), "{status:#}");
    let shown = world.ok(&["status", &id]);
    assert!(names(&shown.replace('\n', ""), attempts), "{shown}");
    let journal = world.experiment(&id).join("journal.jsonl");
    spoil(&journal, "\"complete\"", "\"refused\"");
    for command in ["logs", "goodput", "cancel"] {
        let printed = world.run(&[command, &id]);
        assert!(names(&printed.stderr, &journal), "{command}: {printed:?}");
    }
}

#[test]
fn a_damaged_request_is_named() {
    let (world, id) = finished();
    let folder = world.experiment(&id).join("requests");
    std::fs::create_dir_all(&folder).unwrap();
    let request = folder.join("1.000000-n1-1.json");
    std::fs::write(&request, "{\"action\":\"cancfl\"").unwrap();
    let status = world.status(&id);
    assert!(names(&text(&status["warnings"]), &request), "{status:#}");
    assert_eq!(status["tasks"][0]["state"], "completed", "{status:#}");
}

/// Removes what an earlier look has kept: the next one looks into the experiment.
fn forget(world: &World, id: &str) {
    std::fs::remove_file(world.experiment(id).join("summary.json")).ok();
    std::fs::remove_dir_all(world.path("home/index")).ok();
}

/// How many lists of trials a command reads.
fn lists_read(world: &World, words: &[&str]) -> usize {
    let log = world.path("strace.log");
    let mut strace = Command::new("strace");
    world.surround(&mut strace);
    strace.args(["-f", "-e", "trace=open,openat", "-o"]).arg(&log);
    let done = strace.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(words).output();
    done.expect("strace is needed: apt-get install strace");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("/experiments"), "{words:?}: {log}");
    log.matches("trials.jsonl").count()
}

#[test]
fn the_list_of_trials_is_read_by_who_shows_it() {
    let (world, id) = finished();
    // A list reads it once for all, so that it can be searched.
    forget(&world, &id);
    assert_eq!(lists_read(&world, &["list"]), 2);
    for command in ["list", "poll", "wait", "logs", "goodput", "cancel"] {
        let words =
            if ["list", "poll"].contains(&command) { vec![command] } else { vec![command, &id] };
        assert_eq!(lists_read(&world, &words), 0, "{command}");
    }
    assert_eq!(lists_read(&world, &["status", &id]), 2);
    assert_eq!(lists_read(&world, &["status", &format!("{id}/prep")]), 1);
}

#[test]
fn what_a_trial_was_given_is_unknown_where_its_list_is_damaged() {
    let (world, id) = finished();
    let list = world.experiment(&id).join("tasks/train/trials.jsonl");
    let whole = std::fs::read_to_string(&list).unwrap();
    let (first, second) = whole.split_once('\n').unwrap();
    let before = world.status(&id);
    assert_eq!(trials(&before, "train")[1]["params"]["code"], 1, "{before:#}");
    // The second line is damaged, torn, or not there; then the whole file is not.
    let mutants = [
        format!("{first}\n{}", second.replace("\"code\":1", "\"code\":7")),
        format!("{first}\n{{\"tr"),
        format!("{first}\n"),
    ];
    for mutant in mutants {
        std::fs::write(&list, &mutant).unwrap();
        let status = world.status(&id);
        assert!(names(&text(&status["warnings"]), &list), "{mutant}: {status:#}");
        assert_eq!(status["experiment"], before["experiment"], "{mutant}");
        assert_eq!(trials(&status, "train")[0], trials(&before, "train")[0], "{mutant}");
        let trial = &trials(&status, "train")[1];
        assert_eq!(
            (trial["state"].as_str(), trial["params"].as_null()),
            (Some("failed"), Some(())),
            "{trial:#}"
        );
    }
    std::fs::remove_file(&list).unwrap();
    let shown = world.ok(&["status", &id]);
    assert!(names(&shown.replace('\n', ""), &list), "{shown}");
}

/// A FIFO would be waited for without end, and `/dev/zero` has no end.
#[test]
fn what_is_no_file_holds_nobody_up() {
    let (world, id) = finished();
    for name in ["experiment.json", "observed.json", "summary.json", "config.json"] {
        let path = world.experiment(&id).join(name);
        let content = std::fs::read(&path).unwrap();
        for put in [make_fifo, link_to_zero] {
            std::fs::remove_file(&path).unwrap();
            put(&path);
            for words in [&["list"][..], &["status", &id], &["show", &id], &["search", "train"]] {
                let printed = world.run(words);
                assert!((0..100).contains(&printed.code), "{name}: {words:?}: {printed:?}");
            }
        }
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, content).unwrap();
    }
}

/// The local runner looks at it too, before it calls the experiment over.
#[test]
fn a_fifo_in_place_of_a_trial_s_file_holds_nobody_up() {
    let world = World::new();
    let run = "rm -f {dir}/metrics.jsonl; mkfifo {dir}/metrics.jsonl";
    world.write("exp.toml", &format!("name = \"fifo\"\n[task.t]\nrun = \"{run}\"\n"));
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let printed = world.run(&["status", &id]);
    assert!(format!("{printed:?}").contains("it is a FIFO, not a file"), "{printed:?}");
}

fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

fn link_to_zero(path: &Path) {
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

/// One that another version wrote, and one that somebody made too large to be looked at.
#[test]
fn an_experiment_in_no_format_of_ours_is_named() {
    let (world, id) = finished();
    let file = world.experiment(&id).join("experiment.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    let (content, _) = whole.rsplit_once(",\n  \"checksum\"").unwrap();
    let content = format!("{content}\n}}");
    for by in
        ["\"trials\": [{}]", "\"n_trials\": 0", "\"n_trials\": 4000000000", "\"n_trials\": -1"]
    {
        std::fs::write(&file, content.replacen("\"n_trials\": 1", by, 1)).unwrap();
        let printed = world.run(&["status", &id]);
        assert!(
            names(&printed.stderr, &file) && (1..100).contains(&printed.code),
            "{by}: {printed:?}"
        );
        forget(&world, &id);
        let listed: serde_json::Value =
            serde_json::from_str(&world.run(&["list", "--json"]).stdout).unwrap();
        assert_eq!(listed["counts"]["damaged"], 1, "{by}: {listed:#}");
    }
}
