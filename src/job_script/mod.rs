//! Job scripts that people have: their directives, their last command, and their copy in which the harness runs it. Pure.

mod commands;
mod directives;
mod earlier;
mod farewells;
mod launch;
mod options;
mod program;
mod signal;
mod turned;
mod wrapped;

pub use directives::{Directive, directives, options, words};
pub use options::{before_the_job, typed_words};
pub use program::ScriptNote;
pub use signal::{is_unheard, signal_options};
pub use turned::{Turned, turned};
pub use wrapped::{WrapWith, Wrapped, wrap};

/// A script, held against what `sbatch` takes.
#[derive(Clone, Copy, Debug)]
pub struct JobScript<'a> {
    /// As it is.
    pub text: &'a str,
    /// The program behind `#!`, with its arguments.
    pub interpreter: &'a str,
}

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// The most that a script may have, in bytes. Slurm itself takes 4 MiB, unless its administrator allows for more.
pub const LONGEST: u64 = 16 << 20;

/// Shells whose scripts are understood.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ksh", "zsh", "ash", "busybox"];

impl<'a> JobScript<'a> {
    /// Looks at a file.
    pub fn read(text: &'a [u8]) -> Result<Self, ScriptError> {
        let line_of = |at: usize| text[..at].split(|byte| *byte == b'\n').count();
        let error = |line, message: &str, hint: &str| ScriptError {
            line,
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let own = std::str::from_utf8(text).map_err(|e| {
            error(line_of(e.valid_up_to()), "this is no UTF-8", "convert the file with `iconv`")
        })?;
        if let Some(at) = own.find("\r\n") {
            let hint = "`dos2unix` takes them out, or `sed -i 's/\\r$//'`";
            return Err(error(line_of(at), "the line ends as on DOS, which Slurm refuses", hint));
        }
        let interpreter = own.strip_prefix("#!").and_then(|rest| rest.lines().next());
        let interpreter = interpreter.map(str::trim).filter(|own| own.starts_with('/'));
        let hint = "begin it with `#!/bin/bash`, as `sbatch` wants it";
        let interpreter = interpreter.ok_or_else(|| error(1, "this is no script", hint))?;
        Ok(Self { text: own, interpreter })
    }

    /// Whether a shell runs it whose language is understood.
    #[must_use]
    pub fn is_for_a_shell(&self) -> bool {
        let mut words = self.interpreter.split_whitespace().map(base_name);
        match words.next() {
            Some("env") => {
                words.find(|word| !word.starts_with('-')).is_some_and(|own| SHELLS.contains(&own))
            }
            Some(own) => SHELLS.contains(&own),
            None => false,
        }
    }
}

/// Whether a file is a job script, and no experiment's file.
#[must_use]
pub fn is_script(text: &[u8]) -> bool {
    text.starts_with(b"#!/")
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}
