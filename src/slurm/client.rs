//! Asks Slurm: one program run per question, whatever the number of jobs.
//!
//! Questions about a site are in `site`, commands to jobs in `control`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::command::{Call, Output, block_on};
use super::environment::{FOR_QUESTIONS, is_for_questions, is_for_sbatch, is_for_users_script};
use super::error::{SlurmError, notices};
use super::id::JobId;
use super::parse::account::{self, AccountRow};
use super::parse::job::{self, JobDetail};
use super::parse::queue::{self, QueueRow};
use super::parse::usage::{self, JobUsage};
use super::parse::{Parsed, excerpt, submit};

/// How long one of Slurm's programs may take. With its controller down they give up by themselves after 9 to 18 s.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of ids in one argument; Linux takes at most 128 KiB.
pub(super) const LONGEST_ARGUMENT: usize = 100_000;

/// The earliest time that `sacct` takes as `uts…`: smaller numbers are refused.
const EARLIEST: i64 = 1_000_000;

/// Seconds by which this machine's clock and Slurm's may differ.
const ACCOUNTING_CLOCK_SKEW: f64 = 3600.0;

/// From when on accounting is asked about what happened at `time`. Both are unix seconds, the second by this machine's clock.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "unix seconds")]
pub fn accounting_since(time: f64) -> i64 {
    (time - ACCOUNTING_CLOCK_SKEW) as i64
}

/// Slurm's programs, found in PATH.
#[derive(Clone, Debug)]
pub struct Client {
    timeout: Duration,
    path: Option<OsString>,
    names: Vec<String>,
    cluster: Option<String>,
}

/// A job that Slurm took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub job: JobId,
    /// The cluster that has it, where `sbatch` says so.
    pub cluster: Option<String>,
    /// What `sbatch`, or a site's own rules in it, said beside.
    pub notices: Vec<String>,
}

/// What is known of the jobs of a name.
#[derive(Debug)]
pub struct FoundJobs {
    /// The jobs, each once, rising; an array counts as one job.
    pub jobs: Vec<JobId>,
    /// Whether jobs that left the queue would be among them.
    pub accounting: Accounting,
}

/// What part the accounting database had in an answer.
#[derive(Debug)]
pub enum Accounting {
    /// The queue knew enough.
    NotNeeded,
    /// It was asked and answered.
    Asked,
    /// This cluster has none: jobs that left the queue can't be known.
    Off,
    /// It was asked and didn't answer: there may be jobs that left the queue.
    Unanswered(SlurmError),
}

impl FoundJobs {
    /// Whether there certainly is no such job. `false` with no jobs means: can't tell.
    #[must_use]
    pub fn surely_none(&self) -> bool {
        self.jobs.is_empty() && matches!(self.accounting, Accounting::Asked)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(TIMEOUT)
    }
}

impl Client {
    /// A client that gives each program so much time. Costs nothing: no program is run.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self { timeout, path: None, names: Vec::new(), cluster: None }
    }

    /// The same, with the programs looked up in another PATH.
    #[must_use]
    pub fn with_path(self, path: impl Into<OsString>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same, but blind to jobs of other names: an id alone is not to be trusted, since a controller that lost its
    /// state, or that counted round, gives it to another job. See [`Client::control`] for what jobs are told.
    #[must_use]
    pub fn for_names(&self, names: Vec<String>) -> Self {
        Self { names, ..self.clone() }
    }

    /// The same, with at most so much time for each program.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(self.timeout), ..self.clone() }
    }

    /// The same for another cluster than the one that this machine belongs to: every program is told (`-M`).
    #[must_use]
    pub fn on_cluster(&self, cluster: Option<&str>) -> Self {
        Self { cluster: cluster.map(str::to_owned), ..self.clone() }
    }

    /// Submits a script: `sbatch --parsable ARGS SCRIPT`.
    ///
    /// After an error that [is no answer](SlurmError::is_no_answer) the job may exist: look with [`Client::find`].
    pub fn submit(&self, script: &Path, args: &[String]) -> Result<Accepted, SlurmError> {
        let text = std::fs::read(script).unwrap_or_default(); // sbatch says it best if there is no such file
        let text = String::from_utf8_lossy(&text);
        let allow_env = |name: &OsStr| is_for_sbatch(name, &text, args);
        self.sbatch(script, args, &[], &allow_env)
    }

    /// Submits a script of the user's as `sbatch` itself would: with the whole environment, and words for the script. Left
    /// out are `SBATCH_WAIT`, since `sbatch` would not return before the job is over, and what is true only of the job that
    /// we run in.
    pub fn submit_with_environment(
        &self,
        script: &Path,
        args: &[String],
        for_script: &[String],
    ) -> Result<Accepted, SlurmError> {
        self.sbatch(script, args, for_script, &is_for_users_script)
    }

    fn sbatch(
        &self,
        script: &Path,
        args: &[String],
        for_script: &[String],
        allow_env: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Accepted, SlurmError> {
        let mut words = vec![OsString::from("--parsable")];
        words.extend(args.iter().map(OsString::from));
        words.push(script.into());
        words.extend(for_script.iter().map(OsString::from));
        let output = block_on("sbatch", self.run("sbatch", &words, allow_env, &[]))?;
        let (job, cluster) =
            submit::parse(&output.stdout).ok_or_else(|| unreadable("sbatch", &output))?;
        Ok(Accepted { job, cluster, notices: notices(&output.stderr) })
    }

    /// Looks for jobs of exactly this name: in the queue, and if it has none, in the accounts since `since`.
    ///
    /// Fails only if the queue can't be asked. A job that was cancelled before it could ever run is in no account.
    pub fn find(&self, job_name: &str, since: i64) -> Result<FoundJobs, SlurmError> {
        let name = format!("--name={job_name}");
        if job_name.is_empty() || job_name.contains(',') {
            let reason = format!("`{job_name}` is not the name of one job");
            return Err(SlurmError::Refused { program: "squeue", reason, code: Some(1) });
        }
        let queued = self.squeue(std::slice::from_ref(&name))?;
        let jobs = distinct(queued.rows.iter().map(|row| row.array_job));
        if !jobs.is_empty() {
            return Ok(FoundJobs { jobs, accounting: Accounting::NotNeeded });
        }
        if let Some(line) = queued.unread.first() {
            return Err(SlurmError::Unreadable { program: "squeue", output: line.text.clone() });
        }
        Ok(match self.sacct(since, &[name]) {
            Ok(rows) if rows.rows.is_empty() && !rows.unread.is_empty() => {
                let output = rows.unread[0].text.clone();
                let error = SlurmError::Unreadable { program: "sacct", output };
                FoundJobs { jobs, accounting: Accounting::Unanswered(error) }
            }
            Ok(rows) => FoundJobs {
                jobs: distinct(rows.rows.iter().map(|row| row.array_job)),
                accounting: Accounting::Asked,
            },
            Err(SlurmError::AccountingOff) => FoundJobs { jobs, accounting: Accounting::Off },
            Err(error) => FoundJobs { jobs, accounting: Accounting::Unanswered(error) },
        })
    }

    /// What the queue says of these jobs, ended ones included until Slurm forgets them. One `squeue`; a second one
    /// where tasks of one array wait for different reasons.
    ///
    /// Pass the ids of arrays, not of their tasks. A job that Slurm forgot has no row.
    pub fn queue(&self, jobs: &[JobId]) -> Result<Parsed<QueueRow>, SlurmError> {
        block_on("squeue", self.queue_text(jobs)).map(|text| queue::parse(&text))
    }

    /// The same, as `squeue` prints it: what [`queue::parse`] reads.
    pub async fn queue_text(&self, jobs: &[JobId]) -> Result<Vec<u8>, SlurmError> {
        let mut all = Vec::new();
        for list in id_lists(jobs) {
            let which = format!("--jobs={list}");
            let mut part = self.squeue_text(std::slice::from_ref(&which)).await?;
            // Tasks of an array that wait for different reasons have one row, with all the reasons.
            if queue::rows(&part).flatten().any(|row| row.reason.contains(',')) {
                part = self.squeue_text(&[which, "--array".to_owned()]).await?;
            }
            all.extend(part);
        }
        Ok(all)
    }

    /// What the accounts say of these jobs: every attempt of each. One `sacct`.
    pub fn accounting(&self, jobs: &[JobId], since: i64) -> Result<Parsed<AccountRow>, SlurmError> {
        block_on("sacct", self.accounting_text(jobs, since)).map(|text| account::parse(&text))
    }

    /// The same, as `sacct` prints it: what [`account::parse`] reads.
    pub async fn accounting_text(&self, jobs: &[JobId], since: i64) -> Result<Vec<u8>, SlurmError> {
        let mut all = Vec::new();
        for list in id_lists(jobs) {
            all.extend(self.sacct_text(since, &[format!("--jobs={list}")]).await?);
        }
        Ok(all)
    }

    /// What the controller says of one job, task or array; nothing if it doesn't know it.
    pub fn show(&self, id: &str) -> Result<Parsed<JobDetail>, SlurmError> {
        match self.call("scontrol", &["--oneliner", "show", "job", id]) {
            Ok(output) => Ok(job::parse(&output.stdout)),
            Err(SlurmError::Refused { reason, .. }) if is_unknown_job(&reason) => {
                Ok(Parsed::default())
            }
            Err(error) => Err(error),
        }
    }

    /// What these jobs were given and have used, as far as Slurm accounts for it. One `sacct`.
    pub fn usage(&self, jobs: &[JobId], since: i64) -> Result<Vec<JobUsage>, SlurmError> {
        let fields = format!("--format={}", usage::FIELDS.join(","));
        let delimiter = format!("--delimiter={}", char::from(queue::DELIMITER));
        let since = format!("--starttime=uts{}", since.max(EARLIEST));
        let mut all = Vec::new();
        for list in id_lists(jobs) {
            let which = format!("--jobs={list}");
            let words =
                ["--duplicates", "--parsable", "--noheader", &since, &delimiter, &fields, &which];
            match self.call("sacct", &words) {
                Ok(output) => all.extend(usage::parse(&output.stdout)),
                Err(SlurmError::AccountingOff) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn squeue(&self, which: &[String]) -> Result<Parsed<QueueRow>, SlurmError> {
        block_on("squeue", self.squeue_text(which)).map(|text| queue::parse(&text))
    }

    async fn squeue_text(&self, which: &[String]) -> Result<Vec<u8>, SlurmError> {
        let delimiter = char::from(queue::DELIMITER);
        let fields = queue::FIELDS.map(|field| format!("{field}:{delimiter}")).join(",");
        let format = format!("--Format={fields}");
        let mut words = vec!["--noheader", "--states=all", &format];
        words.extend(which.iter().map(String::as_str));
        let names = self.name_filter();
        words.extend(names.as_deref());
        match self.call_async("squeue", &words).await {
            // `squeue` complains of a field that it doesn't know, leaves it out, and exits 0.
            Ok(output) => match SlurmError::from_output("squeue", &output.stderr, output.code) {
                error @ SlurmError::UnknownField { .. } => Err(error),
                _ => Ok(output.stdout),
            },
            Err(SlurmError::Refused { reason, .. }) if is_unknown_job(&reason) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn sacct(&self, since: i64, which: &[String]) -> Result<Parsed<AccountRow>, SlurmError> {
        block_on("sacct", self.sacct_text(since, which)).map(|text| account::parse(&text))
    }

    async fn sacct_text(&self, since: i64, which: &[String]) -> Result<Vec<u8>, SlurmError> {
        let fields = format!("--format={}", account::FIELDS.join(","));
        let delimiter = format!("--delimiter={}", char::from(queue::DELIMITER));
        let since = format!("--starttime=uts{}", since.max(EARLIEST));
        let mut words = vec!["--duplicates", "--allocations", "--parsable", "--noheader"];
        words.extend([since.as_str(), &delimiter, &fields]);
        words.extend(which.iter().map(String::as_str));
        let names = self.name_filter();
        words.extend(names.as_deref());
        Ok(self.call_async("sacct", &words).await?.stdout)
    }

    fn name_filter(&self) -> Option<String> {
        (!self.names.is_empty()).then(|| format!("--name={}", self.names.join(",")))
    }

    pub(super) fn on_jobs(
        &self,
        program: &'static str,
        words: &[&str],
        ids: &[String],
    ) -> Result<(), SlurmError> {
        for some in ids.chunks(LONGEST_ARGUMENT / 100) {
            let some = some.iter().map(String::as_str);
            let all: Vec<&str> = words.iter().copied().chain(some).collect();
            self.call(program, &all)?;
        }
        Ok(())
    }

    /// Runs a program with the variables that Slurm's settings are in, and with output that is made to be parsed.
    pub(super) fn call(&self, program: &'static str, words: &[&str]) -> Result<Output, SlurmError> {
        block_on(program, self.call_async(program, words))
    }

    /// The same, to run beside other programs.
    pub(super) async fn call_async(
        &self,
        program: &'static str,
        words: &[&str],
    ) -> Result<Output, SlurmError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        self.run(program, &words, &is_for_questions, &FOR_QUESTIONS).await
    }

    pub(super) async fn run(
        &self,
        program: &'static str,
        args: &[OsString],
        allow_env: &dyn Fn(&OsStr) -> bool,
        set_env: &[(&'static str, &'static str)],
    ) -> Result<Output, SlurmError> {
        let path = self.path.as_deref();
        let cluster = self.cluster.iter().map(|name| format!("--clusters={name}").into());
        let args = &cluster.chain(args.iter().cloned()).collect::<Vec<OsString>>();
        let output =
            Call { program, args, path, allow_env, set_env, timeout: self.timeout }.run().await?;
        match output.code {
            Some(0) => Ok(output),
            // Of a task that its array does not have, older versions tell on stdout.
            code if output.stderr.is_empty() && output.stdout.len() < 1000 => {
                Err(SlurmError::from_output(program, &output.stdout, code))
            }
            code => Err(SlurmError::from_output(program, &output.stderr, code)),
        }
    }
}

fn is_unknown_job(reason: &str) -> bool {
    // The second about a task that its array does not have; up to 24.11 it is on stdout.
    reason.contains("Invalid job id specified") || reason.ends_with("not found")
}

pub(super) fn unreadable(program: &'static str, output: &Output) -> SlurmError {
    SlurmError::Unreadable { program, output: excerpt(&output.stdout) }
}

fn distinct(jobs: impl Iterator<Item = JobId>) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = jobs.collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}

/// The ids as comma-separated lists that each fit into one argument: one list, but for many thousands of jobs.
pub(super) fn id_lists(jobs: &[JobId]) -> Vec<String> {
    let longest = "4294967295,".len();
    let lists = jobs.chunks(LONGEST_ARGUMENT / longest);
    lists.map(|some| some.iter().map(JobId::to_string).collect::<Vec<_>>().join(",")).collect()
}
