//! Keeps foreign text from steering the terminal: what a program, a file or Slurm wrote is shown, never obeyed.

use std::borrow::Cow;

/// The start of a colour as our own tables write it, and its end.
const COLOUR: &str = "\u{1b}[";

/// The text with every control character but line breaks and tabs as `\x1b`, and what turns the direction of writing
/// as `\u{202e}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| c != '\n' && c != '\t' && steers(c))
}

/// The same for a cell of a table, or a line of a live view: it has no line breaks of its own.
#[must_use]
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_where(text, steers)
}

/// The same, but colours stay: those of our own tables, whose cells are escaped already.
#[must_use]
pub fn escape_but_colours(text: &str) -> Cow<'_, str> {
    if !text.contains(COLOUR) {
        return escape(text);
    }
    let mut parts = text.split(COLOUR);
    let mut shown = escape(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let coloured = part.split_once('m').filter(|(codes, _)| is_colour(codes));
        if let Some((codes, rest)) = coloured {
            shown.extend([COLOUR, codes, "m", &escape(rest)]);
        } else {
            shown.extend([escape(COLOUR), escape(part)]);
        }
    }
    Cow::Owned(shown)
}

/// JSON on one line, as exact as before: its strings spell such characters as `\u009b`.
#[must_use]
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if is_plain(text) || !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            shown.extend(Some(format!("\\u{:04x}", u32::from(c))));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether it is printable ASCII, as most megabytes are: looked at many bytes at a time.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if is_plain(text) || !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match u32::from(c) {
            _ if !is_escaped(c) => shown.push(c),
            _ if c == '\n' => shown.push_str("\\n"),
            _ if c == '\t' => shown.push_str("\\t"),
            code @ ..=0xff => shown.extend(Some(format!("\\x{code:02x}"))),
            code => shown.extend(Some(format!("\\u{{{code:x}}}"))),
        }
    }
    Cow::Owned(shown)
}

/// C0, DEL and C1, the separators of lines and paragraphs, and what turns the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether these are the codes of a foreground colour, or of the end of one. None of them hides a text.
fn is_colour(codes: &str) -> bool {
    let parts: Vec<&str> = codes.split(';').collect();
    match parts.as_slice() {
        ["0" | "39"] => true,
        [code] => matches!(code.parse(), Ok(30u8..=37 | 90..=97)),
        ["38", "5", colour] => colour.parse::<u8>().is_ok(),
        [..] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let check = |text, expected| assert_eq!(escape(text), expected);
        check("plain, größe\n\tnext", "plain, größe\n\tnext");
        check("\u{1b}]0;PWNED\u{7}", "\\x1b]0;PWNED\\x07");
        check("a\rb\u{7f}\u{9b}31m", "a\\x0db\\x7f\\x9b31m");
        check("\u{202e}txt.exe\u{2069}", "\\u{202e}txt.exe\\u{2069}");
        assert_eq!(escape_line("c\nd\te"), "c\\nd\\te");
    }

    #[test]
    fn colours_of_our_own_stay_and_nothing_else() {
        let check = |text, expected| assert_eq!(escape_but_colours(text), expected);
        check("\u{1b}[38;5;9mfailed\u{1b}[39m", "\u{1b}[38;5;9mfailed\u{1b}[39m");
        check("\u{1b}[32mok\u{1b}[0m\u{1b}[2J", "\u{1b}[32mok\u{1b}[0m\\x1b[2J");
        check("\u{1b}[8mhidden", "\\x1b[8mhidden");
        check("\u{1b}]8;;http://a\u{1b}[31mb", "\\x1b]8;;http://a\u{1b}[31mb");
    }

    #[test]
    fn json_stays_exact() {
        let value = serde_json::json!({ "a\u{9b}\u{202e}": "\u{1b}\u{7f}\n" });
        let text = value.to_string();
        let shown = escape_json(&text);
        assert!(!shown.chars().any(steers), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
