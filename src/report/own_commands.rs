//! Our own command lines, as they are shown to be typed: they name the home, where typing them as they are would mean another.

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::script::shell_word;

/// What stands before a command of ours.
const NAME: &str = "nemo-slurm ";

/// The option that each command line needs, and the names of the commands. It is the same for the whole process.
static NEEDED: OnceLock<HomeOption> = OnceLock::new();

/// `--home FOLDER`, for the commands of these names.
#[derive(Debug)]
struct HomeOption {
    option: String,
    verbs: Vec<String>,
}

impl HomeOption {
    fn new(home: &Path) -> Self {
        let command = Cli::command();
        let verbs = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        Self { option: format!("--home {} ", shell_word(&home.to_string_lossy())), verbs }
    }

    /// Whether a text begins with one of the commands.
    fn is_command(&self, text: &str) -> bool {
        let word = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next();
        self.verbs.iter().any(|verb| Some(verb.as_str()) == word)
    }

    /// The text with the option in each command line. Those are marked as code, or begin a line.
    fn put_into(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(NAME) {
            let (before, after) = rest.split_at(at + NAME.len());
            told.push_str(before);
            let line = told.rsplit('\n').next().unwrap_or_default();
            let start = line.strip_suffix(NAME).unwrap_or_default();
            let is_typed = start.ends_with('`') || start.trim_start().is_empty();
            if is_typed && self.is_command(after) {
                told.push_str(&self.option);
            }
            rest = after;
        }
        told + rest
    }
}

/// From now on all command lines name this home.
pub fn name_home(home: &Path) {
    // A second home of one process would be a second process.
    let _first = NEEDED.set(HomeOption::new(home));
}

/// A text whose command lines mean the home that this one does.
#[must_use]
pub fn with_home(text: &str) -> Cow<'_, str> {
    match NEEDED.get() {
        Some(needed) if text.contains(NAME) => Cow::Owned(needed.put_into(text)),
        Some(_) | None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_to_be_typed_names_the_home() {
        let needed = HomeOption::new(Path::new("/my home"));
        let check = |text: &str, expected: &str| {
            let told = needed.put_into(text);
            assert_eq!(told, expected);
            assert_eq!(needed.put_into(&told), expected, "nothing is named twice");
        };
        let option = "--home '/my home'";
        check(
            "`nemo-slurm retry x` runs it; `nemo-slurm list` shows all",
            &format!("`{NAME}{option} retry x` runs it; `{NAME}{option} list` shows all"),
        );
        check("\n  nemo-slurm status x", &format!("\n  {NAME}{option} status x"));
        check("nemo-slurm resume x", &format!("{NAME}{option} resume x"));
        for other in ["nemo-slurm starts a step", "type nemo-slurm list", "`nemo-slurm -vv status`"]
        {
            check(other, other);
        }
    }
}
