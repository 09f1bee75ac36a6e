//! Whether a text for a shell catches a signal by a `trap` of its own. That it catches one is not enough: with `trap … EXIT`,
//! bash catches every signal that would end it, to run that trap and then die. Pure.

use std::iter::Peekable;
use std::str::Chars;

use nix::sys::signal::Signal;

/// Whether the text certainly has a trap for the signal wherever a process sees it caught. What can't be read easily, is none:
/// who gets the signal without a trap dies of it.
pub(crate) fn catches(text: &str, signal: Signal) -> bool {
    let (mut is_caught, mut is_at_risk) = (false, false);
    let mut awaits_trap = false;
    for command in commands(text) {
        match Trap::read(&command.words) {
            Some(trap) if trap.names(signal) => {
                if trap.is_reset {
                    return false;
                }
                is_caught |= command.is_certain && (!is_at_risk || awaits_trap);
            }
            Some(trap) if trap.is_for_exit() && !is_caught => {
                awaits_trap = !is_at_risk;
                is_at_risk = true;
            }
            Some(_) => {}
            // It runs while bash would die of the signal.
            None => awaits_trap = false,
        }
    }
    is_caught
}

/// What stands before a command without being one.
const BEFORE_COMMANDS: [&str; 10] =
    ["!", "builtin", "command", "do", "elif", "else", "if", "then", "until", "while"];
/// What files and commands that only make an environment have in their names: they set no trap.
const ENVIRONMENTS: [&str; 10] = [
    "activate",
    "bashrc",
    "conda",
    "env",
    "lmod",
    "mamba",
    "micromamba",
    "modules",
    "profile",
    "setvars",
];

/// Whether a text may have a trap for the signal: it has its name or number where one could, or runs what stands elsewhere.
pub(crate) fn names_outside_comments(text: &str, signal: Signal) -> bool {
    let (name, number) = (signal.as_str().trim_start_matches("SIG"), (signal as i32).to_string());
    let is_name = |word: &str| {
        let word = word.to_ascii_uppercase();
        word.strip_prefix("SIG").unwrap_or(&word) == name
    };
    let names = |line: &str| {
        let has_trap = line.contains("trap");
        plain_words(line).any(|word| is_name(word) || has_trap && word == number)
    };
    let may_have = |line: &str| names(line) || line.split([';', '&', '|']).any(runs_another_text);
    text.lines().map(str::trim_start).any(|line| !line.starts_with('#') && may_have(line))
}

fn plain_words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric())
}

/// Whether a command is `source FILE`, `. FILE` or `eval TEXT`, but for what makes an environment.
fn runs_another_text(command: &str) -> bool {
    let is_one = |part: &str| {
        let mut words = part.split_whitespace().skip_while(|word| BEFORE_COMMANDS.contains(word));
        matches!(words.next(), Some("source" | "." | "eval"))
    };
    command.split(['(', ')', '{', '`']).any(is_one)
        && !plain_words(command).any(|word| ENVIRONMENTS.contains(&word))
}

/// `trap ACTION NAME…`
#[derive(Debug)]
struct Trap<'a> {
    is_reset: bool,
    names: &'a [String],
}

impl<'a> Trap<'a> {
    fn read(words: &'a [String]) -> Option<Self> {
        let (first, rest) = words.split_first()?;
        let rest = if rest.first().is_some_and(|word| word == "--") { &rest[1..] } else { rest };
        if first != "trap" {
            return None;
        }
        Some(match rest {
            [] => Self { is_reset: false, names: &[] },
            [only] => Self { is_reset: true, names: std::slice::from_ref(only) },
            [action, names @ ..] if action.is_empty() || action == "-" => {
                Self { is_reset: true, names }
            }
            [option, ..] if option.starts_with('-') => Self { is_reset: false, names: &[] },
            [_, names @ ..] => Self { is_reset: false, names },
        })
    }

    fn names(&self, signal: Signal) -> bool {
        let number = (signal as i32).to_string();
        let name = signal.as_str();
        let is_named = |own: &String| {
            let own_name = own.to_ascii_uppercase();
            *own == number
                || own_name == name
                || Some(own_name.as_str()) == name.strip_prefix("SIG")
        };
        self.names.iter().any(is_named)
    }

    fn is_for_exit(&self) -> bool {
        self.names.iter().any(|own| own == "0" || own.eq_ignore_ascii_case("EXIT"))
    }
}

/// A simple command of a text.
#[derive(Debug, Default)]
struct SimpleCommand {
    /// Without their quotes.
    words: Vec<String>,
    /// Whether it runs in the shell itself, and in each run of the text that comes so far.
    is_certain: bool,
}

/// The commands of a text, until something that this reader does not know.
fn commands(text: &str) -> Vec<SimpleCommand> {
    let mut reader = Reader { depth: 0, is_joined: false, words: Vec::new(), found: Vec::new() };
    let mut letters = text.chars().peekable();
    while let Some(token) = token(&mut letters) {
        match token {
            Token::Word(word) if reader.words.is_empty() && reader.reserved(&word) => {}
            Token::Word(word) => reader.words.push(word),
            Token::End => reader.end(false),
            Token::Joined => reader.end(true),
            Token::Open => {
                reader.end(true);
                reader.depth += 1;
            }
            Token::Close => {
                reader.end(true);
                reader.depth -= 1;
            }
            Token::Unknown => return reader.found,
        }
        if reader.words.first().is_some_and(|word| word == "case") {
            return reader.found;
        }
    }
    reader.end(false);
    reader.found
}

#[derive(Debug)]
struct Reader {
    /// How many functions, loops, conditions and parentheses are open.
    depth: i32,
    /// Whether it depends on the command before.
    is_joined: bool,
    words: Vec<String>,
    found: Vec<SimpleCommand>,
}

impl Reader {
    /// Whether a word at the place of a command is of the shell's language.
    fn reserved(&mut self, word: &str) -> bool {
        match word {
            "if" | "while" | "until" | "{" => self.depth += 1,
            "fi" | "done" | "}" => self.depth -= 1,
            "then" | "do" | "else" | "elif" | "!" => {}
            "for" | "select" => {
                self.depth += 1;
                return false;
            }
            _ => return false,
        }
        true
    }

    fn end(&mut self, joins: bool) {
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            let is_certain = self.depth == 0 && !self.is_joined && !joins;
            self.found.push(SimpleCommand { words, is_certain });
        }
        self.is_joined = joins;
    }
}

#[derive(Debug)]
enum Token {
    Word(String),
    /// A line's end or `;`.
    End,
    /// `&`, `|` and what begins with them.
    Joined,
    Open,
    Close,
    Unknown,
}

fn token(letters: &mut Peekable<Chars<'_>>) -> Option<Token> {
    while letters.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    if letters.peek() == Some(&'#') {
        while letters.next_if(|c| *c != '\n').is_some() {}
    }
    let token = match letters.peek()? {
        '\n' | ';' => Token::End,
        '&' | '|' => Token::Joined,
        '(' => Token::Open,
        ')' => Token::Close,
        _ => return Some(word(letters)),
    };
    let first = letters.next();
    if matches!(token, Token::Joined) {
        letters.next_if(|c| Some(*c) == first);
    }
    Some(token)
}

/// A word without its quotes. Documents in the text and backticks are not read.
fn word(letters: &mut Peekable<Chars<'_>>) -> Token {
    let mut word = String::new();
    while let Some(letter) = letters.next_if(|c| !" \t\n;&|()".contains(*c)) {
        let is_read = match letter {
            '\'' => quoted(letters, &mut word, '\''),
            '"' => quoted(letters, &mut word, '"'),
            '\\' => letters.next().is_some_and(|c| {
                word.extend((c != '\n').then_some(c));
                true
            }),
            '`' => false,
            '<' if letters.peek() == Some(&'<') => false,
            _ => {
                word.push(letter);
                // `2>&1`
                if matches!(letter, '<' | '>') {
                    word.extend(letters.next_if_eq(&'&'));
                }
                true
            }
        };
        if !is_read {
            return Token::Unknown;
        }
    }
    Token::Word(word)
}

/// Reads to the end of the quotes. In double ones a substitution may have quotes of its own.
fn quoted(letters: &mut Peekable<Chars<'_>>, word: &mut String, end: char) -> bool {
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == end => return true,
            '`' if end == '"' => return false,
            '$' if end == '"' && matches!(letters.peek(), Some('(' | '{')) => {
                if !is_plain_variable(letters) {
                    return false;
                }
                word.push('$');
            }
            '\\' if end == '"' => word.extend(letters.next()),
            _ => word.push(letter),
        }
    }
    false
}

/// Whether what follows has no quote before its end.
fn is_plain_variable(letters: &Peekable<Chars<'_>>) -> bool {
    let mut rest = letters.clone();
    let end = if rest.next() == Some('(') { ')' } else { '}' };
    rest.find(|c| *c == end || "\"'`".contains(*c)) == Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(catches(text, Signal::SIGUSR1), expected, "{text}");
    }

    #[test]
    fn a_trap_that_names_the_signal_catches_it() {
        for text in [
            "trap save USR1",
            "trap 'exit $?' TERM\nsave() { mv a b; exit 75; }\ntrap save SIGUSR1 # so\nwork",
            "cd \"${HOME}\"; trap -- \"save; exit 75\" INT 10; work 2>&1 | tee log",
            "if a; then b; fi\nwhile false; do x; done\ntrap save usr1",
            "trap save USR1; trap 'rm -r x' EXIT; work",
            "trap 'rm -r x' EXIT\ntrap save USR1\nwork",
            "trap save EXIT USR1; work",
        ] {
            check(text, true);
        }
    }

    #[test]
    fn no_other_text_catches_it() {
        for text in [
            "trap 'rm -rf $TMP' EXIT; python train.py",
            "trap save USR2",
            "trap",
            "trap -p USR1",
            "echo trap save USR1",
            "echo \"trap save USR1\"",
            "# trap save USR1",
            "trap '' USR1",
            "trap save USR1; work; trap - USR1",
            "trap save USR1; trap USR1",
            "cat <<E\ntrap save USR1\nE\n",
            "f() {\ntrap save USR1\n}\nwork",
            "if a\nthen\ntrap save USR1\nfi",
            "(trap save USR1; work)",
            "a && trap save USR1",
            "trap save USR1 &",
            "case a in\nb)\ntrap save USR1\n;;\nesac",
            "x=`\ntrap save USR1\n`",
            "x=\"$(echo \"\ntrap save USR1\n\")\"",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn a_text_without_the_name_of_a_signal_has_no_trap_for_it() {
        let names = |text| names_outside_comments(text, Signal::SIGUSR1);
        for text in [
            "f() { trap save usr1; }",
            "for s in SIGUSR1 TERM; do trap save $s; done",
            "trap 'save' INT 10",
        ] {
            assert!(names(text), "{text}");
        }
        for text in [
            "#SBATCH --signal=B:USR1@60\ntrap 'rm -r x' EXIT\npython train.py --epochs 10",
            "  # USR1\ntrap '' 15",
        ] {
            assert!(!names(text), "{text}");
        }
    }

    #[test]
    fn a_signal_is_named_by_whole_words() {
        let names = |text| names_outside_comments(text, Signal::SIGTERM);
        assert!(!names("python train.py --full_determinism --determiner x\nWATERMARK=1"));
        assert!(
            names("trap save TERM") && names("trap 'save' EXIT sigterm") && names("S=\"TERM\"")
        );
        assert!(!names_outside_comments("print 1", Signal::SIGINT));
        assert!(!names_outside_comments("nohup python train.py", Signal::SIGHUP));
    }

    #[test]
    fn a_text_that_runs_another_may_have_its_trap_there() {
        let names = |text| names_outside_comments(text, Signal::SIGUSR1);
        for text in [
            "source traps.sh",
            "set -e\n  . ./traps.sh",
            "eval \"$TRAPS\"",
            "[ -e a ] && . a",
            "source bin/activate; source traps.sh",
            "if a; then source b; fi",
            "f() { source a; }",
        ] {
            assert!(names(text), "{text}");
        }
        for text in [
            "cp a . ; python source eval",
            "# source traps.sh",
            "pip install .\nsource_all",
            "source ~/envs/train/bin/activate",
            "eval \"$(conda shell.bash hook)\"",
            ". ~/spack/share/spack/setup-env.sh",
        ] {
            assert!(!names(text), "{text}");
        }
    }

    #[test]
    fn what_runs_between_a_trap_for_the_end_and_one_for_the_signal_is_not_risked() {
        check("trap 'rm -r x' EXIT; python first.py; trap save USR1; work", false);
        check("trap 'rm -r x' 0; trap b INT; trap save USR1; work", true);
    }
}
