//! `[package]`: which code is shipped with an experiment.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::problem_report::ProblemReport;
use super::reader::{Field, Section};
use super::units;

/// The most that a package may have, unless the file says otherwise.
const LIMIT: u64 = 95 << 20;

/// What is shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageKeys {
    /// What says which files belong to it.
    pub from: PackageSource,
    /// The folder that is shipped, relative to that of the file.
    pub root: String,
    /// The most bytes that it may have.
    pub limit: u64,
    /// What happens to changes that were not committed.
    pub dirty: Dirty,
    /// Whether the files of git's submodules belong to it.
    pub submodules: bool,
    /// Files that are shipped whatever else is said of them, as patterns.
    pub include: Vec<String>,
}

impl Default for PackageKeys {
    fn default() -> Self {
        Self {
            from: PackageSource::None,
            root: ".".to_owned(),
            limit: LIMIT,
            dirty: Dirty::Include,
            submodules: false,
            include: Vec::new(),
        }
    }
}

impl PackageKeys {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether anything is shipped.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        self.from != PackageSource::None
    }
}

/// What says which files belong to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageSource {
    /// Those that git knows or would add.
    Git,
    /// All of the folder.
    Folder,
    /// Nothing is shipped.
    None,
}

/// What happens to changes that were not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dirty {
    /// They are shipped.
    Include,
    /// They are an error.
    Refuse,
    /// The commit is shipped without them.
    Ignore,
}

const SOURCES: [(&str, PackageSource); 3] =
    [("git", PackageSource::Git), ("folder", PackageSource::Folder), ("none", PackageSource::None)];
const DIRTY: [(&str, Dirty); 3] =
    [("include", Dirty::Include), ("refuse", Dirty::Refuse), ("ignore", Dirty::Ignore)];

/// Reads the section of an experiment. Inside a git work tree the code is shipped unless it says otherwise.
pub(super) fn read(
    section: &mut Section<'_>,
    in_work_tree: bool,
    report: &mut ProblemReport,
) -> PackageKeys {
    let from = if in_work_tree { PackageSource::Git } else { PackageSource::None };
    let mut keys = PackageKeys { from, ..PackageKeys::default() };
    let Some(mut package) = section.take_section("package", report) else { return keys };
    if let Some(from) = package.take("from").and_then(|field| field.word(&SOURCES, report)) {
        keys.from = from;
    }
    if let Some(root) = package.take("root").and_then(|field| root(&field, report)) {
        keys.root = root;
    }
    if let Some(limit) = package.take("limit").and_then(|field| limit(&field, report)) {
        keys.limit = limit;
    }
    if let Some(dirty) = package.take("dirty").and_then(|field| field.word(&DIRTY, report)) {
        keys.dirty = dirty;
    }
    if let Some(submodules) = package.take("submodules").and_then(|field| field.flag(report)) {
        keys.submodules = submodules;
    }
    if let Some(include) = package.take("include") {
        keys.include = include.texts(report);
    }
    package.finish(report);
    keys
}

/// The folder of the file, or one above it: programs run in the folder of the file.
fn root(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let text = field.text(report)?;
    let mut parts = Path::new(&text).components();
    if parts.all(|part| matches!(part, Component::CurDir | Component::ParentDir)) {
        return Some(text);
    }
    report
        .problem(
            &field.place,
            format!("`root` is {text:?}, not the folder of this file or one above it"),
        )
        .hint(
            "write \".\", or \"..\" for the folder above; leave other folders out in `.nemoignore`",
        );
    None
}

fn limit(field: &Field<'_>, report: &mut ProblemReport) -> Option<u64> {
    let text = field.text_as("a size, as in \"95MiB\"", report)?;
    field.parsed(units::bytes(&text), report)
}
