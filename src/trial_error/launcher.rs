//! What launchers of parallel programs say: Open MPI between two lines of dashes, `srun` in lines of its own. Much of it
//! tells only that a process ended, and then the program's own words tell more.

use std::ops::Range;

use super::finding::{FoundError, Weight};
use super::output::{is_rule, paragraph};

/// Open MPI draws lines of so many dashes.
const DASHES: usize = 74;
/// What tells that a block between such lines is Open MPI's.
const NAMES: [&str; 8] =
    ["MPI", "mpirun", "mpiexec", "PRRTE", "prterun", "ORTE ", "orterun", "Primary job"];
/// What its blocks say of a process that ended.
const ENDS: [&str; 3] = [
    "Primary job terminated normally",
    "detected that one or more processes exited",
    "has exited due to process rank",
];
/// What lines of launchers say of a process that ended.
const END_LINES: [&str; 4] =
    ["Exited with exit code", "application called MPI_Abort(", "*** STEP ", "*** JOB "];
/// What Open MPI says below its blocks, instead of the same block once more for each process.
const BELOW_BLOCKS: [&str; 3] =
    ["sent help message ", "Set MCA parameter \"", "Set PRRTE parameter \""];
/// How blocks begin after which the program goes on.
const WARNINGS: [&str; 3] =
    ["WARNING", "By default, for Open MPI", "A high-performance Open MPI point-to-point"];

/// Open MPI's blocks with their lines of dashes.
pub(super) fn blocks(lines: &[String]) -> Vec<Range<usize>> {
    let is_dashes = |line: &str| line.len() == DASHES && line.bytes().all(|byte| byte == b'-');
    let mut rules = (0..lines.len()).filter(|at| is_dashes(&lines[*at])).peekable();
    let mut blocks = Vec::new();
    while let Some(first) = rules.next() {
        // The end of a block whose beginning was cut has nothing below it.
        let begins = lines.get(first + 1).is_some_and(|line| !is_rule(line));
        let Some(last) = rules.next_if(|_| begins) else { continue };
        let is_named = |line: &String| NAMES.iter().any(|name| line.contains(name));
        if lines[first..last].iter().any(is_named) {
            blocks.push(first..last + 1);
        }
    }
    blocks
}

/// The errors that the blocks tell of. `MPI_ABORT` is no part: it is known by its line. Where the program went on below,
/// a block was only a warning.
pub(super) fn findings(lines: &[String], blocks: &[Range<usize>]) -> Vec<FoundError> {
    let last_own = last_own_line(lines, blocks);
    let at_end = blocks.iter().filter(|block| last_own.is_none_or(|at| at < block.start));
    at_end.filter_map(|block| finding(lines, block)).collect()
}

fn finding(lines: &[String], block: &Range<usize>) -> Option<FoundError> {
    let at = block.start + 1;
    let text = paragraph(lines, at);
    if text.starts_with("MPI_ABORT ") || WARNINGS.iter().any(|start| text.starts_with(start)) {
        return None;
    }
    let weight = match () {
        () if text.contains("exited on signal") => Weight::Consequence,
        () if ENDS.iter().any(|end| text.contains(end)) => Weight::Report,
        () => Weight::Hint,
    };
    Some(FoundError::line(at, weight, &text))
}

/// Whether a line tells only that a process ended.
pub(super) fn is_report(line: &str) -> bool {
    END_LINES.iter().any(|said| line.contains(said))
}

/// The place of the last line that the program itself printed.
pub(super) fn last_own_line(lines: &[String], blocks: &[Range<usize>]) -> Option<usize> {
    let is_own = |at: &usize| {
        let is_said = blocks.iter().any(|block| block.contains(at));
        !is_said && !is_rule(&lines[*at]) && !is_launchers(&lines[*at])
    };
    (0..lines.len()).rev().find(is_own)
}

/// `srun: …`, `[n1:04711] *** …` of Open MPI, and what tells that a process ended.
fn is_launchers(line: &str) -> bool {
    let is_below = BELOW_BLOCKS.iter().any(|said| line.contains(said));
    let is_open_mpi = line.starts_with('[') && (is_below || line.contains("] *** "));
    is_slurms(line) || is_report(line) || is_open_mpi || is_go_runs(line)
}

/// What `go run` says below a program's own words.
fn is_go_runs(line: &str) -> bool {
    line.strip_prefix("exit status ").is_some_and(|code| code.parse::<u8>().is_ok())
}

/// What `srun` says of one of its tasks.
pub(super) fn is_end_of_task(line: &str) -> bool {
    let of_task = line.strip_prefix("srun: error: ").and_then(|rest| rest.split_once(": task"));
    of_task.is_some_and(|(_, rest)| rest.contains("Exited with exit code"))
}

/// Whether Slurm says it.
pub(super) fn is_slurms(line: &str) -> bool {
    ["srun: ", "slurmstepd: "].iter().any(|start| line.starts_with(start))
}
