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
pub(super) fn is_overridable_default(name: &OsStr, script: &str, args: &[String]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_the_answer_is_taken_out() {
        let all = [
            "PATH",
            "SLURM_CONF",
            "SLURM_CLUSTERS",
            "SLURM_JWT",
            "SLURM_TIME_FORMAT",
            "SLURM_MEM_PER_NODE",
            "SQUEUE_STATES",
            "SACCT_FORMAT",
            "SCANCEL_STATE",
            "SCONTROL_ALL",
            "SBATCH_TIMELIMIT",
            "SLURMX",
        ];
        let taken = taken_out(all.map(OsString::from));
        assert_eq!(taken, all[4..11]);
    }

    #[test]
    fn a_users_default_counts_only_where_nothing_else_decides() {
        let check = |name: &str, script: &str, args: &[&str], want: bool| {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let script = format!("#!/bin/sh\n{script}\n:\n");
            assert_eq!(
                is_overridable_default(OsStr::new(name), &script, &args),
                want,
                "{name} {script}"
            );
        };
        check("SBATCH_ACCOUNT", "", &[], true);
        check("SBATCH_ACCOUNT", "#SBATCH --time=5", &["--hold"], true);
        check("SBATCH_ACCOUNT", "#SBATCH --account=lab", &[], false);
        check("SBATCH_ACCOUNT", "#SBATCH -A lab", &[], false);
        check("SBATCH_ACCOUNT", "", &["--account=lab"], false);
        check("SBATCH_ACCOUNT", "", &["-Alab"], false);
        check("SBATCH_ACCOUNT", "#SBATCH --account-not=lab", &[], true);
        check("SBATCH_QOS", "#SBATCH --account=lab", &[], true);
        check("SBATCH_TIMELIMIT", "", &[], false);
        check("SQUEUE_STATES", "", &[], false);
    }
}
