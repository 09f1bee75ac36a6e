//! Python's tracebacks: chained ones as one, exception groups, those of ranks and workers with a prefix before each line.

use super::finding::{FoundError, Weight};

const HEADER: &str = "Traceback (most recent call last)";
const GROUP: &str = "Exception Group Traceback (most recent call last)";
/// What stands between two tracebacks of a chain.
const LINKS: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];
/// A message of more lines than this is another program's output.
const LONGEST_MESSAGE: usize = 60;
/// So many lines of other processes may stand between two lines of one.
const MOST_BETWEEN: usize = 200;

/// TensorFlow and Keras tell the error itself below, after blank lines and places.
const TOLD_BELOW: [&str; 2] = ["Graph execution error:", "Exception encountered when calling "];

/// Reactions to another error: by the name of the exception.
const CONSEQUENCES: [&str; 9] = [
    "KeyboardInterrupt",
    "SystemExit",
    "BrokenPipeError",
    "ConnectionResetError",
    "ChildFailedError",
    "SignalException",
    "CalledProcessError",
    "DistBackendError",
    "ProcessExitedException",
];

/// A traceback while it is read.
struct Block<'a> {
    /// Its lines without prefix.
    lines: Vec<&'a str>,
    /// Each exception's message, which may have several lines.
    exceptions: Vec<Vec<&'a str>>,
    /// The first line after it.
    end: usize,
    /// The first line that is perhaps another program's: a message may go over several lines.
    sure_end: usize,
    /// What stands before each of its lines.
    prefix: &'a str,
}

/// All tracebacks, and for each line whether it belongs to one.
pub(super) fn tracebacks(lines: &[String]) -> (Vec<FoundError>, Vec<bool>) {
    let (mut found, mut inside) = (Vec::new(), vec![false; lines.len()]);
    let mut at = 0;
    while at < lines.len() {
        let block = block_at(lines, at);
        let end = block.as_ref().map_or(at + 1, |block| block.end.max(at + 1));
        if let Some(block) = block {
            let sure_end = block.sure_end.clamp(at + 1, lines.len());
            inside[at..sure_end].fill(true);
            let is_ignored = at > 0 && lines[at - 1].contains("Exception ignored in");
            let finding = finding(at, &block, is_ignored);
            found.extend(finding.map(|finding| FoundError { end: sure_end, ..finding }));
        }
        at = end;
    }
    (found, inside)
}

fn block_at(lines: &[String], at: usize) -> Option<Block<'_>> {
    let line = &lines[at];
    if line.contains(GROUP) {
        return Some(group(lines, at));
    }
    if line.contains(HEADER) {
        return Some(if line.contains('╭') { boxed(lines, at) } else { chain(lines, at) });
    }
    // A mistake in the syntax of the main file has no header.
    let is_syntax = line.starts_with("  File \"") && line.contains("\", line ");
    is_syntax.then(|| syntax_error(lines, at)).flatten()
}

/// One traceback, and those that follow from it.
fn chain(lines: &[String], at: usize) -> Block<'_> {
    let prefix = prefix(lines, at);
    let mut block =
        Block { lines: Vec::new(), exceptions: Vec::new(), end: at, sure_end: at, prefix };
    let mut header = at;
    loop {
        one_of_chain(lines, header, &mut block);
        match next_header(lines, block.end, prefix) {
            Some(next) => {
                let between = (block.end..next).filter_map(|at| without(&lines[at], prefix));
                block.lines.extend(between);
                header = next;
            }
            None => return block,
        }
    }
}

/// What stands before each line of a traceback: what is before its first frame.
fn prefix(lines: &[String], at: usize) -> &str {
    let before = |line: &'_ String| line.find("File \"").filter(|place| *place >= 2);
    match lines.get(at + 1).and_then(before) {
        Some(place) => lines[at + 1].get(..place - 2).unwrap_or_default(),
        None => "",
    }
}

/// A line without the prefix; nothing if it has another one.
fn without<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    match line.strip_prefix(prefix) {
        Some(rest) => Some(rest),
        None => (line == prefix.trim_end()).then_some(""),
    }
}

/// Reads from a header to the end of the exception's message.
fn one_of_chain<'a>(lines: &'a [String], header: usize, block: &mut Block<'a>) {
    let first = &lines[header];
    let start = first.find("Original Traceback").or_else(|| first.find(HEADER)).unwrap_or(0);
    block.lines.push(&first[start..]);
    block.end = header + 1;
    // Loguru sets its frames apart by blank lines.
    let is_spaced = lines.get(header + 1).is_some_and(|line| line.trim().is_empty());
    let (mut message, mut between): (Vec<&str>, usize) = (Vec::new(), 0);
    for (at, line) in lines.iter().enumerate().skip(header + 1) {
        let Some(body) = without(line, block.prefix) else {
            between += 1;
            if block.prefix.trim().is_empty() || between > MOST_BETWEEN {
                break;
            }
            continue;
        };
        between = 0;
        let goes_on = is_unfinished(&message) || (is_spaced && message.is_empty());
        let is_over = (body.trim().is_empty() && !goes_on) || body.contains(HEADER);
        if is_over || message.len() >= LONGEST_MESSAGE || is_of_others(body) {
            break;
        }
        let is_frame =
            body.is_empty() || body.starts_with([' ', '\t']) || body.starts_with("> File ");
        if message.is_empty() && !is_frame {
            if !is_exception(body) {
                break;
            }
            message.push(body);
            block.sure_end = at + 1;
        } else if !message.is_empty() {
            message.push(body);
        }
        block.lines.push(body);
        block.end = at + 1;
    }
    if !message.is_empty() {
        block.exceptions.push(message);
    }
}

/// Whether a message of TensorFlow's has not told the error itself yet: it names places before, with blank lines between.
fn is_unfinished(message: &[&str]) -> bool {
    let is_below = message.first().is_some_and(|first| is_told_below(first));
    is_below && message.iter().skip(1).all(|line| line.trim().is_empty() || is_graph_place(line))
}

fn is_told_below(first: &str) -> bool {
    TOLD_BELOW.iter().any(|words| first.contains(words))
}

fn is_graph_place(line: &str) -> bool {
    line.starts_with("Detected at node") || line.starts_with("  ")
}

/// The next header of the same chain, if there is one.
fn next_header(lines: &[String], from: usize, prefix: &str) -> Option<usize> {
    let mut is_linked = false;
    for (at, line) in lines.iter().enumerate().skip(from).take(12) {
        let body = without(line, prefix)?;
        if body.contains(HEADER) {
            return (is_linked || body.contains("Original Traceback")).then_some(at);
        }
        let is_spawned = body.starts_with("-- Process ") && body.contains("terminated with");
        if LINKS.contains(&body.trim()) || is_spawned {
            is_linked = true;
        } else if !body.trim().is_empty() && body != "\"\"\"" {
            return None;
        }
    }
    None
}

/// A group, whose lines begin with `|` or `+`.
fn group(lines: &[String], at: usize) -> Block<'_> {
    let mut block =
        Block { lines: Vec::new(), exceptions: Vec::new(), end: at, sure_end: at, prefix: "" };
    for (place, line) in lines.iter().enumerate().skip(at) {
        let body = line.trim_start();
        if !body.starts_with(['|', '+']) {
            break;
        }
        block.lines.push(line);
        (block.end, block.sure_end) = (place + 1, place + 1);
        let text = body.trim_start_matches('|');
        let text = text.strip_prefix(' ').unwrap_or(text);
        if !text.contains(HEADER) && is_exception(text) {
            block.exceptions.push(vec![text]);
        }
    }
    block
}

/// One that `rich` drew a box around: its message stands below.
fn boxed(lines: &[String], at: usize) -> Block<'_> {
    let mut block =
        Block { lines: Vec::new(), exceptions: Vec::new(), end: at, sure_end: at, prefix: "" };
    let end = (at..lines.len().min(at + MOST_BETWEEN))
        .find(|place| lines[*place].contains('╰'))
        .unwrap_or(at);
    block.lines.extend(lines[at..=end].iter().map(String::as_str));
    (block.end, block.sure_end) = (end + 1, end + 2);
    if let Some(line) = lines.get(end + 1).filter(|line| is_exception(line)) {
        block.lines.push(line);
        block.exceptions.push(vec![line]);
        block.end += 1;
    }
    block
}

fn syntax_error(lines: &[String], at: usize) -> Option<Block<'_>> {
    let end = (at + 1..lines.len().min(at + 5)).find(|place| !lines[*place].starts_with(' '))?;
    let message = lines[end].as_str();
    let is_syntax = ["SyntaxError:", "IndentationError:", "TabError:"];
    is_syntax.iter().any(|start| message.starts_with(start)).then(|| Block {
        lines: lines[at..=end].iter().map(String::as_str).collect(),
        exceptions: vec![vec![message]],
        end: end + 1,
        sure_end: end + 1,
        prefix: "",
    })
}

fn finding(at: usize, block: &Block<'_>, is_ignored: bool) -> Option<FoundError> {
    let is_group = block.lines.first().is_some_and(|line| line.contains(GROUP));
    let last = block.exceptions.last()?;
    let mut message = joined(if is_group { block.exceptions.first()? } else { last });
    let mut members = block.exceptions.iter().skip(1);
    if let Some(first) = members.find(|it| !is_of_group(it)).filter(|_| is_group) {
        message = format!("{message}: {}", joined(first));
    }
    let weight = match () {
        () if is_ignored => Weight::Hint,
        () if is_consequence(&message) => Weight::Consequence,
        () => Weight::Cause,
    };
    let found = FoundError::line(at, weight, &message).with_traceback(&block.lines);
    let texts = block.exceptions.iter().rev().map(|exception| exception.join(" "));
    let is_one_of_many = !block.prefix.trim().is_empty();
    let prefix = if is_one_of_many { block.prefix.to_owned() } else { String::new() };
    Some(FoundError { texts: texts.collect(), prefix, ..found })
}

/// `ExceptionGroup: why (2 sub-exceptions)`, which others stand below.
fn is_of_group(exception: &[&str]) -> bool {
    exception.first().is_some_and(|line| line.contains(" sub-exception"))
}

/// Whether it tells only that something else failed.
pub(super) fn is_consequence(message: &str) -> bool {
    let path = message.split(": ").next().unwrap_or_default().trim_end_matches(':');
    let name = path.rsplit(['.', ':']).next().unwrap_or_default();
    CONSEQUENCES.contains(&name)
        || message.contains("Connection closed by peer")
        || message.contains("Connection reset by peer")
}

/// The first line of a message, and the next where the first one says nothing by itself.
fn joined(exception: &[&str]) -> String {
    let first = exception.first().map_or("", |line| line.trim());
    let is_rule = |line: &str| line.chars().all(|c| matches!(c, '=' | '-' | '"' | ' '));
    let mut rest = exception.iter().skip(1).filter(|line| !is_rule(line));
    let is_below = is_told_below(first);
    let goes_on = is_below || first.ends_with(':');
    match rest.find(|line| !is_below || !is_graph_place(line)).filter(|_| goes_on) {
        Some(next) => format!("{first} {}", next.trim()),
        None => first.to_owned(),
    }
}

/// `ValueError: why`, `torch.OutOfMemoryError: why` or `KeyboardInterrupt`.
pub(super) fn is_exception(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>');
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    begins && name.chars().all(is_word) && !line.contains(HEADER)
}

/// The last frame of a traceback that is in nobody's library: `train.py:31`.
pub(super) fn last_own_frame(traceback: &str) -> Option<String> {
    let is_library = |path: &str| {
        path.starts_with('<') || path.contains("/site-packages/") || path.contains("/lib/python")
    };
    let mut frames = traceback.lines().filter_map(|line| {
        let (path, rest) = line.split_once("File \"")?.1.split_once("\", line ")?;
        let number = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((path, number)).filter(|(path, _)| !is_library(path))
    });
    let (path, number) = frames.next_back()?;
    Some(format!("{}:{number}", path.rsplit('/').next().unwrap_or(path)))
}

/// A line that a launcher or Slurm adds to what a program prints.
fn is_of_others(line: &str) -> bool {
    ["srun: ", "slurmstepd: ", "mpirun ", "-----------", "E1", "E0"].iter().any(|start| {
        line.strip_prefix(start).is_some_and(|rest| {
            !start.starts_with('E') || rest.starts_with(|c: char| c.is_ascii_digit())
        })
    })
}
