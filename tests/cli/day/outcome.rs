//! What a day must leave: what an undisturbed run gives, and nothing else.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Day;
use crate::processes::{self, Process};
use crate::support::{text, trials};
use crate::training;

impl Day {
    pub(super) fn what_is_wrong(&self) -> Vec<String> {
        let status = self.world.status(&self.id);
        let mut wrong = Vec::new();
        for (index, trial) in (0..).zip(trials(&status, "train")) {
            let mut tell = |what: String| wrong.push(format!("trial {index}: {what}"));
            let state = text(&trial["state"]);
            let was_cancelled = self.cancelled.contains(&index) && state == "cancelled";
            if state != "completed" && !was_cancelled {
                tell(format!("is {state}: {}", trial["reason"]));
            }
            let series = series(&self.trial(index).join("metrics.jsonl"));
            let expected: Vec<(u64, u64)> =
                (1..).zip(training::losses(index + 1, self.steps)).collect();
            let whole = if was_cancelled {
                &expected[..series.len().min(expected.len())]
            } else {
                &expected
            };
            if series != whole {
                tell(difference(&series, whole));
            }
            unaccounted(trial, &self.trial(index)).into_iter().for_each(&mut tell);
            broken_checkpoints(&self.trial(index)).into_iter().for_each(&mut tell);
            if trial["attempts"].as_array().unwrap().is_empty() && !was_cancelled {
                tell("has no attempt".to_owned());
            }
        }
        wrong.extend(self.survivors());
        wrong.extend(self.goodput_is_off());
        if !wrong.is_empty() {
            self.keep();
        }
        wrong
    }

    /// Processes of the experiment that outlived it.
    fn survivors(&self) -> Vec<String> {
        let home = self.world.experiment(&self.id).display().to_string();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let left = processes::find(|process| {
                let dir = process.variable("NEMO_DIR");
                dir.is_some_and(|dir| dir.starts_with(&home)) || process.line().contains(&home)
            });
            if left.is_empty() || Instant::now() > until {
                return left.iter().map(shown).collect();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn goodput_is_off(&self) -> Option<String> {
        let goodput: Value =
            serde_json::from_str(&self.world.ok(&["goodput", &self.id, "--json"])).unwrap();
        let seconds = goodput["total"]["seconds"].as_object().unwrap();
        let parts = seconds.iter().filter(|(name, _)| *name != "whole");
        let sum: f64 = parts.map(|(_, seconds)| seconds.as_f64().unwrap()).sum();
        let whole = seconds["whole"].as_f64().unwrap();
        ((sum - whole).abs() > 1e-3).then(|| format!("goodput: {sum} s are not {whole} s"))
    }

    /// What is needed to understand a bad day.
    fn keep(&self) {
        let to = std::env::temp_dir().join(format!("bad-day-{}", std::process::id()));
        let copied = Command::new("cp").arg("-a").arg(self.world.folder.path()).arg(&to).status();
        let logs = Path::new(self.world.slurm_conf.as_deref().unwrap()).parent().unwrap();
        Command::new("cp")
            .arg("-a")
            .arg(logs.with_file_name("log"))
            .arg(to.join("slurm-log"))
            .status()
            .ok();
        eprintln!("kept in {}: {copied:?}", to.display());
        eprintln!("{}", self.world.ok(&["status", &self.id, "--attempts"]));
    }
}

fn shown(process: &Process) -> String {
    format!("process {} is left: {}", process.pid, process.line())
}

/// The reports of a trial.
fn series(path: &Path) -> Vec<(u64, u64)> {
    let metrics = std::fs::read_to_string(path).unwrap_or_default();
    let one = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers"
        )]
        let loss = line["values"]["loss"].as_f64().unwrap() as u64;
        (line["step"].as_u64().unwrap(), loss)
    };
    metrics.lines().map(one).collect()
}

fn difference(seen: &[(u64, u64)], expected: &[(u64, u64)]) -> String {
    let first = (0..).zip(seen.iter().zip(expected)).find(|(_, (a, b))| a != b);
    format!("{} of {} reports; the first that differs: {first:?}", seen.len(), expected.len())
}

/// Attempts without a start, an end or a cause.
fn unaccounted(trial: &Value, dir: &Path) -> Vec<String> {
    // What was killed with its harness, and cancelled before it ran again, has nobody who could write its end.
    let is_cancelled = trial["state"] == "cancelled";
    let attempts = trial["attempts"].as_array().unwrap().iter();
    let is_unknown = |attempt: &&Value| {
        attempt["cause"].is_null() || (attempt["end"].is_null() && !is_cancelled)
    };
    let unknown = attempts.filter(is_unknown);
    let mut wrong: Vec<String> = unknown.map(|attempt| format!("unaccounted: {attempt}")).collect();
    let records = std::fs::read_to_string(dir.join("attempts.jsonl")).unwrap_or_default();
    let of = |event: &str| -> Vec<u64> {
        let lines = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let wanted = lines.filter(|line| line["event"] == event);
        wanted.map(|line| line["attempt"].as_u64().unwrap()).collect()
    };
    let (starts, mut ends) = (of("start"), of("end"));
    ends.sort_unstable();
    let is_unwritten = is_cancelled && starts.split_last().is_some_and(|(_, all)| all == ends);
    if starts != ends && !is_unwritten {
        wrong.push(format!("P6: starts {starts:?}, ends {ends:?}"));
    }
    wrong
}

/// Committed checkpoints that are not what their manifests say.
fn broken_checkpoints(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("checkpoints")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path());
    let committed =
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("step-"));
    committed.filter_map(|path| Some(format!("{}: {}", path.display(), broken(&path)?))).collect()
}

fn broken(checkpoint: &Path) -> Option<String> {
    let Ok(manifest) = std::fs::read_to_string(checkpoint.join("MANIFEST")) else {
        return Some("no manifest".to_owned());
    };
    let (body, end) = manifest.trim_end().rsplit_once("\nend ")?;
    if blake3::hash(format!("{body}\n").as_bytes()).to_hex().as_str() != end {
        return Some("a torn manifest".to_owned());
    }
    let files: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("file ")).collect();
    let is_wrong = |file: &&&str| {
        let mut words = file.split(' ');
        let (hash, size, name) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let bytes = std::fs::read(checkpoint.join(name)).unwrap_or_default();
        bytes.len().to_string() != size || blake3::hash(&bytes).to_hex().as_str() != hash
    };
    match files.iter().find(is_wrong) {
        Some(file) => Some(format!("altered: {file}")),
        None if files.len() == 2 => None,
        None => Some(format!("of its two files {} are there", files.len())),
    }
}
