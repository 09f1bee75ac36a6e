//! What a script does after its program: commands that only tell of its end, and traps. Pure.

use super::commands::{Part, Separator, SimpleCommand};
use super::program::{ScriptNote, WHOLE, error};
use super::{ScriptError, base_name};

/// Commands that only tell of an end: they may be left out.
pub(super) const FAREWELLS: [&str; 18] = [
    ":",
    "date",
    "deactivate",
    "echo",
    "exit",
    "hostname",
    "ls",
    "nvidia-smi",
    "printf",
    "pwd",
    "sacct",
    "seff",
    "sleep",
    "squeue",
    "sstat",
    "times",
    "true",
    "uptime",
];

/// They only decide whether a farewell is said.
const TESTS: [&str; 3] = ["[", "[[", "test"];

/// Programs that only make words for a farewell.
const WORD_MAKERS: [&str; 7] = ["basename", "cat", "expr", "id", "uname", "wc", "whoami"];

/// Takes the farewells off the end, and says so. Fails where more would be lost than words.
pub(super) fn leave_out(
    all: &mut Vec<SimpleCommand>,
    text: &str,
) -> Result<Vec<ScriptNote>, ScriptError> {
    let (mut notes, mut alternative) = (Vec::new(), None);
    let runs_beside = all.iter().any(|own| own.behind == Separator::Background);
    // Where nothing runs beside the script, there is nothing to wait for.
    let ends =
        |own: &SimpleCommand| is_farewell(own, text) || !runs_beside && own.text(text) == "wait";
    while let Some(last) = all.last().filter(|own| ends(own)) {
        let shown = shortened(last.text(text));
        if writes(last, text) {
            let why = format!("`{shown}` comes after the program, and reads or writes a file");
            return Err(error(last.line, why, WHOLE));
        }
        if runs_more(last.text(text)) {
            let why = format!("`{shown}` comes after the program, and runs another one");
            return Err(error(last.line, why, WHOLE));
        }
        alternative = match last.before {
            Separator::Or => Some((last.line, shown.clone())),
            Separator::End => None,
            _ => alternative,
        };
        notes.push(ScriptNote {
            line: last.line,
            text: format!(
                "`{shown}` is left out: the program is the last thing that a wrapped script runs"
            ),
        });
        all.pop();
    }
    notes.reverse();
    match alternative {
        Some((line, shown)) if !all.is_empty() => {
            let why = format!("the last command, `{shown}`, runs only if the one before it fails");
            Err(error(line, why, WHOLE))
        }
        _ => Ok(notes),
    }
}

fn is_farewell(command: &SimpleCommand, text: &str) -> bool {
    use Separator::{And, End, Or};
    let is_last =
        matches!(command.before, End | And | Or) && matches!(command.behind, End | And | Or);
    let name = command.name(text).unwrap_or_default();
    let name = plain_name(&name);
    // Alone, a test decides how the script ends.
    let is_test = TESTS.contains(&name) && command.behind != End;
    let ends_conda = ["conda", "mamba", "micromamba"].contains(&name)
        && command.words(text).any(|own| own == "deactivate");
    is_last && (is_test || ends_conda || FAREWELLS.contains(&name))
}

/// Whether it has files: the terminal and `/dev/null` are none.
fn writes(command: &SimpleCommand, text: &str) -> bool {
    command.parts.iter().any(|part| match part {
        Part::Word(range) => text[range.clone()].starts_with(['<', '>']),
        Part::Redirection { operator, target } => {
            let (operator, target) = (&text[operator.clone()], &text[target.clone()]);
            let is_number = !target.is_empty() && target.bytes().all(|own| own.is_ascii_digit());
            let is_copy = operator.ends_with('&') && is_number;
            !is_copy && !["/dev/null", "/dev/stderr", "/dev/stdout"].contains(&target)
        }
    })
}

/// Whether a command in it, as in `$(…)`, makes more than words.
fn runs_more(text: &str) -> bool {
    let mut own = text.split("$(").skip(1).chain(text.split('`').skip(1).step_by(2));
    own.any(|command| {
        let word = command.split(|c: char| c.is_whitespace() || ");|&`<>".contains(c)).next();
        let name = plain_name(word.unwrap_or_default());
        let is_sum = command.starts_with('(');
        !is_sum && !FAREWELLS.contains(&name) && !WORD_MAKERS.contains(&name)
    })
}

/// A trap for the end of the script or for a signal, if the command sets one.
pub(super) fn trap(command: &SimpleCommand, text: &str) -> Option<ScriptNote> {
    let mut words = command.words(text).skip_while(|own| *own != "trap").skip(1);
    let action = words.find(|own| *own != "--")?;
    let is_reset = action == "-" || action.starts_with("-p") || action.starts_with("-l");
    let of_shell = ["ERR", "DEBUG", "RETURN", "}", "fi", "done"];
    let is_lost = !is_reset && words.any(|own| !of_shell.contains(&own));
    is_lost.then(|| ScriptNote { line: command.line, text: shortened(command.text(text)) })
}

/// The name of a program, also where its folder is written out.
pub(super) fn plain_name(name: &str) -> &str {
    let is_of_system = ["/bin/", "/usr/bin/", "/usr/local/bin/"]
        .iter()
        .any(|folder| name.strip_prefix(folder).is_some_and(|rest| !rest.contains('/')));
    if is_of_system { base_name(name) } else { name }
}

/// The first line of a text, and not all of a long one.
pub(super) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(60).collect();
    if short.len() < text.len() {
        format!("{} …", short.trim_end_matches(['\\', ' ']))
    } else {
        short
    }
}
