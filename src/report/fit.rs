//! Text that fits a line: broken at blanks, or elided in the middle. Pure.

use super::own_commands::with_home;

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

/// Sentences for a terminal: no word is broken. Lines that are laid out already, by blanks, stay as they are, and what is to be
/// typed stays whole where it fits a line.
pub(super) fn sentences(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let one = |line: &str| {
        let is_laid_out = line.starts_with(' ')
            || line.contains("  ")
            || line.contains(" | ")
            || line.contains('\u{1b}');
        if is_laid_out || length(line) <= width {
            return line.to_owned();
        }
        // A blank within `…` is none to break at.
        let mut is_typed = false;
        let marked: String = line
            .chars()
            .map(|c| {
                is_typed ^= c == '`';
                if c == ' ' && is_typed { '\u{a0}' } else { c }
            })
            .collect();
        let marked = if is_typed { line.to_owned() } else { marked };
        let words: Vec<String> =
            marked
                .split(' ')
                .map(|word| {
                    if length(word) <= width {
                        word.to_owned()
                    } else {
                        word.replace('\u{a0}', " ")
                    }
                })
                .collect();
        let text = words.join(" ");
        let lines = wrap_words(text.split(' '), width);
        lines.join("\n").replace('\u{a0}', " ")
    };
    text.split('\n').map(one).collect::<Vec<_>>().join("\n")
}

fn wrap_words<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if length(line) + 1 + length(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text whose further lines stand further in; as it is where it fits, or nothing limits it.
pub(super) fn hang(text: &str, width: Option<usize>, indent: usize) -> String {
    // Once it is broken, its command lines are no longer found.
    let text = with_home(text);
    match width {
        Some(width) if length(&text) > width => wrap(&text, width, indent).join("\n"),
        Some(_) | None => text.into_owned(),
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

/// A word that is to have at most `width` characters: a name loses its middle, a number never, for half of one is another
/// number. It comes on a line of its own, or broken, where there is no room for it.
pub(super) fn shorten(word: &str, width: usize) -> String {
    let (name, value) = word.split_once('=').unwrap_or(("", word));
    if length(word) <= width || !is_number(value) {
        return elide(word, width);
    }
    let room = width.saturating_sub(length(value) + 1);
    match name {
        "" => broken(value, width),
        name if room >= 2 => format!("{}={value}", elide(name, room)),
        name => format!("{}= {}", elide(name, width.saturating_sub(1)), broken(value, width)),
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// A word with blanks in it, so that no part is longer than `width`.
pub(super) fn broken(word: &str, width: usize) -> String {
    let mut text = String::new();
    for (place, c) in word.chars().enumerate() {
        if place > 0 && place.is_multiple_of(width.max(1)) {
            text.push(' ');
        }
        text.push(c);
    }
    text
}

/// In characters.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_broken_where_it_must_be() {
        assert_eq!(broken("abcdefg", 3), "abc def g");
        assert_eq!(broken("größe", 5), "größe");
        assert_eq!(broken("ab", 0), "a b");
    }

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
    fn sentences_break_no_word_and_nothing_to_type() {
        let check = |text, expected| assert_eq!(sentences(text, Some(20)), expected);
        check("warning: this is a long sentence", "warning: this is a\nlong sentence");
        check("hint: do `submit x y` and see", "hint: do\n`submit x y` and see");
        check("TASK   STATE    TRIALS   MORE", "TASK   STATE    TRIALS   MORE");
        check("type `nemo-slurm status a-long-id`", "type `nemo-slurm\nstatus a-long-id`");
        assert_eq!(
            sentences("as it is in a pipe, however long", None),
            "as it is in a pipe, however long"
        );
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(hang("a  b", Some(4), 2), "a  b");
        assert_eq!(hang("a  b c", Some(4), 2), "a b\n  c");
        assert_eq!(hang("a  b c", None, 2), "a  b c");
    }

    #[test]
    fn no_number_is_cut() {
        let check = |word, width, expected| assert_eq!(shorten(word, width), expected);
        check("lr=0.0193", 9, "lr=0.0193");
        check("learning_rate=0.0193", 12, "le…te=0.0193");
        check("loss=1.003", 8, "l…=1.003");
        check("lr=0.000193", 8, "lr= 0.000193");
        check("loss=-1.5e-300", 4, "l…s= -1.5 e-30 0");
        check("1234567", 4, "1234 567");
        check("data=/home/someone/images", 12, "data=/…mages");
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
