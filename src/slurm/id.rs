//! Job ids and task ids as Slurm prints them: `7`, `7_3`, `7_[5-20%2]`, `16+0`, `3.batch`.
//!
//! Nothing here asks Slurm anything; [`super::parse`] reads these from text.

use std::fmt;
use std::str::FromStr;

use super::indices::IndexSet;
use super::parse::{ParseError, id as grammar};

/// A job's number: what `sbatch` returns, the array's own id for a job array.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct JobId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for JobId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        grammar::whole(grammar::job, text.as_bytes())
    }
}

/// Several tasks of one job array, as one row of `squeue` or `sacct` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSet {
    /// The indices.
    pub indices: IndexSet,
    /// How many may run at once: the `%2` of `[5-20%2]`.
    pub limit: Option<u32>,
    /// Whether Slurm cut the list short (`[1,10...]`): then more tasks belong to it than `indices` holds.
    pub cut_short: bool,
}

/// Which part of a job a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// A job that is no array; or an array whose waiting tasks were all cancelled, and which Slurm then shows without
    /// them: such a row speaks for every task that has no row of its own.
    NotAnArray,
    /// One task of an array: `7_3`.
    One(u32),
    /// Several tasks of an array that didn't start yet: `7_[5-20%2]`.
    Set(Box<TaskSet>),
    /// One component of a heterogeneous job: `16+0`.
    Component(u32),
}

impl Tasks {
    /// Whether the row speaks for the task `index` of its array.
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::One(one) => *one == index,
            Self::Set(set) => set.indices.contains(index),
            Self::NotAnArray | Self::Component(_) => false,
        }
    }

    /// The array indices that the row speaks for; none if the job is no array.
    pub fn indices(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::One(one) => Box::new(std::iter::once(*one)),
            Self::Set(set) => Box::new(set.indices.iter()),
            Self::NotAnArray | Self::Component(_) => Box::new(std::iter::empty()),
        }
    }
}

/// A step of a job: the part after the dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The batch script.
    Batch,
    /// What runs in the allocation beside the steps.
    Extern,
    /// The shell of an interactive allocation.
    Interactive,
    /// One `srun`.
    Number(u32),
    /// A word that a newer Slurm adds.
    Other(Box<str>),
}

/// A whole id as shown: what `scontrol` and `scancel` accept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownId {
    /// The job; the array's id for tasks of an array, the leader's for a heterogeneous job.
    pub job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The step, where the row is about one.
    pub step: Option<Step>,
}

impl From<JobId> for ShownId {
    fn from(job: JobId) -> Self {
        Self { job, tasks: Tasks::NotAnArray, step: None }
    }
}

impl FromStr for ShownId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        grammar::whole(grammar::shown, text.as_bytes())
    }
}

impl fmt::Display for ShownId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job)?;
        match &self.tasks {
            Tasks::NotAnArray => {}
            Tasks::One(index) => write!(f, "_{index}")?,
            Tasks::Set(set) => write!(f, "_[{set}]")?,
            Tasks::Component(offset) => write!(f, "+{offset}")?,
        }
        match &self.step {
            None => Ok(()),
            Some(step) => write!(f, ".{step}"),
        }
    }
}

impl fmt::Display for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.indices)?;
        match (self.cut_short, self.indices.is_empty()) {
            (false, _) => {}
            (true, true) => f.write_str("...")?,
            (true, false) => f.write_str(",...")?,
        }
        self.limit.map_or(Ok(()), |limit| write!(f, "%{limit}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("batch"),
            Self::Extern => f.write_str("extern"),
            Self::Interactive => f.write_str("interactive"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Other(word) => f.write_str(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        let id: ShownId = text.parse().unwrap();
        assert_eq!(id.to_string(), shown, "{id:?}");
        assert_eq!(shown.parse::<ShownId>().as_ref(), Ok(&id));
    }

    #[test]
    fn ids_are_read_as_slurm_prints_them() {
        check("7", "7");
        check("7_3", "7_3");
        check("7_[5-20%2]", "7_[5-20%2]");
        check("8_[0-98:7%3]", "8_[0-98:7%3]");
        check("8_[0-10:3]", "8_[0-9:3]"); // the same indices
        check("8_[3,1-2,2]", "8_[1-3]");
        check("18_[1,10...]", "18_[1,...]"); // 10 may be the start of 100
        check("18_[1,10,...%4]", "18_[1,10,...%4]");
        check("18_[...%4]", "18_[...%4]");
        check("18_[1-3...]", "18_[...]");
        check("16+0", "16+0");
        check("3.batch", "3.batch");
        check("58.extern", "58.extern");
        check("123+1.0", "123+1.0");
        check("7_3.interactive", "7_3.interactive");
    }

    #[track_caller]
    fn check_wrong(text: &str, message: &str) {
        assert_eq!(text.parse::<ShownId>().unwrap_err().to_string(), message);
    }

    #[test]
    fn what_is_no_id_is_explained() {
        check_wrong("", "expected a job id at column 1 of ``");
        check_wrong("7_", "expected an array index at column 3 of `7_`");
        check_wrong("7_[5-2]", "expected a range of array indices at column 4 of `7_[5-2]`");
        check_wrong("7_[5%x]", "expected a task limit after `%` at column 6 of `7_[5%x]`");
        check_wrong("7_[5", "expected `]` at column 5 of `7_[5`");
        check_wrong("7.", "expected a step at column 3 of `7.`");
        check_wrong("7 8", "expected the end at column 2 of `7 8`");
        check_wrong("4294967296", "expected a job id at column 1 of `4294967296`");
        check_wrong("7_4000001", "expected an array index at column 3 of `7_4000001`");
    }
}
