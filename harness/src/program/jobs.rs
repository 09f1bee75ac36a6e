//! Which Slurm job a process belongs to. `sbatch` hands its environment on, so the marks in an environment don't tell whose
//! a process is: a job that a trial submits has them too, and must not be ended with the trial.

use std::collections::BTreeSet;
use std::path::Path;

use crate::os::proc_fs;

/// The variable that tells the programs of a harness to which jobs they belong.
pub(crate) const VARIABLE: &str = "NEMO_GUARD_JOBS";

/// What Slurm calls the process above a job's own ones, before the id of the step.
const STEP_DAEMON: &str = "slurmstepd: [";

/// The jobs of this process: none outside of Slurm, and several where a job started another one around it.
pub(crate) fn own() -> BTreeSet<String> {
    of(std::process::id())
}

/// The value of [`VARIABLE`].
pub(crate) fn value(jobs: &BTreeSet<String>) -> String {
    jobs.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Whether anything says that a process with marks of a harness belongs to a job that this harness was not in. Then it
/// only inherited them.
pub(crate) fn is_foreign(pid: u32) -> bool {
    let given = proc_fs::variable(pid, VARIABLE).unwrap_or_default();
    is_other(&of(pid), &String::from_utf8_lossy(&given))
}

fn is_other(jobs: &BTreeSet<String>, given: &str) -> bool {
    jobs.iter().any(|job| given.split(',').all(|own| own != job))
}

/// All that says so: Slurm may track a job by cgroups or not, programs change their variables, and a daemon leaves its
/// parents.
fn of(pid: u32) -> BTreeSet<String> {
    let mut jobs: BTreeSet<String> = ["SLURM_JOB_ID", "SLURM_JOBID"]
        .iter()
        .filter_map(|name| String::from_utf8(proc_fs::variable(pid, name)?).ok())
        .filter(|job| !job.is_empty())
        .collect();
    jobs.extend(of_cgroups(&proc_fs::cgroups(pid)).map(str::to_owned));
    jobs.extend(proc_fs::ancestors(pid).into_iter().filter_map(of_step_daemon));
    jobs
}

/// The jobs in the paths of a process's cgroups.
fn of_cgroups(cgroups: &str) -> impl Iterator<Item = &str> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).filter_map(of_folder)
}

/// The job whose cgroup has this name.
pub(crate) fn of_folder(name: &str) -> Option<&str> {
    name.strip_prefix("job_").filter(|number| number.parse::<u64>().is_ok())
}

fn of_step_daemon(pid: u32) -> Option<String> {
    of_title(&proc_fs::arguments(pid).first()?.to_string_lossy())
}

/// The job in `slurmstepd: [12.batch]`.
fn of_title(title: &str) -> Option<String> {
    let step = title.strip_prefix(STEP_DAEMON)?;
    let digits = step.split(|c: char| !c.is_ascii_digit()).next()?;
    (!digits.is_empty()).then(|| digits.to_owned())
}

/// Whether an `srun` starts a step of a job that this process is in, or of one that the program itself has allocated.
pub(crate) fn is_step_of_ours(srun: u32, job: &[u8]) -> bool {
    let is_salloc = |pid: &u32| {
        let arguments = proc_fs::arguments(*pid);
        arguments
            .first()
            .and_then(|word| Path::new(word).file_name())
            .is_some_and(|name| name == "salloc")
    };
    let own = std::process::id();
    own_has(job) || proc_fs::ancestors(srun).iter().take_while(|pid| **pid != own).any(is_salloc)
}

fn own_has(job: &[u8]) -> bool {
    own().iter().any(|own| own.as_bytes() == job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_job_is_found_in_cgroups_of_both_kinds() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(of_cgroups(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n", &["7"]);
        check("5:cpuset:/\n4:freezer:/slurm/uid_1/job_8/step_0\n0::/\n", &["8"]);
        check("0::/../../job_9/step_0\n", &["9"]);
        check("0::/user.slice/job_x/my_job_3\n", &[]);
    }

    #[test]
    fn a_job_is_found_in_the_title_of_its_daemon() {
        assert_eq!(of_title("slurmstepd: [12.batch]"), Some("12".to_owned()));
        assert_eq!(of_title("slurmstepd: [12+1.0]"), Some("12".to_owned()));
        assert_eq!(of_title("slurmstepd: [x]"), None);
        assert_eq!(of_title("bash"), None);
    }

    #[test]
    fn one_other_job_is_enough() {
        assert!(is_other(&jobs(&["8"]), "7") && is_other(&jobs(&["7", "8"]), "7"));
        assert!(is_other(&jobs(&["8"]), ""), "a trial outside of Slurm submitted it");
        assert!(!is_other(&jobs(&["7"]), "7") && !is_other(&jobs(&["7"]), "1,7"));
        assert!(!is_other(&jobs(&[]), "7") && !is_other(&jobs(&[]), ""), "nothing says so");
    }
}
