//! Which of several exits is the program's, and how the others are told. Pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::attempt::verdict::{EXIT_NEVER, EXIT_REQUEUE, EXIT_RESTART, Exit};

/// The rank whose end became the program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedRank {
    pub(crate) rank: u32,
    pub(crate) node: String,
    /// How the others ended, for people.
    pub(crate) others: String,
    /// The ends of some ranks are unknown, though none was told to end. Their node may be lost.
    pub(crate) lost: bool,
}

impl fmt::Display for FailedRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} on {}", self.rank, self.node)
    }
}

/// The lowest severity of a crash.
pub(super) const CRASH: u8 = 2;

/// The severity of an exit. Success is the mildest, then the exit codes that ask for a restart.
pub(super) fn severity(exit: &Exit) -> u8 {
    match exit {
        Exit::Code(0) => 0,
        Exit::Code(EXIT_RESTART | EXIT_REQUEUE) => 1,
        Exit::Code(EXIT_NEVER) => 4,
        Exit::StartFailed(_) | Exit::NotStarted(_) => 3,
        // An abort in a library is often only a reaction to another rank's exit, so the first one matters more.
        Exit::Code(_) | Exit::Signal(_) => CRASH,
    }
}

/// The other ranks by their ends: `ranks 0, 2: code 1; rank 3: lost`.
pub(super) fn others_shown(all: &[(u32, Exit)], worst: u32, missing: &[u32]) -> String {
    let mut by_end: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (number, exit) in all.iter().filter(|(number, _)| *number != worst) {
        let end = match exit {
            _ if missing.contains(number) => "lost".to_owned(),
            Exit::Code(code) => format!("code {code}"),
            Exit::Signal(signal) => format!("signal {signal}"),
            Exit::StartFailed(_) | Exit::NotStarted(_) => "not started".to_owned(),
        };
        by_end.entry(end).or_default().push(*number);
    }
    let groups = by_end.into_iter().map(|(end, numbers)| format!("{}: {end}", rank_list(numbers)));
    groups.collect::<Vec<_>>().join("; ")
}

/// `rank 3`, or `ranks 0, 2`, cut after eight.
fn rank_list(mut numbers: Vec<u32>) -> String {
    numbers.sort_unstable();
    let shown: Vec<String> = numbers.iter().take(8).map(ToString::to_string).collect();
    let more = if numbers.len() > 8 { " …" } else { "" };
    let word = if numbers.len() == 1 { "rank" } else { "ranks" };
    format!("{word} {}{more}", shown.join(", "))
}
