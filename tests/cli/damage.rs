//! Damaged files: what was written wrong is told, and decides nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nemo_slurm::observe;
use nemo_slurm::query::SlurmSource;
use nemo_slurm::slurm::Client;
use nemo_slurm::status::{self, Status};
use nemo_slurm::store::{Home, StoreError};

use crate::support::{World, text};

const FILE: &str = r#"
name = "small"
[executor.here]
kind = "local"
parallel = 4
[task.prep]
run = "true"
[task.train]
run = "exit {code}"
after = [{ task = "prep", on = "any" }]
restart.crashes = 0
params.code = [0, 1]
"#;

/// A small experiment that is over: one of its trials failed.
fn finished() -> (World, String) {
    let world = World::new();
    world.write("exp.toml", FILE);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    (world, printed.stdout.trim().to_owned())
}

fn look(home: &Home, id: &str) -> Result<Status, StoreError> {
    let stored = home.load(&id.parse().unwrap())?;
    // Nothing is remembered: only the files themselves speak.
    std::fs::remove_file(stored.dir.0.join("observed.json")).ok();
    let client = Client::new(Duration::from_secs(1));
    Ok(status::join(
        &observe::sources(&stored, SlurmSource::Slurm(&client), observe::Depth::All).unwrap(),
    ))
}

/// All that a status says of the past.
fn told(status: &Status) -> String {
    let task = |task: &status::TaskStatus| format!("{:?}", task.trials);
    let tasks: Vec<String> = status.tasks.iter().map(task).collect();
    format!("{:?} {tasks:?}", status.experiment.state)
}

fn files(world: &World, id: &str) -> Vec<PathBuf> {
    let folder = world.experiment(id);
    let trial = |task: &str, trial: u32| {
        folder.join(format!("tasks/{task}/trials/{trial}")).join("attempts.jsonl")
    };
    let mut files = vec![trial("prep", 0), trial("train", 0), trial("train", 1)];
    files
        .extend(["journal.jsonl", "runner.jsonl", "experiment.json"].map(|name| folder.join(name)));
    files.extend(["prep", "train"].map(|task| folder.join(format!("tasks/{task}/task.json"))));
    files
}

fn names(text: &str, file: &Path) -> bool {
    text.contains(&file.display().to_string())
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
                Ok(status) => status.warnings.iter().any(|warning| names(warning, &file)),
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
