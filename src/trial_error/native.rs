//! Errors of Rust, C, C++, Fortran, Java, Node and Go programs, of MPI, of Slurm and of the kernel, among those of others.

use std::iter;

use super::finding::{FoundError, Weight};
use super::launcher::{is_end_of_task, is_slurms};
use super::python::is_consequence;
use super::script;
use super::shell::tells_signal;

/// How C++ begins to tell of an exception that nobody caught.
const THROWN: &str = "terminate called after throwing an instance of ";
/// A message of more lines than this is another program's output.
const LONGEST_MESSAGE: usize = 60;
/// A backtrace has at most so many lines.
const LONGEST_TRACE: usize = 200;

/// Where in a line a marker stands.
#[derive(Clone, Copy)]
enum MarkerPlace {
    Start,
    Anywhere,
}

use MarkerPlace::{Anywhere, Start};
use Weight::{Cause, Consequence, Report};

/// Lines that tell of an error by themselves. The first that fits counts.
const MARKERS: &[(MarkerPlace, &str, Weight)] = &[
    (Anywhere, "Exited with exit code", Report),
    (Anywhere, "Detected 1 oom", Cause),
    (Anywhere, "oom_kill event", Cause),
    (Anywhere, "oom-kill event", Cause),
    (Anywhere, "Out Of Memory", Cause),
    (Anywhere, "DUE TO TIME LIMIT", Cause),
    (Anywhere, "DUE TO NODE FAILURE", Cause),
    (Anywhere, "*** JOB ", Consequence),
    (Anywhere, "*** STEP ", Consequence),
    (Anywhere, "Job step aborted", Consequence),
    (Anywhere, "Out of memory: Killed process", Cause),
    (Anywhere, "Memory cgroup out of memory", Cause),
    (Start, "memory allocation of ", Cause),
    (Start, "free(): ", Cause),
    (Start, "malloc(): ", Cause),
    (Start, "malloc: ", Cause),
    (Start, "realloc(): ", Cause),
    (Start, "munmap_chunk(): ", Cause),
    (Start, "double free or corruption", Cause),
    (Start, "corrupted size vs. prev_size", Cause),
    (Start, "*** stack smashing detected", Cause),
    (Anywhere, "ERROR: AddressSanitizer:", Cause),
    (Anywhere, ": Assertion `", Cause),
    // Of libstdc++.
    (Anywhere, ": Assertion '", Cause),
    (Start, "Fortran runtime error:", Cause),
    (Start, "forrtl: severe", Cause),
    (Anywhere, "Caught signal 11 (Segmentation fault", Cause),
    (Anywhere, "Signal: Segmentation fault", Cause),
    (Anywhere, "Signal: Bus error", Cause),
    (Anywhere, "Signal: Floating point exception", Cause),
    (Anywhere, "Signal: Aborted", Consequence),
    (Anywhere, "received by PID", Cause),
    (Anywhere, "*** MPI_ERR_", Cause),
    (Start, "Fatal error in ", Cause),
    (Anywhere, "MPI_ABORT was invoked on rank", Report),
    (Anywhere, "application called MPI_Abort(", Report),
    (Anywhere, "exited on signal", Consequence),
    (Anywhere, "exits with return code = ", Consequence),
    (Anywhere, "Watchdog caught collective operation timeout", Cause),
    (Anywhere, "error while loading shared libraries:", Cause),
    (Anywhere, "No space left on device", Cause),
    (Anywhere, "Disk quota exceeded", Cause),
    (Anywhere, "JavaScript heap out of memory", Cause),
    (Anywhere, "CUDA error: ", Cause),
    (Anywhere, "CUDA out of memory", Cause),
    (Anywhere, "CUDA_ERROR_", Cause),
    (Anywhere, "cudaMalloc failed: out of memory", Cause),
    (Anywhere, "hipMalloc failed: out of memory", Cause),
];

/// How a panic ends that only tells that another thread has panicked or is gone.
const OF_OTHER_THREADS: [&str; 5] = [
    "`Err` value: Any { .. }",
    "`Err` value: PoisonError { .. }",
    "`Err` value: SendError { .. }",
    "`Err` value: RecvError",
    "a scoped thread panicked",
];

/// How Slurm says that it ended a run of a job that runs again: no error, and perhaps of an earlier run.
const REQUEUES: [&str; 2] = ["DUE TO JOB REQUEUE", "DUE TO PREEMPTION"];

/// The markers after which a process does not go on, whatever frames and memory maps it prints before its end.
const FATAL: [&str; 12] = [
    "free(): ",
    "malloc(): ",
    "realloc(): ",
    "munmap_chunk(): ",
    "double free or corruption",
    "corrupted size vs. prev_size",
    "*** stack smashing detected",
    "ERROR: AddressSanitizer:",
    ": Assertion `",
    ": Assertion '",
    "Caught signal 11",
    "Signal: ",
];

/// The errors outside of Python's tracebacks. The further lines of a message are marked as `inside`, so that no word in
/// them is taken for an error of its own.
pub(super) fn findings(lines: &[String], inside: &mut [bool]) -> Vec<FoundError> {
    let mut found = Vec::new();
    for at in 0..lines.len() {
        if inside[at] {
            continue;
        }
        if let Some(finding) = script::finding(lines, at) {
            inside[at..finding.end].fill(true);
            found.push(finding);
            continue;
        }
        found.extend(finding(lines, at));
        inside[at + 1..at + lines_of_message(lines, at)].fill(true);
    }
    found
}

/// How many lines the message has that begins at a line.
fn lines_of_message(lines: &[String], at: usize) -> usize {
    if lines[at].contains(THROWN) {
        let is_over =
            |line: &&String| line.trim().is_empty() || is_slurms(line) || tells_signal(line);
        let further = lines[at + 1..].iter().take(LONGEST_MESSAGE);
        return 1 + further.take_while(|line| !is_over(line)).count();
    }
    causes(lines, at).map_or(1, |(_, length)| length)
}

fn finding(lines: &[String], at: usize) -> Option<FoundError> {
    let with_trace = panic(lines, at)
        .or_else(|| with_causes(lines, at))
        .or_else(|| faulthandler(lines, at))
        .or_else(|| terminate(lines, at))
        .or_else(|| with_frames(lines, at))
        .or_else(|| goroutine(lines, at));
    with_trace.or_else(|| marked(lines, at))
}

fn marked(lines: &[String], at: usize) -> Option<FoundError> {
    let line = lines[at].trim();
    let fits = |place: MarkerPlace, text: &str| match place {
        Start => line.starts_with(text),
        Anywhere => line.contains(text),
    };
    if REQUEUES.iter().any(|text| line.contains(text)) {
        return None;
    }
    let (_, marker, weight) = MARKERS.iter().find(|(place, text, _)| fits(*place, text))?;
    let mut next = lines.iter().skip(at + 1).take(3).map(|line| line.trim());
    let message = match *marker {
        // Its code is on a line of its own.
        "MPI_ABORT was invoked on rank" => {
            let code = next.find(|line| line.to_lowercase().contains("errorcode"));
            format!("{line} {}", code.unwrap_or_default())
        }
        "received by PID" => line.trim_start_matches("traceback : ").to_owned(),
        _ => line.to_owned(),
    };
    // Slurm ends the other tasks because of that one.
    let is_of_others = is_slurms(line) && lines.iter().any(|line| is_end_of_task(line));
    let weight = if *weight == Consequence && is_of_others { Report } else { *weight };
    let found = FoundError::line(at, weight, &message);
    Some(if FATAL.iter().any(|text| line.contains(text)) { found.fatal(lines) } else { found })
}

/// `thread 'main' panicked at src/main.rs:2:5:`, and the message on the next line; before 1.73 all on one.
fn panic(lines: &[String], at: usize) -> Option<FoundError> {
    let line = &lines[at];
    let start = line.find("thread '").filter(|_| line.contains("panicked at "))?;
    let (_, place) = line.split_once("panicked at ")?;
    let is_message = |line: &&String| !line.trim().is_empty() && !line.starts_with("note: ");
    let next = lines.get(at + 1).filter(is_message).filter(|_| place.ends_with(':'));
    let message = match next {
        Some(next) => format!("panicked at {place} {}", next.trim()),
        None => format!("panicked at {}", quoted(place, &lines[at + 1..])),
    };
    let is_part = |line: &str| !line.trim().is_empty();
    let trace = trace(lines, at, start, is_part);
    let is_of_other = OF_OTHER_THREADS.iter().any(|end| message.ends_with(end));
    let weight = if is_of_other { Consequence } else { Cause };
    Some(FoundError::line(at, weight, &message).with_traceback(&trace))
}

/// `'assertion failed: …', src/main.rs:2:5` in one line: before 1.73 the place stands behind a message of several lines.
fn quoted(first: &str, rest: &[String]) -> String {
    let is_end = |line: &str| line.rsplit_once("', ").is_some_and(|(_, place)| place.contains(':'));
    let is_whole = !first.starts_with('\'') || is_end(first);
    let end = rest.iter().take(LONGEST_MESSAGE).position(|line| is_end(line));
    let length = end.filter(|_| !is_whole).map_or(0, |end| end + 1);
    let lines = iter::once(first).chain(rest[..length].iter().map(|line| line.trim()));
    lines.collect::<Vec<_>>().join(" ")
}

/// `Error: …` of a Rust program, and what caused it below `Caused by:`.
fn with_causes(lines: &[String], at: usize) -> Option<FoundError> {
    let (causes, length) = causes(lines, at)?;
    let message = format!("{}: {}", lines[at].trim(), causes.join(": "));
    let found = FoundError::line(at, Weight::Cause, &message);
    Some(FoundError { end: at + length, ..found })
}

/// The causes that stand below an error, and how many lines all has: they are indented, several have a number.
fn causes(lines: &[String], at: usize) -> Option<(Vec<&str>, usize)> {
    let heading = at + 2;
    let is_headed = lines[at].starts_with("Error: ")
        && lines.get(at + 1)?.trim().is_empty()
        && lines.get(heading)?.trim() == "Caused by:";
    let below = lines.get(heading + 1..).filter(|_| is_headed)?;
    let is_cause = |line: &&String| line.starts_with("    ");
    let causes = below.iter().take(LONGEST_MESSAGE).take_while(is_cause).map(|line| cause(line));
    let causes: Vec<&str> = causes.collect();
    let length = heading + 1 + causes.len() - at;
    (!causes.is_empty()).then_some((causes, length))
}

/// `    1: No such file` without its number.
fn cause(line: &str) -> &str {
    let line = line.trim();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    line.split_once(": ").filter(|(number, _)| is_number(number)).map_or(line, |(_, cause)| cause)
}

/// Python's own handler of signals.
fn faulthandler(lines: &[String], at: usize) -> Option<FoundError> {
    let start = lines[at].find("Fatal Python error: ")?;
    let is_frame = |line: &str| {
        line.trim().is_empty()
            || line.starts_with("  ")
            || line.contains("(most recent call first)")
            || line.starts_with("Python runtime state")
            || line.starts_with("Extension modules")
    };
    let trace = trace(lines, at, start, is_frame);
    let found = FoundError::line(at, Weight::Cause, &lines[at][start..]).with_traceback(&trace);
    Some(found.fatal(lines))
}

/// `terminate called after throwing an instance of 'std::bad_alloc'`, and `what():` below.
fn terminate(lines: &[String], at: usize) -> Option<FoundError> {
    let (_, thrown) = lines[at].split_once(THROWN)?;
    let thrown = thrown.trim().trim_matches('\'');
    let what = lines.get(at + 1).and_then(|line| line.trim().strip_prefix("what():"));
    let message = what.map_or(thrown.to_owned(), |what| format!("{thrown}: {}", what.trim()));
    let weight = if is_consequence(thrown) { Weight::Consequence } else { Weight::Cause };
    Some(FoundError::line(at, weight, &message).fatal(lines))
}

/// `Exception in thread "main" …` of Java, `TypeError: …` of Node: frames begin with `at`.
fn with_frames(lines: &[String], at: usize) -> Option<FoundError> {
    let is_frame =
        |line: &str| line.trim_start().starts_with("at ") && line.starts_with([' ', '\t']);
    let begins = !is_frame(&lines[at]) && lines.get(at + 1).is_some_and(|line| is_frame(line));
    let line = lines[at].strip_prefix("Exception in thread ").unwrap_or(&lines[at]);
    let is_error = line.contains("Error") || line.contains("Exception");
    if !begins || !is_error || line.starts_with([' ', '\t']) || line.starts_with("Caused by") {
        return None;
    }
    let name = match line.strip_prefix('"') {
        Some(rest) => rest.split_once("\" ").map_or(line, |(_, name)| name),
        None => line,
    };
    let is_part = |line: &str| {
        is_frame(line) || line.starts_with("Caused by") || line.trim().starts_with("... ")
    };
    let trace = trace(lines, at, 0, is_part);
    Some(FoundError::line(at, Weight::Cause, name).with_traceback(&trace))
}

/// `panic: …` or `fatal error: …` of Go, and the goroutine below.
fn goroutine(lines: &[String], at: usize) -> Option<FoundError> {
    let starts = ["panic: ", "fatal error: "];
    starts.iter().any(|start| lines[at].starts_with(start)).then_some(())?;
    let mut next = lines.iter().skip(at + 1).take(4);
    next.any(|line| line.starts_with("goroutine ")).then_some(())?;
    let trace = trace(lines, at, 0, |line| !line.starts_with("exit status"));
    let found = FoundError::line(at, Weight::Cause, &lines[at]).with_traceback(&trace);
    Some(found.fatal(lines))
}

/// The lines from an error on that belong to it.
fn trace(lines: &[String], at: usize, start: usize, is_part: impl Fn(&str) -> bool) -> Vec<&str> {
    let first = lines[at].get(start..).unwrap_or(&lines[at]);
    let rest = lines[at + 1..].iter().map(String::as_str).take(LONGEST_TRACE);
    let mut trace: Vec<&str> = vec![first];
    trace.extend(rest.take_while(|line| is_part(line)));
    while trace.last().is_some_and(|line| line.trim().is_empty()) {
        trace.pop();
    }
    trace
}
