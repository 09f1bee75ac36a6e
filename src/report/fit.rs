//! Text that fits a line: broken at blanks, or elided in the middle. Pure.

/// Breaks a text at its blanks, so that no line is longer than `width` unless a single word is. Lines after the first
/// begin with `indent` blanks.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if length(line) + 1 + length(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{}{word}", " ".repeat(indent))),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text whose further lines stand further in; as it is where it fits, or nothing limits it.
pub(super) fn hang(text: &str, width: Option<usize>, indent: usize) -> String {
    match width {
        Some(width) if length(text) > width => wrap(text, width, indent).join("\n"),
        Some(_) | None => text.to_owned(),
    }
}

/// At most `width` characters: what is too long loses its middle, since names differ at both ends.
pub(super) fn elide(text: &str, width: usize) -> String {
    let long = length(text);
    if long <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let start: String = text.chars().take(kept.div_ceil(2)).collect();
    let end: String = text.chars().skip(long - kept / 2).collect();
    format!("{start}…{end}")
}

/// In characters.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_only() {
        let check = |width, indent, expected: &[&str]| {
            assert_eq!(wrap("the loss is not-a-number at step 12", width, indent), expected);
        };
        check(80, 2, &["the loss is not-a-number at step 12"]);
        check(12, 0, &["the loss is", "not-a-number", "at step 12"]);
        check(14, 2, &["the loss is", "  not-a-number", "  at step 12"]);
        check(3, 1, &["the", " loss", " is", " not-a-number", " at", " step", " 12"]);
        assert!(wrap("", 10, 2).is_empty());
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(hang("a  b", Some(4), 2), "a  b");
        assert_eq!(hang("a  b c", Some(4), 2), "a b\n  c");
        assert_eq!(hang("a  b c", None, 2), "a  b c");
    }

    #[test]
    fn both_ends_of_a_name_stay() {
        let check = |width, expected| assert_eq!(elide("val_accuracy", width), expected);
        check(12, "val_accuracy");
        check(11, "val_a…uracy");
        check(8, "val_…acy");
        check(1, "…");
        check(0, "…");
        assert_eq!(elide("größenordnung", 5), "gr…ng");
    }
}
