//! Finds the program of a script: its last command, which the harness can run in the shell's stead. Pure.

use nemo_core::shell::{CharKind, kinds};

use super::commands::{Part, Separator, SimpleCommand, commands, unquoted};
use super::farewells::{self, FAREWELLS, shortened};
use super::{JobScript, ScriptError, base_name, earlier};

/// Something that the user should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptNote {
    /// Counted from 1.
    pub line: usize,
    /// A sentence, without its period.
    pub text: String,
}

/// The program of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Counted from 1.
    pub(super) line: usize,
    /// Where its words begin, behind variables that are set for it and behind `exec`.
    pub(super) start: usize,
    /// Where its last command begins: the variables that are set for it.
    pub(super) command_start: usize,
    pub(super) end: usize,
    pub(super) redirections: Vec<(String, String)>,
    /// Its words as they are written.
    pub(super) words: Vec<String>,
    /// The variables that are set for it, as they are written.
    pub(super) variables: Vec<String>,
    /// `wrap` is before it already.
    pub(super) is_wrapped: bool,
    /// A trap that is set before it. No shell is left to see to it.
    pub(super) trap: Option<ScriptNote>,
    /// What is left out behind it.
    pub(super) notes: Vec<ScriptNote>,
}

impl Program {
    /// One that these words start, whatever the script says.
    pub(super) fn of_words(words: Vec<String>) -> Self {
        Self {
            line: 1,
            start: 0,
            command_start: 0,
            end: 0,
            redirections: Vec::new(),
            words,
            variables: Vec::new(),
            is_wrapped: false,
            trap: None,
            notes: Vec::new(),
        }
    }
}

/// What to do about a script that has no program.
pub(super) const WHOLE: &str = "write the program alone into the last line; or have the script run as a whole by the harness: \
     `nemo-slurm submit --whole`";

/// Words that only a shell knows.
const BUILTINS: [&str; 31] = [
    ".", "alias", "break", "builtin", "cd", "continue", "declare", "disown", "eval", "export",
    "false", "jobs", "let", "local", "mapfile", "ml", "module", "popd", "pushd", "read",
    "readonly", "return", "set", "shift", "shopt", "source", "trap", "typeset", "ulimit", "umask",
    "unset",
];

/// Programs that copy, send, show or tidy up what others made.
const NEVER_TRAINED: [&str; 75] = [
    "!",
    "[",
    "[[",
    "awk",
    "aws",
    "bzip2",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cmp",
    "cp",
    "curl",
    "cut",
    "df",
    "diff",
    "du",
    "egrep",
    "fgrep",
    "find",
    "free",
    "git",
    "grep",
    "gsutil",
    "gunzip",
    "gzip",
    "head",
    "kill",
    "killall",
    "ln",
    "mail",
    "mailx",
    "md5sum",
    "mkdir",
    "mktemp",
    "mutt",
    "mv",
    "notify-send",
    "pgrep",
    "pkill",
    "ps",
    "rclone",
    "rm",
    "rmdir",
    "rocm-smi",
    "rsync",
    "s3cmd",
    "sbatch",
    "sbcast",
    "scancel",
    "scontrol",
    "scp",
    "sed",
    "sendmail",
    "sftp",
    "sgather",
    "sha256sum",
    "sinfo",
    "sort",
    "ssh",
    "stat",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "uniq",
    "unzip",
    "wc",
    "wget",
    "which",
    "xz",
    "zip",
    "zstd",
];

/// Words before a program that say how the shell starts it.
const PREFIXES: [&str; 5] = ["exec", "time", "command", "nohup", "\\time"];

/// Ends of what spans several commands.
const ENDS: [&str; 8] = ["fi", "done", "esac", "}", ")", "]]", "then", "else"];

/// Finds it.
pub(super) fn program(script: &JobScript<'_>) -> Result<Program, ScriptError> {
    let text = script.text;
    let mut all = commands(text);
    if let Some(own) = all.iter().find(|own| wraps(own, text)) {
        return Ok(found(own, text, true, 0));
    }
    let n_commands = all.len();
    let mut notes = farewells::leave_out(&mut all, text)?;
    let n_farewells = n_commands - all.len();
    let Some(last) = all.last() else {
        let what = if n_farewells == 0 {
            "no command is in it"
        } else {
            "only commands such as `echo` are in it, which are not taken for the program"
        };
        return Err(error(1, what.to_owned(), "write the program as its last line"));
    };
    let n_prefixes = require_simple(last, &all, text)?;
    require_files(last, text)?;
    require_no_open_text(last, text)?;
    let beside = all.iter().filter(|own| own.behind == Separator::Background);
    notes.extend(beside.map(|own| ScriptNote {
        line: own.line,
        text: format!(
            "`{}` runs beside the program, and is not looked after",
            shortened(own.text(text))
        ),
    }));
    notes.splice(0..0, earlier::programs(&all, text)?);
    let trap = all.iter().rev().find_map(|own| farewells::trap(own, text));
    Ok(Program { trap, notes, ..found(last, text, false, n_prefixes) })
}

/// The lines before the program that are commands, each as it is written, with its line.
#[must_use]
pub(super) fn setup_lines<'a>(script: &JobScript<'a>, program: &Program) -> Vec<(usize, &'a str)> {
    let text = script.text;
    let mut lines: Vec<(usize, &str)> = Vec::new();
    let of_text = here_documents(text);
    let before = commands(text).into_iter().filter(|own| own.span.end <= program.command_start);
    let mut end = 0;
    for own in before {
        // What stands in one line, or in one compound command, is one text.
        let start = text[..own.span.start].rfind('\n').map_or(0, |at| at + 1);
        let stop = text[own.span.end..].find('\n').map_or(text.len(), |at| own.span.end + at);
        // A text behind `<<` belongs to its line.
        let stop = of_text.iter().find(|own| own.start == stop + 1).map_or(stop, |own| own.end);
        if start >= end {
            lines.push((own.line, text[start..stop.min(program.command_start.max(start))].trim()));
        }
        end = end.max(stop);
    }
    lines
}

/// The texts behind `<<`, with their end marks.
fn here_documents(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut own: Vec<std::ops::Range<usize>> = Vec::new();
    let all = text.char_indices().zip(kinds(text));
    for ((at, character), _) in all.filter(|(_, kind)| *kind == CharKind::Heredoc) {
        let end = at + character.len_utf8();
        match own.last_mut().filter(|last| last.end == at) {
            Some(last) => last.end = end,
            None => own.push(at..end),
        }
    }
    own
}

/// Whether it is `nemo-harness wrap`, by whatever path.
fn wraps(command: &SimpleCommand, text: &str) -> bool {
    let words: Vec<&str> = command.words(text).collect();
    let is_harness = |word: &str| base_name(&unquoted(word)).starts_with("nemo-harness");
    words.windows(2).any(|pair| is_harness(pair[0]) && unquoted(pair[1]) == "wrap")
}

/// Fails where the harness can't run the last command. Returns how many words before its program belong to the shell.
fn require_simple(
    last: &SimpleCommand,
    all: &[SimpleCommand],
    text: &str,
) -> Result<usize, ScriptError> {
    let shown = shortened(last.text(text));
    let refused = |why: String| Err(error(last.line, why, WHOLE));
    let Some(name) = last.name(text) else {
        return refused(format!("the last command, `{shown}`, only sets a variable"));
    };
    let first = last.words(text).next().unwrap_or_default();
    let ends_test = last.words(text).last() == Some("]]");
    if ENDS.contains(&name.as_str()) || first.starts_with('(') || ends_test {
        return refused(format!(
            "the script ends with `{shown}`: which of the commands in it is the program?"
        ));
    }
    if last.behind == Separator::Background {
        return refused(format!("the last command, `{shown}`, runs in the background"));
    }
    if name == "wait" {
        return refused(
            "the last command is `wait`: the programs run in the background".to_owned(),
        );
    }
    if last.before == Separator::Pipe {
        return refused(format!("the last command, `{shown}`, reads from a pipe"));
    }
    if last.before == Separator::Or {
        return refused(format!(
            "the last command, `{shown}`, runs only if the one before it fails"
        ));
    }
    let words: Vec<String> =
        last.words(text).skip(last.n_assignments(text)).map(str::to_owned).collect();
    let n_prefixes = n_prefixes(&words).map_err(|own| {
        error(last.line, format!("the last command gives options to `{own}`: `{shown}`"), WHOLE)
    })?;
    let Some(name) = words.get(n_prefixes).map(|own| unquoted(own)) else {
        return refused(format!("the last command, `{shown}`, runs no program"));
    };
    if is_function(all, text, &name) {
        return refused(format!("the last command, `{name}`, is a function of this script"));
    }
    if BUILTINS.contains(&name.as_str()) {
        return refused(format!("the last command, `{shown}`, is the shell's own"));
    }
    if is_never_trained(&name, words.get(n_prefixes + 1)) {
        return refused(format!(
            "the last command, `{shown}`, looks like no program that is trained: what is before it?"
        ));
    }
    Ok(n_prefixes)
}

/// Fails where a file of the last command is a text, or another command.
fn require_files(last: &SimpleCommand, text: &str) -> Result<(), ScriptError> {
    let shown = shortened(last.text(text));
    let refused = |why: String| Err(error(last.line, why, WHOLE));
    let reads = last.parts.iter().any(|part| {
        matches!(part, Part::Redirection { operator, .. } if text[operator.clone()].contains("<<"))
    });
    if reads {
        return refused(format!("the last command, `{shown}`, reads a text of the script"));
    }
    let is_unread =
        |part: &Part| matches!(part, Part::Redirection { target, .. } if target.is_empty());
    if last.parts.iter().any(is_unread) {
        return refused(format!(
            "the last command, `{shown}`, is redirected to no file, but to a command"
        ));
    }
    Ok(())
}

/// Where a text behind `<<` begins after the program, it would be cut off.
fn require_no_open_text(last: &SimpleCommand, text: &str) -> Result<(), ScriptError> {
    if here_documents(text).iter().all(|own| own.start < last.span.end) {
        return Ok(());
    }
    let why = format!(
        "behind the last command, `{}`, stands a text that another command reads (`<<`)",
        shortened(last.text(text))
    );
    Err(error(last.line, why, WHOLE))
}

/// Whether a command is the shell's own, or one that only prepares or tells something.
pub(super) fn runs_no_program(name: &str, next: Option<&String>) -> bool {
    BUILTINS.contains(&name) || is_never_trained(name, next)
}

fn is_never_trained(name: &str, next: Option<&String>) -> bool {
    let name = farewells::plain_name(name);
    let next = next.map(String::as_str);
    let is_environment = ["conda", "mamba", "micromamba", "spack"].contains(&name)
        && matches!(next, Some("activate" | "deactivate" | "load" | "unload"));
    is_environment || NEVER_TRAINED.contains(&name) || FAREWELLS.contains(&name)
}

/// Fails with a word whose options say more than how to start the program.
fn n_prefixes(words: &[String]) -> Result<usize, &str> {
    let mut n = 0;
    while let Some(prefix) = words.get(n).filter(|own| PREFIXES.contains(&own.as_str())) {
        n += 1;
        if prefix == "time" && words.get(n).is_some_and(|own| own == "-p") {
            n += 1;
        }
        match words.get(n) {
            Some(next) if next == "--" => n += 1,
            Some(next) if next.starts_with('-') => return Err(prefix),
            _ => {}
        }
    }
    Ok(n)
}

pub(super) fn is_function(all: &[SimpleCommand], text: &str, name: &str) -> bool {
    let defines = |own: &SimpleCommand| {
        let mut words = own.words(text);
        match words.next() {
            Some("function") => words.next().is_some_and(|own| own.trim_end_matches("()") == name),
            Some(first) if first.ends_with("()") => first.trim_end_matches("()") == name,
            Some(first) => first == name && words.next() == Some("()"),
            None => false,
        }
    };
    all.iter().any(defines)
}

fn found(command: &SimpleCommand, text: &str, is_wrapped: bool, n_prefixes: usize) -> Program {
    let is_word = |part: &&Part| matches!(part, Part::Word(_));
    let mut words = command.parts.iter().filter(is_word).filter_map(|part| match part {
        Part::Word(range) => Some(range.clone()),
        Part::Redirection { .. } => None,
    });
    let own: Vec<std::ops::Range<usize>> = words.by_ref().collect();
    let n_variables = command.n_assignments(text);
    let variables = own[..n_variables].iter().map(|range| text[range.clone()].to_owned()).collect();
    let is_prefix = |range: &&std::ops::Range<usize>| PREFIXES.contains(&&text[(*range).clone()]);
    let rest = own[n_variables..].iter().skip(n_prefixes).skip_while(is_prefix);
    let rest: Vec<std::ops::Range<usize>> = rest.cloned().collect();
    let redirections = command.parts.iter().filter_map(|part| match part {
        Part::Redirection { operator, target } => {
            Some((text[operator.clone()].to_owned(), text[target.clone()].to_owned()))
        }
        Part::Word(_) => None,
    });
    Program {
        line: command.line,
        start: rest.first().map_or(command.span.start, |range| range.start),
        command_start: command.span.start,
        end: command.span.end,
        redirections: redirections.collect(),
        words: rest.iter().map(|range| text[range.clone()].to_owned()).collect(),
        variables,
        is_wrapped,
        trap: None,
        notes: Vec::new(),
    }
}

pub(super) fn error(line: usize, message: String, hint: &str) -> ScriptError {
    ScriptError { line, message, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
