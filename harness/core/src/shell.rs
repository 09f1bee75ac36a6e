//! Where the placeholders of a text for `sh` stand between its quotes. Pure.
//!
//! A value must never become a part of the text, only a reference to a variable, and its form follows from the place.
//! Where no form is right the text is refused.

use crate::placeholder::{TemplatePart, scan};

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellPart<'a> {
    /// Text as it is.
    Text(&'a str),
    /// A placeholder.
    Name {
        /// Its name.
        name: &'a str,
        /// Where it stands, or why nothing can stand there.
        place: Result<QuoteContext, PlaceholderRefusal>,
        /// A backslash stands right before it.
        is_escaped: bool,
    },
}

/// Where a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteContext {
    /// Among the words of a command.
    Word,
    /// In `'…'`.
    Single,
    /// In `"…"`.
    Double,
    /// In `$((…))`.
    Arithmetic,
    /// In the text behind `<<EOF`.
    Heredoc,
}

impl QuoteContext {
    /// The reference to a variable that a placeholder becomes here: the shell doesn't parse what it expands, so no value can
    /// end a quote or begin a command.
    #[must_use]
    pub fn reference(self, variable: &str) -> String {
        match self {
            Self::Word => format!("\"${{{variable}}}\""),
            Self::Single => format!("'\"${{{variable}}}\"'"),
            Self::Double | Self::Heredoc | Self::Arithmetic => format!("${{{variable}}}"),
        }
    }
}

/// Why a placeholder can't stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceholderRefusal {
    /// In the text behind `<<'EOF'`.
    QuotedHeredoc,
    /// In the word behind `<<`.
    HeredocWord,
    /// In backticks with backslashes.
    Backticks,
    /// In `$'…'`.
    DollarQuotes,
}

impl PlaceholderRefusal {
    /// What is wrong, with the placeholder's name before it.
    pub fn message(self) -> &'static str {
        match self {
            Self::QuotedHeredoc => {
                "stands in a text whose end mark is quoted: the shell fills nothing in there"
            }
            Self::HeredocWord => "stands in the end mark of a text",
            Self::Backticks => "stands in backticks that hold a backslash",
            Self::DollarQuotes => "stands in `$'…'`",
        }
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::QuotedHeredoc => "write `<<EOF` without quotes, or read it from `$NEMO_PARAMS`",
            Self::HeredocWord => "write a fixed word behind `<<`",
            Self::Backticks => "write `$(…)` in place of the backticks",
            Self::DollarQuotes => "write `\"…\"` in place of `$'…'`",
        }
    }
}

/// Cuts a text into its parts.
pub fn parts(text: &str) -> Vec<ShellPart<'_>> {
    let mut lexer = Lexer::default();
    let part = |piece| match piece {
        TemplatePart::Text(text) => {
            lexer.text(text);
            ShellPart::Text(text)
        }
        TemplatePart::Name(name) => {
            let (place, is_escaped) = (lexer.place(), lexer.escaped);
            lexer.value();
            ShellPart::Name { name, place, is_escaped }
        }
    };
    scan(text).into_iter().map(part).collect()
}

/// The text with each placeholder replaced by what `fill` returns for its name and place.
///
/// `fill` must return references to variables ([`QuoteContext::reference`]): a value itself must never become shell text.
pub fn fill<E>(
    text: &str,
    mut fill: impl FnMut(&str, Result<QuoteContext, PlaceholderRefusal>) -> Result<String, E>,
) -> Result<String, E> {
    let mut filled = String::new();
    for part in parts(text) {
        match part {
            ShellPart::Text(text) => filled.push_str(text),
            ShellPart::Name { name, place, is_escaped } => {
                let reference = fill(name, place)?;
                if is_escaped {
                    filled.push('\\'); // the backslash was text: it must not take the `$` of the reference
                }
                filled.push_str(&reference);
            }
        }
    }
    Ok(filled)
}

/// What a character of a script is to the shell, outside of what it is nested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharKind {
    /// It means what it says: a blank, an operator, the end of a line, or a part of a word.
    Plain,
    /// Part of a word, whatever it looks like: quoted, or in `$(…)`, `(…)` or backticks.
    Quoted,
    /// Behind `#`.
    Comment,
    /// In the text behind `<<EOF`.
    Heredoc,
}

/// What each character of a script is.
#[must_use]
pub fn kinds(text: &str) -> Vec<CharKind> {
    let mut lexer = Lexer::default();
    let mut rest = text.chars();
    let mut kinds = Vec::with_capacity(text.len());
    let mut before = CharKind::Plain;
    while let Some(character) = rest.next() {
        lexer.step(character, rest.as_str());
        let after = lexer.kind();
        kinds.push(match (before, after) {
            // The end of a line is one, whatever ends or begins with it.
            (CharKind::Plain | CharKind::Comment, _) if character == '\n' && !lexer.escaped => {
                CharKind::Plain
            }
            (CharKind::Plain, after) => after,
            (before, _) => before,
        });
        before = after;
    }
    kinds
}

/// What the current character is in, innermost last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Quoting {
    Single,
    Double,
    /// `$'…'`.
    Dollar,
    /// `$(…)` or another pair of parentheses: commands again, whatever is around.
    Parens,
    Arithmetic,
    /// Behind `#`, until the line ends.
    Comment,
    /// `` `…` ``; whether a backslash was in it: what it means depends on what is around.
    Backticks {
        has_backslash: bool,
    },
    /// The text behind `<<`.
    Heredoc(Heredoc),
}

/// A text that follows in the next lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heredoc {
    /// The line that ends it.
    end: String,
    is_quoted: bool,
    /// `<<-`: tabs before the line do not count.
    strips_tabs: bool,
    /// The current line so far.
    line: String,
}

/// The word behind `<<` while it is read.
#[derive(Clone, Debug, Default)]
struct EndMark {
    heredoc: Heredoc,
    quote: Option<char>,
    has_begun: bool,
}

/// The quoting at the current place of a shell text.
#[derive(Debug, Default)]
struct Lexer {
    around: Vec<Quoting>,
    /// A backslash stands right before.
    escaped: bool,
    /// The characters before this one, for what begins a comment or a substitution.
    previous: [Option<char>; 2],
    end_mark: Option<EndMark>,
    /// Texts that begin with the next line.
    awaited: Vec<Heredoc>,
}

impl Lexer {
    fn text(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            self.step(character, rest.as_str());
        }
    }

    fn step(&mut self, character: char, rest: &str) {
        if !self.in_end_mark(character) {
            self.character(character, rest);
        }
        self.previous = [self.previous[1], Some(character)];
    }

    /// What comes next stands in.
    fn kind(&self) -> CharKind {
        match self.around.first() {
            None if self.escaped => CharKind::Quoted,
            None => CharKind::Plain,
            Some(Quoting::Comment) => CharKind::Comment,
            Some(Quoting::Heredoc(_)) => CharKind::Heredoc,
            Some(
                Quoting::Single
                | Quoting::Double
                | Quoting::Dollar
                | Quoting::Parens
                | Quoting::Arithmetic
                | Quoting::Backticks { .. },
            ) => CharKind::Quoted,
        }
    }

    fn character(&mut self, character: char, rest: &str) {
        if self.in_heredoc(character) || self.is_escaped(character) {
            return;
        }
        let dollar = self.previous[1] == Some('$');
        let is_command =
            matches!(self.around.last(), None | Some(Quoting::Parens | Quoting::Backticks { .. }));
        match (self.around.last(), character) {
            (Some(Quoting::Comment), '\n')
            | (Some(Quoting::Single | Quoting::Dollar), '\'')
            | (Some(Quoting::Double), '"')
            | (Some(Quoting::Parens | Quoting::Arithmetic), ')') => drop(self.around.pop()),
            (Some(Quoting::Comment | Quoting::Single | Quoting::Dollar), _) => {}
            (_, '`') => self.backtick(),
            (_, '(') if dollar && rest.starts_with('(') => self.around.push(Quoting::Arithmetic),
            (Some(Quoting::Double | Quoting::Heredoc(_)), '(') if !dollar => {}
            (Some(Quoting::Arithmetic), '(') => self.around.push(Quoting::Arithmetic),
            (_, '(') => self.around.push(Quoting::Parens),
            (Some(Quoting::Heredoc(_)), _) => {}
            (_, '"') => self.around.push(Quoting::Double),
            (_, '\'') if is_command && dollar => self.around.push(Quoting::Dollar),
            (_, '\'') if is_command => self.around.push(Quoting::Single),
            (_, '#') if is_command && self.at_word_start() => self.around.push(Quoting::Comment),
            (_, '<') if is_command && self.begins_end_mark(rest) => {
                self.end_mark = Some(EndMark::default());
            }
            _ => {}
        }
        if character == '\n' && self.is_command() {
            self.begin_heredoc();
        }
    }

    fn is_command(&self) -> bool {
        matches!(self.around.last(), None | Some(Quoting::Parens | Quoting::Backticks { .. }))
    }

    /// Backslashes, but where they mean nothing.
    fn is_escaped(&mut self, character: char) -> bool {
        if std::mem::take(&mut self.escaped) {
            self.previous[1] = None; // `\$(` begins nothing
            return true;
        }
        let plain = matches!(self.around.last(), Some(Quoting::Single | Quoting::Comment));
        self.escaped = character == '\\' && !plain;
        if self.escaped {
            for around in &mut self.around {
                if let Quoting::Backticks { has_backslash } = around {
                    *has_backslash = true;
                }
            }
        }
        self.escaped
    }

    /// The end of the innermost backticks, or the beginning of some.
    fn backtick(&mut self) {
        let begun =
            self.around.iter().rposition(|around| matches!(around, Quoting::Backticks { .. }));
        match begun {
            Some(begun) => self.around.truncate(begun),
            None => self.around.push(Quoting::Backticks { has_backslash: false }),
        }
    }

    /// Whether a second `<` stands here that begins a text, not `<<<` or `<`.
    fn begins_end_mark(&self, rest: &str) -> bool {
        self.previous[1] == Some('<') && self.previous[0] != Some('<') && !rest.starts_with('<')
    }

    /// Reads the word behind `<<`. Whether the character belongs to it.
    fn in_end_mark(&mut self, character: char) -> bool {
        let Some(mark) = &mut self.end_mark else { return false };
        let EndMark { heredoc, quote, has_begun } = mark;
        if std::mem::take(&mut self.escaped) {
            heredoc.end.push(character);
            return true;
        }
        match (*quote, character) {
            (Some(open), close) if open == close => *quote = None,
            (Some(_), _) => heredoc.end.push(character),
            (None, '-') if !*has_begun && !heredoc.strips_tabs => heredoc.strips_tabs = true,
            (None, ' ' | '\t') if !*has_begun => {}
            (None, '\'' | '"') => {
                (*quote, heredoc.is_quoted, *has_begun) = (Some(character), true, true);
            }
            (None, '\\') => (self.escaped, heredoc.is_quoted, *has_begun) = (true, true, true),
            (None, end) if end.is_whitespace() || ";|&()<>`".contains(end) => {
                let mark = self.end_mark.take().unwrap_or_default();
                self.awaited.extend(mark.has_begun.then_some(mark.heredoc));
                return false;
            }
            (None, _) => {
                *has_begun = true;
                heredoc.end.push(character);
            }
        }
        true
    }

    fn begin_heredoc(&mut self) {
        if !self.awaited.is_empty() {
            let next = self.awaited.remove(0);
            self.around.push(Quoting::Heredoc(next));
        }
    }

    /// Keeps the line of a text behind `<<`. Whether nothing in it means anything.
    fn in_heredoc(&mut self, character: char) -> bool {
        let Some(Quoting::Heredoc(heredoc)) = self.around.last_mut() else { return false };
        if character != '\n' {
            heredoc.line.push(character);
            return heredoc.is_quoted;
        }
        let line = std::mem::take(&mut heredoc.line);
        let line = if heredoc.strips_tabs { line.trim_start_matches('\t') } else { &line };
        if line == heredoc.end {
            self.around.pop();
            self.escaped = false;
            self.begin_heredoc();
            return true;
        }
        heredoc.is_quoted
    }

    fn at_word_start(&self) -> bool {
        self.previous[1].is_none_or(|c| c.is_whitespace() || ";|&()`".contains(c))
    }

    /// Where a placeholder stands that comes next.
    fn place(&self) -> Result<QuoteContext, PlaceholderRefusal> {
        if self.end_mark.is_some() {
            return Err(PlaceholderRefusal::HeredocWord);
        }
        let odd = Quoting::Backticks { has_backslash: true };
        if self.around.contains(&odd) {
            return Err(PlaceholderRefusal::Backticks);
        }
        match self.around.last() {
            None | Some(Quoting::Parens | Quoting::Comment | Quoting::Backticks { .. }) => {
                Ok(QuoteContext::Word)
            }
            Some(Quoting::Single) => Ok(QuoteContext::Single),
            Some(Quoting::Double) => Ok(QuoteContext::Double),
            Some(Quoting::Arithmetic) => Ok(QuoteContext::Arithmetic),
            Some(Quoting::Dollar) => Err(PlaceholderRefusal::DollarQuotes),
            Some(Quoting::Heredoc(heredoc)) if heredoc.is_quoted => {
                Err(PlaceholderRefusal::QuotedHeredoc)
            }
            Some(Quoting::Heredoc(_)) => Ok(QuoteContext::Heredoc),
        }
    }

    /// A value stood here.
    fn value(&mut self) {
        self.escaped = false;
        self.previous = [None, Some('x')];
        if let Some(Quoting::Heredoc(heredoc)) = self.around.last_mut() {
            heredoc.line.push('\0'); // no end mark has one
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = |part: ShellPart<'_>| match part {
            ShellPart::Text(_) => None,
            ShellPart::Name { place: Ok(place), .. } => Some(format!("{place:?}")),
            ShellPart::Name { place: Err(refusal), .. } => Some(format!("no: {refusal:?}")),
        };
        let found: Vec<String> = parts(text).into_iter().filter_map(shown).collect();
        assert_eq!(found.join(", "), expected, "{text:?}");
    }

    #[test]
    fn quotes() {
        check("a {v} '{v}' \"{v}\" $(( {v} )) $( {v} )", "Word, Single, Double, Arithmetic, Word");
        check("echo $'{v}' {v}", "no: DollarQuotes, Word");
        check("echo $'it\\'s' {v} \"$'\" {v}", "Word, Word");
    }

    #[test]
    fn backticks_are_commands() {
        check("`a {v}` {v}", "Word, Word");
        check("\"x `a {v}` {v}\"", "Word, Double");
        check("\"`a \"{v}\" '{v}'` {v}\"", "Double, Single, Double");
        check("`a \\`b {v}\\`` {v}", "no: Backticks, Word");
        check("\"`a \\\"{v}\\\"`\" {v}", "no: Backticks, Word");
        check("\\`{v} '`' {v}", "Word, Word");
    }

    #[test]
    fn texts_behind_an_end_mark() {
        check("cat <<EOF\n{v} '{v}' \"{v}\"\nEOF\n{v}", "Heredoc, Heredoc, Heredoc, Word");
        check("cat <<'EOF'\n{v} $(\nEOF\n{v}", "no: QuotedHeredoc, Word");
        check("cat << \"E F\"\nEOF\n{v}\nE F\n'{v}'", "no: QuotedHeredoc, Single");
        check("cat <<\\EOF\n{v}\nEOF\n{v}", "no: QuotedHeredoc, Word");
        check("cat <<-EOF | sort; a '{v}'\n\t{v}\n\tEOF\n{v}", "Single, Heredoc, Word");
        check("cat <<A <<'B'\n{v}\nA\n{v}\nB\n{v}", "Heredoc, no: QuotedHeredoc, Word");
        check(
            "x=$(cat <<EOF\n{v} ' ( `a {v}` $(b '{v}')\nEOF\n) {v}",
            "Heredoc, Word, Single, Word",
        );
        check("cat <<EOF{v}\n", "no: HeredocWord");
        check("cat <<EOF\n{v}EOF\n {v}\nEOF\n{v}", "Heredoc, Heredoc, Word");
        check("echo $((1<<2)) <<<{v} '{v}'", "Word, Single");
        check("cat <<EOF # it's\n{v}\nEOF\n{v}", "Heredoc, Word");
    }

    #[track_caller]
    fn check_kinds(text: &str, expected: &str) {
        let shown = kinds(text).into_iter().map(|kind| match kind {
            CharKind::Plain => '.',
            CharKind::Quoted => 'q',
            CharKind::Comment => '#',
            CharKind::Heredoc => 'h',
        });
        assert_eq!(shown.collect::<String>(), expected, "{text:?}");
    }

    #[test]
    fn each_character_is_of_a_kind() {
        check_kinds("a 'b c' # d\ne", "..qqqqq.###..");
        check_kinds("a \\\nb; c", "..qq....");
        check_kinds("a $(b; c) d", "...qqqqqq..");
        check_kinds("cat <<E\nx; y\nE\nz", "........hhhhhhh.");
    }
}
