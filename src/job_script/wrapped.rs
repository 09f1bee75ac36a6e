//! The copy of a script that `sbatch` gets: the harness runs its last command, and the directives that are missing are in it. Pure.

use std::fmt::Write as _;

use super::directives::{self, Directive};
use super::farewells::shortened;
use super::options;
use super::program::{Program, ScriptNote, WHOLE, error, program};
use super::{JobScript, ScriptError, signal};
use crate::script::shell_word;

/// What the copy is made with.
#[derive(Clone, Debug)]
pub struct WrapWith<'a> {
    /// The harness that jobs run.
    pub harness: &'a str,
    /// `$NEMO_SLURM_HOME`.
    pub home: &'a str,
    /// What stands between `wrap` and `--`.
    pub options: &'a [String],
    /// Options of `sbatch` that were typed.
    pub typed: &'a [Directive],
    /// Where the script itself is kept, if it is run as a whole.
    pub whole: Option<&'a str>,
    /// The directives that this cluster needs, as lines.
    pub needed: &'a [String],
}

/// The copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Its text.
    pub text: String,
    /// The directives that were added, as they stand in it.
    pub added: Vec<String>,
    /// The line of the script whose command is run by the harness; none if it is run as a whole.
    pub line: Option<usize>,
    /// That command, as it was written.
    pub command: String,
    /// What the user should know of.
    pub notes: Vec<ScriptNote>,
}

/// Wraps a script.
pub fn wrap(script: &JobScript<'_>, with: &WrapWith<'_>) -> Result<Wrapped, ScriptError> {
    let own = directives::directives(script.text);
    let added = missing(&own, with);
    let is_wrapped = with.whole.is_none() && program(script).is_ok_and(|own| own.is_wrapped);
    // `wrap` in it says itself how the program is asked.
    let needed = if is_wrapped { &[] } else { with.needed };
    let (text, signals) = signal::for_harness(script.text, needed);
    let script = &JobScript { text: &text, interpreter: script.interpreter };
    let late = directives::late(script.text).map(|line| ScriptNote {
        line,
        text: "`sbatch` does not read this: it comes after the first command".to_owned(),
    });
    let mut wrapped = match with.whole {
        Some(path) => as_a_whole(script, path, &added, with),
        None => by_program(script, &program(script)?, &added, with)?,
    };
    wrapped.notes.splice(0..0, signals.into_iter().chain(late));
    Ok(Wrapped { added, ..wrapped })
}

/// The directives that this cluster needs and the script does not have. One that says the opposite stays.
fn missing(own: &[Directive], with: &WrapWith<'_>) -> Vec<String> {
    let said: Vec<&str> = own.iter().chain(with.typed).map(|own| own.name.as_str()).collect();
    let is_said =
        |name: &str| said.contains(&name) || name == "requeue" && said.contains(&"no-requeue");
    let is_missing =
        |line: &&String| !directives::directives(line).iter().any(|own| is_said(&own.name));
    with.needed.iter().filter(is_missing).cloned().collect()
}

/// `exec env NEMO_SLURM_HOME=… NAME wrap OPTIONS --`: a line before it could come between a condition and its command.
fn harness(with: &WrapWith<'_>) -> String {
    let home = format!("NEMO_SLURM_HOME={}", with.home);
    let words = ["exec", "env", &home, with.harness, "wrap"].map(shell_word).into_iter();
    let words: Vec<String> = words.chain(options::in_script(with.options)).collect();
    format!("{} --", words.join(" "))
}

fn as_a_whole(
    script: &JobScript<'_>,
    path: &str,
    added: &[String],
    with: &WrapWith<'_>,
) -> Wrapped {
    let mut text = "#!/bin/sh\n".to_owned();
    // All of them: `sbatch` reads the directives of other systems as well.
    for (_, line) in directives::head(script.text).skip(1) {
        writeln!(text, "{line}").ok();
    }
    for line in added {
        writeln!(text, "{line}").ok();
    }
    let path = shell_word(path);
    writeln!(text, "{} {path} \"$@\"", harness(with)).ok();
    Wrapped { text, added: Vec::new(), line: None, command: path, notes: Vec::new() }
}

fn by_program(
    script: &JobScript<'_>,
    program: &Program,
    added: &[String],
    with: &WrapWith<'_>,
) -> Result<Wrapped, ScriptError> {
    let text = script.text;
    let command = text[program.command_start..program.end].to_owned();
    let mut notes = program.notes.clone();
    let body = if program.is_wrapped {
        let note = "the last command has `wrap` already: only the directives were looked at";
        notes.push(ScriptNote { line: program.line, text: note.to_owned() });
        text.to_owned()
    } else {
        if let Some(trap) = &program.trap {
            let why = format!(
                "`{}` would never run: no shell is left beside the program that the harness runs",
                trap.text
            );
            return Err(error(trap.line, why, WHOLE));
        }
        notes.extend(redirected(program));
        let line = wrapped_command(text, program, with)?;
        let (head, setup) = text[..program.command_start].split_at(end_of_directives(text));
        format!("{head}{IGNORE}{setup}{line}\n")
    };
    let text = with_directives(&body, added);
    Ok(Wrapped { text, added: Vec::new(), line: Some(program.line), command, notes })
}

/// Slurm may send it to the batch shell before the harness is in its place: it would end the job. The harness hears it
/// again.
const IGNORE: &str = "trap '' USR1\n";

/// Behind the last line that `sbatch` may read an option from.
fn end_of_directives(text: &str) -> usize {
    let is_read = |line: &&str| line.starts_with('#');
    let head: Vec<&str> = directives::head(text).map(|(_, line)| line).collect();
    let n_lines = head.iter().rposition(is_read).map_or(1, |at| at + 1);
    text.split_inclusive('\n').take(n_lines).map(str::len).sum()
}

/// The directives come right behind the first line, so that the script's own, which come later, win.
fn with_directives(text: &str, added: &[String]) -> String {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let lines = std::iter::once(first).chain(added.iter().map(String::as_str));
    let head: Vec<&str> = lines.collect();
    format!("{}\n{rest}", head.join("\n"))
}

fn wrapped_command(
    text: &str,
    program: &Program,
    with: &WrapWith<'_>,
) -> Result<String, ScriptError> {
    let variables: String = program.variables.iter().flat_map(|own| [own.as_str(), " "]).collect();
    let harness = harness(with);
    if program.redirections.is_empty() {
        return Ok(format!("{variables}{harness} {}", &text[program.start..program.end]));
    }
    let (script, targets) = redirecting(program)?;
    let script = shell_word(&script);
    // In an assignment, the script's own shell neither splits a name at its blanks nor looks for files that fit it.
    let (mut assignments, mut names) = (String::new(), String::new());
    for (index, target) in targets.iter().enumerate() {
        let (n, line) = (index + 1, program.line);
        write!(assignments, "nemo_f{n}={target}; ").ok();
        write!(names, " \"${{nemo_f{n}:?line {line} redirects to a file without a name}}\"").ok();
    }
    let words = program.words.join(" ");
    let command = format!("{variables}{harness} /bin/sh -c {script} sh{names} {words}");
    if targets.is_empty() {
        return Ok(command);
    }
    Ok(format!("{{ {assignments}{command}; }}"))
}

/// A script for `sh` that redirects the program's files itself, since the harness reads what it prints: later attempts go
/// on in a file that the first one made. Returns the words to give to it too.
fn redirecting(program: &Program) -> Result<(String, Vec<String>), ScriptError> {
    let (mut prepare, mut own, mut targets) = (String::new(), String::new(), Vec::new());
    for (operator, target) in &program.redirections {
        let number: String = operator.chars().take_while(char::is_ascii_digit).collect();
        let sign = &operator[number.len()..];
        let is_number =
            !target.is_empty() && target.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if sign.ends_with('&') && is_number {
            write!(own, " {operator}{target}").ok();
            continue;
        }
        require_file(sign, target).map_err(|why| {
            error(program.line, format!("`{operator}{}`: {why}", shortened(target)), WHOLE)
        })?;
        targets.push(target.clone());
        let name = format!("f{}", targets.len());
        write!(prepare, "{name}=$1; shift; ").ok();
        let both = if sign.starts_with('&') || sign == ">&" { " 2>&1" } else { "" };
        let appending = match sign {
            "<" | "<>" => format!(" {operator}\"${name}\""),
            _ => format!(" {number}>>\"${name}\"{both}"),
        };
        if !matches!(sign, "<" | "<>" | ">>" | "&>>") {
            write!(prepare, "[ \"$NEMO_ATTEMPT\" != 0 ] || : >\"${name}\" || exit; ").ok();
        }
        own.push_str(&appending);
    }
    Ok((format!("{prepare}exec \"$@\"{own}"), targets))
}

/// Says why what stands behind the sign can't be taken for the name of one file.
fn require_file(sign: &str, target: &str) -> Result<(), &'static str> {
    if sign == "<&" || sign.ends_with('&') && target.contains(['$', '`']) {
        return Err("only the running shell knows which open file this is");
    }
    let (mut quote, mut before) = (None, ' ');
    for character in target.chars() {
        match (quote, character) {
            _ if before == '\\' => {}
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '*' | '?' | '[') => return Err("the name of a file can't be a pattern here"),
            (None, '{') if before != '$' => {
                return Err("the name of a file can't be a pattern here");
            }
            _ => {}
        }
        before = if before == '\\' { ' ' } else { character };
    }
    Ok(())
}

fn redirected(program: &Program) -> Option<ScriptNote> {
    let (_, target) = program.redirections.iter().find(|(operator, _)| operator.contains('>'))?;
    let text = format!(
        "what the program prints goes to `{target}`, as written: `nemo-slurm logs` and `--metric` do not see it"
    );
    Some(ScriptNote { line: program.line, text })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a real shell is what the text is for, and files of a test need not last"
)]
mod tests;
