//! What can go wrong between us and Slurm's programs.

use std::ffi::OsString;
use std::time::Duration;

use nemo_core::slurm_words;

/// Why Slurm could not be asked, or what it refused. Messages are lowercase fragments; hints say what to do.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The program is not installed here.
    #[error("`{program}` was not found in PATH: {}", path.display())]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// The folders that were searched.
        path: OsString,
    },
    /// The program could not be started, or its output not be read.
    #[error("`{program}` could not be run")]
    NotRun {
        /// Its name.
        program: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The program didn't end in time, and was killed.
    #[error("`{program}` did not answer within {} s", .waited.as_secs())]
    NoAnswer {
        /// Its name.
        program: &'static str,
        /// How long it was given.
        waited: Duration,
    },
    /// slurmctld, or what lets us talk to it, is down.
    #[error("`{program}` could not reach Slurm's controller: {reason}")]
    ControllerDown {
        /// The program's name.
        program: &'static str,
        /// Slurm's own words.
        reason: String,
    },
    /// This cluster keeps no accounts.
    #[error("this cluster has no accounting database")]
    AccountingOff,
    /// There is an accounting database, but it doesn't answer.
    #[error("the accounting database doesn't answer: {reason}")]
    AccountingDown {
        /// Slurm's own words.
        reason: String,
    },
    /// This version of Slurm doesn't know a field that was asked for.
    #[error("`{program}` doesn't know a field: {reason}")]
    UnknownField {
        /// The program's name.
        program: &'static str,
        /// Slurm's own words.
        reason: String,
    },
    /// Slurm understood, and said no.
    #[error("`{program}` refused: {reason}")]
    Refused {
        /// The program's name.
        program: &'static str,
        /// Slurm's own words, without the prefixes.
        reason: String,
        /// The program's exit code; nothing if a signal ended it.
        code: Option<i32>,
    },
    /// The program ended well, but what it printed makes no sense to us.
    #[error("`{program}` printed something that can't be read: `{output}`")]
    Unreadable {
        /// The program's name.
        program: &'static str,
        /// The start of it.
        output: String,
    },
}

impl SlurmError {
    /// Tells the user the next thing to try, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::MissingProgram { .. } => {
                Some("run this on a login node, or load the module that provides Slurm")
            }
            Self::ControllerDown { reason, .. } if is_unconfigured(reason) => Some(
                "run this on a login node of the cluster; if Slurm's configuration is elsewhere, name it: `export SLURM_CONF=/path/to/slurm.conf`",
            ),
            Self::NoAnswer { .. } | Self::ControllerDown { .. } => {
                Some("run the same command again in a minute: nothing was assumed, nothing is lost")
            }
            Self::AccountingDown { .. } => {
                Some("jobs that ended long ago show their last known state until it is back")
            }
            Self::UnknownField { .. } | Self::Unreadable { .. } => {
                Some("`nemo-slurm -vv status` shows everything that Slurm's programs print")
            }
            Self::AccountingOff | Self::Refused { .. } | Self::NotRun { .. } => None,
        }
    }

    /// Whether nothing is known: whatever was asked for may or may not have happened.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::NoAnswer { .. }
            | Self::ControllerDown { .. }
            | Self::AccountingDown { .. }
            | Self::NotRun { .. }
            | Self::Unreadable { .. } => true,
            // A program that a signal ended in the middle of its work may have done it.
            Self::Refused { code, .. } => code.is_none(),
            Self::MissingProgram { .. } | Self::AccountingOff | Self::UnknownField { .. } => false,
        }
    }

    /// Sorts what a program said on stderr when it failed.
    #[must_use]
    pub fn from_output(program: &'static str, stderr: &[u8], code: Option<i32>) -> Self {
        let reason = own_words(stderr);
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| reason.contains(phrase));
        match program {
            _ if says(UNKNOWN_CLUSTER) => Self::Refused { program, reason, code },
            _ if says(ACCOUNTING_OFF) => Self::AccountingOff,
            "sacct" if says(ACCOUNTING_DOWN) => Self::AccountingDown { reason },
            "sacct" | "squeue" if says(UNKNOWN_FIELD) => Self::UnknownField { program, reason },
            _ if slurm_words::is_away(&reason) => Self::ControllerDown { program, reason },
            _ => Self::Refused { program, reason, code },
        }
    }
}

const UNKNOWN_CLUSTER: &[&str] = &["known by database"];
const ACCOUNTING_OFF: &[&str] = &["accounting storage is disabled"];
const ACCOUNTING_DOWN: &[&str] = &[
    "Problem talking to the database",
    "Connection refused",
    "persistent connection",
    "Unable to connect to database",
    "Unable to contact",
    "timed out",
    "Communication connection failure",
];
const UNKNOWN_FIELD: &[&str] = &[
    "Invalid field requested",
    "Invalid job format specification",
    "Invalid format specification",
    "Invalid job step format",
];

/// What a program that did its work said beside: the lines of its stderr, each once.
pub(super) fn notices(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let mut notices: Vec<String> = Vec::new();
    for line in text.lines().map(|line| without_prefixes(line.trim()).to_owned()) {
        if !line.is_empty() && !notices.contains(&line) {
            notices.push(line);
        }
    }
    notices
}

/// Slurm's own words: every line without `sbatch: error:` and its like, joined by `; `.
fn own_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut words: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = without_prefixes(line.trim());
        if !line.is_empty() && !words.iter().any(|word| word.starts_with(line)) {
            words.push(line);
        }
    }
    let joined = words.join("; ");
    if joined.is_empty() { "it gave no reason".to_owned() } else { joined }
}

fn without_prefixes(line: &str) -> &str {
    let mut rest = line;
    for program in ["sbatch", "squeue", "sacct", "scontrol", "scancel"] {
        rest = rest.strip_prefix(program).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(rest);
    }
    // `slurm_suspend error: …`; 26.05 leaves the blank out.
    if let Some((_, words)) = rest
        .split_once(" error:")
        .filter(|(name, _)| name.starts_with("slurm_") && !name.contains(' '))
    {
        rest = words.trim_start();
    }
    ["error: ", "fatal: ", "Batch job submission failed: "]
        .iter()
        .fold(rest, |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest))
}
/// Whether Slurm's programs found no configuration, neither in a file nor by the network's name service.
fn is_unconfigured(reason: &str) -> bool {
    [
        "Could not establish a configuration source",
        "DNS SRV lookup failed",
        "Unable to process configuration file",
    ]
    .iter()
    .any(|words| reason.contains(words))
}
