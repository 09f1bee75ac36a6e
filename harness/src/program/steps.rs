//! The tasks of the job steps that the program itself started with `srun`: on this node, but not below this process.

use std::fs;

use crate::os::proc_fs;
use crate::program::jobs;
use crate::rank::srun;

/// A process that Slurm started for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepTask {
    pub(crate) pid: u32,
    /// How many nodes its step has.
    pub(crate) nodes: u32,
}

/// Whether a process is an `srun`.
pub(crate) fn is_srun(pid: u32) -> bool {
    srun::is_srun(&proc_fs::arguments(pid))
}

/// The job that an `srun` starts a step of; none if it asks Slurm for a job of its own.
pub(crate) fn job(srun: u32) -> Option<Vec<u8>> {
    proc_fs::variable(srun, "SLURM_JOB_ID")
}

/// The tasks of the steps of the jobs that some `srun`s belong to, but none of a job that is not ours.
pub(crate) fn tasks_of(sruns: &[u32]) -> Vec<StepTask> {
    let own_job = |&srun: &u32| job(srun).filter(|job| jobs::is_step_of_ours(srun, job));
    let mut jobs: Vec<Vec<u8>> = sruns.iter().filter_map(own_job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs.iter().flat_map(|job| tasks(job)).collect()
}

/// Whether no task of these steps can be on another node.
pub(crate) fn are_all_here(tasks: &[StepTask]) -> bool {
    tasks.iter().all(|task| task.nodes == 1)
}

/// A task and what it started, parents before children.
pub(crate) fn processes(task: StepTask) -> Vec<u32> {
    let mut all = vec![task.pid];
    all.extend(proc_fs::descendants(task.pid, &[]));
    all
}

/// The tasks of a job's steps that run here, but not those that run this very program: the sentinel, and the shims. Nor those
/// in which it runs itself: a batch script that was submitted from a step has the number of that step.
fn tasks(job: &[u8]) -> Vec<StepTask> {
    let own = fs::read_link("/proc/self/exe").ok();
    let above = proc_fs::ancestors(std::process::id());
    let tasks = proc_fs::pids().into_iter().filter_map(|pid| task(pid, job));
    let is_other = |task: &StepTask| !above.contains(&task.pid) && proc_fs::exe(task.pid) != own;
    tasks.filter(is_other).collect()
}

/// Slurm tells each task its process id; what a task starts has the same variable, but another id.
fn task(pid: u32, job: &[u8]) -> Option<StepTask> {
    let environment = proc_fs::environment(pid)?;
    let variable = |name: &str| proc_fs::find_variable(&environment, name);
    let number = |name: &str| std::str::from_utf8(variable(name)?).ok()?.parse::<u32>().ok();
    let is_task = variable("SLURM_JOB_ID")? == job && number("SLURM_TASK_PID")? == pid;
    // The batch script has no step's number of its own.
    (is_task && number("SLURM_STEP_ID").is_some())
        .then(|| StepTask { pid, nodes: number("SLURM_STEP_NUM_NODES").unwrap_or(1) })
}
