//! The program's own paths of a trial: where it saves, and where it looks for its checkpoint.

use std::path::PathBuf;

use nemo_core::own_paths::{self, OwnPath};

use crate::attempt::lease::Lease;
use crate::attempt::tier::Tier;
use crate::checkpoint::collect::CollectorConfig;
use crate::checkpoint::restore::RestorePlan;
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::job::harness::Harness;
use crate::job::trial::Trial;
use crate::program::command;

/// The patterns of `checkpoint.from`, placeholders filled.
fn saved(trial: &Trial) -> Result<Vec<OwnPath>, String> {
    let one = |text: &String| {
        let filled = command::path(trial, text, own_paths::literal)?;
        OwnPath::new(&trial.workdir(), &filled)
            .map_err(|why| format!("checkpoint.from `{text}`: {why}"))
    };
    trial.spec.checkpoint.from.iter().map(one).collect()
}

/// Whether the program goes on by itself from what nobody here knows: its record stays, up to where it goes on.
pub(super) fn goes_on_by_itself(trial: &Trial) -> bool {
    let checkpoint = &trial.spec.checkpoint;
    trial.signal.is_none()
        && checkpoint.command.is_none()
        && checkpoint.from.is_empty()
        && checkpoint.restore_to.is_none()
}

/// Whether the step of a checkpoint may have been told from what the program had printed when it saved: the save's name has
/// no number, or its number need not be a step.
pub(super) fn is_counted_by_output(trial: &Trial, resumed: &VerifiedCheckpoint) -> bool {
    !trial.spec.checkpoint.from.is_empty() || !resumed.entry.iter().any(u8::is_ascii_digit)
}

/// The nodes on which the program may have processes. A wrapped job starts those of others by itself.
pub(super) fn nodes(harness: &Harness) -> u32 {
    let launched = harness.trial.spec.launch.as_ref().map(|launch| launch.nodes);
    launched.unwrap_or(harness.context.nodes)
}

/// What the collector of an attempt is told; none where the task names no paths.
pub(super) fn collector(
    harness: &Harness,
    lease: &Lease,
    tier: Option<&Tier>,
) -> Result<Option<CollectorConfig>, String> {
    let trial = &harness.trial;
    let mut paths = saved(trial)?;
    let tier = tier.map(|tier| tier.folder.clone());
    if let Some(folder) = &tier {
        paths.push(OwnPath::new(folder, "*")?);
    }
    let config = CollectorConfig {
        profile: trial.spec.profile,
        staging: trial.dir.staging(lease.attempt),
        record: trial.dir.collected(),
        is_multi_node: nodes(harness) > 1,
        clock: harness.clock,
        paths,
        tier,
    };
    Ok(Some(config).filter(|config| !config.paths.is_empty()))
}

/// What is to be done before the program starts; none where it is given its checkpoint.
pub(crate) fn restore_plan(
    trial: &Trial,
    nonce: &str,
    has_committed: bool,
) -> Result<Option<RestorePlan>, String> {
    let Some(text) = &trial.spec.checkpoint.restore_to else { return Ok(None) };
    let refused = |(why, hint)| format!("checkpoint.restore_to {text:?}: {why}; {hint}");
    let from = trial.spec.checkpoint.from.iter().map(String::as_str);
    own_paths::check_target(text, from).map_err(refused)?;
    let filled = command::path(trial, text, str::to_owned)?;
    let is_folder = filled.ends_with('/');
    let target: PathBuf = trial.workdir().join(filled).components().collect();
    // An absolute path may be one as well.
    if !is_folder && [&trial.workdir(), trial.dir.path()].iter().any(|own| own.starts_with(&target))
    {
        own_paths::check_target(".", []).map_err(refused)?;
    }
    let paths = saved(trial)?;
    let is_saved = is_folder || paths.is_empty() || paths.iter().any(|own| own.means(&target));
    Ok(Some(RestorePlan {
        is_all_there_is: !is_saved && !has_committed,
        is_folder,
        target,
        paths,
        record: trial.dir.collected(),
        checkpoints: trial.dir.checkpoints(),
        nonce: nonce.to_owned(),
    }))
}
