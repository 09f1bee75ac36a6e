//! Which build a program is: what `--version --json` prints, and whether two programs are of one build.

use serde::{Deserialize, Serialize};

/// What a program knows of its own build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// Of this format.
    pub schema: u32,
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from; none where the sources did not tell.
    pub commit: Option<String>,
    /// Whether its sources were changed since that commit.
    pub dirty: bool,
    /// What it was built for, as Rust calls it.
    pub target: String,
    /// `release` or `debug`.
    pub profile: String,
    /// The features that are on; `static`: it needs no library.
    pub features: Vec<String>,
}

/// The facts of the crate that names it, which has a build script that hands them over.
#[macro_export]
macro_rules! build_info {
    ($name:literal) => {
        $crate::build_info::BuildInfo::new(
            [$name, env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT"), env!("BUILD_DIRTY")],
            [env!("BUILD_TARGET"), env!("BUILD_PROFILE"), env!("BUILD_FEATURES")],
        )
    };
}

/// How many digits of a commit are shown.
const SHORT: usize = 9;

impl BuildInfo {
    /// Reads what `build_info!` collects.
    #[must_use]
    pub fn new(
        [name, version, commit, dirty]: [&str; 4],
        [target, profile, features]: [&str; 3],
    ) -> Self {
        Self {
            schema: 1,
            name: name.to_owned(),
            version: version.to_owned(),
            commit: Some(commit.to_owned()).filter(|commit| !commit.is_empty()),
            dirty: dirty == "true",
            target: target.to_owned(),
            profile: profile.to_owned(),
            features: features.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// What another program printed for `--version --json`; older ones only print `NAME VERSION`.
    #[must_use]
    pub fn parse(printed: &str) -> Option<Self> {
        if let Ok(info) = serde_json::from_str(printed) {
            return Some(info);
        }
        let mut words = printed.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        let is_version = version.starts_with(|c: char| c.is_ascii_digit());
        (name.starts_with("nemo-") && is_version)
            .then(|| Self::new([name, version, "", ""], ["", "", ""]))
    }

    /// The version and the commit, for people: `0.1.0 (14ff1cd3c)`.
    #[must_use]
    pub fn text(&self) -> String {
        let Some(commit) = &self.commit else { return self.version.clone() };
        let changed = if self.dirty { ", with changes" } else { "" };
        format!("{} ({}{changed})", self.version, commit.get(..SHORT).unwrap_or(commit))
    }

    /// Whether another program is of another build. The programs that one is developing are built one by one, so only
    /// the commits of releases count.
    #[must_use]
    pub fn is_other_build(&self, other: &Self) -> bool {
        let is_release = self.profile == "release" && other.profile != "debug";
        self.version != other.version || (is_release && self.commit != other.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, commit: &str, profile: &str) -> BuildInfo {
        BuildInfo::new(["nemo-harness", version, commit, "false"], ["here", profile, "a,static"])
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let written = info("0.1.0", "14ff1cd3c5aa", "release");
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(BuildInfo::parse(&text), Some(written.clone()));
        assert_eq!((written.text().as_str(), written.features.len()), ("0.1.0 (14ff1cd3c)", 2));
        let old = BuildInfo::parse("nemo-harness 0.0.9\n").unwrap();
        assert_eq!((old.text().as_str(), old.commit), ("0.0.9", None));
        for other in ["", "nemo-harness", "cat (GNU coreutils) 9.1", "nemo-harness: no", "{}"] {
            assert_eq!(BuildInfo::parse(other), None, "{other}");
        }
    }

    #[test]
    fn two_builds_are_told_apart() {
        let own = info("0.1.0", "aaaa", "release");
        let rows = [
            (info("0.1.0", "aaaa", "release"), false),
            (info("0.1.0", "bbbb", "release"), true),
            (info("0.2.0", "aaaa", "release"), true),
            (info("0.1.0", "bbbb", "debug"), false),
            (BuildInfo::parse("nemo-harness 0.1.0").unwrap(), true),
        ];
        for (other, is_other) in rows {
            assert_eq!(own.is_other_build(&other), is_other, "{other:?}");
        }
    }
}
