//! What `doctor` finds: the site's Slurm (`site`), the home (`home`, an edge, and what follows from it), what a node sees
//! (`node`), and what all that leaves of our promises. Pure but for `home::measure`.

pub mod home;
pub mod node;
pub mod site;

use serde::Serialize;

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Advice,
    /// Something does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// How much it matters.
    pub level: Level,
    /// What was looked at, in a word.
    pub topic: String,
    /// What was found.
    pub what: String,
    /// What follows from it.
    pub why: Option<String>,
    /// What the user types, or writes in the file.
    pub fix: Option<String>,
    /// The line that an administrator changes in `slurm.conf`.
    pub slurm_conf: Option<String>,
    /// What an administrator types, where that is no line of `slurm.conf`.
    pub administrator: Option<String>,
}

impl CheckResult {
    fn new(level: Level, topic: &str, what: impl Into<String>) -> Self {
        let (topic, what) = (topic.to_owned(), what.into());
        Self { level, topic, what, why: None, fix: None, slurm_conf: None, administrator: None }
    }

    /// Something that is as it should be.
    #[must_use]
    pub fn ok(topic: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, topic, what)
    }

    /// Something that could be better.
    #[must_use]
    pub fn advice(topic: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Advice, topic, what)
    }

    /// Something that does not work.
    #[must_use]
    pub fn problem(topic: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Problem, topic, what)
    }

    /// What follows from it.
    #[must_use]
    pub fn since(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// What to type.
    #[must_use]
    pub fn by_typing(self, text: impl Into<String>) -> Self {
        Self { fix: Some(text.into()), ..self }
    }

    /// What an administrator types.
    #[must_use]
    pub fn by_administrator(self, text: impl Into<String>) -> Self {
        Self { administrator: Some(text.into()), ..self }
    }

    /// The line of `slurm.conf`.
    #[must_use]
    pub fn by_slurm_conf(self, line: impl Into<String>) -> Self {
        Self { slurm_conf: Some(line.into()), ..self }
    }
}

/// What we promise, and what the site leaves of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// What is promised.
    pub promise: &'static str,
    /// Whether it holds here; null where nobody could tell.
    pub holds: Option<bool>,
    /// What limits it.
    pub why: Option<String>,
}
