//! What a user means by `EXPERIMENT[/TASK[/TRIALS]]`.

use std::fmt;

use nemo_core::rundir::notes;
use nemo_core::scope::{Scope, TrialSet};

use super::{ExperimentId, Home, StoreError};
use crate::humanize::count;
use crate::journal;

/// A target, its experiment found, its task and trial not yet held against the experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The experiment.
    pub id: ExperimentId,
    /// Index of the trial.
    pub scope: Scope,
}

impl Target {
    /// All of an experiment.
    #[must_use]
    pub fn whole(id: ExperimentId) -> Self {
        Self { id, scope: Scope::default() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, self.scope)
    }
}

/// Why a target means nothing.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The text is malformed.
    #[error("`{text}` is not a target")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// No experiment is meant.
    #[error("no experiment is called `{text}`")]
    NotFound {
        /// What was given.
        text: String,
        /// The name that is nearest to it.
        nearest: Option<String>,
    },
    /// No wrapped job has this number.
    #[error("no wrapped job `{number}` is known")]
    NoJob {
        /// What was given: `4711`, or `4711_3`.
        number: String,
    },
    /// An experiment is wanted.
    #[error("`{text}` is a wrapped job, not an experiment")]
    WrappedJob {
        /// What was given.
        text: String,
    },
    /// There are only wrapped jobs, which have numbers.
    #[error("there is no experiment, only wrapped jobs")]
    OnlyJobs,
    /// `@` is none that is archived.
    #[error("every experiment is archived")]
    AllArchived,
    /// Several experiments could be meant.
    #[error("`{text}` could mean {}", candidates.join(", "))]
    Ambiguous {
        /// What was given.
        text: String,
        /// Some of those that it could mean.
        candidates: Vec<String>,
    },
    /// The experiments can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TargetError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { .. } => Some(
                "write EXPERIMENT, EXPERIMENT/TASK or EXPERIMENT/TASK/TRIALS, as in `@/train/3` or `@/train/3,17,40-49`"
                    .to_owned(),
            ),
            Self::NotFound { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`? `nemo-slurm list` shows all"))
            }
            Self::NotFound { nearest: None, .. } => Some("`nemo-slurm list` shows all".to_owned()),
            Self::NoJob { number } => Some(format!(
                "`nemo-slurm list --jobs` shows those that are. A job is known once it has begun; until then ask Slurm: \
                 `squeue -j {number}`, `scancel {number}`"
            )),
            Self::WrappedJob { .. } => Some(
                "`{ slurm_job = 4711 }` waits for a job; `nemo-slurm list --jobs` shows its number".to_owned(),
            ),
            Self::OnlyJobs => Some("`nemo-slurm list --jobs` shows their numbers".to_owned()),
            Self::AllArchived => Some(
                "`nemo-slurm list --archived` shows them: name one, or `nemo-slurm restore` it".to_owned(),
            ),
            Self::Ambiguous { .. } => Some("write more of the id".to_owned()),
            Self::Store(_) => None,
        }
    }
}

/// Finds what a text means: an id, a name (the newest), `@` (the newest of all that are not archived), or a unique prefix
/// of an id.
pub fn resolve(home: &Home, text: &str) -> Result<Target, TargetError> {
    let malformed = || TargetError::Malformed { text: text.to_owned() };
    let mut parts = text.trim_end_matches('/').split('/');
    let experiment = parts.next().filter(|part| !part.is_empty()).ok_or_else(malformed)?;
    let task = parts.next().map(str::to_owned);
    let trials = parts.next().map(|part| part.parse().map_err(|_| malformed())).transpose()?;
    if parts.next().is_some() || task.as_deref() == Some("") {
        return Err(malformed());
    }
    let number = job_number(experiment);
    if let Some(number) = number
        && let Some(target) = wrapped_job(home, number, task.as_deref(), trials.clone())
    {
        return Ok(target);
    }
    let id = match experiment {
        "@" => newest_of(home)?,
        // Nobody who types a number means an id that begins with it.
        name if number.is_some() => named(home, name)?,
        text => found(home, text)?,
    };
    Ok(Target { id, scope: Scope { task, trials } })
}

/// Finds the experiment that a text means, where a wrapped job does not count: what an experiment waits for.
pub fn resolve_experiment(home: &Home, text: &str) -> Result<ExperimentId, TargetError> {
    let found = match text {
        "@" => newest_of(home),
        number if job_number(number).is_some() => named(home, number),
        text => find(&home.ids()?, text),
    };
    match found {
        Err(TargetError::NotFound { .. } | TargetError::NoJob { .. })
            if resolve(home, text).is_ok() =>
        {
            Err(TargetError::WrappedJob { text: text.to_owned() })
        }
        Err(TargetError::NoJob { number: text }) => {
            Err(TargetError::NotFound { text, nearest: None })
        }
        found => found,
    }
}

/// The newest experiment.
fn newest_of(home: &Home) -> Result<ExperimentId, TargetError> {
    let ids = home.ids()?;
    match newest(home, &ids) {
        Some(id) => Ok(id.clone()),
        None if !ids.is_empty() => Err(TargetError::AllArchived),
        None if home.job_ids()?.is_empty() => find(&ids, "@"),
        None => Err(TargetError::OnlyJobs),
    }
}

/// The newest experiment of exactly this name, which could be a job's number.
fn named(home: &Home, name: &str) -> Result<ExperimentId, TargetError> {
    let ids = home.ids()?;
    let newest = ids.into_iter().rfind(|id| id.name() == name);
    newest.ok_or_else(|| TargetError::NoJob { number: name.to_owned() })
}

/// The experiment or, where none begins so, the wrapped job that a text means.
fn found(home: &Home, text: &str) -> Result<ExperimentId, TargetError> {
    // Who names thousands by their ids need not read ten thousand names for each.
    let whole = text.parse::<ExperimentId>().ok();
    if let Some(id) = whole.filter(|id| home.experiments().join(id.as_str()).is_dir()) {
        return Ok(id);
    }
    let ids = home.ids()?;
    if ids.iter().any(|id| id.as_str().starts_with(text)) {
        return find(&ids, text);
    }
    find(&home.job_ids()?, text)
}

/// Slurm's number of a job and the index in its array: `4711`, or `4711_3`.
fn job_number(text: &str) -> Option<(&str, Option<u32>)> {
    let (number, index) =
        text.split_once('_').map_or((text, None), |(job, index)| (job, Some(index)));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number, index.map(str::parse).transpose().ok()?))
}

/// The job of a script that runs `nemo-harness wrap`, by its number.
fn wrapped_job(
    home: &Home,
    (number, index): (&str, Option<u32>),
    task: Option<&str>,
    trials: Option<TrialSet>,
) -> Option<Target> {
    let id = home.job_of(number)?;
    let trials = trials.or(index.map(TrialSet::from));
    let task = task.map(str::to_owned).or(trials.as_ref().map(|_| "job".to_owned()));
    Some(Target { id, scope: Scope { task, trials } })
}

/// The newest of all that are not archived. One of which Slurm took nothing never ran: it is meant only where there is no
/// other.
fn newest<'a>(home: &Home, ids: &'a [ExperimentId]) -> Option<&'a ExperimentId> {
    let ran = |id: &&ExperimentId| {
        home.journal(id).map_or(true, |journal| journal::refusal(&journal).is_none())
    };
    let is_shown = |id: &&ExperimentId| !notes::is_archived(&home.experiment(id)).unwrap_or(false);
    let shown = || ids.iter().rev().filter(is_shown);
    shown().find(ran).or_else(|| shown().next())
}

/// The experiment that a text means, among ids from the oldest to the newest.
fn find(ids: &[ExperimentId], text: &str) -> Result<ExperimentId, TargetError> {
    let newest = |matches: &dyn Fn(&ExperimentId) -> bool| ids.iter().rev().find(|id| matches(id));
    let exact = newest(&|id| id.as_str() == text)
        .or_else(|| newest(&|id| text == "@" || id.name() == text));
    if let Some(id) = exact {
        return Ok(id.clone());
    }
    let candidates: Vec<&ExperimentId> =
        ids.iter().filter(|id| id.as_str().starts_with(text)).collect();
    match candidates.as_slice() {
        [id] => Ok((*id).clone()),
        [] => Err(TargetError::NotFound { text: text.to_owned(), nearest: nearest(ids, text) }),
        [..] => {
            let more = candidates.len().saturating_sub(NAMED);
            let newest = candidates.iter().rev().take(NAMED).map(|id| format!("`{id}`"));
            let more = (more > 0).then(|| format!("or {}", count(more, "other")));
            let candidates = newest.chain(more).collect();
            Err(TargetError::Ambiguous { text: text.to_owned(), candidates })
        }
    }
}

/// How many of those that could be meant are named.
const NAMED: usize = 4;

fn nearest(ids: &[ExperimentId], text: &str) -> Option<String> {
    let likeness = |id: &&ExperimentId| {
        let by_name = strsim::jaro_winkler(id.name(), text);
        by_name.max(strsim::jaro_winkler(id.as_str(), text))
    };
    let best = ids.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.8).then(|| best.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut ids: Vec<ExperimentId> =
            ["digits-00000100", "prep-00000200", "digits-00000300", "digits-big-00000150"]
                .map(|id| id.parse().unwrap())
                .to_vec();
        ids.sort_by(|a, b| a.age_key().cmp(b.age_key()));
        let found = match find(&ids, text) {
            Ok(id) => id.to_string(),
            Err(error) => format!("{error} | {}", error.hint().unwrap_or_default()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn an_experiment_by_id_name_prefix_or_age() {
        check("@", "digits-00000300");
        check("digits", "digits-00000300");
        check("prep", "prep-00000200");
        check("digits-00000100", "digits-00000100");
        check("digits-b", "digits-big-00000150");
        check("pre", "prep-00000200");
        check(
            "digits-0",
            "`digits-0` could mean `digits-00000300`, `digits-00000100` | write more of the id",
        );
        check(
            "digts",
            "no experiment is called `digts` | did you mean `digits-00000300`? `nemo-slurm list` shows all",
        );
        check("zzz", "no experiment is called `zzz` | `nemo-slurm list` shows all");
    }

    #[test]
    fn of_many_that_could_be_meant_some_are_named_and_all_are_counted() {
        let ids: Vec<ExperimentId> =
            (1..8).map(|n| format!("k-0000000{n}").parse().unwrap()).collect();
        let error = find(&ids, "k-").unwrap_err().to_string();
        let named = "`k-00000007`, `k-00000006`, `k-00000005`, `k-00000004`";
        assert_eq!(error, format!("`k-` could mean {named}, or 3 others"));
    }

    #[test]
    fn a_number_is_a_job_and_a_job_that_never_ran_is_slurms() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let said = |text: &str| match resolve(&home, text) {
            Ok(target) => target.to_string(),
            Err(error) => format!("{error} | {}", error.hint().unwrap_or_default()),
        };
        assert!(said("@").starts_with("no experiment is called `@`"));
        std::fs::create_dir_all(home.jobs().join("old-00000100")).unwrap();
        assert_eq!(
            said("@"),
            "there is no experiment, only wrapped jobs | `nemo-slurm list --jobs` shows their numbers"
        );
        let hint = |number| {
            format!(
                "no wrapped job `{number}` is known | `nemo-slurm list --jobs` shows those that are. A job is known \
                     once it has begun; until then ask Slurm: `squeue -j {number}`, `scancel {number}`"
            )
        };
        for name in ["5e-3-00000200", "7-00000300"] {
            std::fs::create_dir_all(home.experiments().join(name)).unwrap();
        }
        assert_eq!(said("5"), hint("5"), "an id that begins so is not meant");
        assert_eq!(said("5_3"), hint("5_3"));
        assert_eq!(said("7"), "7-00000300", "a name may be a number");
        assert_eq!(said("5e"), "5e-3-00000200");
        assert_eq!(said("old"), "old-00000100");
    }

    #[test]
    fn an_experiment_waits_for_no_wrapped_job() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let jobs = home.jobs();
        for name in ["old-00000100", "oldest-00000200", "by-id"] {
            std::fs::create_dir_all(jobs.join(name)).unwrap();
        }
        for number in ["7", "8"] {
            std::os::unix::fs::symlink("../old-00000100", jobs.join("by-id").join(number)).unwrap();
        }
        for name in ["old-run-00000050", "7-00000300"] {
            std::fs::create_dir_all(home.experiments().join(name)).unwrap();
        }
        let check = |text: &str, expected: &str| {
            let said = resolve_experiment(&home, text)
                .map_or_else(|error| error.to_string(), |id| id.to_string());
            assert_eq!(said, expected);
        };
        check("@", "7-00000300");
        check("old-", "old-run-00000050");
        check("7", "7-00000300");
        check("8", "`8` is a wrapped job, not an experiment");
        check("8_3", "`8_3` is a wrapped job, not an experiment");
        for text in ["old-00000100", "oldest", "olde"] {
            check(text, &format!("`{text}` is a wrapped job, not an experiment"));
        }
        check("9", "no experiment is called `9`");
        check("nobody", "no experiment is called `nobody`");
    }

    #[test]
    fn targets_name_tasks_and_trials() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        std::fs::create_dir_all(home.experiments().join("digits-00000100")).unwrap();
        let show = |text: &str| match resolve(&home, text) {
            Ok(target) => target.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(show("digits/train/3"), "digits-00000100/train/3");
        assert_eq!(show("@/train"), "digits-00000100/train");
        assert_eq!(show("@/train/40-49,3,17"), "digits-00000100/train/3,17,40-49");
        assert_eq!(show("@"), "digits-00000100");
        for text in ["", "/", "@/train/x", "@/train/3-1", "@/train/3,", "@/train/1/2", "@//3"] {
            assert_eq!(show(text), format!("`{text}` is not a target"));
        }
    }
}
