//! The lines of an output as its readers see them: without colours, without what a progress bar overwrote, and without
//! the harness's own lines.

use nemo_core::log_line;

/// So many last lines are shown.
const LAST: usize = 20;
/// Longer lines are cut.
const MAX_LINE_LENGTH: usize = 1000;

/// The lines of an output's end. If it is cut, the first one is only a part, and is left out.
pub(super) fn lines(end: &[u8], is_cut: bool) -> Vec<String> {
    let text = String::from_utf8_lossy(end);
    let lines = text.split('\n').skip(usize::from(is_cut)).map(plain);
    lines.filter(|line| log_line::text(line).is_none()).collect()
}

/// The last ones that hold something.
pub(super) fn last(lines: &[String]) -> Vec<String> {
    let telling = lines.iter().filter(|line| !line.trim().is_empty());
    let mut last: Vec<String> = telling.rev().take(LAST).map(|line| cut_long(line)).collect();
    last.reverse();
    last
}

/// A line that is not too long to be shown.
pub(super) fn cut_long(line: &str) -> String {
    cut(line, MAX_LINE_LENGTH)
}

/// Whether a line holds no word: it is empty or drawn.
pub(super) fn is_rule(line: &str) -> bool {
    !line.contains(char::is_alphanumeric)
}

/// The text that begins at a line, up to a blank or an indented one, in one line.
pub(super) fn paragraph(lines: &[String], at: usize) -> String {
    let is_over = |line: &String| is_rule(line) || line.starts_with([' ', '\t']);
    let length = lines[at + 1..].iter().take_while(|line| !is_over(line)).count();
    joined(lines, at, at + 1 + length)
}

/// Lines as one, and the next that holds something if they end with a colon.
pub(super) fn joined(lines: &[String], first: usize, end: usize) -> String {
    let is_whole = !lines[end - 1].ends_with(':');
    let next = lines[end..].iter().find(|line| !line.trim().is_empty()).filter(|_| !is_whole);
    let parts = lines[first..end].iter().chain(next).flat_map(|line| line.split_whitespace());
    parts.collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, and a mark if that is not all.
pub(super) fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A line without colours, and of a progress bar only its last state.
fn plain(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let shown = line.rsplit('\r').next().unwrap_or_default();
    let mut parts = shown.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(after_sequence(part));
    }
    plain.retain(|c| c == '\t' || !c.is_control());
    plain.truncate(plain.trim_end().len());
    plain
}

/// What follows an escape sequence, of which the first character is gone.
fn after_sequence(part: &str) -> &str {
    match part.strip_prefix('[') {
        Some(codes) => {
            let end = codes.find(|c: char| c.is_ascii_alphabetic() || c == '~');
            end.map_or("", |at| &codes[at + 1..])
        }
        None => part.char_indices().nth(1).map_or("", |(at, _)| &part[at..]),
    }
}
