//! `--signal` of `sbatch`: which signal Slurm is to send before the end, and how long before. Pure.

use nemo_core::rundir::save_signal;

use super::JobScript;
use super::directives::{Directive, directives};
use super::program::ScriptNote;

/// What Slurm takes where no time is given.
const SECONDS: u64 = 60;

/// `[R|B:]SIGNAL[@SECONDS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignalRequest {
    /// The batch shell is signalled, and no step.
    is_for_batch: bool,
    /// Its name or number, as it is written.
    pub(super) signal: String,
    pub(super) seconds: Option<u64>,
}

impl SignalRequest {
    pub(super) fn read(value: &str) -> Self {
        let (who, rest) = value.split_once(':').unwrap_or(("", value));
        let (signal, seconds) = rest.split_once('@').unwrap_or((rest, ""));
        Self {
            is_for_batch: who.contains('B'),
            signal: signal.to_owned(),
            seconds: seconds.parse().ok().filter(|own| *own > 0),
        }
    }

    /// The signal, where a program can be asked by it to save.
    pub(super) fn save_signal(&self) -> Option<&'static str> {
        let upper = self.signal.to_uppercase();
        save_signal(match upper.as_str() {
            "1" => "HUP",
            "2" => "INT",
            "10" => "USR1",
            "12" => "USR2",
            "15" => "TERM",
            name => name,
        })
    }

    /// Whether it is the harness's own signal, in the batch shell's place.
    fn is_for_harness(&self) -> bool {
        self.is_for_batch && self.save_signal() == Some("USR1")
    }
}

/// Whether Slurm would send what the harness does not hear.
#[must_use]
pub fn is_unheard(directive: &Directive) -> bool {
    directive.name == "signal" && !SignalRequest::read(&directive.value).is_for_harness()
}

/// The options of `wrap` that ask the program as the script says, but for those that were typed.
#[must_use]
pub fn signal_options(script: &JobScript<'_>, typed: &[String]) -> Vec<String> {
    let own = directives(script.text).into_iter().rfind(|own| own.name == "signal");
    let Some(request) = own.map(|own| SignalRequest::read(&own.value)) else { return Vec::new() };
    let is_typed = |names: &[&str]| typed.iter().any(|word| names.contains(&word.as_str()));
    let mut options = Vec::new();
    // USR1 asks where nothing else is said.
    let signal = request.save_signal().filter(|own| *own != "USR1");
    if let Some(signal) = signal.filter(|_| !is_typed(&["--signal", "--profile", "--save-command"]))
    {
        options.extend(["--signal".to_owned(), signal.to_owned()]);
    }
    if !is_typed(&["--lead"]) {
        let seconds = request.seconds.unwrap_or(SECONDS);
        options.extend(["--lead".to_owned(), format!("{seconds}s")]);
    }
    options
}

/// The script with a `--signal` that reaches the harness, in the lines where it has another; and a note for each.
pub(super) fn for_harness(text: &str, needed: &[String]) -> (String, Vec<ScriptNote>) {
    let mut needed = needed.iter().flat_map(|line| directives(line));
    let Some(own) = needed.find(|own| own.name == "signal") else {
        return (text.to_owned(), Vec::new());
    };
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut notes = Vec::new();
    for other in directives(text).into_iter().filter(is_unheard) {
        let Some(line) = lines.get_mut(other.line - 1) else { continue };
        let Some(at) = line.find("--signal") else { continue };
        let rest = line.split_off(at);
        line.push_str(&rest.replacen(&other.value, &own.value, 1));
        notes.push(note(&other, &own));
    }
    (lines.join("\n"), notes)
}

fn note(script: &Directive, own: &Directive) -> ScriptNote {
    let request = SignalRequest::read(&script.value);
    let asked = match request.save_signal() {
        Some(_) => String::new(),
        None => format!(", and can't ask it by {}", request.signal),
    };
    let text = format!(
        "`--signal={}` becomes `--signal={}`: Slurm tells the harness, which asks the program itself (`--signal` and `--lead` of `wrap`){asked}",
        script.value, own.value
    );
    ScriptNote { line: script.line, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_as_sbatch_reads_it() {
        let check = |value: &str, signal, seconds, is_for_harness| {
            let own = SignalRequest::read(value);
            assert_eq!((own.save_signal(), own.seconds), (signal, seconds), "{value}");
            assert_eq!(own.is_for_harness(), is_for_harness, "{value}");
        };
        check("B:USR1@90", Some("USR1"), Some(90), true);
        check("B:10", Some("USR1"), None, true);
        check("SIGUSR1@90", Some("USR1"), Some(90), false);
        check("B:usr2@90", Some("USR2"), Some(90), false);
        check("R:15@0", Some("TERM"), None, false);
        check("B:KILL@30", None, Some(30), false);
    }
}
