//! The `sbatch` table of an executor: any option of `sbatch` that the tool does not set itself.

use std::collections::BTreeMap;

use super::names;
use super::problem_report::{KeyPosition, ProblemReport, did_you_mean, listed};
use super::reader::Field;
use super::toml_tree::TomlValue;
use nemo_core::duration;

/// Options that the tool sets, or that change how it and Slurm talk, and why they can't be set here.
const REFUSED: [(&str, &str); 30] = [
    ("array", "it is made from the trials; `search.concurrent` limits how many run at once"),
    ("chdir", "programs run in the folder of the experiment's file"),
    ("dependency", "it is made from `after`"),
    ("error", OUTPUT),
    ("export-file", "programs inherit your environment; `env` adds to it"),
    ("get-user-env", "programs inherit your environment; `setup` can load more"),
    ("gid", OWN_JOBS),
    ("help", PRINTS),
    ("hold", "`nemo-slurm pause` and `resume` hold and release trials"),
    ("immediate", "a trial waits in the queue until it can run"),
    ("input", "programs have no standard input"),
    ("job-name", "it is made from the names of the experiment and the task"),
    ("kill-on-invalid-dep", "it is made from `after`"),
    ("no-requeue", REQUEUED),
    ("nodes", "it has a key of its own, `nodes`"),
    ("ntasks", "it is made from `nodes` and `tasks_per_node`"),
    ("open-mode", "a requeued trial goes on with its own files"),
    ("output", OUTPUT),
    ("parsable", READS),
    ("quiet", READS),
    ("requeue", REQUEUED),
    ("signal", "it is made from `checkpoint.signal` and `checkpoint.lead`"),
    ("test-only", "it would only test the submission; `nemo-slurm plan` shows the plan"),
    ("uid", OWN_JOBS),
    ("usage", PRINTS),
    ("verbose", READS),
    ("version", PRINTS),
    (
        "wait",
        "`sbatch` would not return before the jobs are over; `nemo-slurm submit --wait` waits",
    ),
    ("workdir", "programs run in the folder of the experiment's file"),
    ("wrap", "the script is made from `run`"),
];
const OUTPUT: &str = "output is kept with the experiment: `nemo-slurm logs` shows it";
const REQUEUED: &str = "trials are requeued as `restart` says";
const READS: &str = "nemo-slurm reads what `sbatch` prints";
const PRINTS: &str = "`sbatch` would only print information, and submit nothing";
const OWN_JOBS: &str = "jobs are submitted as yourself";

/// Options that have a key of their own in the executor.
const OWN_KEYS: [(&str, &str); 7] = [
    ("cpus-per-task", "cpus_per_task"),
    ("gpus-per-node", "gpus_per_node"),
    ("mem", "mem"),
    ("ntasks-per-node", "tasks_per_node"),
    ("partition", "partition"),
    ("tasks-per-node", "tasks_per_node"),
    ("time", "time"),
];

/// Further options that Slurm has, from 21.08 to 26.05. One that is not known is passed on, but no beginning of these:
/// `sbatch` takes any unique beginning of an option's name.
const KNOWN: [&str; 84] = [
    "account",
    "acctg-freq",
    "batch",
    "bb",
    "bbf",
    "begin",
    "cluster",
    "cluster-constraint",
    "clusters",
    "comment",
    "consolidate-segments",
    "constraint",
    "container",
    "container-id",
    "contiguous",
    "core-spec",
    "cores-per-socket",
    "cpu-freq",
    "cpus-per-gpu",
    "deadline",
    "delay-boot",
    "distribution",
    "exclude",
    "exclusive",
    "export",
    "extra",
    "extra-node-info",
    "gpu-bind",
    "gpu-freq",
    "gpus",
    "gpus-per-socket",
    "gpus-per-task",
    "gres",
    "gres-flags",
    "hint",
    "ignore-pbs",
    "licenses",
    "mail-type",
    "mail-user",
    "mcs-label",
    "mem-bind",
    "mem-per-cpu",
    "mem-per-gpu",
    "mincpus",
    "network",
    "nice",
    "no-kill",
    "nodefile",
    "nodelist",
    "ntasks-per-core",
    "ntasks-per-gpu",
    "ntasks-per-socket",
    "oom-kill-step",
    "overcommit",
    "oversubscribe",
    "power",
    "prefer",
    "priority",
    "profile",
    "propagate",
    "qos",
    "reboot",
    "reservation",
    "resv-ports",
    "segment",
    "share",
    "sockets-per-node",
    "spread-job",
    "spread-segments",
    "stepmgr",
    "switches",
    "thread-spec",
    "threads-per-core",
    "time-min",
    "tmp",
    "tres-bind",
    "tres-per-job",
    "tres-per-node",
    "tres-per-socket",
    "tres-per-task",
    "umask",
    "use-min-nodes",
    "wait-all-nodes",
    "wckey",
];

/// What the table says.
#[derive(Default)]
pub(super) struct SbatchOptions {
    /// What `sbatch` is given.
    pub(super) given: BTreeMap<String, String>,
    /// What `export` says.
    pub(super) export: Option<Export>,
}

/// Which variables of the submitting shell programs inherit. The tool hands them on itself.
pub(super) struct Export {
    pub(super) place: KeyPosition,
    /// Where not all are.
    pub(super) only: Option<Vec<String>>,
    /// `NAME=VALUE`.
    pub(super) set: BTreeMap<String, String>,
}

/// Reads the table.
pub(super) fn read(field: &Field<'_>, report: &mut ProblemReport) -> SbatchOptions {
    let mut options = SbatchOptions::default();
    let fields = field.section(report).map(|section| section.fields()).unwrap_or_default();
    for field in fields {
        let name = field.name.replace('_', "-");
        let name = if name == "cluster" { "clusters".to_owned() } else { name };
        if let Some((why, hint)) = refusal(&name) {
            let message = format!("`{}` can't be set in `sbatch`: {why}", field.name);
            let problem = report.problem(&field.key_place, message);
            if let Some(hint) = hint {
                problem.hint(hint);
            }
            continue;
        }
        let Some(value) = value(&field, report) else { continue };
        if name == "export" {
            options.export = export(&field, &value, report);
            continue;
        }
        if name == "clusters" && !is_one_cluster(&field, &value, report) {
            continue;
        }
        if options.given.insert(name.clone(), value).is_some() {
            report.problem(&field.key_place, format!("`{name}` is given twice"));
        }
    }
    options
}

/// Why an executor's `sbatch` can't hold an option; nothing if it can.
#[must_use]
pub fn why_no_sbatch_option(name: &str) -> Option<String> {
    refusal(name).map(|(why, _)| why)
}

fn refusal(name: &str) -> Option<(String, Option<String>)> {
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !valid || name.len() < 2 {
        let why = "it is not a long option of `sbatch`".to_owned();
        return Some((
            why,
            Some("write it without its dashes, such as `constraint = \"a100\"`".to_owned()),
        ));
    }
    let own = OWN_KEYS.iter().find(|(option, _)| *option == name);
    if let Some((_, key)) = own {
        let hint = format!("move it up into the executor: `{key} = …`");
        return Some((format!("the executor has the key `{key}` for it"), Some(hint)));
    }
    if let Some((_, why)) = REFUSED.iter().find(|(option, _)| *option == name) {
        return Some(((*why).to_owned(), None));
    }
    if KNOWN.contains(&name) {
        return None;
    }
    let own = OWN_KEYS.iter().map(|(option, _)| *option);
    let all = own.chain(REFUSED.iter().map(|(option, _)| *option)).chain(KNOWN);
    let meant: Vec<&str> = all.filter(|option| option.starts_with(name)).collect();
    let hint = did_you_mean(&meant).unwrap_or_else(|| listed(meant.iter().copied()));
    let why = "it is an abbreviated option".to_owned();
    (!meant.is_empty()).then_some((why, Some(hint)))
}

/// `ALL`, `NONE`, or a list of names and of `NAME=VALUE`, which may begin with `ALL`.
fn export(field: &Field<'_>, value: &str, report: &mut ProblemReport) -> Option<Export> {
    let mut only = Some(Vec::new());
    let mut set = BTreeMap::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("ALL", None) => only = None,
            ("NONE" | "NIL", None) => {}
            (name, value) => {
                field.parsed(names::check_variable(name), report)?;
                match value {
                    Some(value) => drop(set.insert(name.to_owned(), value.to_owned())),
                    None => only.iter_mut().for_each(|only| only.push(name.to_owned())),
                }
            }
        }
    }
    Some(Export { place: field.key_place.clone(), only, set })
}

/// Whether the value names one cluster: all questions about the jobs go to it.
fn is_one_cluster(field: &Field<'_>, value: &str, report: &mut ProblemReport) -> bool {
    let is_one = !value.is_empty()
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && value != "all";
    if !is_one {
        report
            .problem(&field.place, "`clusters` must be the name of one cluster")
            .hint("`sacctmgr show clusters` lists them");
    }
    is_one
}

/// A time in words or as `sbatch` itself reads it: a number alone are minutes, `90:00` minutes and seconds.
fn time(field: &Field<'_>, text: &str, report: &mut ProblemReport) -> Option<String> {
    if text.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '-')) {
        return Some(text.to_owned());
    }
    match duration::parse_positive(text) {
        Ok(seconds) => Some(duration::slurm_time(seconds)),
        Err(error) => {
            let hint = format!("{}; a number alone are minutes, as for `sbatch`", duration::HINT);
            report.problem(&field.place, error.to_string()).hint(hint);
            None
        }
    }
}

/// The option's text. `true` is a flag, whose text is empty; `false` is no option at all.
fn value(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    match field.value {
        TomlValue::Integer(number) => Some(number.to_string()),
        TomlValue::Flag(flag) => flag.then(String::new),
        TomlValue::Text(text) if text.is_empty() => {
            report
                .problem(&field.place, "the option's value is empty")
                .hint(format!("write `{} = true` for an option without a value", field.name));
            None
        }
        TomlValue::Text(text) if text.contains(|c: char| c.is_control()) => {
            report.problem(&field.place, "the value of an option can't contain a line break");
            None
        }
        TomlValue::Text(text) if field.name.replace('_', "-") == "time-min" => {
            time(field, text, report)
        }
        TomlValue::Text(text) => Some(text.clone()),
        TomlValue::Float(_) | TomlValue::Date(_) | TomlValue::List(_) | TomlValue::Table(_) => {
            field.wrong("a string, an integer or `true`", report);
            None
        }
    }
}
