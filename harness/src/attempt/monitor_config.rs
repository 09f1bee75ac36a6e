//! What the monitor of an attempt reads: output, messages, policies, and what the attempt goes on from.

use std::time::Duration;

use nemo_core::patterns::Patterns;
use nemo_core::rundir::Every as SaveEvery;

use crate::attempt::history::History;
use crate::attempt::lease::Lease;
use crate::attempt::own_paths;
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::job::harness::Harness;
use crate::monitor::MonitorConfig;
use crate::monitor::alarms::{self, Alarms};
use crate::monitor::log_policy::Policies;
use crate::monitor::metrics::{self, CutAtFirstStep};
use crate::monitor::watchdog::Watchdog;
use crate::os::log::Log;
use crate::program::guard;
use crate::protocol::{SavePeriod, Session, SessionConfig, Socket};

/// The monitor's configuration, and whether the program's output must be read.
pub(super) fn monitor_config(
    harness: &Harness,
    lease: &Lease,
    resumed: Option<&VerifiedCheckpoint>,
    history: &History,
    log: &mut Log,
) -> Result<(MonitorConfig, bool), String> {
    let spec = &harness.trial.spec;
    let patterns = Patterns::new(&spec.metrics)?;
    let policies = Policies::new(&spec.log_policy)?;
    let is_read = !patterns.is_empty() || !policies.is_empty();
    let mark = guard::mark(&harness.context);
    let socket = match Socket::open(&std::env::temp_dir(), &mark, &lease.nonce) {
        Ok(socket) => Some(socket),
        Err(error) => {
            log.warn(&format!(
                "the program can't send messages; its socket could not be made: {error}"
            ));
            None
        }
    };
    let session = Session::new(session_config(harness, resumed));
    let now = harness.clock.now();
    let watchdog = spec.restart.hang.map(|limit| Watchdog::new(Duration::from_secs(limit), now));
    let cut = cut_at_first_step(harness, resumed, history);
    let every = match spec.checkpoint.every {
        Some(SaveEvery::Seconds(seconds)) => Some(Duration::from_secs(seconds)),
        Some(SaveEvery::Steps(_) | SaveEvery::Auto) | None => None,
    };
    let starts_over = resumed.is_none() && cut.is_none() && history.stuck > 0;
    let mut at_start = harness.at_start.clone();
    at_start.extend(starts_over.then(|| alarms::starts_over(history.stuck)));
    let alarms = Alarms::new(resumed.map(VerifiedCheckpoint::reached), every, now)
        .with_alarms_at_start(at_start)
        .knowing(metrics::names_reported(&harness.trial.dir));
    let streams = Vec::new(); // until the program has started
    let config =
        MonitorConfig { streams, patterns, policies, session, socket, watchdog, cut, alarms };
    Ok((config, is_read))
}

/// Whether only the program's first step tells how much of the earlier record it repeats.
fn cut_at_first_step(
    harness: &Harness,
    resumed: Option<&VerifiedCheckpoint>,
    history: &History,
) -> Option<CutAtFirstStep> {
    if history.leaves_own {
        return Some(CutAtFirstStep { resumed: None });
    }
    let is_uncut = match resumed {
        Some(resumed) => own_paths::is_counted_by_output(&harness.trial, resumed),
        None => own_paths::goes_on_by_itself(&harness.trial),
    };
    is_uncut.then_some(CutAtFirstStep { resumed: resumed.map(VerifiedCheckpoint::reached) })
}

/// The initial state of the conversation with the program.
fn session_config(harness: &Harness, resumed: Option<&VerifiedCheckpoint>) -> SessionConfig {
    let trial = &harness.trial;
    let every = match trial.spec.checkpoint.every {
        Some(SaveEvery::Seconds(seconds)) => SavePeriod::Time(Duration::from_secs(seconds)),
        Some(SaveEvery::Steps(steps)) => SavePeriod::Steps(steps),
        Some(SaveEvery::Auto) | None => SavePeriod::Never,
    };
    let metric = trial.spec.metric.clone();
    let mut config = SessionConfig { metric, every, ..SessionConfig::default() };
    let Some(resumed) = resumed else { return config };
    config.resumed = Some(resumed.reached());
    let validated = metrics::validated(&trial.dir.metrics(), config.metric.as_ref());
    (config.validated, config.best) = validated.unwrap_or_default();
    config
}
