//! Which environment variables reach Slurm's programs, and which would change what they do or print.

use std::ffi::{OsStr, OsString};

/// Variables of Slurm's programs that say where the cluster is and who we are. They are passed on.
const KEPT: [&str; 6] = [
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_CLUSTERS",
    "SLURM_JWT",
    "SLURM_SACK_SOCKET",
    "SLURM_SACK_KEY",
];

/// The user's own defaults for who pays. They are passed on to `sbatch`, unless the script names its own.
const PAYER: [(&str, &str, &str); 4] = [
    ("SBATCH_ACCOUNT", "--account", "-A"),
    ("SBATCH_QOS", "--qos", "-q"),
    ("SBATCH_RESERVATION", "--reservation", ""),
    ("SBATCH_WCKEY", "--wckey", ""),
];

/// What every program is given: one language, times as epoch seconds, index lists whole.
pub(super) const SET: [(&str, &str); 3] =
    [("LC_ALL", "C"), ("SLURM_TIME_FORMAT", "%s"), ("SLURM_BITSTR_LEN", "0")];

const PREFIXES: [&str; 6] = ["SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_"];

/// Whether a variable would override what we ask for, or describes an allocation that we happen to run in.
fn interferes(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.contains(&name)
}

/// The names to take out of the environment of a program that submits nothing.
pub(super) fn taken_out(all: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    all.into_iter().filter(|name| name.to_str().is_some_and(interferes)).collect()
}

/// Whether `sbatch` may see this variable: a default of the user's that neither script nor arguments decide.
pub(super) fn decides_nothing_else(name: &OsStr, script: &str, args: &[String]) -> bool {
    let Some((_, long, short)) = PAYER.iter().find(|(variable, _, _)| name == *variable) else {
        return false;
    };
    let is_it = |word: &str| {
        word.strip_prefix(long).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            || (!short.is_empty() && word.starts_with(short) && !word.starts_with("--"))
    };
    let directives = script.lines().filter_map(|line| line.strip_prefix("#SBATCH"));
    !args.iter().any(|arg| is_it(arg))
        && !directives.flat_map(str::split_ascii_whitespace).any(is_it)
}
