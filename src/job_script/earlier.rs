//! Programs that a script runs before its last command. The harness looks after none of them. Pure.

use super::commands::{Separator, SimpleCommand, commands, is_assignment, unquoted};
use super::farewells::shortened;
use super::program::{ScriptNote, WHOLE, error, is_function, runs_no_program};
use super::{ScriptError, base_name};

/// Programs that only prepare, look or compute words. The shell's own are among them.
const SETUP: [&str; 20] = [
    "basename", "cmake", "dirname", "expr", "getopts", "hash", "id", "lscpu", "make", "nproc",
    "pip", "pip3", "readlink", "realpath", "seq", "tr", "type", "uname", "wait", "whoami",
];

/// They start the program that is trained, or are it.
const LAUNCHERS: [&str; 8] =
    ["accelerate", "deepspeed", "julia", "mpiexec", "mpirun", "Rscript", "srun", "torchrun"];

/// Words before the name of a program.
const BEFORE: [&str; 16] = [
    "!", "(", "command", "do", "done", "elif", "else", "env", "exec", "if", "nohup", "then",
    "time", "until", "while", "{",
];

/// Names the programs before the last command. Fails where one runs in a loop: the last command is not the program then.
pub(super) fn programs(all: &[SimpleCommand], text: &str) -> Result<Vec<ScriptNote>, ScriptError> {
    let Some((last, earlier)) = all.split_last() else { return Ok(Vec::new()) };
    let last_name = last.name(text).unwrap_or_default();
    let (mut notes, mut n_loops, mut is_in_test) = (Vec::new(), 0_usize, false);
    for own in earlier {
        let words: Vec<&str> = own.words(text).collect();
        // What parts a test, as in `[[ a && b ]]`, are no commands.
        let is_of_test = is_in_test;
        is_in_test = (is_in_test || words.contains(&"[[")) && !words.contains(&"]]");
        if is_of_test {
            continue;
        }
        n_loops += words
            .iter()
            .take_while(|word| BEFORE.contains(word))
            .filter(|word| **word == "do")
            .count();
        n_loops = n_loops.saturating_sub(usize::from(words.first() == Some(&"done")));
        let Some(name) = name(&words).filter(|own| !is_function(all, text, own)) else { continue };
        let shown = shortened(own.text(text).trim_start_matches("do ").trim_start());
        if n_loops > 0 && (is_launcher(&name) || name == last_name) {
            let last = shortened(last.text(text));
            let why = format!("`{shown}` runs in a loop, and the harness would run `{last}` alone");
            return Err(error(own.line, why, WHOLE));
        }
        if own.behind != Separator::Background {
            let text = format!(
                "`{shown}` runs before the program at each start: only the last command is asked to save, and resumes"
            );
            notes.push(ScriptNote { line: own.line, text });
        }
    }
    Ok(notes)
}

/// The program that a command runs; none where it only prepares.
fn name(words: &[&str]) -> Option<String> {
    let is_list = |word: &&str| word.contains("=(") || word.starts_with("((");
    if words.iter().any(is_list) {
        return None;
    }
    let is_before = |word: &&str| {
        BEFORE.contains(word)
            || is_assignment(word)
            || word.starts_with('-')
            || word.ends_with(')') && !word.starts_with('(')
            || ["fi", "esac", "}", "]]"].contains(word)
    };
    let mut rest = words.iter().skip_while(|word| is_before(word));
    let first = *rest.next()?;
    if let Some(inner) = first.strip_prefix('(') {
        let inner = inner.trim_end_matches(')');
        return commands(inner).iter().find_map(|own| name(&own.words(inner).collect::<Vec<_>>()));
    }
    let name = unquoted(first);
    let next: Vec<String> = rest.take(2).map(|word| (*word).to_owned()).collect();
    let is_setup = name.is_empty()
        || ["case", "for", "function", "select"].contains(&name.as_str())
        || SETUP.contains(&name.as_str())
        || runs_no_program(&name, next.first())
        || only_asks_python(&name, &next);
    (!is_setup).then_some(name)
}

/// `python -c …`, `python --version` and `python -m pip …`.
fn only_asks_python(name: &str, next: &[String]) -> bool {
    let next: Vec<&str> = next.iter().map(String::as_str).collect();
    base_name(name).starts_with("python")
        && matches!(*next, ["-c" | "-V" | "--version", ..] | ["-m", "pip" | "venv" | "virtualenv"])
}

fn is_launcher(name: &str) -> bool {
    let own = base_name(name);
    name.contains(['/', '$']) || own.starts_with("python") || LAUNCHERS.contains(&own)
}
