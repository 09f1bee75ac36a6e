//! `config.json`: the configuration as it held at the submission, and the state of the code.

use std::io;

use nemo_core::checksum;
use nemo_core::open;
use nemo_core::rundir::ExperimentDir;
use serde::{Deserialize, Serialize};

use crate::experiment::{ResolvedConfig, load};
use crate::git::GitState;

use super::{StoreError, at};

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// The configuration.
    pub resolved: ResolvedConfig,
    /// The state of the code; none where git does not know it.
    pub git: Option<GitState>,
}

impl ConfigFile {
    /// Reads it back. An older experiment has none: then its `experiment.toml` tells what it can.
    pub fn read(dir: &ExperimentDir) -> Result<Self, StoreError> {
        let path = dir.config();
        match open::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::of_toml(dir)),
            text => {
                let text = at("read", &path, text)?;
                checksum::from_slice(&text).map_err(|source| StoreError::Damaged { path, source })
            }
        }
    }

    fn of_toml(dir: &ExperimentDir) -> Self {
        let path = dir.experiment_toml();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let loaded = load(&text, &path, &[], None).ok();
        let resolved = loaded.map(|loaded| loaded.config).unwrap_or_default();
        Self { resolved, git: None }
    }
}
