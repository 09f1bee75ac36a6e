//! The run of a trial in `MLflow`. `MLFLOW_RUN_ID` must name one that exists, so it is made before the first attempt, by the
//! program's own Python and with its settings: only that one knows the server and may talk to it.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use nemo_core::rundir::CommandSpec;
use nemo_core::{durable, open};

use crate::job::harness::Harness;
use crate::job::trial::with_path;
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::program::command::{self, AttemptNames, Shells};
use crate::rank::srun;

/// The variable by which `MLflow` is told which run to go on with.
pub(super) const RUN_ID: &str = "MLFLOW_RUN_ID";
/// Finds the run by the trial's name, or makes it, and prints its id.
const SCRIPT: &str = include_str!("mlflow_run.py");
/// What stands before the id.
const MARK: &str = "nemo-mlflow-run=";
/// How long the import and the server may take, in all tries. On a busy shared disk the import alone may take a minute.
const PATIENCE: Duration = Duration::from_mins(2);
/// Two trials that make the same database or experiment may disturb each other once.
const TRIES: u32 = 2;
/// `MLflow` would ask a server that is away for minutes. The program's own settings stay.
const SOON: [(&str, &str); 2] =
    [("MLFLOW_HTTP_REQUEST_TIMEOUT", "4"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")];

/// The id of the trial's run. It is kept, so that later attempts ask nobody.
pub(super) fn run_id(
    harness: &Harness,
    names: &AttemptNames,
    env: &[(String, OsString)],
) -> Result<String, String> {
    let path = harness.trial.dir.tracker().join("mlflow-run");
    if let Some(id) =
        open::read(&path).ok().and_then(|id| String::from_utf8(id).ok()).filter(|id| is_id(id))
    {
        return Ok(id);
    }
    let until = harness.clock.now() + PATIENCE;
    let mut result = Err(String::new());
    for _ in 0..TRIES {
        let left = until.saturating_sub(harness.clock.now());
        result = make(harness, names, env, left);
        if result.is_ok() || is_stopped(harness) {
            break;
        }
    }
    let id = result.map_err(|why| without_secrets(&why))?;
    durable::replace_file_durably(&path, id.as_bytes())
        .map_err(|error| with_path(&path, &error))?;
    Ok(id)
}

/// Whether a signal waits that ends the attempt. The event loop reads it.
fn is_stopped(harness: &Harness) -> bool {
    signals::wait_for_stop(&harness.signals, Duration::ZERO)
}

fn make(
    harness: &Harness,
    names: &AttemptNames,
    env: &[(String, OsString)],
    limit: Duration,
) -> Result<String, String> {
    let trial = &harness.trial;
    let mut argv = python(&trial.spec.command);
    argv.extend(["-c", SCRIPT].map(OsString::from));
    let command = command::under_setup(trial, names, Shells::of(&harness.context), argv)?;
    let workdir = trial.workdir().into_os_string();
    // The program's relative paths, that of a database for one, are relative to its working folder.
    let start = ["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "nemo-tracker"];
    let words: Vec<OsString> =
        start.iter().map(OsString::from).chain([workdir]).chain(command.argv).collect();
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let words = words.ok_or("a word of the command is not UTF-8")?;
    let own = command.env.iter().map(|(name, value)| (name.as_str(), value.into()));
    let soon = SOON.into_iter().filter(|(name, _)| !harness.context.is_set(name));
    let soon = soon.map(|(name, value)| (name, value.into()));
    let set = env.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let env: Vec<(&str, OsString)> = soon.chain(set).chain(own).collect();
    match subprocess::ask_unless(&words, &env, &harness.clock, limit, &|| is_stopped(harness)) {
        SubprocessResult::Ended { text, .. } => {
            let id = text.lines().find_map(|line| line.strip_prefix(MARK)).map(str::trim);
            let id = id.filter(|id| is_id(id)).map(str::to_owned);
            id.ok_or_else(|| text.lines().last().unwrap_or("it said nothing").to_owned())
        }
        SubprocessResult::NoAnswer(why) => Err(why),
    }
}

/// A text without what stands before a host, which may be a password.
fn without_secrets(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = |c: char| c.is_whitespace() || "/?#'\"`<>()".contains(c);
        let (host, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        shown += "://";
        shown += host.rsplit_once('@').map_or(host, |(_, host)| host);
        shown += rest;
    }
    shown
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The Python that runs the program: it is known to have what the program needs.
fn python(command: &CommandSpec) -> Vec<OsString> {
    let words: Vec<&str> = match command {
        CommandSpec::Exec(list) => list.iter().map(String::as_str).collect(),
        CommandSpec::Shell(text) => text.split_whitespace().collect(),
    };
    match words[..] {
        ["uv", "run", ..] => ["uv", "run", "python"].map(OsString::from).into(),
        [first, ..] if srun::is_python(OsStr::new(first)) => vec![first.into()],
        _ => vec!["python3".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_told() {
        let check = |text: &str, expected: &str| assert_eq!(without_secrets(text), expected);
        check("no https://ada:s3@h.org/api, (https://b@h)", "no https://h.org/api, (https://h)");
        check("'http://ada:s@3@h:5000'", "'http://h:5000'");
        check("https://h.org/a@b and ada@h.org", "https://h.org/a@b and ada@h.org");
    }

    #[test]
    fn the_python_of_the_program_is_asked() {
        let of = |text: &str| python(&CommandSpec::Shell(text.to_owned())).join(" ".as_ref());
        assert_eq!(of("python3.11 train.py"), "python3.11");
        assert_eq!(of("env/bin/python train.py"), "env/bin/python");
        assert_eq!(of("uv run train.py"), "uv run python");
        assert_eq!(of("./train.sh"), "python3");
    }
}
