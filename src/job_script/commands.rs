//! The simple commands of a script for a shell: where each begins and ends, and its words. Pure.

use std::ops::Range;

use nemo_core::shell::{CharKind, kinds};

/// One simple command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SimpleCommand {
    /// Counted from 1.
    pub(super) line: usize,
    /// Its bytes in the text, from its first word to its last.
    pub(super) span: Range<usize>,
    pub(super) parts: Vec<Part>,
    /// What stands before it, but for the ends of lines.
    pub(super) before: Separator,
    /// What stands behind it.
    pub(super) behind: Separator,
}

/// A word, or a redirection with its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Word(Range<usize>),
    Redirection {
        /// With the number of the file before it.
        operator: Range<usize>,
        /// Empty where none is written.
        target: Range<usize>,
    },
}

/// What parts commands from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    /// The end of a line, a semicolon, or the end of the script.
    End,
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `|` and `|&`.
    Pipe,
    /// `&`.
    Background,
}

impl SimpleCommand {
    /// Its words as they are written, without redirections.
    pub(super) fn words<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Word(range) => Some(&text[range.clone()]),
            Part::Redirection { .. } => None,
        })
    }

    /// How many variables it sets before its name.
    pub(super) fn n_assignments(&self, text: &str) -> usize {
        self.words(text).take_while(|word| is_assignment(word)).count()
    }

    /// What it runs, without quotes; nothing if it only sets variables.
    pub(super) fn name(&self, text: &str) -> Option<String> {
        self.words(text).find(|word| !is_assignment(word)).map(unquoted)
    }

    pub(super) fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.span.clone()]
    }
}

/// `NAME=…` or `NAME+=…`.
pub(super) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A word without its quotes, for words in which the shell fills nothing in.
pub(super) fn unquoted(word: &str) -> String {
    let (mut plain, mut quote, mut escaped) = (String::new(), None, false);
    for character in word.chars() {
        match (quote, character) {
            _ if std::mem::take(&mut escaped) => plain.push(character),
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => plain.push(character),
        }
    }
    plain
}

/// The commands of a text, in order, those in compound commands too: `if`, `done` and the like begin commands of their own.
pub(super) fn commands(text: &str) -> Vec<SimpleCommand> {
    let mut scanner = Scanner::new(text);
    let kinds = kinds(text);
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let mut at = 0;
    while let Some(&(place, character)) = characters.get(at) {
        let kind = |at: usize| kinds.get(at).copied();
        let next =
            |at: usize| characters.get(at + 1).filter(|_| kind(at + 1) == Some(CharKind::Plain));
        let next = next(at).map(|(_, character)| *character);
        at += 1;
        match kind(at - 1) {
            Some(CharKind::Plain) => at += scanner.plain(place, character, next),
            // A line that goes on in the next one.
            Some(CharKind::Quoted) if character == '\\' && is_break(&characters, at) => {
                scanner.end_word();
                (at, scanner.line) = (at + 1, scanner.line + 1);
            }
            Some(CharKind::Quoted) => {
                scanner.word_character(place, character);
                scanner.line += usize::from(character == '\n');
            }
            Some(CharKind::Comment | CharKind::Heredoc) | None => {
                scanner.line += usize::from(character == '\n');
            }
        }
    }
    scanner.end_command(Separator::End);
    scanner.commands
}

fn is_break(characters: &[(usize, char)], at: usize) -> bool {
    characters.get(at).is_some_and(|(_, character)| *character == '\n')
}

/// Reads a text, character by character.
#[derive(Debug)]
struct Scanner<'a> {
    text: &'a str,
    commands: Vec<SimpleCommand>,
    /// The line of the next character, counted from 0.
    line: usize,
    word: Option<Range<usize>>,
    /// An operator that waits for its target.
    operator: Option<Range<usize>>,
    parts: Vec<Part>,
    first_line: usize,
    before: Separator,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            commands: Vec::new(),
            line: 0,
            word: None,
            operator: None,
            parts: Vec::new(),
            first_line: 0,
            before: Separator::End,
        }
    }

    fn word_character(&mut self, place: usize, character: char) {
        let end = place + character.len_utf8();
        if self.parts.is_empty() && self.word.is_none() && self.operator.is_none() {
            self.first_line = self.line;
        }
        self.word.get_or_insert(place..end).end = end;
    }

    /// A character that means what it says. Returns how many more of them belong to it.
    fn plain(&mut self, place: usize, character: char, next: Option<char>) -> usize {
        match (character, next) {
            ('\n', _) => {
                self.end_command(Separator::End);
                self.line += 1;
            }
            ('&' | '|' | '<' | '>', _) if self.extends_operator(place) => {
                self.operator.iter_mut().for_each(|operator| operator.end = place + 1);
            }
            (';', Some(';')) | ('&', Some('&')) | ('|', Some('|' | '&')) => {
                self.end_command(match (character, next) {
                    ('&', _) => Separator::And,
                    ('|', Some('|')) => Separator::Or,
                    ('|', _) => Separator::Pipe,
                    _ => Separator::End,
                });
                return 1;
            }
            ('&', Some('>')) => {
                self.end_word();
                self.begin_operator(place..place + 2);
                return 1;
            }
            (';', _) => self.end_command(Separator::End),
            ('&', _) => self.end_command(Separator::Background),
            ('|', _) => self.end_command(Separator::Pipe),
            ('<' | '>', _) => self.redirection(place),
            (blank, _) if blank.is_whitespace() => self.end_word(),
            (other, _) => self.word_character(place, other),
        }
        0
    }

    /// Whether an operator of a redirection ends right here, as in `>&` and `<<<`.
    fn extends_operator(&self, place: usize) -> bool {
        self.word.is_none() && self.operator.as_ref().is_some_and(|own| own.end == place)
    }

    fn redirection(&mut self, place: usize) {
        // `2>`: the number belongs to the operator.
        let is_number = |word: &Range<usize>| {
            word.end == place && self.text[word.clone()].bytes().all(|byte| byte.is_ascii_digit())
        };
        let start = match self.word.take_if(|word| is_number(word)) {
            Some(number) => number.start,
            None => place,
        };
        self.begin_operator(start..place + 1);
    }

    fn begin_operator(&mut self, range: Range<usize>) {
        self.end_word();
        if self.parts.is_empty() && self.operator.is_none() {
            self.first_line = self.line;
        }
        self.end_operator();
        self.operator = Some(range);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let part = match self.operator.take() {
            // `<(…)` is a word.
            Some(operator)
                if operator.end == word.start && self.text[word.clone()].starts_with('(') =>
            {
                Part::Word(operator.start..word.end)
            }
            Some(operator) => Part::Redirection { operator, target: word },
            None => Part::Word(word),
        };
        self.parts.push(part);
    }

    fn end_operator(&mut self) {
        if let Some(operator) = self.operator.take() {
            let target = operator.end..operator.end;
            self.parts.push(Part::Redirection { operator, target });
        }
    }

    fn end_command(&mut self, behind: Separator) {
        self.end_word();
        self.end_operator();
        let parts = std::mem::take(&mut self.parts);
        let span = parts.first().map(start).zip(parts.last().map(end));
        let Some((start, end)) = span else {
            // `a &&` at the end of a line goes on in the next one.
            if behind != Separator::End {
                self.before = behind;
            }
            return;
        };
        let line = self.first_line + 1;
        let before = std::mem::replace(&mut self.before, behind);
        self.commands.push(SimpleCommand { line, span: start..end, parts, before, behind });
    }
}

fn start(part: &Part) -> usize {
    match part {
        Part::Word(range) | Part::Redirection { operator: range, .. } => range.start,
    }
}

fn end(part: &Part) -> usize {
    match part {
        Part::Word(range) | Part::Redirection { target: range, .. } => range.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str, Separator)]) {
        let commands = commands(text);
        let found: Vec<(usize, &str, Separator)> =
            commands.iter().map(|own| (own.line, own.text(text), own.behind)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn a_script_is_cut_into_its_commands() {
        use Separator::{And, Background, End, Or, Pipe};
        check(
            "#!/bin/sh\n# a; b\ncd x &&\n  make; go 'a;b' # c\n",
            &[(3, "cd x", And), (4, "make", End), (4, "go 'a;b'", End)],
        );
        check(
            "a | b || c & d",
            &[(1, "a", Pipe), (1, "b", Or), (1, "c", Background), (1, "d", End)],
        );
        check(
            "cat > f <<E\nx; y\nE\npython a \\\n  --b\n",
            &[(1, "cat > f <<E", End), (4, "python a \\\n  --b", End)],
        );
        check(
            "x=$(a; b)\n\necho \"a\nb\"\nc",
            &[(1, "x=$(a; b)", End), (3, "echo \"a\nb\"", End), (5, "c", End)],
        );
    }

    #[test]
    fn redirections_are_no_words() {
        let text = "A=1 p x2>&1 3 >> \"$f\" 2>e &>a <(b) <in";
        let own = &commands(text)[0];
        let words: Vec<&str> = own.words(text).collect();
        assert_eq!(words, ["A=1", "p", "x2", "3", "<(b)"]);
        let found: Vec<(&str, &str)> = own
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Word(_) => None,
                Part::Redirection { operator, target } => {
                    Some((&text[operator.clone()], &text[target.clone()]))
                }
            })
            .collect();
        assert_eq!(found, [(">&", "1"), (">>", "\"$f\""), ("2>", "e"), ("&>", "a"), ("<", "in")]);
        assert_eq!((own.n_assignments(text), own.name(text).as_deref()), (1, Some("p")));
    }

    #[test]
    fn any_text_has_commands_within_it() {
        for text in ["", "'", "a <", "<<", "\\", "a \\\n", "&", ">&", "é>é", "$(", "`"] {
            for own in commands(text) {
                assert!(text.get(own.span).is_some(), "{text:?}");
            }
        }
    }
}
