//! Errors of Ruby, Perl, Lua, Julia, Octave and MATLAB programs: a message, and below it the stack. And of programs such
//! as uv, which draw lines from an error to its cause.

use std::iter;

use super::finding::{FoundError, Weight};
use super::output::joined;

/// A message or a stack of more lines than this is another program's output.
const LONGEST: usize = 200;
const LUAS_HEADING: &str = "stack traceback:";
const OCTAVES_HEADING: &str = "error: called from";

/// The errors that begin at a line, with all lines that belong to them.
pub(super) fn finding(lines: &[String], at: usize) -> Option<FoundError> {
    let line = &lines[at];
    if let Some(found) = drawn(lines, at) {
        return Some(found);
    }
    if line.trim().is_empty() || line.starts_with([' ', '\t']) {
        return None;
    }
    julia(lines, at).or_else(|| matlab(lines, at)).or_else(|| with_stack(lines, at))
}

/// The message in one line, and the frames on the lines below it.
fn with_stack(lines: &[String], at: usize) -> Option<FoundError> {
    let next = lines.get(at + 1).filter(|next| begins_stack(next))?;
    let is_stack = [is_rubys, is_perls, is_luas, is_octaves];
    let is_stack = is_stack.into_iter().find(|is_stack| is_stack(next))?;
    let mut end = after(lines, at + 1, is_stack);
    // The exceptions that Ruby's followed from.
    while lines.get(end + 1).is_some_and(|next| is_rubys(next)) {
        end = after(lines, end + 1, is_rubys);
    }
    Some(found(lines, at, &lines[at], end))
}

/// Whether a stack begins with this line. Ruby and Perl have no heading; later frames of Lua and Octave look like much else.
fn begins_stack(line: &str) -> bool {
    [LUAS_HEADING, OCTAVES_HEADING].contains(&line) || is_rubys(line) || is_perls(line)
}

fn is_rubys(line: &str) -> bool {
    line.starts_with("\tfrom ") && line.contains(":in ")
}

fn is_perls(line: &str) -> bool {
    line.starts_with('\t') && line.contains(" called at ") && line.contains(" line ")
}

fn is_luas(line: &str) -> bool {
    let is_frame = line.starts_with('\t') && (line.contains(": in ") || line.contains("..."));
    line == LUAS_HEADING || is_frame
}

fn is_octaves(line: &str) -> bool {
    line == OCTAVES_HEADING || (line.starts_with("    ") && line.contains(" at line "))
}

/// `ERROR: LoadError: BoundsError: …`, perhaps further lines, and `Stacktrace:`.
fn julia(lines: &[String], at: usize) -> Option<FoundError> {
    lines[at].strip_prefix("ERROR: ")?;
    let below = lines[at + 1..].iter().take(LONGEST);
    let heading = at + 1 + below.clone().position(|line| line == "Stacktrace:")?;
    let is_frame = |line: &str| {
        line.starts_with(' ') || line == "Stacktrace:" || line.starts_with("in expression starting")
    };
    Some(found(lines, at, &lines[at], after(lines, heading, is_frame)))
}

/// `Error using *`, why below it, and `Error in train (line 3)` for each frame.
fn matlab(lines: &[String], at: usize) -> Option<FoundError> {
    lines[at].strip_prefix("Error using ")?;
    let is_text = |line: &str| !line.trim().is_empty() && !line.starts_with("Error in ");
    let end = after(lines, at + 1, is_text);
    let frame = (end..lines.len().min(end + 2)).find(|at| lines[*at].starts_with("Error in "))?;
    let message = joined(lines, at, end);
    Some(found(lines, at, &message, after(lines, frame, |line| !line.trim().is_empty())))
}

/// `  × No solution found`, and below it `  ╰─▶ Because …`. Without that, it is a line of a list.
fn drawn(lines: &[String], at: usize) -> Option<FoundError> {
    let error = lines[at].trim_start().strip_prefix("× ")?;
    let end = after(lines, at + 1, |line| line.trim_start().starts_with(['│', '├', '╰']));
    if end == at + 1 {
        return None;
    }
    let causes = lines[at + 1..end].iter().filter_map(|line| Some(line.split_once("─▶ ")?.1));
    let message = iter::once(error).chain(causes).map(|part| part.trim_end_matches(':'));
    let message: Vec<&str> = message.collect();
    let found = FoundError::line(at, Weight::Cause, &message.join(": "));
    Some(FoundError { end, ..found })
}

/// The first line from one on that is no part of it.
fn after(lines: &[String], from: usize, is_part: impl Fn(&str) -> bool) -> usize {
    from + lines[from..].iter().take(LONGEST).take_while(|line| is_part(line)).count()
}

fn found(lines: &[String], at: usize, message: &str, end: usize) -> FoundError {
    let trace: Vec<&str> = lines[at..end].iter().map(String::as_str).collect();
    FoundError::line(at, Weight::Cause, message).with_traceback(&trace)
}
