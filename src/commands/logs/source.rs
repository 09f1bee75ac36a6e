//! The files that hold the output of a target, in the order in which they are printed.

use std::path::PathBuf;

use super::{LogsArgs, OutputStream};
use crate::error::{CommandError, ExitCode};
use crate::status::{Status, TrialStatus, meant};
use crate::store::{Stored, Target};

/// A file with something that a trial, or Slurm for it, wrote.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) task: String,
    pub(super) trial: u32,
    pub(super) attempt: Option<u32>,
    /// Of a trial with several processes, which one; none for the first.
    pub(super) rank: Option<u32>,
    pub(super) stream: &'static str,
    /// When its attempt ended, in unix seconds.
    pub(super) end: Option<f64>,
}

impl LogFile {
    pub(super) fn title(&self) -> String {
        let Self { task, trial, stream, .. } = self;
        let rank = self.rank.map_or(String::new(), |rank| format!(", rank {rank}"));
        match (self.attempt, *stream) {
            (None, stream) => format!("{task}/{trial} {stream}"),
            (Some(attempt), "out") => format!("{task}/{trial} attempt {attempt}{rank}"),
            (Some(attempt), _) => format!("{task}/{trial} attempt {attempt}{rank}, stderr"),
        }
    }

    /// What stands before each of its lines where those of several trials are mixed.
    pub(super) fn prefix(&self) -> String {
        let Self { task, trial, stream, .. } = self;
        let attempt = self.attempt.filter(|attempt| *attempt > 0);
        let attempt = attempt.map_or(String::new(), |attempt| format!(" attempt {attempt}"));
        let rank = self.rank.map_or(String::new(), |rank| format!(" rank {rank}"));
        let stream = if *stream == "out" { "" } else { &format!(" {stream}") };
        format!("{task}/{trial}{attempt}{rank}{stream}: ")
    }
}

/// The files to print, in order. Only those that hold something.
pub(super) fn files(
    stored: &Stored,
    status: &Status,
    target: &Target,
    args: &LogsArgs,
) -> Vec<LogFile> {
    files_with(stored, status, target, args, tells_of_slurm(args) && args.since.is_none())
}

/// Whether `--since` leaves out what Slurm says of jobs.
pub(super) fn leaves_out_slurm(
    stored: &Stored,
    status: &Status,
    target: &Target,
    args: &LogsArgs,
) -> bool {
    let is_meant = args.since.is_some() && tells_of_slurm(args);
    let files = || files_with(stored, status, target, args, true).into_iter();
    is_meant && files().any(|file| file.stream == "slurm")
}

/// `with_slurm`: also what Slurm says of jobs.
fn files_with(
    stored: &Stored,
    status: &Status,
    target: &Target,
    args: &LogsArgs,
    with_slurm: bool,
) -> Vec<LogFile> {
    let mut files = Vec::new();
    for (task, trial) in meant(status, &target.scope) {
        let dir = stored.dir.task(task);
        let source = |path, attempt, rank, stream| LogFile {
            path,
            task: task.to_owned(),
            trial: trial.index,
            attempt,
            rank,
            stream,
            end: attempt.and_then(|number| end_of(trial, number)),
        };
        if args.slurm {
            let name = trial.slurm_job.clone().unwrap_or_else(|| format!("local_{}", trial.index));
            let path = dir.slurm_output().join(format!("{name}.out"));
            files.push(source(path, None, None, "slurm"));
            continue;
        }
        let own_output = |job: &str| dir.slurm_output().join(format!("{job}.out"));
        let dir = dir.trial(trial.index);
        // A trial that is read while it runs may have one attempt more than was known.
        for attempt in 0..=u32::try_from(trial.attempts.len()).unwrap_or(u32::MAX) {
            if args.attempt.is_some_and(|wanted| wanted != attempt) {
                continue;
            }
            // The first one's logs are the attempt's own; there may be thousands of others, or none.
            for rank in 0..=dir.last_rank(attempt) {
                let shown = (rank > 0).then_some(rank);
                if args.stream != OutputStream::Err {
                    files.push(source(dir.rank_stdout(attempt, rank), Some(attempt), shown, "out"));
                }
                if args.stream != OutputStream::Out {
                    files.push(source(dir.rank_stderr(attempt, rank), Some(attempt), shown, "err"));
                }
            }
            // What Slurm says of a job, such as whom it preempted, stands behind the last attempt of the job.
            if let Some(job) = job_that_ended(trial, attempt).filter(|_| with_slurm) {
                files.push(source(own_output(job), None, None, "slurm"));
            }
        }
    }
    files.retain(|source| source.path.metadata().is_ok_and(|file| file.len() > 0));
    files
}

/// Slurm's output belongs to no single attempt. It has no times either.
fn tells_of_slurm(args: &LogsArgs) -> bool {
    args.stream != OutputStream::Out && args.attempt.is_none()
}

/// The job of an attempt, where no later attempt ran in it. One that could not be started has left nothing else.
fn job_that_ended(trial: &TrialStatus, number: u32) -> Option<&str> {
    if trial.attempts.is_empty() {
        return trial.slurm_job.as_deref().filter(|_| number == 0);
    }
    let place = usize::try_from(number).ok()?;
    let job = trial.attempts.get(place)?.slurm_job.as_deref()?;
    let mut later = trial.attempts.iter().skip(place + 1);
    (!later.any(|attempt| attempt.slurm_job.as_deref() == Some(job))).then_some(job)
}

/// When an attempt ended.
fn end_of(trial: &TrialStatus, number: u32) -> Option<f64> {
    let mut attempts = trial.attempts.iter();
    attempts.find(|attempt| attempt.number == Some(number)).and_then(|attempt| attempt.end)
}

/// An attempt that never was is a mistake, not an empty log.
pub(super) fn attempt_exists(
    status: &Status,
    target: &Target,
    args: &LogsArgs,
) -> Result<(), CommandError> {
    let Some(wanted) = args.attempt else { return Ok(()) };
    let most =
        meant(status, &target.scope).map(|(_, trial)| trial.attempts.len()).max().unwrap_or(0);
    if (wanted as usize) < most {
        return Ok(());
    }
    let hint = match most {
        0 => "it never ran".to_owned(),
        most => format!("its attempts are 0 to {}", most - 1),
    };
    Err(CommandError::new(ExitCode::NotFound, format!("there is no attempt {wanted}")).hinted(hint))
}
