//! Starts the runner of what runs on this machine, or waits until the one that lives knows of what is new.

use std::time::Duration;

use super::not_claimed;
use crate::clock;
use crate::commands::App;
use crate::error::{CommandError, ExitCode};
use crate::executor::local;
use crate::journal::{self, Event, Journal, Record};
use crate::report::say;
use crate::store::claim::{self, ClaimKind};
use crate::store::{Claim, ClaimError, Stored, TakeOver};

/// Between two looks whether the runner has heard of a retry, and how often it is looked: for a minute.
const UNTIL_HEARD: Duration = Duration::from_millis(50);
const LOOKS: u32 = 1200;

/// Starts the runner of what runs here, unless it has one.
pub(in crate::commands) fn start_runner(
    app: &App,
    stored: &Stored,
    claim: &Claim,
    take_over: TakeOver,
) -> Result<(), CommandError> {
    // The journal may have grown by what was submitted.
    let now = app.home.load(&stored.id)?;
    let mut journal = Journal::open(&stored.dir.journal(), now.journal, claim)?;
    run_here(app, stored, &mut journal, take_over)
}

/// Starts the runner of a local experiment, unless it has one.
fn run_here(
    app: &App,
    stored: &Stored,
    journal: &mut Journal<'_>,
    take_over: TakeOver,
) -> Result<(), CommandError> {
    let generation = journal::last_generation(journal.events());
    start_or_tell_runner(app, stored, journal, take_over, generation)?;
    for generation in 0..=generation {
        if !journal::is_generation_complete(journal.events(), generation) {
            journal.record(Event::Complete { generation, time: clock::now() })?;
        }
    }
    journal.sync()?;
    Ok(())
}

/// Returns when a runner knows of the trials of this generation: one that lives, or a new one.
fn start_or_tell_runner(
    app: &App,
    stored: &Stored,
    journal: &Journal<'_>,
    take_over: TakeOver,
    generation: u32,
) -> Result<(), CommandError> {
    let dir = &stored.dir;
    for _ in 0..LOOKS {
        // Released at once: the runner that is started claims it for itself.
        match claim::take(dir, ClaimKind::Runner, take_over, &|text| say(text)).map(drop) {
            Ok(()) => {
                journal.check_claim()?;
                local::start_runner(&app.program, app.home.path(), stored.id.as_str(), dir)?;
                return Ok(());
            }
            Err(ClaimError::Held { holder: Some(holder) }) if holder.runs_here() => {
                // It may be about to leave, and then never hears of what is retried.
                if local::knows_generation(dir, generation)? {
                    return Ok(());
                }
                std::thread::sleep(UNTIL_HEARD);
            }
            Err(error) => return Err(not_claimed(&stored.id, error)),
        }
    }
    Err(not_heard(stored))
}

/// The runner lives, and does not take up what is new: it is stopped, or can't read or write the experiment's folder.
fn not_heard(stored: &Stored) -> CommandError {
    let (id, log) = (&stored.id, stored.dir.0.join("runner.out"));
    let text = format!("the runner of `{id}` on this machine did not react within a minute");
    CommandError::new(ExitCode::Failed, text)
        .hinted(format!("`{}` may say why", log.display()))
        .hinted(format!(
            "`nemo-slurm submit --continue {id}` tells it again; nothing is done twice"
        ))
        .hinted(format!("`nemo-slurm submit --continue {id} --take-over` replaces it"))
}
