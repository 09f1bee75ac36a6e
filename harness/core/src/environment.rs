//! What a program inherits from the shell that submitted it, and what it must not. Pure.
//!
//! The variables are kept in the experiment's folder, not handed through Slurm: an accounting database may store what
//! `sbatch` exports, and `sh` may drop exported functions.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

use crate::checksum;

/// A name and its value.
pub type Variable = (OsString, OsString);

/// What the program of a task inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritSpec {
    /// Only these, where the file says so (`export`); else everything.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// These must be there.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// What `sbatch` itself needs, and so what a job finds of it. The kept value counts: another shell may have gone on with
/// the submission.
pub const FOR_SBATCH: [&str; 6] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LD_LIBRARY_PATH"];

/// Variables by which a shell differs from its parent only because it is one.
const OF_THE_SHELL: [&str; 4] = ["_", "PWD", "OLDPWD", "SHLVL"];

/// The user's settings for Slurm's programs; every other `SLURM_…` describes a job.
const SLURM_SETTINGS: [&str; 14] = [
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "SLURM_SACK_SOCKET",
    "SLURM_SACK_KEY",
    "SLURM_TIME_FORMAT",
    "SLURM_BITSTR_LEN",
    "SLURM_MPI_TYPE",
    "SLURM_EXACT",
    "SLURM_OVERLAP",
    "SLURM_KILL_BAD_EXIT",
    "SLURM_LABELIO",
    "SLURM_UNBUFFEREDIO",
    "SLURM_DEBUG",
];

/// Our own settings; every other `NEMO_…` describes a trial.
const OWN_SETTINGS: [&str; 4] =
    ["NEMO_SLURM_HOME", "NEMO_SLURM_TIMEOUT", "NEMO_HARNESS", "NEMO_LOG"];

/// Who a process is among others, and who listens to it.
const IDENTITY: [&str; 21] = [
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "NODE_RANK",
    "ROLE_RANK",
    "ROLE_NAME",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MPIRUN_RANK",
    "JAX_PROCESS_ID",
    "JAX_NUM_PROCESSES",
    "JAX_COORDINATOR_ADDRESS",
    "TF_CONFIG",
    "DMLC_ROLE",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];
const IDENTITY_PREFIXES: [&str; 13] = [
    "TORCHELASTIC_",
    "PET_",
    "PMI_",
    "PMI2_",
    "MPI_LOCAL",
    "OMPI_COMM_WORLD_",
    "OMPI_UNIVERSE_",
    "MV2_COMM_WORLD_",
    "PALS_",
    "HYDI_",
    "FLUX_TASK_",
    "JSM_NAMESPACE_",
    "SBATCH_",
];

/// Variables that number a process among others, from 0: for the only one, another number is not true.
///
/// Not `NODE_RANK`: two jobs of one node each may train together.
const RANKS: [&str; 22] = [
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "MPIRUN_RANK",
    "MPI_LOCALRANKID",
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_NODE_RANK",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PALS_RANKID",
    "PALS_LOCAL_RANKID",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "JSM_NAMESPACE_RANK",
    "JAX_PROCESS_ID",
    "HOROVOD_RANK",
    "HOROVOD_LOCAL_RANK",
    "HOROVOD_CROSS_RANK",
];

/// What a harness sets only for some programs, so that another trial's would be found in its place.
const OF_A_PROGRAM: [&str; 5] =
    ["NEMO_SCRATCH", "NEMO_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
const PARAMETER: &str = "NEMO_PARAM_";

/// Families of which some are the user's settings (`OMPI_MCA_btl`), but none beside the one that names a rank.
const FAMILIES: [(&str, &str); 5] = [
    ("OMPI_", "OMPI_COMM_WORLD_RANK"),
    ("MV2_", "MV2_COMM_WORLD_RANK"),
    ("PMIX_", "PMIX_RANK"),
    ("PRTE_", "PMIX_RANK"),
    ("PMIX_", "PMIX_NAMESPACE"),
];

/// Which devices of a node a job may use.
const DEVICES: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

/// What Slurm tells a job of its submission, which would mislead the programs that it runs.
const OF_THE_SUBMISSION: [&str; 3] = ["SLURM_EXPORT_ENV", "SLURM_GET_USER_ENV", "SLURM_CLUSTERS"];

/// Of a shell's variables those that a trial inherits: not who and where that shell is among the processes of a job or
/// of an MPI program.
pub fn inheritable(all: Vec<Variable>, on_slurm: bool) -> Vec<Variable> {
    let in_job = is_set(&all, "SLURM_JOB_ID") || is_set(&all, "SLURM_JOBID");
    let families: Vec<&str> =
        FAMILIES.iter().filter(|(_, rank)| is_set(&all, rank)).map(|(family, _)| *family).collect();
    let stays = |name: &OsStr| {
        let Some(name) = name.to_str() else { return true };
        let of_other_job = on_slurm && in_job && DEVICES.contains(&name);
        let of_family = families.iter().any(|family| name.starts_with(family));
        !of_other_job && !of_family && !is_identity(name) && !is_of_job_or_trial(name)
    };
    all.into_iter().filter(|(name, _)| stays(name)).collect()
}

fn is_set(variables: &[Variable], wanted: &str) -> bool {
    variables.iter().any(|(name, _)| name == wanted)
}

fn is_identity(name: &str) -> bool {
    // `PMIX_MCA_…` may be a setting: it goes with its family.
    let pmix = name.starts_with("PMIX_") && !name.starts_with("PMIX_MCA_");
    pmix || is_of_horovod(name)
        || IDENTITY.contains(&name)
        || IDENTITY_PREFIXES.iter().any(|part| name.starts_with(part))
}

/// `HOROVOD_CROSS_RANK`, `HOROVOD_LOCAL_SIZE`. Most of the family are settings.
fn is_of_horovod(name: &str) -> bool {
    name.starts_with("HOROVOD_") && (name.ends_with("RANK") || name.ends_with("_SIZE"))
}

/// Whether this says that a process is another than the first of several, which the only one is not.
#[must_use]
pub fn is_untrue_rank(name: &str, value: &str) -> bool {
    RANKS.contains(&name) && value.trim().parse::<u64>().is_ok_and(|rank| rank > 0)
}

/// Whether this is of another trial's program, and would not be replaced by what a trial sets.
#[must_use]
pub fn is_of_other_program(name: &str) -> bool {
    OF_A_PROGRAM.contains(&name) || name.starts_with(PARAMETER)
}

/// Whether a job has this variable from the one that submitted it, if `sbatch` sees it: Slurm sets it only for a task of an
/// array or a job that was restarted.
#[must_use]
pub fn is_of_submitting_job(name: &str) -> bool {
    name.starts_with("SLURM_ARRAY_") || name == "SLURM_RESTART_COUNT"
}

fn is_of_job_or_trial(name: &str) -> bool {
    let of_slurm = name.starts_with("SLURM_") || name.starts_with("SLURMD_");
    let of_trial = name.starts_with("NEMO_") && !OWN_SETTINGS.contains(&name);
    of_trial || (of_slurm && !SLURM_SETTINGS.contains(&name))
}

/// The environment of a program on this machine.
pub fn on_this_machine(kept: Vec<Variable>, spec: &InheritSpec) -> Vec<Variable> {
    kept.into_iter().filter(|(name, _)| is_for_sbatch(name) || spec.has(name)).collect()
}

fn is_for_sbatch(name: &OsStr) -> bool {
    FOR_SBATCH.iter().any(|needed| name == *needed)
}

/// The environment of a program in a job: what it inherits, and over it what Slurm and the node have set.
pub fn in_job(kept: Vec<Variable>, job: Vec<Variable>, spec: &InheritSpec) -> Vec<Variable> {
    let mut all: BTreeMap<OsString, OsString> = job.into_iter().filter(is_set_by_slurm).collect();
    for (name, value) in kept.into_iter().filter(|(name, _)| spec.has(name)) {
        // Slurm's own default where nobody says anything.
        let unsaid = name == "TMPDIR" && all.get(&name).is_some_and(|folder| folder == "/tmp");
        let wins = is_for_sbatch(&name) || spec.names(&name) || unsaid;
        if wins || !all.contains_key(&name) {
            all.insert(name, value);
        }
    }
    all.into_iter().collect()
}

fn is_set_by_slurm((name, _): &Variable) -> bool {
    let Some(name) = name.to_str() else { return true };
    !is_identity(name) && !OF_THE_SHELL.contains(&name) && !OF_THE_SUBMISSION.contains(&name)
}

/// The variable in which a program finds a parameter.
pub fn parameter_variable(name: &str) -> String {
    let plain = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{PARAMETER}{}", plain.to_ascii_uppercase())
}

impl InheritSpec {
    /// Whether the program inherits a variable.
    fn has(&self, name: &OsStr) -> bool {
        self.only.is_none() || self.names(name)
    }

    /// Whether the file names it.
    fn names(&self, wanted: &OsStr) -> bool {
        self.only.iter().flatten().chain(&self.secrets).any(|name| wanted == name.as_str())
    }

    /// The first secret that is not there.
    pub fn missing<'a>(&'a self, kept: &[Variable]) -> Option<&'a str> {
        self.secrets.iter().map(String::as_str).find(|secret| !is_set(kept, secret))
    }
}

/// The last variable of a file: the checksum of all before it.
const CHECKSUM: &str = "NEMO_CHECKSUM";

/// The bytes of a file of variables: `NAME=VALUE`, each ended by a NUL, as in `/proc/<pid>/environ`.
pub fn to_file(variables: &[Variable]) -> Vec<u8> {
    let mut bytes = encode(variables);
    let sum = checksum::of(&bytes);
    bytes.extend(encode(&[(CHECKSUM.into(), OsStr::from_bytes(&sum).into())]));
    bytes
}

/// Reads such a file back. One that is damaged is an error: a program must not run with half of what it needs.
pub fn from_file(bytes: &[u8]) -> Result<Vec<Variable>, &'static str> {
    let mut variables = decode(bytes);
    let sum = variables.pop().filter(|(name, _)| name == CHECKSUM);
    let content = bytes.len().saturating_sub(sum.as_ref().map_or(0, |sum| encode([sum]).len()));
    match sum {
        Some((_, sum)) if sum.as_bytes() == checksum::of(&bytes[..content]) => Ok(variables),
        Some(_) | None => Err("its checksum does not fit its content"),
    }
}

fn encode<'a>(variables: impl IntoIterator<Item = &'a Variable>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in variables {
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

/// What is no variable is left out.
fn decode(bytes: &[u8]) -> Vec<Variable> {
    bytes.split(|byte| *byte == 0).filter_map(variable).collect()
}

fn variable(entry: &[u8]) -> Option<Variable> {
    // A name is never empty, so that the first byte may be `=`.
    let equals = entry.iter().skip(1).position(|byte| *byte == b'=')? + 1;
    let (name, value) = (&entry[..equals], &entry[equals + 1..]);
    Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[&str]) -> Vec<Variable> {
        decode(list.join("\0").as_bytes())
    }

    fn shown(variables: &[Variable]) -> String {
        let one = |(name, value): &Variable| {
            format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
        };
        variables.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check_inherited(shell: &[&str], on_slurm: bool, expected: &str) {
        assert_eq!(shown(&inheritable(variables(shell), on_slurm)), expected);
    }

    #[test]
    fn a_trial_is_not_who_the_shell_is() {
        check_inherited(&["A=1", "RANK=1", "WORLD_SIZE=2", "MASTER_PORT=1", "B="], true, "A=1 B=");
        check_inherited(&["PMI_RANK=1", "PMIX_RANK=1", "PMIX_MCA_gds=hash", "X=1"], true, "X=1");
        check_inherited(
            &["PMIX_MCA_gds=hash", "MPI_HOME=/mpi"],
            true,
            "PMIX_MCA_gds=hash MPI_HOME=/mpi",
        );
        check_inherited(&["OMPI_MCA_btl=tcp"], true, "OMPI_MCA_btl=tcp");
        check_inherited(&["OMPI_MCA_ess=env", "OMPI_COMM_WORLD_RANK=3"], false, "");
        check_inherited(
            &["NOTIFY_SOCKET=/run/x", "TORCHELASTIC_RUN_ID=1", "PET_NNODES=2"],
            true,
            "",
        );
        check_inherited(
            &["SBATCH_TIMELIMIT=5", "SLURM_TIME_FORMAT=relative"],
            true,
            "SLURM_TIME_FORMAT=relative",
        );
        check_inherited(&["NEMO_PARAM_LR=1", "NEMO_SLURM_HOME=/h"], true, "NEMO_SLURM_HOME=/h");
        let jax = ["JAX_PROCESS_ID=1", "JAX_NUM_PROCESSES=2", "JAX_COORDINATOR_ADDRESS=n1:1"];
        check_inherited(&jax, true, "");
        let horovod = ["HOROVOD_RANK=1", "HOROVOD_LOCAL_SIZE=2", "HOROVOD_CROSS_RANK=1"];
        check_inherited(&horovod, true, "");
        check_inherited(&["TF_CONFIG={}", "DMLC_ROLE=worker"], true, "");
        let settings = ["HOROVOD_CYCLE_TIME=5", "JAX_PLATFORMS=cpu", "TF_CPP_MIN_LOG_LEVEL=3"];
        check_inherited(&settings, true, &settings.join(" "));
    }

    #[test]
    fn the_only_process_is_the_first() {
        let untrue = |name, value| is_untrue_rank(name, value);
        assert!(untrue("RANK", "1") && untrue("PMIX_RANK", "12") && untrue("JAX_PROCESS_ID", "1"));
        assert!(!untrue("RANK", "0") && !untrue("RANK", "") && !untrue("WORLD_SIZE", "2"));
        assert!(!untrue("NODE_RANK", "1"), "another job may be the first node");
        let identities = RANKS.iter().filter(|name| !is_identity(name));
        assert_eq!(identities.count(), 0, "a trial inherits no rank");
    }

    #[test]
    fn a_trial_is_not_in_the_shells_job() {
        let shell = [
            "SLURM_JOB_ID=7",
            "SLURM_PROCID=1",
            "SLURMD_NODENAME=n1",
            "SLURM_CONF=/c",
            "SQUEUE_FORMAT=%i",
            "CUDA_VISIBLE_DEVICES=3",
        ];
        let settings = "SLURM_CONF=/c SQUEUE_FORMAT=%i";
        check_inherited(&shell, true, settings);
        check_inherited(&shell, false, &format!("{settings} CUDA_VISIBLE_DEVICES=3"));
        check_inherited(&shell[1..], true, &format!("{settings} CUDA_VISIBLE_DEVICES=3"));
    }

    #[track_caller]
    fn check_job(kept: &[&str], job: &[&str], spec: &InheritSpec, expected: &str) {
        assert_eq!(shown(&in_job(variables(kept), variables(job), spec)), expected);
    }

    #[test]
    fn slurms_word_wins_but_not_what_sbatch_was_given() {
        let all = InheritSpec::default();
        check_job(&["A=1"], &["SLURM_JOB_ID=7", "A=2"], &all, "A=2 SLURM_JOB_ID=7");
        check_job(&["PATH=/conda"], &["PATH=/bin"], &all, "PATH=/conda");
        check_job(&["TMPDIR=/s"], &["TMPDIR=/tmp"], &all, "TMPDIR=/s");
        check_job(&["TMPDIR=/s"], &["TMPDIR=/tmp/job7"], &all, "TMPDIR=/tmp/job7");
        check_job(&["PWD=/a", "B=1"], &["PWD=/", "SHLVL=1", "_=/bin/x"], &all, "B=1 PWD=/a");
        check_job(&[], &["SLURM_EXPORT_ENV=NONE", "SLURM_CLUSTERS=b", "SBATCH_QOS=q"], &all, "");
    }

    #[test]
    fn only_what_is_named_and_secrets_always() {
        let spec = InheritSpec { only: Some(vec!["A".into()]), secrets: vec!["TOKEN".into()] };
        let kept = ["A=1", "B=1", "TOKEN=t", "PATH=/conda"];
        let login = ["PATH=/bin", "TOKEN=old", "C=1"];
        check_job(&kept, &login, &spec, "A=1 C=1 PATH=/bin TOKEN=t");
        assert_eq!(shown(&on_this_machine(variables(&kept), &spec)), "A=1 TOKEN=t PATH=/conda");
        assert_eq!(spec.missing(&variables(&kept)), None);
        assert_eq!(spec.missing(&variables(&["A=1"])), Some("TOKEN"));
    }

    #[test]
    fn names_are_upper_case() {
        assert_eq!(parameter_variable("learning-rate.x9é"), "NEMO_PARAM_LEARNING_RATE_X9_");
    }

    #[test]
    fn variables_may_hold_anything() {
        let odd = b"BASH_FUNC_module%%=() {  echo \"$1\"\n}\0EMPTY=\0LATIN=caf\xe9\0A=b=c\0";
        assert_eq!(encode(&decode(odd)), odd);
        assert_eq!(decode(odd).len(), 4);
        assert_eq!(decode(b"no variable\0=\0\0"), []);
        let file = to_file(&decode(odd));
        assert_eq!(from_file(&file), Ok(decode(odd)));
        assert_eq!(from_file(&to_file(&[])), Ok(Vec::new()));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(from_file(&damaged).is_err(), "at {at}");
        }
        assert!(from_file(&file[..file.len() - 1]).is_err(), "torn");
        assert!(from_file(b"").is_err());
    }
}
