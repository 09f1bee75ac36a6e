//! The `[task.<name>]` sections, one by one: what needs no other task to be checked.

use std::collections::BTreeMap;

use nemo_core::placeholder::{BuiltIn, TemplatePart, scan};
use nemo_core::rundir::{CommandSpec, LogPolicy, Profile, RestartSpec, Tracker};

use super::checkpoint::{self, CheckpointDraft};
use super::problem_report::{KeyPosition, ProblemReport, did_you_mean};
use super::reader::{Field, Section};
use super::search_space::{self, SearchDraft};
use super::toml_tree::{TomlValue, dotted};
use super::{
    Dependency, Launch, On, RehearsalRules, RetryRules, log_policy, names, rehearsal_rules,
    retry_rules, synonyms,
};

/// A task as written.
pub(super) struct TaskDraft {
    pub(super) name: String,
    pub(super) place: KeyPosition,
    pub(super) executor: Option<(String, KeyPosition)>,
    pub(super) run: Option<CommandDraft>,
    pub(super) after: Vec<TaskDependency>,
    pub(super) search: SearchDraft,
    pub(super) profile: Option<Profile>,
    pub(super) checkpoint: CheckpointDraft,
    pub(super) restart: RestartSpec,
    pub(super) metrics: BTreeMap<String, String>,
    pub(super) log_policy: Vec<LogPolicy>,
    pub(super) launch: Option<Launch>,
    pub(super) trackers: Vec<Tracker>,
    pub(super) retry: RetryRules,
    pub(super) rehearse: RehearsalRules,
}

/// A command, and where its texts stand.
pub(super) struct CommandDraft {
    pub(super) command: CommandSpec,
    pub(super) parts: Vec<(String, KeyPosition)>,
}

impl CommandDraft {
    /// Whether a placeholder stands for this.
    pub(super) fn names(&self, wanted: &str) -> bool {
        self.parts
            .iter()
            .flat_map(|(text, _)| scan(text))
            .any(|piece| matches!(piece, TemplatePart::Name(name) if name == wanted))
    }
}

/// A dependency, and where it stands.
pub(super) struct TaskDependency {
    pub(super) to: Dependency,
    pub(super) place: KeyPosition,
}

const PROFILES: [(&str, Profile); 5] = [
    ("lightning", Profile::Lightning),
    ("transformers", Profile::Transformers),
    ("torchrun", Profile::Torchrun),
    ("submitit", Profile::Submitit),
    ("condor", Profile::Condor),
];
const TRACKERS: [(&str, Tracker); 4] = [
    ("wandb", Tracker::Wandb),
    ("mlflow", Tracker::Mlflow),
    ("tensorboard", Tracker::Tensorboard),
    ("aim", Tracker::Aim),
];
const LAUNCH: [(&str, Launch); 1] = [("torchrun", Launch::Torchrun { workers_per_node: None })];

const ON: [(&str, On); 4] =
    [("ok", On::Ok), ("failed", On::Failed), ("any", On::Any), ("each", On::Each)];

/// Reads every task, as written.
pub(super) fn read(fields: &[Field<'_>], report: &mut ProblemReport) -> Vec<TaskDraft> {
    fields.iter().filter_map(|field| draft(field, report)).collect()
}

fn draft(field: &Field<'_>, report: &mut ProblemReport) -> Option<TaskDraft> {
    check_name(field, report);
    let mut section = field.section(report)?;
    let executor = section.take("executor").and_then(|field| {
        let name = field.text(report)?;
        Some((name, field.place))
    });
    let checkpoint = checkpoint::read(&mut section, report);
    let draft = TaskDraft {
        name: field.name.to_owned(),
        place: field.key_place.clone(),
        executor,
        run: run(&mut section, report),
        after: section.take("after").map(|field| after(&field, report)).unwrap_or_default(),
        search: search_space::read(&mut section, report),
        profile: profile(&mut section, report),
        checkpoint,
        restart: restart(&mut section, report),
        metrics: metrics(&mut section, report),
        log_policy: log_policy::read(&mut section, report),
        launch: launch(&mut section, report),
        trackers: trackers(&mut section, report),
        retry: retry_rules::read(&mut section, report),
        rehearse: rehearsal_rules::read(&mut section, report),
    };
    section.finish(report);
    Some(draft)
}

/// Keys of tasks that nothing else has.
const OWN_KEYS: [&str; 12] = [
    "run",
    "params",
    "search",
    "profile",
    "checkpoint",
    "restart",
    "metrics",
    "launch",
    "workers_per_node",
    "tracker",
    "retry",
    "rehearse",
];

/// A hint for a key at the top that is one of a task's, one of its parameters or the task's own name.
pub(super) fn belongs_to(field: &Field<'_>, drafts: &[TaskDraft]) -> Option<String> {
    let path = path_of(field);
    let whole = |draft: &TaskDraft| {
        let name = &draft.name;
        if *name == field.name {
            Some(format!("task.{path}"))
        } else if OWN_KEYS.contains(&field.name) {
            Some(format!("task.{name}.{path}"))
        } else {
            let is_parameter = draft.search.names.iter().any(|(name, _)| *name == path);
            is_parameter.then(|| format!("task.{name}.params.{path}"))
        }
    };
    let meant: Vec<String> = drafts.iter().filter_map(whole).collect();
    let example = meant.first().map(|first| format!("it belongs to a task, as in `{first}`"));
    did_you_mean(&meant).or(example)
}

/// The key with those below it, down to where they part.
fn path_of(field: &Field<'_>) -> String {
    let mut path = field.name.to_owned();
    let mut value = field.value;
    while let TomlValue::Table(table) = value
        && let [only] = table.entries.as_slice()
    {
        path = dotted(&path, &only.name);
        value = &only.node.value;
    }
    path
}

/// `launch`, and what only some of its values have.
pub(super) fn launch(section: &mut Section<'_>, report: &mut ProblemReport) -> Option<Launch> {
    let launch = section
        .take("launch")
        .and_then(|field| field.word_or(&LAUNCH, synonyms::LAUNCHERS, report));
    let workers = section.take("workers_per_node");
    if let Some(workers) = workers.as_ref().filter(|_| launch.is_none()) {
        report
            .problem(&workers.key_place, "`workers_per_node` needs `launch`")
            .hint("add `launch = \"torchrun\"`");
    }
    let workers_per_node = workers.and_then(|field| field.positive(report));
    match launch? {
        Launch::Torchrun { .. } => Some(Launch::Torchrun { workers_per_node }),
    }
}

fn check_name(field: &Field<'_>, report: &mut ProblemReport) {
    let valid = field.parsed_name(names::check(field.name), report);
    if valid.is_some() && BuiltIn::of(field.name).is_some() {
        let name = field.name;
        report
            .problem(&field.key_place, format!("a task can't be named `{name}`"))
            .hint(format!("`{{{name}}}` in `run` is reserved; use another name"));
    }
}

fn run(section: &mut Section<'_>, report: &mut ProblemReport) -> Option<CommandDraft> {
    let Some(field) = section.take("run") else {
        report
            .problem(&section.place, "the task has no `run`")
            .hint("add its command, such as `run = \"python train.py --lr {lr}\"`");
        return None;
    };
    command(&field, report)
}

/// A text for `sh`, or a list that is run as it is.
pub(super) fn command(field: &Field<'_>, report: &mut ProblemReport) -> Option<CommandDraft> {
    let parts: Vec<(String, KeyPosition)> = match field.value {
        TomlValue::List(_) | TomlValue::Text(_) => field
            .one_or_more()
            .into_iter()
            .filter_map(|item| Some((item.text(report)?, item.place)))
            .collect(),
        _ => {
            field.wrong("a string or a list of strings", report);
            return None;
        }
    };
    // Of a list, only the program itself must not be empty.
    let program = parts.first().map(|(text, _)| text.as_str());
    if program.is_none_or(|text| text.trim().is_empty()) && !has_mistaken_items(field, &parts) {
        report
            .problem(&field.place, "the command is empty")
            .hint(format!("write for example `{} = \"python train.py\"`", field.name));
        return None;
    }
    let command = match field.value {
        TomlValue::Text(text) => CommandSpec::Shell(text.clone()),
        _ => CommandSpec::Exec(parts.iter().map(|(text, _)| text.clone()).collect()),
    };
    Some(CommandDraft { command, parts })
}

/// Whether some items of the list were reported already.
fn has_mistaken_items(field: &Field<'_>, parts: &[(String, KeyPosition)]) -> bool {
    field.one_or_more().len() != parts.len()
}

fn after(field: &Field<'_>, report: &mut ProblemReport) -> Vec<TaskDependency> {
    let mut edges: Vec<TaskDependency> = Vec::new();
    for item in field.one_or_more() {
        let Some(edge) = edge(&item, report) else { continue };
        if edges.iter().any(|other| other.to.task == edge.to.task) {
            let message = format!("`after` names `{}` twice", edge.to.task);
            report.problem(&edge.place, message).hint("name each task once");
        } else {
            edges.push(edge);
        }
    }
    edges
}

fn edge(item: &Field<'_>, report: &mut ProblemReport) -> Option<TaskDependency> {
    let expected = "the name of a task, or `{ task = \"…\", on = \"ok\" }`";
    match item.value {
        TomlValue::Text(name) => {
            let to = Dependency { task: name.clone(), on: On::Ok };
            Some(TaskDependency { to, place: item.place.clone() })
        }
        TomlValue::Table(_) => {
            let mut section = item.section(report)?;
            let task = section.take("task");
            let on = section.take("on").map(|on| on.word_or(&ON, synonyms::ENDS, report));
            section.finish(report);
            let Some(task) = task else {
                report.problem(&item.place, format!("expected {expected}, found no `task` in it"));
                return None;
            };
            let name = task.text(report)?;
            let on = on.unwrap_or(Some(On::Ok))?;
            Some(TaskDependency { to: Dependency { task: name, on }, place: task.place })
        }
        _ => {
            item.wrong(expected, report);
            None
        }
    }
}

/// Which convention the program follows.
pub(super) fn profile(section: &mut Section<'_>, report: &mut ProblemReport) -> Option<Profile> {
    section.take("profile").and_then(|field| field.word_or(&PROFILES, synonyms::PROFILES, report))
}

/// The trackers to which the program reports: one, or a list.
fn trackers(section: &mut Section<'_>, report: &mut ProblemReport) -> Vec<Tracker> {
    let mut trackers = Vec::new();
    for field in section.take("tracker").map(|field| field.one_or_more()).unwrap_or_default() {
        let Some(tracker) = field.word(&TRACKERS, report) else { continue };
        if trackers.contains(&tracker) {
            report.problem(&field.place, "`tracker` names it twice").hint("name each once");
        } else {
            trackers.push(tracker);
        }
    }
    trackers
}

fn restart(section: &mut Section<'_>, report: &mut ProblemReport) -> RestartSpec {
    let mut restart = RestartSpec { crashes: 0, no_progress: 3, hang: None };
    if let Some(mut section) = section.take_section("restart", report) {
        restart.hang = section.take("hang").and_then(|field| field.duration(report));
        let mut number = |name, default| {
            let number = section
                .take(name)
                .and_then(|field| field.integer::<u32>("a whole number from 0 on", report));
            number.unwrap_or(default)
        };
        restart.crashes = number("crashes", restart.crashes);
        restart.no_progress = number("no_progress", restart.no_progress);
        section.finish(report);
    }
    restart
}

fn metrics(section: &mut Section<'_>, report: &mut ProblemReport) -> BTreeMap<String, String> {
    let mut metrics = BTreeMap::new();
    for field in section.take_fields("metrics", report) {
        if field.name.is_empty() || field.name.contains(char::is_control) {
            let message = format!("{:?} can't be the name of a metric", field.name);
            report.problem(&field.key_place, message);
            continue;
        }
        let Some(pattern) = field.text_as("a string with a regular expression", report) else {
            continue;
        };
        match regex_lite::Regex::new(&pattern) {
            Ok(regex) if regex.captures_len() > 1 => {
                metrics.insert(field.name.to_owned(), pattern);
            }
            Ok(_) => {
                report
                    .problem(&field.place, "the pattern has no group that takes the number")
                    .hint(format!(
                        "put the number into parentheses: `{} = '{}: (\\S+)'`",
                        field.name, field.name
                    ));
            }
            Err(error) => {
                report.problem(
                    &field.place,
                    format!("the pattern is not a regular expression: {error}"),
                );
            }
        }
    }
    metrics
}
