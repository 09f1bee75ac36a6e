//! Errors that the program handled: it went on to work after them, so they are not what ended it.

use super::finding::{FoundError, Weight};
use super::launcher::is_end_of_task;
use super::output::is_rule;

/// So many ordinary lines show that the program went on. What launchers and trackers say at an end is shorter.
const LINES_OF_WORK: usize = 50;

/// Leaves out the errors that the program handled. `inside`: the lines of tracebacks and of what launchers say.
pub(super) fn without_handled(
    mut found: Vec<FoundError>,
    lines: &[String],
    inside: &[bool],
) -> Vec<FoundError> {
    if lines.iter().any(|line| is_end_of_task(line)) {
        return found; // the other processes may have gone on for long
    }
    let mut ordinary: Vec<bool> = lines.iter().map(|line| is_ordinary(line)).collect();
    let parts = inside.iter().enumerate().filter(|(_, is_inside)| **is_inside);
    parts.for_each(|(at, _)| ordinary[at] = false);
    for finding in &found {
        ordinary[finding.at..finding.end].fill(false);
    }
    found.sort_by_key(|finding| finding.at);
    // An error is judged by what was printed between it and the next one that counts, so that what follows that one says
    // nothing of this.
    let mut end = lines.len();
    let mut left = Vec::new();
    for finding in found.into_iter().rev() {
        if has_gone_on(&finding, lines, &ordinary, end) {
            continue;
        }
        if finding.weight > Weight::Hint {
            end = end.min(finding.at);
        }
        left.push(finding);
    }
    left.reverse();
    left
}

/// Where several processes print into the same output, lines of the others say nothing of this one.
fn has_gone_on(finding: &FoundError, lines: &[String], ordinary: &[bool], end: usize) -> bool {
    let places = finding.end..end;
    let own = places.filter(|at| ordinary[*at] && lines[*at].starts_with(&finding.prefix));
    own.take(LINES_OF_WORK).count() == LINES_OF_WORK
}

/// Whether a line is none of those that go with an error: headings, indented lines, tables, a tracker's summary.
fn is_ordinary(line: &str) -> bool {
    let goes_with_error = ["  ", "\t", "|", "wandb: "];
    let is_part = line.ends_with(':') || goes_with_error.iter().any(|part| line.starts_with(part));
    !is_part && !is_rule(line)
}
