//! Keeps foreign text from steering the terminal: what a program, a file or Slurm wrote is shown, never obeyed.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

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

/// Writes a value as one line of JSON, which stays exact: its strings spell such characters as `\u009b`.
pub fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut plain = PlainJson { out: &mut *out, held: Vec::with_capacity(2 * PIECE) };
    value.serialize(&mut serde_json::Serializer::new(&mut plain))?;
    plain.flush()?;
    out.write_all(b"\n")
}

/// Passes compact JSON on without characters that steer a terminal. They are looked for in long pieces: a look at every
/// string of a large document costs as much as making it.
struct PlainJson<W> {
    out: W,
    held: Vec<u8>,
}

/// How much is looked at together.
const PIECE: usize = 64 * 1024;

impl<W: Write> PlainJson<W> {
    /// Passes on what is held, up to the last whole character.
    fn pass_on(&mut self) -> io::Result<()> {
        let whole = match str::from_utf8(&self.held) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&self.held[..error.valid_up_to()]).unwrap_or_default(),
        };
        write_json_text(&mut self.out, whole)?;
        let n_whole = whole.len();
        self.held.drain(..n_whole);
        Ok(())
    }
}

impl<W: Write> Write for PlainJson<W> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.write_all(part)?;
        Ok(part.len())
    }

    /// A document is written in millions of parts of some bytes.
    #[inline]
    fn write_all(&mut self, part: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(part);
        if self.held.len() >= PIECE { self.pass_on() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()
    }
}

/// Writes text that is JSON already, or a part of a string in it, in the same way.
pub fn write_json_text<W: Write + ?Sized>(writer: &mut W, text: &str) -> io::Result<()> {
    if is_plain(text) {
        return writer.write_all(text.as_bytes());
    }
    for c in text.chars() {
        if steers(c) {
            write!(writer, "\\u{:04x}", u32::from(c))?;
        } else {
            writer.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
    }
    Ok(())
}

/// Whether it is printable ASCII, as most megabytes are: looked at many bytes at a time.
fn is_plain(text: &str) -> bool {
    let is_plain =
        |part: &[u8]| part.iter().fold(true, |all, byte| all & (b' '..=b'~').contains(byte));
    text.as_bytes().chunks(64).all(is_plain)
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
        let value = serde_json::json!({ "a\u{9b}\u{202e}": "größe\u{1b}\u{7f}\n" });
        let mut shown = Vec::new();
        write_json(&mut shown, &value).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.trim_end().chars().any(steers), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_character_at_the_end_of_a_piece_stays_whole() {
        for length in PIECE - 6..PIECE + 2 {
            let value = format!("{}\u{2028}ö", "x".repeat(length));
            let mut shown = Vec::new();
            write_json(&mut shown, &value).unwrap();
            let shown = String::from_utf8(shown).unwrap();
            assert!(shown.ends_with("x\\u2028ö\"\n"), "{length}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
        }
    }
}
