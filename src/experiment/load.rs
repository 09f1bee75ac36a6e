//! From text to [`Experiment`]: reads every section, and then checks what they have to do with each other.

use std::collections::BTreeMap;
use std::path::Path;

use nemo_core::rundir::{CheckpointSpec, NO_SIGNAL, Profile};
use nemo_core::{lead, profile};
use serde_json::Value as Json;

use super::executors::{self, Executors};
use super::overrides::{self, Override};
use super::problem_report::{KeyPosition, ProblemReport};
use super::problems::Problems;
use super::reader::{Field, Section};
use super::source::{SourceTexts, Span};
use super::tasks::{self, TaskDraft};
use super::toml_tree::{Table, TomlValue};
use super::{
    Executor, Experiment, Launch, Loaded, ResolvedConfig, Task, TrialParams, graph, notify,
    outside, own_paths, package, parameters, references, syntax, values,
};

/// Reads an experiment, or says all that is wrong with it.
///
/// Pure: `file` is only named in problems, and its folder becomes the working directory. `executor` is the one that
/// every task shall run on, whatever the file says.
pub fn load(
    text: &str,
    file: &Path,
    overrides: &[Override],
    executor: Option<&str>,
) -> Result<Loaded, Problems> {
    load_in(false, text, file, overrides, executor)
}

/// As [`load`]; `in_work_tree` says whether the file lies in a work tree of git.
pub fn load_in(
    in_work_tree: bool,
    text: &str,
    file: &Path,
    overrides: &[Override],
    executor: Option<&str>,
) -> Result<Loaded, Problems> {
    // A line break is one character, whatever the editor: a carriage return would become a part of a shell's word.
    let text = &text.replace("\r\n", "\n");
    let mut sources = SourceTexts::new(file, text);
    let overrides = overrides::register(&mut sources, overrides);
    let forced = executor.map(|name| {
        let source = sources.push(format!("--executor {name}"));
        let start = "--executor ".len();
        let at = Span { source, start, end: start + name.len() };
        (name.to_owned(), KeyPosition { at, key: String::new() })
    });
    let mut report = ProblemReport::new(&sources);
    let loaded = syntax::parse(text, &mut report).and_then(|mut root| {
        let adding = overrides::adding(&root, &overrides);
        overrides::apply(&mut root, &overrides, &mut report);
        let loaded = read(&root, in_work_tree, forced, &adding, &mut report)?;
        Some((root, loaded))
    });
    match loaded {
        Some((root, mut loaded)) if report.is_empty() => {
            loaded.config = ResolvedConfig::new(&root, &sources, &loaded.experiment, executor);
            if let Some(notify) = &loaded.experiment.notify {
                notify.hide_url(&mut loaded.config);
            }
            file.parent().unwrap_or(Path::new("")).clone_into(&mut loaded.experiment.workdir);
            Ok(loaded)
        }
        Some(_) | None => Err(report.into_problems()),
    }
}

/// What the top of the file says.
struct FileHeader {
    experiment: Experiment,
    defaults: Defaults,
}

/// What holds for every task that says nothing else.
#[derive(Default)]
struct Defaults {
    executor: Option<(String, KeyPosition)>,
    launch: Option<Launch>,
    profile: Option<Profile>,
}

fn read(
    root: &Table,
    in_work_tree: bool,
    forced: Option<(String, KeyPosition)>,
    adding: &[usize],
    report: &mut ProblemReport,
) -> Option<Loaded> {
    let start = Span { source: 0, start: 0, end: 0 };
    let mut section = Section::root(root, KeyPosition { at: start, key: String::new() });
    section.unsupported(&["log_policy"]);
    let FileHeader { mut experiment, defaults } = head(&mut section, in_work_tree, report);
    let executors = all_executors(&mut section, report);
    let drafts = all_tasks(&mut section, defaults.profile, report);
    section.finish_with(report, |field| tasks::belongs_to(field, &drafts));

    let chosen = choose(&drafts, &executors, forced, defaults.executor, report);
    graph::check(&drafts, report);
    let order = graph::order(&drafts, report);
    references::check(&drafts, report);
    references::check_executors(&drafts, &chosen, &executors, report);
    own_paths::check(&drafts, experiment.package.is_shipped(), report);
    values::check(&drafts, report.sources.length(), report);
    let named = |draft: &TaskDraft, parameter: &str| {
        let executor = chosen.get(&draft.name).and_then(|name| executors.by_name.get(name));
        executor.is_some_and(|executor| references::is_named(executor.surroundings(), parameter))
    };
    overrides::check_added(adding, &drafts, named, report);
    check_leads(&drafts, &chosen, &executors, experiment.timeout, report);
    check_clusters(&drafts, &chosen, &executors, report);
    check_tiers(&drafts, &chosen, &executors, report);
    check_launch(&drafts, defaults.launch, &chosen, &executors, report);
    if !report.is_empty() {
        return None;
    }
    let mut params = TrialParams::new();
    let mut drafts: Vec<Option<TaskDraft>> = drafts.into_iter().map(Some).collect();
    for index in order {
        let mut draft = drafts.get_mut(index).and_then(Option::take)?;
        let name = chosen.get(&draft.name)?;
        let executor = executors.by_name.get(name)?;
        let trials = draft.search.trials.take()?;
        let lead =
            lead::within(DEFAULT_LEAD, segment(executor).into_iter().chain(experiment.timeout));
        let mut task = task(draft, name, lead, u32::try_from(trials.len()).ok()?)?;
        params.insert(task.name.clone(), trials);
        task.launch = task.launch.or(defaults.launch);
        experiment.tasks.push(task);
        experiment.executors.insert(name.clone(), executor.clone());
    }
    Some(Loaded { experiment, params, config: ResolvedConfig::default() })
}

fn all_executors(section: &mut Section<'_>, report: &mut ProblemReport) -> Executors {
    let misplaced = executors::take_misplaced(section);
    let fields = match misplaced {
        Some(_) => Vec::new(),
        None => section.take_fields("executor", report),
    };
    let executors = executors::read(fields, report);
    if let Some(field) = misplaced {
        executors::report_misplaced(&field, &executors, report);
    }
    executors
}

fn all_tasks(
    section: &mut Section<'_>,
    profile: Option<Profile>,
    report: &mut ProblemReport,
) -> Vec<TaskDraft> {
    let fields = section.take_fields("task", report);
    if fields.is_empty() && section.table.get("task").is_none_or(is_table) {
        report
            .problem(&section.place, "the experiment has no task")
            .hint("add one: `[task.train]` and below it `run = \"python train.py\"`");
    }
    let mut drafts = tasks::read(&fields, report);
    for draft in &mut drafts {
        draft.profile = draft.profile.or(profile);
    }
    drafts
}

fn is_table(entry: &super::toml_tree::TableEntry) -> bool {
    matches!(entry.node.value, TomlValue::Table(_))
}

fn head(section: &mut Section<'_>, in_work_tree: bool, report: &mut ProblemReport) -> FileHeader {
    let name = section.take("name");
    if name.is_none() {
        report
            .problem(&section.place, "the experiment has no `name`")
            .hint("add `name = \"…\"` at the top of the file");
    }
    let name = name.and_then(|field| field.valid_name(report));
    let tags = section.take("tags").map(|field| field.one_or_more()).unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| tag.valid_name(report)).collect();
    let metadata = section.take_fields("metadata", report);
    let metadata = metadata
        .iter()
        .filter_map(|field| Some((field.name.to_owned(), json(field, report)?)))
        .collect();
    let experiment = Experiment {
        name: name.unwrap_or_default(),
        description: section.take("description").and_then(|field| field.text(report)),
        tags,
        metadata,
        timeout: section.take("timeout").and_then(|field| field.duration(report)),
        after: outside::read(section, report),
        notify: notify::read(section, report),
        seed: section
            .take("seed")
            .and_then(|field| field.integer("a whole number from 0 on", report))
            .unwrap_or(0),
        package: package::read(section, in_work_tree, report),
        workdir: std::path::PathBuf::new(),
        executors: BTreeMap::new(),
        tasks: Vec::new(),
    };
    let defaults = defaults(section, report);
    FileHeader { experiment, defaults }
}

fn defaults(section: &mut Section<'_>, report: &mut ProblemReport) -> Defaults {
    let Some(mut section) = section.take_section("defaults", report) else {
        return Defaults::default();
    };
    let executor =
        section.take("executor").and_then(|field| Some((field.text(report)?, field.place)));
    let launch = tasks::launch(&mut section, report);
    let profile = tasks::profile(&mut section, report);
    section.finish(report);
    Defaults { executor, launch, profile }
}

/// Free values: what TOML has, as JSON has it.
fn json(field: &Field<'_>, report: &mut ProblemReport) -> Option<Json> {
    match field.value {
        TomlValue::Date(date) => Some(Json::String(date.clone())),
        TomlValue::List(items) => {
            let items = field.items(items);
            let values: Vec<Option<Json>> = items.iter().map(|item| json(item, report)).collect();
            values.into_iter().collect::<Option<_>>().map(Json::Array)
        }
        TomlValue::Table(_) => {
            let fields = field.section(report)?.fields();
            let values: Vec<Option<(String, Json)>> = fields
                .iter()
                .map(|field| Some((field.name.to_owned(), json(field, report)?)))
                .collect();
            values.into_iter().collect::<Option<_>>().map(Json::Object)
        }
        _ => parameters::constant(field, report),
    }
}

/// The executor of every task, by the task's name.
fn choose(
    drafts: &[TaskDraft],
    executors: &Executors,
    forced: Option<(String, KeyPosition)>,
    default: Option<(String, KeyPosition)>,
    report: &mut ProblemReport,
) -> BTreeMap<String, String> {
    let named = drafts.iter().filter_map(|draft| draft.executor.as_ref());
    for (name, place) in named.chain(&default).chain(&forced) {
        if !executors.has(name) {
            let message = format!("there is no executor `{name}`");
            report.problem(place, message).hint(executors.hint(name));
        }
    }
    let only = match executors.defined.as_slice() {
        [] => Some("local"),
        [only] => Some(only.as_str()),
        _ => None,
    };
    let (forced, default) = (forced.map(|(name, _)| name), default.map(|(name, _)| name));
    let mut chosen = BTreeMap::new();
    for draft in drafts {
        let own = draft.executor.as_ref().map(|(name, _)| name.as_str());
        if let Some(name) = forced.as_deref().or(own).or(default.as_deref()).or(only) {
            chosen.insert(draft.name.clone(), name.to_owned());
        } else {
            let (message, hint) = executors::ambiguous(executors);
            report.problem(&draft.place, message).hint(hint);
        }
    }
    chosen
}

/// How long before the end a program is told, where nothing else is said.
const DEFAULT_LEAD: u64 = 60;

fn segment(executor: &Executor) -> Option<u64> {
    match executor {
        Executor::Slurm(slurm) => slurm.time,
        Executor::Local(local) => local.time,
    }
}

fn check_leads(
    drafts: &[TaskDraft],
    chosen: &BTreeMap<String, String>,
    executors: &Executors,
    timeout: Option<u64>,
    report: &mut ProblemReport,
) {
    for draft in drafts {
        let Some((lead, place)) = &draft.checkpoint.lead else { continue };
        let Some(name) = chosen.get(&draft.name) else { continue };
        let time = executors.by_name.get(name).and_then(segment);
        let of_executor = format!("`time` of executor `{name}`");
        let ends =
            [("time", &*of_executor, time), ("timeout", "the experiment's `timeout`", timeout)];
        for (key, what, end) in ends {
            let Some(end) = end.filter(|end| lead >= end) else { continue };
            let message = format!(
                "the program would be asked to save {lead} s before the end, but {what} is only {end} s"
            );
            report.problem(place, message).hint(format!("make `lead` shorter than `{key}`"));
        }
    }
}

/// All questions about an experiment's jobs go to one cluster, and no job waits for one on another.
fn check_clusters(
    drafts: &[TaskDraft],
    chosen: &BTreeMap<String, String>,
    executors: &Executors,
    report: &mut ProblemReport,
) {
    let cluster = |draft: &TaskDraft| match executors.by_name.get(chosen.get(&draft.name)?)? {
        Executor::Slurm(slurm) => Some(slurm.sbatch.get(super::CLUSTERS)),
        Executor::Local(_) => None,
    };
    let mut on_slurm = drafts.iter().filter_map(|draft| Some((draft, cluster(draft)?)));
    let Some((first, its_own)) = on_slurm.next() else { return };
    if let Some((other, _)) = on_slurm.find(|(_, cluster)| *cluster != its_own) {
        let message = format!("`{}` and `{}` are on different clusters", other.name, first.name);
        report
            .problem(&other.place, message)
            .hint("give their executors the same `sbatch.clusters`, or write two files");
    }
}

/// `torchrun` is one task on each node.
/// Memory of one node can't take the saves of several.
fn check_tiers(
    drafts: &[TaskDraft],
    chosen: &BTreeMap<String, String>,
    executors: &Executors,
    report: &mut ProblemReport,
) {
    for draft in drafts {
        let Some((_, place)) = &draft.checkpoint.tier else { continue };
        let Some(name) = chosen.get(&draft.name) else { continue };
        let Some(Executor::Slurm(slurm)) = executors.by_name.get(name) else { continue };
        let Some(nodes) = slurm.nodes.filter(|nodes| nodes.get() > 1) else { continue };
        let message =
            format!("a tier is memory of one node, but executor `{name}` has `nodes = {nodes}`");
        report.problem(place, message).hint("remove `tier`: the program saves to the disk then");
    }
}

fn check_launch(
    drafts: &[TaskDraft],
    default: Option<Launch>,
    chosen: &BTreeMap<String, String>,
    executors: &Executors,
    report: &mut ProblemReport,
) {
    for draft in drafts.iter().filter(|draft| draft.launch.or(default).is_some()) {
        let Some(name) = chosen.get(&draft.name) else { continue };
        let Some(Executor::Slurm(slurm)) = executors.by_name.get(name) else { continue };
        let Some(tasks) = slurm.tasks_per_node.filter(|tasks| tasks.get() > 1) else { continue };
        let message = format!(
            "`torchrun` is one task on each node, but executor `{name}` has `tasks_per_node = {tasks}`"
        );
        report
            .problem(&draft.place, message)
            .hint(format!("remove it, and write `workers_per_node = {tasks}` in the task"));
    }
}

fn task(draft: TaskDraft, executor_name: &str, default_lead: u64, n_trials: u32) -> Option<Task> {
    Some(Task {
        name: draft.name,
        executor: executor_name.to_owned(),
        run: draft.run?.command,
        after: draft.after.into_iter().map(|edge| edge.to).collect(),
        n_trials,
        concurrent: draft.search.concurrent,
        metric: draft.search.metric,
        goal: draft.search.goal,
        checkpoint: CheckpointSpec {
            signal: match (draft.checkpoint.signal, &draft.checkpoint.command) {
                (Some(signal), _) => signal,
                (None, Some(_)) => NO_SIGNAL.to_owned(),
                (None, None) => profile::signal(draft.profile).to_owned(),
            },
            lead: draft.checkpoint.lead.map_or(default_lead, |(lead, _)| lead),
            every: draft.checkpoint.every,
            keep: draft.checkpoint.keep,
            from: draft.checkpoint.from.into_iter().map(|(path, _)| path).collect(),
            restore_to: draft.checkpoint.restore_to.map(|(path, _)| path),
            tier: draft.checkpoint.tier.map(|(path, _)| path),
            command: draft.checkpoint.command.map(|own| own.command),
            resume: draft.checkpoint.resume.map(|own| own.command),
        },
        restart: draft.restart,
        metrics: draft.metrics,
        trackers: draft.trackers,
        log_policy: draft.log_policy,
        profile: draft.profile,
        launch: draft.launch,
        retry: draft.retry,
        rehearse: draft.rehearse,
    })
}
