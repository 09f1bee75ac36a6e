//! Whether every placeholder of a command means something.

use std::collections::BTreeMap;

use nemo_core::placeholder::{BuiltIn, TaskValue, TemplatePart, scan};
use nemo_core::rundir::CommandSpec;
use nemo_core::shell::{self, QuoteContext, ShellPart};

use super::executors::Executors;
use super::graph::{self, count};
use super::names::is_identifier;
use super::problem_report::{KeyPosition, ProblemReport, nearest};
use super::source::Span;
use super::tasks::{CommandDraft, TaskDraft};
use super::{EnvSpec, On};

/// Checks the commands of all tasks, and that no parameter is named like a task.
pub(super) fn check(drafts: &[TaskDraft], report: &mut ProblemReport) {
    let by_name: BTreeMap<&str, &TaskDraft> =
        drafts.iter().map(|draft| (draft.name.as_str(), draft)).collect();
    let unnameable = unnameable(drafts);
    for draft in drafts {
        let mut names: Vec<(&str, &KeyPosition)> = Vec::new();
        for (name, place) in &draft.search.names {
            let first = name.split('.').next().unwrap_or(name);
            if by_name.contains_key(first) && !names.iter().any(|(other, _)| *other == first) {
                names.push((first, place));
            }
        }
        for (name, place) in names {
            report
                .problem(place, format!("a parameter can't be named like the task `{name}`"))
                .hint(format!("`{{{name}.dir}}` in `run` is the task's folder; use another name"));
        }
        let own = &draft.checkpoint;
        for command in [&draft.run, &own.command, &own.resume].into_iter().flatten() {
            PlaceholderScope { draft, tasks: &by_name, unnameable: &unnameable }
                .check(command, report);
        }
    }
}

/// Checks the placeholders in the variables and in `setup` of executors: each task that an executor runs must know them.
pub(super) fn check_executors(
    drafts: &[TaskDraft],
    chosen: &BTreeMap<String, String>,
    executors: &Executors,
    report: &mut ProblemReport,
) {
    let by_name: BTreeMap<&str, &TaskDraft> =
        drafts.iter().map(|draft| (draft.name.as_str(), draft)).collect();
    let unnameable = unnameable(drafts);
    for (name, executor) in &executors.by_name {
        let of_executor = |draft: &&TaskDraft| chosen.get(&draft.name) == Some(name);
        let scopes: Vec<PlaceholderScope<'_>> = drafts
            .iter()
            .filter(of_executor)
            .map(|draft| PlaceholderScope { draft, tasks: &by_name, unnameable: &unnameable })
            .collect();
        let Some(places) = executors.places.get(name) else { continue };
        let around = executor.surroundings();
        for (variable, text) in &around.env {
            let Some(place) = places.variable(variable) else { continue };
            check_text(text, place, "no variable's value", &scopes, report);
        }
        for (line, place) in around.setup.iter().zip(&places.setup) {
            check_text(line, place, "no part of a line of `setup`", &scopes, report);
        }
        check_setup_quotes(&around.setup, &places.setup, report);
    }
}

/// Whether a variable or a line of `setup` names a placeholder.
pub(super) fn is_named(around: &EnvSpec, wanted: &str) -> bool {
    let texts = around.env.values().chain(&around.setup);
    texts.flat_map(|text| nemo_core::placeholder::names(text)).any(|name| name == wanted)
}

/// Checks the placeholders of one text for all tasks that it is for. Each is reported once.
fn check_text(
    text: &str,
    place: &KeyPosition,
    no_folders: &str,
    scopes: &[PlaceholderScope<'_>],
    report: &mut ProblemReport,
) {
    let mut seen: Vec<&str> = Vec::new();
    for path in nemo_core::placeholder::names(text) {
        if seen.contains(&path) {
            continue;
        }
        seen.push(path);
        for scope in scopes {
            let (message, hint) = match scope.resolve(path) {
                Ok(PlaceholderKind::Value) => continue,
                Ok(PlaceholderKind::Folders) => {
                    let message = format!("`{{{path}}}` is many folders, and {no_folders}");
                    (message, "name it in `run`".to_owned())
                }
                Err(refused) => refused,
            };
            let task = &scope.draft.name;
            let (before, behind) = if scopes.len() > 1 {
                (format!("for the task `{task}`: "), format!("; or give `{task}` another executor"))
            } else {
                (String::new(), String::new())
            };
            report
                .problem(&locate(path, place, report), format!("{before}{message}"))
                .hint(format!("{hint}{behind}"));
            break;
        }
    }
    if let Some(scope) = scopes.first() {
        scope.check_unnameable(text, place, report);
    }
}

/// Whether a shell can be given a value where each placeholder of `setup` stands. Quotes may go over several lines.
fn check_setup_quotes(lines: &[String], places: &[KeyPosition], report: &mut ProblemReport) {
    let text = lines.join("\n");
    for part in shell::parts(&text) {
        let ShellPart::Name { name, place: Err(refusal), .. } = part else { continue };
        let named = lines.iter().position(|line| line.contains(&format!("{{{name}}}")));
        let Some(place) = named.and_then(|line| places.get(line)) else { continue };
        let message = format!("`{{{name}}}` {}", refusal.message());
        report.problem(&locate(name, place, report), message).hint(refusal.hint());
    }
}

/// What a task's command may name.
struct PlaceholderScope<'a> {
    draft: &'a TaskDraft,
    tasks: &'a BTreeMap<&'a str, &'a TaskDraft>,
    unnameable: &'a [&'a str],
}

/// The tasks whose names no placeholder can have.
fn unnameable(drafts: &[TaskDraft]) -> Vec<&str> {
    let names = drafts.iter().map(|draft| draft.name.as_str());
    names.filter(|name| !name.split('.').all(is_identifier)).collect()
}

/// What a placeholder stands for.
#[derive(Clone, Copy)]
enum PlaceholderKind {
    Value,
    Folders,
}

/// Why a placeholder is refused, and what to write instead.
type Refused = (String, String);

impl<'a> PlaceholderScope<'a> {
    fn after(&self, task: &str) -> impl Iterator<Item = (&'a str, On)> + use<'a> {
        let after = self.tasks.get(task).map(|draft| draft.after.as_slice()).unwrap_or_default();
        after.iter().map(|edge| (edge.to.task.as_str(), edge.to.on))
    }

    fn check(&self, run: &CommandDraft, report: &mut ProblemReport) {
        let mut lists: Vec<String> = Vec::new();
        for (text, place) in &run.parts {
            let pieces = scan(text);
            for piece in &pieces {
                let TemplatePart::Name(path) = piece else { continue };
                let refused = match self.resolve(path) {
                    Ok(PlaceholderKind::Value) => Ok(()),
                    Ok(PlaceholderKind::Folders) => {
                        let alone = pieces.len() == 1;
                        lists.push((*path).to_owned());
                        check_list(&run.command, &lists, alone)
                    }
                    Err(refused) => Err(refused),
                };
                if let Err((message, hint)) = refused {
                    report.problem(&locate(path, place, report), message).hint(hint);
                }
            }
            if let CommandSpec::Shell(_) = run.command {
                check_quotes(text, place, report);
                self.check_list_words(text, place, report);
            }
            self.check_unnameable(text, place, report);
        }
    }

    fn resolve(&self, path: &str) -> Result<PlaceholderKind, Refused> {
        let params = || self.draft.search.names.iter().map(|(name, _)| name.as_str());
        if BuiltIn::of(path).is_some() || params().any(|name| name == path) {
            return Ok(PlaceholderKind::Value);
        }
        if let Some(inner) =
            params().find(|name| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        {
            let message = format!("`{{{path}}}` is a table of parameters");
            return Err((message, format!("name one of them, such as `{{{inner}}}`")));
        }
        if self.tasks.contains_key(path) {
            let message = format!("`{{{path}}}` is a task");
            return Err((message, format!("its folder is `{{{path}.dir}}`")));
        }
        let Some((task, wanted)) = TaskValue::of(path, |task| self.tasks.contains_key(task)) else {
            return Err(self.unknown(path));
        };
        match wanted {
            TaskValue::Dir => self.of_one(task, "dir", "folder", &format!("{{{task}.dirs}}")),
            TaskValue::Dirs => self.waits_for(task).map(|_each| PlaceholderKind::Folders),
            TaskValue::Result(key) => {
                let best = format!("{{{task}.best.result.{key}}}");
                self.of_one(task, &format!("result.{key}"), "value", &best)
            }
            TaskValue::BestDir | TaskValue::BestCheckpoint | TaskValue::BestResult(_) => {
                self.of_best(task, path)
            }
        }
    }

    /// What only the best trial of a task has.
    fn of_best(&self, task: &str, path: &str) -> Result<PlaceholderKind, Refused> {
        self.waits_for(task)?;
        let metric = self.tasks.get(task).map(|draft| &draft.search.metric);
        if metric.is_some_and(Option::is_some) {
            return Ok(PlaceholderKind::Value);
        }
        let message = format!("`{{{path}}}` needs a metric that ranks the trials of `{task}`");
        Err((message, format!("add `search.metric = \"…\"` to `task.{task}`")))
    }

    /// In a string, what touches a list of folders would be added to its first or its last folder only.
    fn check_list_words(&self, text: &str, place: &KeyPosition, report: &mut ProblemReport) {
        let parts = shell::parts(text);
        for (at, part) in parts.iter().enumerate() {
            let ShellPart::Name { name, place: Ok(quotes), .. } = *part else { continue };
            let before = at.checked_sub(1).and_then(|before| parts.get(before));
            if !matches!(self.resolve(name), Ok(PlaceholderKind::Folders))
                || is_own_word(quotes, before, parts.get(at + 1))
            {
                continue;
            }
            let message = format!(
                "`{{{name}}}` stands for the folders of all trials: what touches it would be added to the first or the last one only"
            );
            report
                .problem(&locate(name, place, report), message)
                .hint(format!("write `for folder in {{{name}}}; do … \"$folder\" …; done`"));
        }
    }

    /// What each trial has one of: of a task with several trials it must be said which.
    fn of_one(
        &self,
        task: &str,
        what: &str,
        noun: &str,
        instead: &str,
    ) -> Result<PlaceholderKind, Refused> {
        let each = self.waits_for(task)?;
        let trials = self.tasks.get(task).and_then(|draft| draft.search.trials.as_ref());
        let trials = trials.map_or(1, Vec::len);
        if each || trials == 1 {
            return Ok(PlaceholderKind::Value);
        }
        let number = count(trials);
        let message = format!("`{{{task}.{what}}}` is one {noun}, but `{task}` has {number}");
        let each = format!("{{ task = \"{task}\", on = \"each\" }}");
        let whose = if noun == "folder" { "all of them" } else { "that of the best one" };
        Err((message, format!("write `{instead}` for {whose}, or wait with `{each}`")))
    }

    /// Whether the task is waited for trial by trial.
    fn waits_for(&self, task: &str) -> Result<bool, Refused> {
        let own = &self.draft.name;
        if task == own {
            let message = format!("`{task}` can't name its own folder like that");
            return Err((message, "a trial's own folder is `{dir}`".to_owned()));
        }
        graph::waits(own, task, |task| self.after(task)).ok_or_else(|| {
            let message = format!("`{own}` does not wait for `{task}`");
            (message, format!("add `after = [\"{task}\"]` to `task.{own}`"))
        })
    }

    fn unknown(&self, path: &str) -> Refused {
        let of_task = |task: &&str| TaskValue::ALL.map(|value| format!("{task}.{value}"));
        let upstream = graph::upstream(&self.draft.name, |task| self.after(task));
        let folders: Vec<String> = upstream.keys().flat_map(of_task).collect();
        let params = self.draft.search.names.iter().map(|(name, _)| name.as_str());
        let all = params
            .chain(folders.iter().map(String::as_str))
            .chain(BuiltIn::names().map(|name| name as &str));
        let literal = format!("write `{{{{{path}}}}}` for a literal `{{{path}}}`");
        let hint = match nearest(path, all) {
            Some(name) => format!("did you mean `{{{name}}}`? {literal}"),
            None => match self.task_of(path) {
                Some(task) => {
                    let values = TaskValue::ALL.map(|value| format!("`{{{task}.{value}}}`"));
                    format!("of a task there are {}; {literal}", values.join(", "))
                }
                None => format!("add `{path}` to the task's `params`, or {literal}"),
            },
        };
        (format!("unknown placeholder `{{{path}}}`"), hint)
    }

    /// The task that a name begins with.
    fn task_of(&self, path: &str) -> Option<&str> {
        let behind =
            |task: &&&str| path.strip_prefix(**task).is_some_and(|rest| rest.starts_with('.'));
        self.tasks.keys().filter(behind).max_by_key(|task| task.len()).copied()
    }

    /// A task's name may begin with a digit, a placeholder may not: it would silently be literal.
    fn check_unnameable(&self, text: &str, place: &KeyPosition, report: &mut ProblemReport) {
        for task in self.unnameable {
            let begins = TaskValue::ALL.map(|value| {
                let first = value.split('.').next().unwrap_or(value);
                format!("{task}.{first}")
            });
            if let Some(literal) = begins.iter().find(|it| text.contains(&format!("{{{it}"))) {
                let at = locate(literal, place, report);
                report
                    .problem(&at, format!("`{task}` can't be named in a placeholder"))
                    .hint("give it a name that begins with a letter");
            }
        }
    }
}

/// Whether a shell can be given a value where each placeholder stands.
fn check_quotes(text: &str, place: &KeyPosition, report: &mut ProblemReport) {
    for part in shell::parts(text) {
        if let ShellPart::Name { name, place: Err(refusal), .. } = part {
            let message = format!("`{{{name}}}` {}", refusal.message());
            report.problem(&locate(name, place, report), message).hint(refusal.hint());
        }
    }
}

/// Whether nothing touches a list of folders. Between quotes it is one text with spaces, as a message may want it, but a
/// path can't go on behind it.
fn is_own_word(
    quotes: QuoteContext,
    before: Option<&ShellPart<'_>>,
    after: Option<&ShellPart<'_>>,
) -> bool {
    let text = |part: Option<&ShellPart<'_>>, end: fn(&str) -> Option<char>| match part {
        None => Some(' '),
        Some(ShellPart::Text(text)) => end(text),
        Some(ShellPart::Name { .. }) => None,
    };
    let last = text(before, |text| text.chars().next_back());
    let first = text(after, |text| text.chars().next());
    let ends_word = |c: char| c.is_whitespace() || ";|&()`".contains(c);
    match quotes {
        QuoteContext::Word => {
            last.is_some_and(ends_word) && first.is_some_and(|c| ends_word(c) || "<>".contains(c))
        }
        QuoteContext::Double | QuoteContext::Single => {
            let behind = text(after, |text| text.trim_start_matches(['"', '\'']).chars().next());
            behind != Some('/')
        }
        QuoteContext::Heredoc | QuoteContext::Arithmetic => first != Some('/'),
    }
}

/// Checks the last of the lists of folders that a command names so far.
fn check_list(command: &CommandSpec, lists: &[String], alone: bool) -> Result<(), Refused> {
    let ([first, ..], [.., last]) = (lists, lists) else { return Ok(()) };
    match command {
        CommandSpec::Exec(_) if !alone => {
            let message = format!("`{{{last}}}` must be an item of its own");
            Err((message, "it becomes one argument for each trial's folder".to_owned()))
        }
        CommandSpec::Shell(_) if first != last => {
            let message = format!(
                "a string has room for one list of folders, and `{{{first}}}` is there already"
            );
            let hint = "write `run` as a list: `run = [\"python\", \"compare.py\", …]`".to_owned();
            Err((message, hint))
        }
        CommandSpec::Exec(_) | CommandSpec::Shell(_) => Ok(()),
    }
}

/// The place of a placeholder in the text of the file, where escapes do not hide it.
fn locate(path: &str, place: &KeyPosition, report: &ProblemReport) -> KeyPosition {
    let braced = format!("{{{path}");
    let found = report.sources.slice(place.at).find(&braced);
    let at = found.map_or(place.at, |found| {
        let start = place.at.start + found;
        let end = (start + braced.len() + 1).min(place.at.end);
        Span { start, end, ..place.at }
    });
    KeyPosition { at, key: place.key.clone() }
}
