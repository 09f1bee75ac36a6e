//! The promises P1–P7 of a trial's folder, asserted after a fault, and counted where `NEMO_FAULTS` names a file.
//!
//! It reads the folder with its own eyes: nothing of the harness's commit or resume is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, AttemptStart, MetricsLine, Next, TrialDir};

/// How the trial was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// By its own end: done, failed, cancelled, or requeued.
    InOrder,
    /// In the middle of its last attempt, which nobody could record: the next attempt, or Slurm, tells of it.
    Killed,
}

/// Asserts all promises, and reports that a fault was injected.
#[track_caller]
pub(crate) fn hold(fault: &str, dir: &TrialDir, left: Left) {
    let records = lines::read::<AttemptRecord>(&dir.attempts()).unwrap();
    assert!(records.damaged.is_empty(), "{fault}: attempts.jsonl can't be read");
    let records = records.rows;
    let committed = one_lineage(fault, &records);
    checkpoints(fault, dir, &records, &committed);
    resumes(fault, &records);
    metrics(fault, dir);
    ends(fault, &records, left);
    no_process(fault, dir);
    report(fault, 1);
}

/// P4: only the newest attempt commits. The answer is every step that was committed.
#[track_caller]
fn one_lineage(fault: &str, records: &[AttemptRecord]) -> BTreeSet<u64> {
    let mut newest = None;
    let mut committed = BTreeSet::new();
    for record in records {
        match record {
            AttemptRecord::Start(start) => {
                assert!(
                    newest < Some(start.attempt),
                    "{fault}: P4: attempt {} began twice",
                    start.attempt
                );
                newest = Some(start.attempt);
            }
            AttemptRecord::Checkpoint { attempt, step, .. } => {
                assert_eq!(
                    newest,
                    Some(*attempt),
                    "{fault}: P4: an older attempt committed step {step}"
                );
                committed.insert(*step);
            }
            _ => {}
        }
    }
    committed
}

/// P1: the newest committed checkpoint is there, and whole, as are all that bear a committed name.
#[track_caller]
fn checkpoints(fault: &str, dir: &TrialDir, records: &[AttemptRecord], committed: &BTreeSet<u64>) {
    let names = fs::read_dir(dir.checkpoints()).into_iter().flatten();
    let names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let there: BTreeSet<u64> =
        names.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    for step in &there {
        let why = verify(&dir.checkpoint(*step));
        assert_eq!(why, Ok(()), "{fault}: P2: checkpoint step-{step}");
    }
    let aside = |name: &&String| name.starts_with("bad-") || name.starts_with("set-aside-");
    let given_up = names.iter().filter(aside).count();
    let gone: BTreeSet<u64> = records
        .iter()
        .filter_map(|record| match record {
            AttemptRecord::Removed { steps, .. } => Some(steps.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let lost =
        committed.iter().filter(|step| !there.contains(step) && !gone.contains(step)).count();
    assert!(lost <= given_up, "{fault}: P1: of {committed:?} only {there:?} are there ({names:?})");
}

/// P2 and P3: an attempt goes on from a step that was committed before it, or from the start.
#[track_caller]
fn resumes(fault: &str, records: &[AttemptRecord]) {
    let mut committed = BTreeSet::new();
    for record in records {
        match record {
            AttemptRecord::Checkpoint { step, .. } => {
                committed.insert(*step);
            }
            AttemptRecord::Start(AttemptStart { attempt, resume_step: Some(step), .. }) => {
                // A commit whose record was lost is found by the scan, and is committed all the same.
                let is_known = committed.contains(step) || committed.last() < Some(step);
                assert!(is_known, "{fault}: P2: attempt {attempt} resumed from {step}");
            }
            _ => {}
        }
    }
}

/// P3: no step is reported twice.
#[track_caller]
fn metrics(fault: &str, dir: &TrialDir) {
    let rows = lines::read::<MetricsLine>(&dir.metrics()).unwrap().rows;
    let mut seen: BTreeMap<(u64, bool, String), u32> = BTreeMap::new();
    for row in rows {
        let Some(step) = row.step else { continue };
        for name in row.values.keys() {
            let before = seen.insert((step, row.validation, name.clone()), row.attempt);
            assert_eq!(before, None, "{fault}: P3: `{name}` of step {step} stands twice");
        }
    }
}

/// P5 and P6: every attempt has an end with a cause, and the last one says what follows.
#[track_caller]
fn ends(fault: &str, records: &[AttemptRecord], left: Left) {
    let starts: Vec<u32> =
        records.iter().filter_map(AttemptRecord::as_start).map(|start| start.attempt).collect();
    let ends: Vec<u32> =
        records.iter().filter_map(AttemptRecord::as_end).map(|end| end.attempt).collect();
    assert!(starts.len() < 50, "{fault}: P5: {} attempts", starts.len());
    let without: Vec<&u32> = starts.iter().filter(|attempt| !ends.contains(attempt)).collect();
    match left {
        Left::InOrder => {
            assert!(without.is_empty(), "{fault}: P6: attempts {without:?} have no end");
            let last = records.iter().rev().find_map(AttemptRecord::as_end).unwrap();
            let has_reason = last.next == Next::Done || last.reason.is_some();
            assert!(has_reason, "{fault}: P5: no reason: {last:?}");
        }
        Left::Killed => {
            let is_last = without.iter().all(|attempt| Some(*attempt) == starts.last());
            assert!(is_last, "{fault}: P6: attempts {without:?} have no end");
        }
    }
}

/// P7: nothing of the trial lives. A process that was killed a moment ago may still be on its way.
#[track_caller]
fn no_process(fault: &str, dir: &TrialDir) {
    let wanted = [b"NEMO_DIR=", dir.path().as_os_str().as_encoded_bytes()].concat();
    let lives = |entry: &fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        !is_zombie && environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
    };
    let left = || fs::read_dir("/proc").unwrap().flatten().find(lives).map(|entry| entry.path());
    for _ in 0..200 {
        if left().is_none() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20)); // looks again
    }
    panic!("{fault}: P7: {:?} lives on", left());
}

/// Adds to the table of `scripts/faults`: all seven promises held after this many injections.
pub(crate) fn report(fault: &str, injected: u64) {
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let Some(path) = std::env::var_os("NEMO_FAULTS") else { return };
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    let line = format!("fault={} injected={injected}\n", fault.replace(' ', "_"));
    file.write_all(line.as_bytes()).unwrap();
}

/// Compares a checkpoint with its manifest.
fn verify(path: &Path) -> Result<(), String> {
    let text =
        fs::read_to_string(path.join("MANIFEST")).map_err(|error| format!("MANIFEST: {error}"))?;
    let (body, end) =
        text.trim_end_matches('\n').rsplit_once('\n').ok_or("a MANIFEST of one line")?;
    let hash = blake3::hash(format!("{body}\n").as_bytes());
    if end != format!("end {hash}") {
        return Err("the MANIFEST's last line is wrong".to_owned());
    }
    let mut listed = BTreeSet::from([path.join("MANIFEST")]);
    for line in body.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["file", hash, size, name] = words[..] {
            let file = path.join(decode(name));
            let data = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            if data.len().to_string() != size || blake3::hash(&data).to_hex().as_str() != hash {
                return Err(format!("{} is not as its MANIFEST says", file.display()));
            }
            listed.insert(file);
        }
    }
    let mut there = BTreeSet::new();
    files(path, &mut there);
    if there == listed { Ok(()) } else { Err(format!("{there:?} is not {listed:?}")) }
}

fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.insert(entry.path());
        }
    }
}

/// `%20` is a blank.
fn decode(name: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| str::from_utf8(&after[..2]).unwrap());
        bytes.push(hex.map_or(first, |hex| u8::from_str_radix(hex, 16).unwrap()));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    std::ffi::OsString::from_vec(bytes).into()
}
