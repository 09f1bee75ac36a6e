//! `$NEMO_SLURM_HOME`: where experiments lie, how they are named, made and found again.

pub mod claim;
mod config_file;
mod create;
mod draft;
pub mod id;
mod program;
mod target;

use std::io;
use std::path::{Path, PathBuf};

use nemo_core::checksum;
use nemo_core::lines::{self, Damage};
use nemo_core::open;
use nemo_core::rundir::ExperimentDir;
use nemo_core::trust::{self, TrustError};
use serde::de::Error as _;
use tracing::debug;

use crate::experiment::Experiment;
use crate::journal::Event;

pub use claim::{Claim, ClaimError, ClaimHolder, TakeOver};
pub use config_file::ConfigFile;
pub use create::{KeptEnvironment, NewExperiment, NewTask, create};
pub use draft::Draft;
pub use id::ExperimentId;
pub use nemo_core::trust::Distrust;
pub use program::{FileFingerprint, HARNESS_NAME, OWN_NAME, install_program};
pub use target::{Target, TargetError, resolve, resolve_experiment};

/// Holds the folders of wrapped jobs, in the home.
const JOBS: &str = "jobs";

/// `$NEMO_SLURM_HOME`, which the compute nodes must see.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// An experiment as its folder tells it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its id: the folder's name.
    pub id: ExperimentId,
    /// Its folder.
    pub dir: ExperimentDir,
    /// What was asked for, resolved.
    pub experiment: Experiment,
    /// What was asked of Slurm and what came of it.
    pub journal: Vec<Event>,
    /// The lines of the journal that are not as they were written.
    pub damage: Option<Damage>,
}

impl Stored {
    /// Whether `nemo-harness wrap` made it: only its script can start it again.
    #[must_use]
    pub fn is_wrapped(&self) -> bool {
        self.dir.0.parent().is_some_and(|folder| folder.ends_with(JOBS))
    }
}

/// Why an experiment's folder can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file can't be read or written.
    #[error("can't {verb} `{}`", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value that JSON can't hold, such as a path of other bytes than UTF-8.
    #[error("can't write `{}`", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What is wrong with the value.
        source: serde_json::Error,
    },
    /// Others could have put a program there.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// A file is not what it should be.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl From<TrustError> for StoreError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Distrust(why) => Self::Distrust(why),
            TrustError::Io { path, source } => Self::Io { verb: "look at", path, source },
        }
    }
}

impl StoreError {
    /// Whether somebody else has made what was to be made.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let taken = [io::ErrorKind::AlreadyExists, io::ErrorKind::DirectoryNotEmpty];
        matches!(self, Self::Io { source, .. } if taken.contains(&source.kind()))
    }
}

/// Puts the path and what was tried to an I/O error.
pub(crate) fn at<T>(
    verb: &'static str,
    path: &Path,
    result: io::Result<T>,
) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Io { verb, path: path.to_owned(), source })
}

impl Home {
    /// A home at this folder, which need not exist yet. The path must be absolute: scripts hold it.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `experiments/`.
    #[must_use]
    pub fn experiments(&self) -> PathBuf {
        self.0.join("experiments")
    }

    /// Programs that jobs run, by content: a job keeps the harness that it was submitted with.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// The code that experiments were submitted with, by content.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.0.join("packages")
    }

    /// What was learnt of clusters, to be asked again when it is old.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// What a list needs of the experiments that are over. Derived: it may be deleted at any time.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    /// `jobs/`: the jobs of scripts that run `nemo-harness wrap`.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.0.join(JOBS)
    }

    /// The folder of one experiment, or of a wrapped job.
    #[must_use]
    pub fn experiment(&self, id: &ExperimentId) -> ExperimentDir {
        let own = self.experiments().join(id.as_str());
        let job = self.jobs().join(id.as_str());
        ExperimentDir(if !own.exists() && job.exists() { job } else { own })
    }

    /// The id of the newest wrapped job that Slurm knew by this number: on another cluster, or after a controller lost its
    /// state, a number comes again.
    #[must_use]
    pub fn job_of(&self, number: &str) -> Option<ExperimentId> {
        let links = std::fs::read_dir(self.jobs().join("by-id")).ok()?.flatten();
        let is_of = |name: &str| name.split(['@', '.']).next() == Some(number);
        let links = links.filter(|link| link.file_name().to_str().is_some_and(is_of));
        let newest = links.max_by_key(|link| {
            let made = link.metadata().and_then(|link| link.modified()).ok();
            (made, link.file_name())
        })?;
        std::fs::read_link(newest.path()).ok()?.file_name()?.to_str()?.parse().ok()
    }

    /// The ids of all experiments, oldest first. Folders of other names are passed over.
    pub fn ids(&self) -> Result<Vec<ExperimentId>, StoreError> {
        ids_in(&self.experiments())
    }

    /// The ids of all wrapped jobs, oldest first.
    pub fn job_ids(&self) -> Result<Vec<ExperimentId>, StoreError> {
        ids_in(&self.jobs())
    }

    /// What was asked of Slurm for an experiment, and what came of it.
    pub fn journal(&self, id: &ExperimentId) -> Result<Vec<Event>, StoreError> {
        let path = self.experiment(id).journal();
        Ok(at("read", &path, lines::read::<Event>(&path))?.rows)
    }

    /// Reads an experiment back.
    pub fn load(&self, id: &ExperimentId) -> Result<Stored, StoreError> {
        let dir = self.experiment(id);
        let path = dir.experiment_json();
        let text = at("read", &path, open::read(&path))?;
        let damaged = |source| StoreError::Damaged { path: path.clone(), source };
        let experiment: Experiment = checksum::from_slice(&text).map_err(damaged)?;
        if let Some(what) = experiment.inconsistency() {
            return Err(damaged(serde_json::Error::custom(what)));
        }
        let path = dir.journal();
        let journal = at("read", &path, lines::read::<Event>(&path))?;
        let damage = journal.damage(&path);
        let file = dir.experiment_json();
        debug!("experiment: `{}`, and {} lines of its journal", file.display(), journal.rows.len());
        Ok(Stored { id: id.clone(), dir, experiment, journal: journal.rows, damage })
    }
}

/// Fails where others may write to the home, to its folders that decide what is run, or to any folder above it.
pub fn require_safe(home: &Home) -> Result<(), StoreError> {
    Ok(trust::require_safe_home(home.path())?)
}

/// The ids that folders of a folder are named by.
fn ids_in(path: &Path) -> Result<Vec<ExperimentId>, StoreError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => at("read", path, entries)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = at("read", path, entry)?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<ExperimentId>().ok()));
    }
    ids.sort_by(|a, b| a.age().cmp(&b.age()));
    Ok(ids)
}
