//! Looks at the world for [`crate::status`]: folders, processes, and one call each of `squeue` and `sacct`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nemo_harness::rundir::runner::RunnerRecord;
use nemo_harness::rundir::{
    AttemptRecord, AttemptStart, ExperimentDir, MetricsLine, TaskDir, TrialDir, lines,
};

use crate::host::{Liveness, ProcessId};
use crate::status::{Request, RunnerView, TrialFiles};

/// How much of a metrics file's end is read: the last reports are in it.
const METRICS_TAIL: u64 = 4096;

/// The process of an attempt's harness.
#[must_use]
pub fn process_of(start: &AttemptStart) -> ProcessId {
    ProcessId {
        node: start.node.clone(),
        boot_id: start.boot_id.clone(),
        pid: start.pid,
        start_ticks: start.start_ticks,
    }
}

/// What a trial's folder tells; nothing if the trial never ran.
pub fn trial_files(dir: &TrialDir) -> io::Result<TrialFiles> {
    let attempts = lines::read::<AttemptRecord>(&dir.attempts())?.rows;
    let metrics = metrics_tail(&dir.metrics())?;
    Ok(TrialFiles { alive: None, attempts, metrics })
}

/// Says of the last attempt of a local trial whether its harness lives.
fn with_liveness(mut files: TrialFiles) -> TrialFiles {
    let last = files.attempts.iter().rev().find_map(|record| match record {
        AttemptRecord::Start(start) => Some(process_of(start).liveness()),
        AttemptRecord::End(_) | AttemptRecord::Checkpoint { .. } => None,
    });
    files.alive = match last {
        Some(Liveness::Alive) => Some(true),
        Some(Liveness::Dead) | None => Some(false),
        Some(Liveness::Elsewhere) => None,
    };
    files
}

/// The last lines of a metrics file. The first of them may be a part of a line, which is passed over.
fn metrics_tail(path: &Path) -> io::Result<Vec<MetricsLine>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    if length > METRICS_TAIL {
        file.seek(SeekFrom::Start(length - METRICS_TAIL))?;
    }
    file.take(METRICS_TAIL).read_to_end(&mut tail)?;
    Ok(lines::parse(&tail).rows)
}

/// The folders of all trials of a task that ever ran, on Slurm or here.
pub fn task_files(dir: &TaskDir, local: bool) -> io::Result<BTreeMap<u32, TrialFiles>> {
    let entries = match std::fs::read_dir(dir.trials()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        if let Some(index) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            let trial = trial_files(&dir.trial(index))?;
            files.insert(index, if local { with_liveness(trial) } else { trial });
        }
    }
    Ok(files)
}

/// All requests so far, oldest first.
pub fn requests(dir: &ExperimentDir) -> io::Result<Vec<(PathBuf, Request)>> {
    let entries = match std::fs::read_dir(dir.requests()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        // Renamed into place whole; one that can't be read is no request of ours.
        let request = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        Some((path, request))
    };
    Ok(paths.into_iter().filter_map(read).collect())
}

/// The local runner's record, and whether it lives.
pub fn runner(dir: &ExperimentDir) -> io::Result<RunnerView> {
    let records = lines::read::<RunnerRecord>(&dir.runner_log())?.rows;
    let last = records.iter().rev().find_map(|record| match record {
        RunnerRecord::Runner { pid, start_ticks, boot_id, node, .. } => Some(ProcessId {
            node: node.clone(),
            boot_id: boot_id.clone(),
            pid: *pid,
            start_ticks: *start_ticks,
        }),
        _ => None,
    });
    let rebooted = last.as_ref().is_some_and(|process| {
        process.liveness() == Liveness::Dead && process.boot_id != ProcessId::current().boot_id
    });
    Ok(RunnerView { liveness: last.map(|process| process.liveness()), rebooted, records })
}
