//! `nemo-harness wrap`: runs a program of anybody's job script as a trial, without `exp.toml`.

mod array_tasks;
mod cluster;
mod copies;
mod folder;
mod options;
mod own_job;
mod own_variables;
mod place;
mod poll_program;
mod resources;
mod script;
mod script_shell;
mod shared_paths;

use std::env;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nemo_core::duration;
use nemo_core::trust::{self, TrustError};

use crate::job::context::{JobContext, SlurmJob};
use crate::job::run::{self, Mode, TrialSelector};
use crate::job::trial::with_path;
use crate::monitor::alarms;
use crate::os::clock::Clock;
use crate::os::log::{log_info, log_stderr};
use crate::program::input;
use cluster::ClusterFacts;
use folder::WrappedJob;
pub(crate) use options::WrapOptions;
use own_job::OwnJob;

/// Runs the program, or prints the lines that its script needs.
pub(crate) fn run(options: &WrapOptions) -> Result<u8, String> {
    let clock = Clock::start();
    if options.directives {
        let limit = variable("SBATCH_TIMELIMIT").and_then(|limit| duration::from_sbatch(&limit));
        let lines = ClusterFacts::ask(&clock).directives(options.lead_within(limit));
        std::io::stdout().write_all(lines.as_bytes()).ok(); // who closed it does not want them
        return Ok(nemo_core::exit::DONE);
    }
    if input::is_piped() {
        return Err(PIPED.to_owned());
    }
    let context = JobContext::read(false).map_err(|error| format!("/proc: {error}"))?;
    let home = home()?;
    trust::require_safe_home(&home).map_err(|why| refusal(&why))?;
    let workdir = env::current_dir().map_err(|error| format!("the working folder: {error}"))?;
    require_text(&home, &workdir)?;
    let slurm = context.slurm.as_ref();
    let shown = slurm.map(|own| cluster::show_job(own, &clock)).unwrap_or_default();
    own_variables::put_right(&shown).map_err(|error| with_path(&context.exe, &error))?;
    let own = slurm.map(|own| OwnJob::read(own, &shown));
    let trial = context.array_index();
    let job = WrappedJob::open(&home, options, own, &workdir, trial)
        .map_err(|error| with_path(&home, &error))?;
    let options = &fitted(options, resources::time_limit(&shown));
    let facts = slurm.map(|own| facts(own, &shown, options.lead, &clock)).unwrap_or_default();
    let written = job.write(options, &facts, &shown, &workdir, trial, &clock);
    let (source, shared) = written.map_err(|error| with_path(job.dir(), &error))?;
    if let Some(own) = &context.slurm {
        cluster::prepare_job(own, &shown, &clock);
    }
    log_info(&format!("the state of this job is in `{}`", job.dir().display()));
    let lacks_exec = context.slurm.is_some() && script_shell::waits();
    let at_start = lacks_exec.then(alarms::lacks_exec).into_iter().chain(shared).collect();
    let mode = Mode { local: context.slurm.is_none(), in_environment: true, at_start };
    run::run(&source, TrialSelector::Trial(trial), mode)
}

/// Fails where the record of the job could not hold the name of a folder: it is JSON, which knows only UTF-8. Of what is
/// typed, the options see to that.
fn require_text(home: &Path, workdir: &Path) -> Result<(), String> {
    let mut folders = [("the working folder", workdir), ("the home", home)].into_iter();
    match folders.find(|(_, path)| path.to_str().is_none()) {
        Some((what, path)) => Err(format!(
            "{what} is not UTF-8, and can't be written down for later attempts: `{}`; rename it",
            path.as_os_str().as_bytes().escape_ascii()
        )),
        None => Ok(()),
    }
}

/// Why a pipe is refused.
const PIPED: &str = "the program would read its input from a pipe, which no second attempt could read: write the input to a \
                     file, and redirect that, as in `nemo-harness wrap -- lmp < in.lammps`";

/// The options, with a lead that leaves the program some time.
fn fitted(options: &WrapOptions, limit: Option<u64>) -> WrapOptions {
    let lead = options.lead_within(limit);
    if options.is_lead_given && lead != options.lead {
        log_stderr(&format!(
            "`--lead` is {} s, which is all of the job's time: the program is asked to save {lead} s before its end",
            options.lead
        ));
    }
    WrapOptions { lead, ..options.clone() }
}

/// What the job must know of its cluster, by what its script says.
fn facts(own: &SlurmJob, shown: &str, lead: u64, clock: &Clock) -> ClusterFacts {
    let mut facts = ClusterFacts::ask(clock);
    if facts.depends_on_partition() {
        facts.heed_partition(&cluster::show_partition(shown, clock));
    }
    facts.heed(cluster::script(own, shown, clock).as_ref(), lead);
    facts
}

/// Why the home is not used, in the words of nemo-slurm. A log line stays one.
fn refusal(why: &TrustError) -> String {
    match why {
        TrustError::Distrust(distrust) => format!("{distrust}; hint: {}", distrust.hint()),
        TrustError::Io { .. } => why.to_string(),
    }
}

/// `$NEMO_SLURM_HOME`, as `nemo-slurm` finds it.
#[expect(clippy::disallowed_methods, reason = "the environment is read once, at the start")]
fn home() -> Result<PathBuf, String> {
    let own = env::var_os("NEMO_SLURM_HOME").filter(|own| !own.is_empty()).map(PathBuf::from);
    let user = env::var_os("HOME").map(|home| PathBuf::from(home).join(".nemo_slurm"));
    let home = own.or(user).ok_or("neither NEMO_SLURM_HOME nor HOME is set")?;
    std::path::absolute(&home).map_err(|error| with_path(&home, &error))
}

/// A variable of the job that Slurm has set.
#[expect(clippy::disallowed_methods, reason = "the environment is read once, at the start")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
