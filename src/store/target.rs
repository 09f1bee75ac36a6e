//! What a user means by `EXPERIMENT[/TASK[/TRIALS]]`.

use std::fmt;

use nemo_core::scope::Scope;

use super::{ExperimentId, Home, StoreError};

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
            Self::Ambiguous { .. } => Some("write more of the id".to_owned()),
            Self::Store(_) => None,
        }
    }
}

/// Finds what a text means: an id, a name (the newest), `@` (the newest of all), or a unique prefix of an id.
pub fn resolve(home: &Home, text: &str) -> Result<Target, TargetError> {
    let malformed = || TargetError::Malformed { text: text.to_owned() };
    let mut parts = text.trim_end_matches('/').split('/');
    let experiment = parts.next().filter(|part| !part.is_empty()).ok_or_else(malformed)?;
    let task = parts.next().map(str::to_owned);
    let trials = parts.next().map(|part| part.parse().map_err(|_| malformed())).transpose()?;
    if parts.next().is_some() || task.as_deref() == Some("") {
        return Err(malformed());
    }
    let id = find(&home.ids()?, experiment)?;
    Ok(Target { id, scope: Scope { task, trials } })
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
            let candidates = candidates.iter().rev().take(4).map(|id| format!("`{id}`")).collect();
            Err(TargetError::Ambiguous { text: text.to_owned(), candidates })
        }
    }
}

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
