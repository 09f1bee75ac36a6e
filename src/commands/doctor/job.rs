//! The job of `doctor --job`: submits it, answers what it writes to the home, and cancels it where it does not come.

use std::path::Path;
use std::time::Duration;

use nemo_core::{durable, open};

use crate::clock;
use crate::commands::App;
use crate::doctor::CheckResult;
use crate::doctor::node::{self, NodeFacts};
use crate::error::CommandError;
use crate::rehearse::local::Interrupt;
use crate::report::say;
use crate::script::shell_word;
use crate::slurm::{Client, JobId, JobPhase};

/// Between two looks at what the job wrote.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// How long the job may take once it runs.
const RUN: f64 = 75.0;
/// Between two questions to Slurm about it.
const QUESTIONS: f64 = 5.0;
const TOPIC: &str = "node";
const OTHER_HOME: &str = "set NEMO_SLURM_HOME to a folder that the compute nodes see";

/// Why nothing is known of a node.
type Failed = Box<CheckResult>;

/// The command that tries another partition than the one that was refused, if there is one.
fn again(refused: Option<&str>, partitions: &[String]) -> String {
    let other = partitions.iter().find(|name| Some(name.as_str()) != refused);
    other.map_or("nemo-slurm doctor --job".to_owned(), |name| {
        format!("nemo-slurm doctor --job {name}")
    })
}

/// The partitions that are up.
fn other_partitions(app: &App) -> Vec<String> {
    let known = app.slurm.limits_and_partitions().map(|(_, partitions)| partitions);
    let up = known.unwrap_or_default().into_iter().filter(|partition| partition.up);
    up.map(|partition| partition.name).collect()
}

/// Has a job look at the home. Its folder there is removed at the end.
pub(super) fn run(
    app: &App,
    partition: Option<&str>,
    patience: Duration,
) -> Result<NodeFacts, Failed> {
    let failed = |error: std::io::Error| Box::new(CheckResult::problem(TOPIC, error.to_string()));
    let interrupt = Interrupt::listen().map_err(failed)?;
    let home = TouchedHome::new(app.home.path());
    durable::create_dir_all(home.path).map_err(failed)?;
    // It goes first, then the home.
    let folder =
        tempfile::Builder::new().prefix(".doctor-").tempdir_in(home.path).map_err(failed)?;
    let path = folder.path();
    let script = path.join("job.sh");
    let text = node::script(&shell_word(&path.to_string_lossy()), partition);
    durable::write_synced(&script, text.as_bytes()).map_err(failed)?;
    let submitted = app.slurm.submit(&script, &[]).map_err(|error| {
        let finding = CheckResult::problem(TOPIC, CommandError::from(error).one_line());
        Box::new(finding.by_typing(again(partition, &other_partitions(app))))
    })?;
    let job = submitted.job;
    say(&format!("Job {job} looks at the home from a node … (Ctrl-C or `scancel {job}` ends it)"));
    let seen = JobWatch::new(&app.slurm, (job, &interrupt), path, patience).run();
    if seen.is_err() {
        let control = app.slurm.control(vec![node::JOB_NAME.to_owned()]);
        if control.cancel(&[job.to_string()]).is_err() {
            say(&format!("warning: job {job} could not be cancelled\nhint: `scancel {job}`"));
        }
    }
    seen
}

/// A home that is removed at the end if it was made for this alone.
struct TouchedHome<'a> {
    path: &'a Path,
    is_new: bool,
}

impl<'a> TouchedHome<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, is_new: !path.exists() }
    }
}

impl Drop for TouchedHome<'_> {
    fn drop(&mut self) {
        if self.is_new {
            std::fs::remove_dir(self.path).ok(); // unless it is used by now
        }
    }
}

/// What the job wrote first, when that was seen, and when it was answered.
struct Hello {
    text: String,
    seen: f64,
    answered: f64,
}

/// Waits for the job's files, and answers.
struct JobWatch<'a> {
    client: &'a Client,
    job: JobId,
    interrupt: &'a Interrupt,
    folder: &'a Path,
    /// When nobody waits any longer.
    end: f64,
    /// When Slurm was asked last.
    asked: f64,
    has_started: bool,
    hello: Option<Hello>,
}

impl<'a> JobWatch<'a> {
    fn new(
        client: &'a Client,
        (job, interrupt): (JobId, &'a Interrupt),
        folder: &'a Path,
        patience: Duration,
    ) -> Self {
        let now = clock::now();
        let end = now + patience.as_secs_f64();
        Self { client, job, interrupt, folder, end, asked: now, has_started: false, hello: None }
    }

    fn run(mut self) -> Result<NodeFacts, Failed> {
        loop {
            self.answer()?;
            if let Some(facts) = self.report()? {
                return Ok(facts);
            }
            if clock::now() - self.asked > QUESTIONS {
                self.ask()?;
            }
            if clock::now() > self.end {
                return Err(Box::new(self.too_late()));
            }
            if self.interrupt.wait(LOOK).is_err() {
                let what = format!("interrupted while job {} had not reported", self.job);
                return Err(Box::new(CheckResult::problem(TOPIC, what)));
            }
        }
    }

    fn answer(&mut self) -> Result<(), Failed> {
        if self.hello.is_some() {
            return Ok(());
        }
        let Some(text) = self.read(node::HELLO) else { return Ok(()) };
        let seen = clock::now();
        durable::replace_file_durably(&self.folder.join(node::ANSWER), b"here")
            .map_err(|error| Box::new(CheckResult::problem(TOPIC, error.to_string())))?;
        let answered = clock::now();
        self.hello = Some(Hello { text, seen, answered });
        (self.end, self.has_started) = (answered + RUN, true);
        Ok(())
    }

    fn report(&self) -> Result<Option<NodeFacts>, Failed> {
        let Some(hello) = &self.hello else { return Ok(None) };
        let Some(report) = self.read(node::REPORT) else { return Ok(None) };
        let facts = node::facts(&hello.text, hello.seen, hello.answered, &report);
        let unseen = || {
            let what = "a file that was written here did not appear on the node within 45 s";
            let finding = CheckResult::problem(TOPIC, what);
            Box::new(finding.since("the node does not see what this machine writes to the home"))
        };
        facts.map(Some).ok_or_else(unseen)
    }

    /// No answer says nothing.
    fn ask(&mut self) -> Result<(), Failed> {
        self.asked = clock::now();
        let rows = self.client.queue(&[self.job]).map(|parsed| parsed.rows).unwrap_or_default();
        match rows.first().map(|row| row.state.phase()) {
            Some(JobPhase::Ended) if self.hello.is_none() && self.read(node::HELLO).is_none() => {
                let what = format!("job {} ended, and wrote nothing to the home", self.job);
                let finding = CheckResult::problem(TOPIC, what)
                    .since("the node does not see the folder, or may not write to it");
                Err(Box::new(finding.by_typing(OTHER_HOME)))
            }
            Some(JobPhase::Active) if !self.has_started => {
                (self.end, self.has_started) = (self.asked + RUN, true);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn too_late(&self) -> CheckResult {
        let job = self.job;
        if self.has_started {
            let what = format!("job {job} runs, and its files don't appear here");
            let finding = CheckResult::problem(TOPIC, what).since(
                "the node does not see the folder, or a file needs more than a minute to appear",
            );
            return finding.by_typing(OTHER_HOME);
        }
        let what = format!("job {job} did not start in time, and was cancelled");
        let finding = CheckResult::advice(TOPIC, what);
        finding.by_typing("nemo-slurm doctor --job --timeout 30min")
    }

    /// A file of the job's, once it is whole.
    fn read(&self, name: &str) -> Option<String> {
        open::refresh(self.folder);
        let text = std::fs::read_to_string(self.folder.join(name)).ok()?;
        Some(text).filter(|text| text.ends_with('\n'))
    }
}
