//! Which environment variables reach Slurm's programs, and which would change what they do or print.

use std::ffi::OsStr;

use nemo_core::environment::{FOR_SBATCH, is_of_submitting_job};

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

/// What is set for a program that is asked: one language, times as epoch seconds, index lists whole. `sbatch` gets none
/// of it, since the job would.
pub(super) const FOR_QUESTIONS: [(&str, &str); 3] =
    [("LC_ALL", "C"), ("SLURM_TIME_FORMAT", "%s"), ("SLURM_BITSTR_LEN", "0")];

const PREFIXES: [&str; 6] = ["SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_"];

/// Whether a variable would override what we ask for, or describes an allocation that we happen to run in.
fn interferes(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.contains(&name)
}

/// Whether a program that submits nothing may see this variable.
pub(super) fn is_for_questions(name: &OsStr) -> bool {
    !name.to_str().is_some_and(interferes)
}

/// Whether `sbatch` may see this variable. It exports to the job, and so to the accounting database, all that it sees:
/// only what it needs itself. Programs get their environment from the experiment's folder.
pub(super) fn is_for_sbatch(name: &OsStr, script: &str, args: &[String]) -> bool {
    FOR_SBATCH.iter().chain(&KEPT).any(|kept| name == *kept)
        || is_overridable_default(name, script, args)
}

/// Whether `sbatch` may see this variable where it submits a script of the user's, whose job inherits everything.
pub(super) fn is_for_users_script(name: &OsStr) -> bool {
    name != "SBATCH_WAIT" && !name.to_str().is_some_and(is_of_submitting_job)
}

/// A default of the user's that neither script nor arguments decide.
fn is_overridable_default(name: &OsStr, script: &str, args: &[String]) -> bool {
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

/// Names the defaults for `sbatch` that the shell has and that are not passed on, and what counts in their stead.
pub fn ignored_defaults<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let ignored = names.filter(|name| name.starts_with("SBATCH_") && !is_passed_on(name));
    let mut ignored: Vec<String> = ignored.map(|name| format!("`{name}`")).collect();
    ignored.sort_unstable();
    let (are, them) = if ignored.len() == 1 { ("is", "it") } else { ("are", "them") };
    (!ignored.is_empty()).then(|| {
        let names = ignored.join(", ");
        format!("{names} {are} ignored: set {them} in the file's executor instead")
    })
}

fn is_passed_on(name: &str) -> bool {
    // The cluster is read by others.
    name == "SBATCH_CLUSTERS" || PAYER.iter().any(|(variable, _, _)| name == *variable)
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
        let taken: Vec<&str> =
            all.into_iter().filter(|name| !is_for_questions(OsStr::new(name))).collect();
        assert_eq!(taken, all[4..11]);
    }

    #[test]
    fn what_is_not_passed_on_is_named() {
        let check = |names: &[&str], expected: Option<&str>| {
            assert_eq!(ignored_defaults(names.iter().copied()).as_deref(), expected);
        };
        check(&["PATH", "SBATCH_ACCOUNT", "SLURM_CONF"], None);
        let two = "`SBATCH_GRES`, `SBATCH_TIMELIMIT` are ignored: set them in the file's executor instead";
        check(&["SBATCH_TIMELIMIT", "SBATCH_QOS", "SBATCH_GRES"], Some(two));
    }

    #[test]
    fn sbatch_sees_only_what_it_needs() {
        let all = ["PATH", "HOME", "SLURM_CONF", "SBATCH_QOS", "TOKEN", "LANG", "SBATCH_EXPORT"];
        let seen = all.map(|name| is_for_sbatch(OsStr::new(name), "", &[]));
        assert_eq!(seen, [true, true, true, true, false, false, false]);
    }

    #[test]
    fn a_users_script_is_not_the_task_that_submits_it() {
        let all = [
            "PATH",
            "RANK",
            "SLURM_JOB_ID",
            "SBATCH_QOS",
            "SBATCH_WAIT",
            "SLURM_ARRAY_JOB_ID",
            "SLURM_ARRAY_TASK_ID",
            "SLURM_RESTART_COUNT",
        ];
        let seen = all.into_iter().filter(|name| is_for_users_script(OsStr::new(name)));
        assert_eq!(seen.collect::<Vec<_>>(), all[..4]);
    }

    #[test]
    fn a_users_default_counts_only_where_nothing_else_decides() {
        let check = |name: &str, script: &str, args: &[&str], want: bool| {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let script = format!("#!/bin/bash\n{script}\n:\n");
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
