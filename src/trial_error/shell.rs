//! Errors of shells and of the programs that they start: what is not found, what is used wrongly, modules, conda; and
//! lines that only speak of an error.

use super::ErrorClass;
use super::finding::{FoundError, Weight};
use super::launcher::{is_report, is_slurms};
use super::output::{joined, paragraph};
use super::python::is_exception;

/// How a shell says that a signal ended a program.
const SIGNALS: [&str; 6] = [
    "Segmentation fault",
    "Killed",
    "Bus error",
    "Illegal instruction",
    "Floating point exception",
    "Aborted",
];
/// What a shell can't do, after `sh: 1: ` or `job.sh: line 3: `.
const REFUSED: [&str; 11] = [
    "not found",
    "No such file or directory",
    "Permission denied",
    "Is a directory",
    "Exec format error",
    "unbound variable",
    "parameter not set",
    "ambiguous redirect",
    "Cannot allocate memory",
    "bad interpreter",
    "Text file busy",
];
/// Conda's names of errors do not always end in `Error`.
const CONDA: [&str; 5] = [
    "EnvironmentNameNotFound:",
    "EnvironmentLocationNotFound:",
    "PackagesNotFoundError:",
    "CommandNotFoundError:",
    "CondaError:",
];
/// So far above the error of a wrong argument its `usage:` stands.
const USAGE_ABOVE: usize = 40;

/// The errors outside of Python's tracebacks.
pub(super) fn findings(lines: &[String], inside: &[bool]) -> Vec<FoundError> {
    let places = (0..lines.len()).filter(|at| !inside[*at] && !lines[*at].trim().is_empty());
    places.filter_map(|at| finding(lines, at)).collect()
}

fn finding(lines: &[String], at: usize) -> Option<FoundError> {
    let line = lines[at].trim();
    let cause = |text: &str| Some(FoundError::line(at, Weight::Cause, text));
    if let Some(weight) = signal(line) {
        return Some(FoundError::line(at, weight, line));
    }
    if is_refused(line) || CONDA.iter().any(|start| line.starts_with(start)) {
        return cause(line);
    }
    if line.contains("Lmod has detected the following error:") {
        return cause(&paragraph(lines, at));
    }
    let is_start = line.contains("can't open file '")
        || (line.starts_with("Can't locate ") && line.contains("@INC"))
        || line.contains("No module named ")
        || line.contains("Unable to locate a modulefile");
    if is_start {
        return cause(line);
    }
    if let Some(text) = boxed(lines, at) {
        let class = Some(ErrorClass::BadConfiguration);
        return cause(text).map(|finding| FoundError { class, ..finding });
    }
    if is_wrong_use(lines, at) || line.starts_with("Could not override ") {
        let class = Some(ErrorClass::BadConfiguration);
        return cause(&joined(lines, at, at + 1)).map(|finding| FoundError { class, ..finding });
    }
    let is_hint = speaks_of_error(line) && !is_report(line);
    is_hint.then(|| FoundError::line(at, Weight::Hint, &joined(lines, at, at + 1)))
}

/// `Killed`, `job.sh: line 3: 712 Killed  ./train` or `srun: error: n1: task 0: Killed`.
fn signal(line: &str) -> Option<Weight> {
    let name = SIGNALS.iter().find(|name| {
        let whole = line.strip_suffix(" (core dumped)").unwrap_or(line);
        let is_of_shell = line.contains(": line ") && has_pid_before(line, name);
        whole == **name
            || is_of_shell
            || (line.starts_with("srun: error: ") && whole.ends_with(**name))
    })?;
    Some(if *name == "Aborted" { Weight::Consequence } else { Weight::Cause })
}

/// Whether a line tells only which signal ended a process: one that it may have told of itself. Nobody tells of a SIGKILL.
pub(super) fn is_report_of_signal(line: &str) -> bool {
    tells_signal(line) && !line.contains("Killed") && !line.contains("SIGKILL")
}

/// Whether a shell or a launcher tells in a line which signal ended a process.
pub(super) fn tells_signal(line: &str) -> bool {
    signal(line.trim()).is_some() || line.contains("received by PID")
}

fn has_pid_before(line: &str, name: &str) -> bool {
    let before = line.split(name).next().unwrap_or_default();
    let is_pid = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    line.contains(name) && before.split_whitespace().last().is_some_and(is_pid)
}

/// `bash: line 1: trian: command not found`, `sh: 1: trian: not found`, `./job.sh: line 2: syntax error …`.
fn is_refused(line: &str) -> bool {
    let mut parts = line.split(": ");
    let (_, second) = (parts.next(), parts.next().unwrap_or_default());
    let number = second.strip_prefix("line ").unwrap_or(second);
    let has_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_shell = has_number || line.starts_with("bash: ") || line.starts_with("sh: ");
    let said = line.rsplit(": ").next().unwrap_or_default();
    let is_syntax = line.contains("syntax error") || line.contains("Syntax error");
    let is_known = REFUSED.iter().any(|known| said.ends_with(known)) || is_syntax;
    (is_shell && is_known) || line.ends_with(": command not found")
}

/// `│ No such option: --lrr │` below `╭─ Error ─…`: a parser of arguments that draws a box.
fn boxed(lines: &[String], at: usize) -> Option<&str> {
    let above = lines.get(at.checked_sub(1)?)?.trim();
    let is_box = above.starts_with("╭─ Error ") && above.ends_with('╮');
    let text = lines[at].trim().strip_prefix('│')?.strip_suffix('│')?.trim();
    is_box.then_some(text).filter(|text| !text.is_empty())
}

/// The line in which a parser of arguments says what is wrong: `usage:` stands above or below it.
fn is_wrong_use(lines: &[String], at: usize) -> bool {
    let line = lines[at].trim();
    let says =
        line.contains(": error: ") || line.starts_with("Error: ") || line.starts_with("error: ");
    let near = at.saturating_sub(USAGE_ABOVE)..lines.len().min(at + 6);
    let is_usage = |line: &String| line.starts_with("usage: ") || line.starts_with("Usage: ");
    // Slurm says it of any program that ends badly, below what the program itself says.
    says && !is_slurms(line) && lines[near].iter().any(is_usage)
}

/// Whether a line looks like one that tells of an error. Only where nothing better is found.
fn speaks_of_error(line: &str) -> bool {
    let lower = line.to_lowercase();
    let names = is_exception(line)
        && line.split(':').next().is_some_and(|name| {
            ["Error", "Exception", "Interrupt"].iter().any(|end| name.ends_with(end))
        });
    // `relative error: 1e-5` is a measure.
    let is_number =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let is_error = lower.split("error: ").skip(1).any(|said| !is_number(said));
    let is_told = ["error in ", "fatal: ", "fatal error", "failed: ", "panic: "];
    let is_told = is_error || is_told.iter().any(|word| lower.contains(word));
    names || is_told || lower.starts_with("error")
}
