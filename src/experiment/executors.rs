//! The `[executor.<name>]` sections.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::problem_report::{KeyPosition, ProblemReport, choices, listed};
use super::reader::{Field, Section, unsupported};
use super::sbatch::Export;
use super::toml_tree::{TableEntry, TomlValue, dotted};
use super::{
    Budget, EnvSpec, Executor, LocalExecutor, SlurmExecutor, names, sbatch, units, values,
};

/// The executors of a file and the two that are always there.
pub(super) struct Executors {
    /// The names that the file defines, as written.
    pub(super) defined: Vec<String>,
    /// Every executor that has no mistake in it.
    pub(super) by_name: BTreeMap<String, Executor>,
    /// Where the texts of each stand that may have placeholders.
    pub(super) places: BTreeMap<String, EnvPlaces>,
}

/// Where the variables of an executor and its lines of `setup` stand.
#[derive(Default)]
pub(super) struct EnvPlaces {
    env: BTreeMap<String, KeyPosition>,
    pub(super) setup: Vec<KeyPosition>,
    /// The executor itself, for what stands in `sbatch.export`.
    whole: Option<KeyPosition>,
}

impl EnvPlaces {
    fn of(section: &Section<'_>) -> Self {
        let mut places = Self { whole: Some(section.place.clone()), ..Self::default() };
        for field in section.fields() {
            match (field.name, field.value) {
                ("env", TomlValue::Table(table)) => {
                    let entry = |entry: &TableEntry| {
                        let key = dotted(&field.place.key, &entry.name);
                        (entry.name.clone(), KeyPosition { at: entry.node.at, key })
                    };
                    places.env.extend(table.entries.iter().map(entry));
                }
                ("setup", _) => {
                    places.setup = field.one_or_more().into_iter().map(|line| line.place).collect();
                }
                _ => {}
            }
        }
        places
    }

    /// Where a variable is set.
    pub(super) fn variable(&self, name: &str) -> Option<&KeyPosition> {
        self.env.get(name).or(self.whole.as_ref())
    }
}

#[derive(Clone, Copy)]
enum ExecutorKind {
    Slurm,
    Local,
}

const KINDS: [(&str, ExecutorKind); 2] =
    [("slurm", ExecutorKind::Slurm), ("local", ExecutorKind::Local)];

/// The keys that only one of the kinds has.
const SLURM_ONLY: [&str; 7] =
    ["partition", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem", "sbatch"];
const LOCAL_ONLY: [&str; 2] = ["parallel", "gpus_per_trial"];

/// Reads every executor.
pub(super) fn read(fields: Vec<Field<'_>>, report: &mut ProblemReport) -> Executors {
    let mut executors =
        Executors { defined: Vec::new(), by_name: built_in(), places: BTreeMap::new() };
    for field in fields {
        let name = field.name.to_owned();
        let _reported = field.parsed_name(names::check(&name), report);
        // One that is always there has its kind already, and is not what the file chooses.
        let built_in = executors.by_name.remove(&name);
        let section = field.section(report);
        if let Some(section) = &section {
            executors.places.insert(name.clone(), EnvPlaces::of(section));
        }
        let has_kind = section.as_ref().is_none_or(|section| section.table.get("kind").is_some());
        if let Some(executor) = section.and_then(|section| one(section, built_in.as_ref(), report))
        {
            executors.by_name.insert(name.clone(), executor);
        }
        if has_kind || built_in.is_none() {
            executors.defined.push(name);
        }
    }
    executors
}

impl Executors {
    /// Whether there is such an executor, be it with mistakes.
    pub(super) fn has(&self, name: &str) -> bool {
        let is_built_in = built_in().contains_key(name);
        is_built_in || self.defined.iter().any(|defined| defined == name)
    }

    /// A hint for a name that is none of them.
    pub(super) fn hint(&self, name: &str) -> String {
        let built_in = ["local", "slurm"].into_iter();
        let others = built_in.filter(|name| !self.defined.iter().any(|defined| defined == name));
        let all: Vec<&str> = self.defined.iter().map(String::as_str).chain(others).collect();
        choices(name, "the executors are", all)
    }
}

fn built_in() -> BTreeMap<String, Executor> {
    BTreeMap::from([
        ("local".to_owned(), Executor::Local(LocalExecutor::default())),
        ("slurm".to_owned(), Executor::Slurm(SlurmExecutor::default())),
    ])
}

fn one(
    mut section: Section<'_>,
    built_in: Option<&Executor>,
    report: &mut ProblemReport,
) -> Option<Executor> {
    let Some(field) = section.take("kind") else {
        let before = report.len();
        let executor = match built_in {
            Some(Executor::Slurm(_)) => Some(Executor::Slurm(slurm(section, report))),
            Some(Executor::Local(_)) => Some(Executor::Local(local(section, report))),
            None => {
                no_kind(&section, report);
                None
            }
        };
        return executor.filter(|_| report.len() == before);
    };
    if matches!(&field.value, TomlValue::Text(text) if text == "container") {
        unsupported(&field.place, "kind = \"container\"", report);
        return None;
    }
    let kind = field.word(&KINDS, report);
    let before = report.len();
    let executor = match kind? {
        ExecutorKind::Slurm => Executor::Slurm(slurm(section, report)),
        ExecutorKind::Local => Executor::Local(local(section, report)),
    };
    (report.len() == before).then_some(executor)
}

fn no_kind(section: &Section<'_>, report: &mut ProblemReport) {
    let message = format!("`{}` has no `kind`", section.place.key);
    report.problem(&section.place, message).hint("add `kind = \"slurm\"` or `kind = \"local\"`");
}

fn slurm(mut section: Section<'_>, report: &mut ProblemReport) -> SlurmExecutor {
    refuse_other_kind(&mut section, "Slurm", &LOCAL_ONLY, report);
    let mut options =
        section.take("sbatch").map(|field| sbatch::read(&field, report)).unwrap_or_default();
    let own_gpus = section.take("gpus_per_node");
    let executor = SlurmExecutor {
        nodes: section.take("nodes").and_then(|field| nodes(&field, report)),
        tasks_per_node: section.take("tasks_per_node").and_then(|field| field.positive(report)),
        partition: section.take("partition").and_then(|field| partition(&field, report)),
        gpus_per_node: own_gpus.as_ref().and_then(|field| gpus(field, report)),
        cpus_per_task: section.take("cpus_per_task").and_then(|field| field.positive(report)),
        mem: section.take("mem").and_then(|field| memory(&field, report)),
        time: section.take("time").and_then(|field| field.duration(report)),
        budget: budget(&mut section, report),
        surroundings: exported(surroundings(&mut section, report), options.export.take(), report),
        sbatch: options.given,
    };
    if let Some(field) = own_gpus.filter(|_| executor.has_generic_gpus()) {
        report
            .problem(&field.place, "GPUs are requested twice: here, and in `sbatch.gres`")
            .hint("remove one of the two: Slurm 26.05 and newer refuse both");
    }
    section.finish(report);
    executor
}

/// Adds what `export` says. What is set twice in different ways is a mistake.
fn exported(mut around: EnvSpec, export: Option<Export>, report: &mut ProblemReport) -> EnvSpec {
    let Some(Export { place, only, set }) = export else { return around };
    for (name, value) in set {
        let other = around.env.get(&name).is_some_and(|other| *other != value);
        if other || around.secrets.contains(&name) {
            report
                .problem(&place, format!("`{name}` is in `export`, and in `env` or `secrets`"))
                .hint("remove one of the two");
        }
        around.env.insert(name, value);
    }
    EnvSpec { export: only, ..around }
}

fn local(mut section: Section<'_>, report: &mut ProblemReport) -> LocalExecutor {
    refuse_other_kind(&mut section, "local", &SLURM_ONLY, report);
    let executor = LocalExecutor {
        parallel: section.take("parallel").and_then(|field| field.positive(report)),
        gpus_per_trial: section.take("gpus_per_trial").and_then(|field| field.positive(report)),
        time: section.take("time").and_then(|field| field.duration(report)),
        budget: budget(&mut section, report),
        surroundings: surroundings(&mut section, report),
    };
    section.finish(report);
    executor
}

/// `budget = { gpu_hours = 500 }`.
fn budget(section: &mut Section<'_>, report: &mut ProblemReport) -> Option<Budget> {
    let mut section = section.take_section("budget", report)?;
    let field = section.take("gpu_hours");
    if field.is_none() && section.fields().is_empty() {
        let message = format!("`{}` says of nothing how much may be spent", section.place.key);
        report.problem(&section.place, message).hint("for example `gpu_hours = 500`");
    }
    let hours = field.and_then(|field| gpu_hours(&field, report));
    section.finish(report);
    hours.map(|gpu_hours| Budget { gpu_hours })
}

fn gpu_hours(field: &Field<'_>, report: &mut ProblemReport) -> Option<f64> {
    let number = match field.value {
        #[expect(clippy::cast_precision_loss, reason = "hours")]
        TomlValue::Integer(number) => *number as f64,
        TomlValue::Float(number) => *number,
        _ => f64::NAN,
    };
    let is_possible = number.is_finite() && number > 0.0;
    if !is_possible {
        field.wrong("a number of hours above 0", report);
    }
    is_possible.then_some(number)
}

/// Says of a key that it belongs to another kind of executor, which is more than that it is unknown.
fn refuse_other_kind(
    section: &mut Section<'_>,
    kind: &str,
    others: &[&'static str],
    report: &mut ProblemReport,
) {
    for &name in others {
        if section.table.get(name).is_none() {
            continue;
        }
        if let Some(field) = section.take(name) {
            let message = format!("a {kind} executor has no key `{name}`");
            report
                .problem(&field.key_place, message)
                .hint(format!("remove `{name}`, or change the executor's `kind`"));
        }
    }
}

/// A trial has the same nodes in every attempt: `"2-4"` would be another number each time.
fn nodes(field: &Field<'_>, report: &mut ProblemReport) -> Option<NonZeroU32> {
    match field.value {
        TomlValue::Text(text) if text.contains('-') => {
            report
                .problem(&field.place, "a trial has a fixed number of nodes, not a range")
                .hint("write one number, such as `nodes = 2`");
            None
        }
        _ => field.positive(report),
    }
}

fn partition(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let text = field.text(report)?;
    if is_plain(&text) {
        return Some(text);
    }
    report
        .problem(&field.place, format!("{text:?} can't be the name of a partition"))
        .hint("`sinfo --summarize` lists the partitions; several are separated by commas");
    None
}

fn gpus(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let expected = "a number of GPUs, or a type and a number such as \"h100:8\"";
    match field.value {
        TomlValue::Integer(_) => {
            let number: u32 = field.integer(expected, report)?;
            // Some clusters refuse even `--gpus-per-node=0` where they know of no GPUs.
            (number > 0).then(|| number.to_string())
        }
        TomlValue::Text(text) => {
            let valid = is_plain(text);
            if !valid {
                field.wrong(expected, report);
            }
            valid.then(|| text.clone())
        }
        _ => {
            field.wrong(expected, report);
            None
        }
    }
}

/// A word that is safe as the value of an option.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ',' | ':'))
}

fn memory(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let text = field.text_as("an amount of memory such as \"8G\"", report)?;
    field.parsed(units::memory(&text), report)
}

fn surroundings(section: &mut Section<'_>, report: &mut ProblemReport) -> EnvSpec {
    let mut env = BTreeMap::new();
    for field in section.take_fields("env", report) {
        let valid = field.parsed_name(names::check_variable(field.name), report);
        if let (Some(()), Some(value)) = (valid, variable(&field, report)) {
            let length = field.name.len() + 1 + value.len();
            if length > values::MAX_STRING_BYTES {
                values::too_long(&field.place, &format!("the variable has {length}"), report);
            }
            env.insert(field.name.to_owned(), value);
        }
    }
    let mut secrets = Vec::new();
    for field in section.take("secrets").map(|field| field.one_or_more()).unwrap_or_default() {
        let Some(name) = field.text(report) else { continue };
        if field.parsed(names::check_variable(&name), report).is_none() {
            continue;
        }
        if env.contains_key(&name) {
            let message = format!("`{name}` is in `env` and in `secrets`");
            report
                .problem(&field.place, message)
                .hint("a secret is passed on from your environment; remove it from `env`");
        }
        secrets.push(name);
    }
    let field = section.take("setup");
    let setup = field.as_ref().map(|field| field.texts(report)).unwrap_or_default();
    let length: usize = setup.iter().map(|line| line.len() + 1).sum();
    // A few words of ours stand around it.
    if let Some(field) = field.filter(|_| length + 100 > values::MAX_STRING_BYTES) {
        values::too_long(&field.place, &format!("the lines have {length}"), report);
    }
    EnvSpec { env, secrets, setup, export: None }
}

fn variable(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    match field.value {
        TomlValue::Integer(number) => Some(number.to_string()),
        _ => field.text(report),
    }
}

/// A name where the sections of executors stand, as in `executor = "slurm"` at the top of a file.
pub(super) fn take_misplaced<'a>(section: &mut Section<'a>) -> Option<Field<'a>> {
    let value = section.table.get("executor").map(|entry| &entry.node.value);
    matches!(value, Some(TomlValue::Text(_))).then(|| section.take("executor")).flatten()
}

/// Says where it belongs, and which executor was likely meant.
pub(super) fn report_misplaced(
    field: &Field<'_>,
    executors: &Executors,
    report: &mut ProblemReport,
) {
    let Some(name) = field.text(report) else { return };
    if executors.has(&name) {
        report
            .problem(&field.place, "a name of an executor does not stand at the top of the file")
            .hint(format!("write `executor = \"{name}\"` below `[defaults]`, or in a task"));
        return;
    }
    let message = format!("there is no executor `{name}`, and its name does not stand here");
    let meant = executors.hint(&name);
    report
        .problem(&field.place, message)
        .hint(format!("{meant} Write it below `[defaults]`, or in a task: `executor = \"…\"`"));
}

/// The error of a file with several executors and no choice among them.
pub(super) fn ambiguous(executors: &Executors) -> (String, String) {
    let names = listed(executors.defined.iter().map(String::as_str));
    let first = executors.defined.first().map_or("local", String::as_str);
    (
        format!("no executor is chosen, and the file defines several: {names}"),
        format!(
            "add `executor = \"{first}\"` here or under `[defaults]`, or submit with `--executor {first}`"
        ),
    )
}
