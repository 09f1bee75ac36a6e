//! The job, node and process of this harness, read from the environment once at the start.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use nemo_core::process_id::{self, ProcessId};

use crate::os::proc_fs;
use crate::program::scratch;
use crate::program::usage::{Allotment, GpuChoice};

/// The job, node and process of this harness.
#[derive(Clone, Debug)]
pub(crate) struct JobContext {
    /// The Slurm job; none for a local attempt.
    pub(crate) slurm: Option<SlurmJob>,
    /// Slurm's name of the node, else the host's.
    pub(crate) node: String,
    /// The kernel's boot id: a process id means nothing after another boot.
    pub(crate) boot_id: String,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    /// This program's own file, for the sentinel.
    pub(crate) exe: PathBuf,
    pub(crate) path: OsString,
    /// The nodes of the job.
    pub(crate) nodes: u32,
    /// `SLURM_CPUS_PER_TASK`, where the job asked for it.
    pub(crate) cpus_per_task: Option<String>,
    /// `NEMO_LOG=debug`: every event and action is to be written down.
    pub(crate) debug: bool,
    /// The names of the variables that the program inherits.
    names: BTreeSet<OsString>,
    /// Whether there are functions of bash among the variables.
    pub(crate) has_functions: bool,
}

/// The job as Slurm's environment describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlurmJob {
    /// `SLURM_JOB_ID`, the raw id.
    pub(crate) raw: String,
    /// The array's id and the task's index.
    pub(crate) array: Option<(String, u32)>,
    /// How many times it was restarted.
    pub(crate) restarts: u32,
    /// When it will end, if this Slurm says so (23.02 and newer).
    pub(crate) end: Option<f64>,
}

impl SlurmJob {
    /// The id as `squeue` shows it. From a task of an array only this form names the one task: one task's raw
    /// id equals the array's.
    pub(crate) fn id(&self) -> String {
        match &self.array {
            Some((array, index)) => format!("{array}_{index}"),
            None => self.raw.clone(),
        }
    }
}

impl JobContext {
    /// Reads the environment. `local` leaves Slurm out, even inside of one of its jobs.
    pub(crate) fn read(local: bool) -> io::Result<Self> {
        let slurm = if local { None } else { slurm_job() };
        let node = match text("SLURMD_NODENAME").filter(|_| slurm.is_some()) {
            Some(node) => node,
            None => process_id::host_name()?,
        };
        let pid = std::process::id();
        Ok(Self {
            slurm,
            node,
            boot_id: process_id::boot_id()?,
            pid,
            start_ticks: proc_fs::stat(pid)?.start_ticks,
            exe: env::current_exe()?,
            path: env::var_os("PATH").unwrap_or_default(),
            nodes: number("SLURM_JOB_NUM_NODES").filter(|_| !local).unwrap_or(1),
            cpus_per_task: text("SLURM_CPUS_PER_TASK"),
            debug: is_debug(text("NEMO_LOG").as_deref()),
            names: env::vars_os().map(|(name, _)| name).collect(),
            has_functions: env::vars_os()
                .any(|(name, _)| name.as_encoded_bytes().starts_with(b"BASH_FUNC_")),
        })
    }

    /// Whether the program inherits a variable of this name.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.names.contains(OsStr::new(name))
    }

    /// The identity of this harness for the record.
    pub(crate) fn process(&self) -> ProcessId {
        let (node, boot_id) = (self.node.clone(), self.boot_id.clone());
        ProcessId { node, boot_id, pid: self.pid, start_ticks: self.start_ticks }
    }

    /// What the program is given on this node.
    pub(crate) fn allotment(&self) -> Allotment {
        allotment(&self.node, self.slurm.is_some())
    }

    /// The index of this task in its job array, 0 outside of one.
    pub(crate) fn array_index(&self) -> u32 {
        let array = self.slurm.as_ref().and_then(|job| job.array.as_ref());
        array.map_or(0, |&(_, index)| index)
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether this level of `NEMO_LOG` requests the debug log.
pub(crate) fn is_debug(level: Option<&str>) -> bool {
    level
        .is_some_and(|level| ["debug", "trace"].iter().any(|name| level.eq_ignore_ascii_case(name)))
}

/// What Slurm gives on this node, or what there is. The GPUs of a job are those that Slurm names.
pub(crate) fn allotment(node: &str, is_slurm_job: bool) -> Allotment {
    let own_cpus = || std::thread::available_parallelism().ok()?.get().try_into().ok();
    let cpus = number("SLURM_CPUS_ON_NODE").filter(|_| is_slurm_job).or_else(own_cpus);
    let megabytes = number::<u64>("SLURM_MEM_PER_NODE");
    let of_cpus = || Some(number::<u64>("SLURM_MEM_PER_CPU")? * u64::from(cpus?));
    let asked = megabytes.or_else(of_cpus).filter(|asked| is_slurm_job && *asked > 0);
    let gpus = match text("CUDA_VISIBLE_DEVICES") {
        Some(devices) if devices == "NoDevFiles" || devices.starts_with('-') => None,
        Some(devices) => Some(GpuChoice::Only(devices)),
        None if is_slurm_job => None,
        None => Some(GpuChoice::All),
    };
    let memory_bytes = asked.map(|asked| asked << 20).or_else(proc_fs::total_memory);
    Allotment { node: node.to_owned(), cpus, memory_bytes, gpus, is_slurm_job }
}

/// The list of GPUs that this process sees, whoever made them.
pub(crate) fn visible_devices() -> Option<String> {
    let of = |name: &str| env::var(name).ok();
    of("CUDA_VISIBLE_DEVICES").or_else(|| of("ROCR_VISIBLE_DEVICES"))
}

/// The scratch folder that the harness of this rank has named.
pub(crate) fn scratch() -> Option<PathBuf> {
    env::var_os(scratch::VARIABLE).map(PathBuf::from)
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}

/// Who pays for the job, as `sbatch` is told by its environment: jobs that this one submits for its experiment shall be
/// paid for in the same way.
pub(crate) fn payer() -> Vec<(&'static str, OsString)> {
    let of = |(name, job): (&'static str, &str)| Some((name, env::var_os(job)?));
    let all = [("SBATCH_ACCOUNT", "SLURM_JOB_ACCOUNT"), ("SBATCH_QOS", "SLURM_JOB_QOS")];
    all.into_iter().filter_map(of).filter(|(_, value)| !value.is_empty()).collect()
}

/// The job that this process runs in.
pub(crate) fn slurm_job() -> Option<SlurmJob> {
    Some(SlurmJob {
        raw: text("SLURM_JOB_ID")?,
        array: text("SLURM_ARRAY_JOB_ID").zip(number("SLURM_ARRAY_TASK_ID")),
        restarts: number("SLURM_RESTART_COUNT").unwrap_or(0),
        end: number("SLURM_JOB_END_TIME"),
    })
}
