//! Which build this program is, and whether the harness that it starts is of the same one.
#![expect(clippy::disallowed_methods, reason = "an edge: asks the harness which build it is")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nemo_core::build_info::BuildInfo;
use nemo_core::durable;
use serde::{Deserialize, Serialize};

use super::App;
use crate::doctor::CheckResult;
use crate::error::CommandError;
use crate::report::say;
use crate::store::{self, FileFingerprint, Home};

/// This program.
#[must_use]
pub fn own() -> BuildInfo {
    nemo_core::build_info!("nemo-slurm")
}

/// Why two programs of different builds matter.
const WHY: &str = "what one of them writes the other may read wrongly";
/// What to type then.
const INSTALL: &str = "install both from one release, or build both in one clone: \
    `cargo install --locked --path . && cargo install --locked --path harness`";

/// Puts the harness into a home for its jobs, and says on stderr if it is of another build.
pub(super) fn install_harness(app: &App, home: &Home) -> Result<PathBuf, CommandError> {
    let harness = app.harness()?;
    let pair = KnownPair::now(&harness);
    if pair.is_none() || pair != KnownPair::read(home) {
        match mismatch(&harness) {
            Some(what) => say(&format!("warning: {what}; {WHY}. To mend it, {INSTALL}")),
            None => pair.iter().for_each(|pair| pair.keep(home)),
        }
    }
    Ok(store::install_program(home, store::HARNESS_NAME, &harness)?)
}

/// A build of this program and a file of the harness that belong together: the harness is not asked again.
#[derive(PartialEq, Serialize, Deserialize)]
struct KnownPair {
    own: BuildInfo,
    harness: FileFingerprint,
}

impl KnownPair {
    fn now(harness: &Path) -> Option<Self> {
        Some(Self { own: own(), harness: FileFingerprint::of(harness).ok()? })
    }

    fn read(home: &Home) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(home)).ok()?).ok()
    }

    /// Only a hint: without it the harness is asked again.
    fn keep(&self, home: &Home) {
        let Ok(text) = serde_json::to_vec(self) else { return };
        drop(durable::create_dir_all(&home.cache()));
        drop(durable::replace_file_durably(&Self::path(home), &text));
    }

    fn path(home: &Home) -> PathBuf {
        home.cache().join("builds.json")
    }
}

/// What is found of the harness.
pub(super) fn finding(harness: &Path) -> CheckResult {
    match mismatch(harness) {
        Some(what) => CheckResult::advice("harness", what).since(WHY).by_typing(INSTALL),
        None => CheckResult::ok(
            "harness",
            format!("`nemo-slurm` and `nemo-harness` are both {}", own().text()),
        ),
    }
}

/// What differs between this program and the harness; nothing if they belong together.
fn mismatch(harness: &Path) -> Option<String> {
    let (own, path) = (own(), harness.display());
    match ask(harness) {
        Ok(other) if own.is_other_build(&other) => Some(format!(
            "`nemo-slurm` is {}, but the harness `{path}` is {}",
            own.text(),
            other.text()
        )),
        Ok(_) => None,
        Err(why) => Some(format!("the harness `{path}` does not tell which build it is: {why}")),
    }
}

fn ask(harness: &Path) -> Result<BuildInfo, String> {
    let mut command = Command::new(harness);
    command.args(["--version", "--json"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let read =
        Some(()).filter(|()| output.status.success()).and_then(|()| BuildInfo::parse(&printed));
    read.ok_or_else(|| {
        format!("`{} --version --json` ended with {}", harness.display(), output.status)
    })
}
