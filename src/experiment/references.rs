//! Whether every placeholder of a command means something.

use std::collections::BTreeMap;

use nemo_core::placeholder::{BuiltIn, TemplatePart, scan};
use nemo_core::rundir::CommandSpec;
use nemo_core::shell;

use super::graph::{count, upstream};
use super::names::is_identifier;
use super::problem_report::{KeyPosition, ProblemReport, nearest};
use super::source::Span;
use super::tasks::{CommandDraft, TaskDraft};

/// Checks the commands of all tasks, and that no parameter is named like a task.
pub(super) fn check(drafts: &[TaskDraft], report: &mut ProblemReport) {
    let by_name: BTreeMap<&str, &TaskDraft> =
        drafts.iter().map(|draft| (draft.name.as_str(), draft)).collect();
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
        if let Some(run) = &draft.run {
            PlaceholderScope::new(draft, &by_name).check(run, report);
        }
    }
}

/// What a task's command may name.
struct PlaceholderScope<'a> {
    draft: &'a TaskDraft,
    tasks: &'a BTreeMap<&'a str, &'a TaskDraft>,
    upstream: BTreeMap<&'a str, bool>,
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
    fn new(draft: &'a TaskDraft, tasks: &'a BTreeMap<&'a str, &'a TaskDraft>) -> Self {
        let upstream = upstream(&draft.name, |task| {
            let after = tasks.get(task).map(|draft| draft.after.as_slice()).unwrap_or_default();
            after.iter().map(|edge| (edge.to.task.as_str(), edge.to.on))
        });
        Self { draft, tasks, upstream }
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
        match path.rsplit_once('.') {
            Some((task, "dir")) if self.tasks.contains_key(task) => self.folder(task),
            Some((task, "dirs")) if self.tasks.contains_key(task) => {
                self.waits_for(task).map(|_each| PlaceholderKind::Folders)
            }
            Some(_) | None => Err(self.unknown(path)),
        }
    }

    fn folder(&self, task: &str) -> Result<PlaceholderKind, Refused> {
        let each = self.waits_for(task)?;
        let trials = self.tasks.get(task).and_then(|draft| draft.search.trials.as_ref());
        let trials = trials.map_or(1, Vec::len);
        if each || trials == 1 {
            return Ok(PlaceholderKind::Value);
        }
        let number = count(trials);
        let message = format!("`{{{task}.dir}}` is one folder, but `{task}` has {number}");
        let each = format!("{{ task = \"{task}\", on = \"each\" }}");
        Err((message, format!("write `{{{task}.dirs}}` for all of them, or wait with `{each}`")))
    }

    /// Whether the task is waited for trial by trial.
    fn waits_for(&self, task: &str) -> Result<bool, Refused> {
        let own = &self.draft.name;
        if task == own {
            let message = format!("`{task}` can't name its own folder like that");
            return Err((message, "a trial's own folder is `{dir}`".to_owned()));
        }
        self.upstream.get(task).copied().ok_or_else(|| {
            let message = format!("`{own}` does not wait for `{task}`");
            (message, format!("add `after = [\"{task}\"]` to `task.{own}`"))
        })
    }

    fn unknown(&self, path: &str) -> Refused {
        let folders: Vec<String> = self
            .upstream
            .keys()
            .flat_map(|task| [format!("{task}.dir"), format!("{task}.dirs")])
            .collect();
        let params = self.draft.search.names.iter().map(|(name, _)| name.as_str());
        let all = params
            .chain(folders.iter().map(String::as_str))
            .chain(BuiltIn::names().map(|name| name as &str));
        let literal = format!("write `{{{{{path}}}}}` for a literal `{{{path}}}`");
        let hint = match nearest(path, all) {
            Some(name) => format!("did you mean `{{{name}}}`? {literal}"),
            None => format!("add `{path}` to the task's `params`, or {literal}"),
        };
        (format!("unknown placeholder `{{{path}}}`"), hint)
    }

    /// A task's name may begin with a digit, a placeholder may not: it would silently be literal.
    fn check_unnameable(&self, text: &str, place: &KeyPosition, report: &mut ProblemReport) {
        for task in self.tasks.keys().filter(|task| !task.split('.').all(is_identifier)) {
            let literal = format!("{task}.dir");
            if text.contains(&format!("{{{literal}")) {
                let at = locate(&literal, place, report);
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
        if let shell::ShellPart::Name { name, place: Err(refusal), .. } = part {
            let message = format!("`{{{name}}}` {}", refusal.message());
            report.problem(&locate(name, place, report), message).hint(refusal.hint());
        }
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
