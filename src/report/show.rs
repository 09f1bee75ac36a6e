//! What an experiment is, for people.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nemo_core::package::ShippedPackage;
use nemo_core::rundir::Note;
use serde::Serialize;
use serde_json::Value;

use super::Page;
use super::escape::escape_line;
use super::fit::{elide, hang, length, wrap};
use super::grid::{ColumnFit, Grid, TextCell};
use super::notes::{change_text, value};
use crate::annotations::{Annotations, NoteChange};
use crate::experiment::{ChangedKeys, ResolvedConfig};
use crate::humanize::{age, bytes, count};
use crate::journal::SettingChange;
use crate::package::UncommittedChanges;
use crate::slurm::IndexSet;
use crate::store::ConfigFile;
use crate::summary::ExperimentRow;

/// What is shown of an experiment.
#[derive(Debug)]
pub struct Shown<'a> {
    /// What the last look found.
    pub row: &'a ExperimentRow,
    /// The configuration, and the state of the code.
    pub config: &'a ConfigFile,
    /// The configuration of the trials that were named, or of the experiment.
    pub resolved: &'a ResolvedConfig,
    /// The code that was shipped with it.
    pub package: Option<&'a ShippedPackage>,
    /// What became of changes that were not committed.
    pub changes: Option<UncommittedChanges>,
    /// Tags, description and metadata after all notes.
    pub annotations: &'a Annotations,
    /// The notes, oldest first, and what each changed.
    pub notes: &'a [(Note, NoteChange)],
    /// The submissions of trials.
    pub generations: &'a [ShownGeneration],
    /// The trials that were named: `task`, `trial`, `params`, `generation`, `set`, `config`, `dir`.
    pub trials: &'a [Value],
    /// The experiment's folder.
    pub dir: &'a Path,
}

/// One submission of trials.
#[derive(Debug, Serialize)]
pub struct ShownGeneration {
    /// From 0.
    pub number: usize,
    /// When, in unix seconds.
    pub created: Option<f64>,
    /// What for: `submit`, `retry`, `window` (there was no room before), `later` (it waited for what is not on Slurm) or
    /// `resubmit` (Slurm had forgotten the jobs).
    pub why: &'static str,
    /// How many trials it has.
    pub trials: usize,
    /// Slurm's ids of its job arrays.
    pub jobs: Vec<String>,
    /// Who retried the trials; null where a rule of the file did.
    pub user: Option<String>,
    /// The rules of the file by which trials were retried.
    pub rules: Vec<String>,
    /// What of them runs in another way than before.
    pub changes: Vec<ShownChange>,
    /// Whether Slurm refused it: then the trials stand as before.
    pub refused: bool,
}

/// What a retry changed of some trials.
#[derive(Debug, Serialize)]
pub struct ShownChange {
    task: String,
    trials: IndexSet,
    /// The keys that got another value.
    changed: ChangedKeys,
    /// All keys that are not as they were submitted.
    set: ChangedKeys,
    from_step: Option<u64>,
    from_start: bool,
    /// The rule of the file.
    rule: Option<String>,
    /// The class of the failure on which `--advise` gave advice.
    advice: Option<String>,
}

impl From<SettingChange<'_>> for ShownChange {
    fn from(change: SettingChange<'_>) -> Self {
        let from_step = change.restart_from.and_then(|from| from.step);
        Self {
            task: change.task.to_owned(),
            trials: change.trials,
            changed: change.changed,
            set: change.set,
            from_step,
            from_start: change.restart_from.is_some() && from_step.is_none(),
            rule: change.rule.map(str::to_owned),
            advice: change.advice.map(str::to_owned),
        }
    }
}

impl ShownGeneration {
    /// A submission whose jobs are not known yet.
    #[must_use]
    pub fn new(number: usize, created: Option<f64>, trials: usize) -> Self {
        Self {
            number,
            created,
            why: "submit",
            trials,
            jobs: Vec::new(),
            user: None,
            rules: Vec::new(),
            changes: Vec::new(),
            refused: false,
        }
    }
}

/// A value of the configuration is shown up to this length: a list of trials may be long.
const LONGEST_VALUE: usize = 160;

/// All of it.
#[must_use]
pub fn show_text(shown: &Shown<'_>, page: &Page) -> String {
    let mut parts = vec![head(shown, page)];
    parts.extend(trials(shown, page));
    parts.extend(configuration(shown, page));
    parts.push(generations(shown, page));
    parts.extend(changes(shown, page));
    parts.extend(notes(shown, page));
    parts.join("\n\n")
}

fn head(shown: &Shown<'_>, page: &Page) -> String {
    let Shown { row, config, package, annotations, dir, .. } = shown;
    let metadata: Vec<String> =
        annotations.metadata.iter().map(|(key, own)| format!("{key}={}", value(own))).collect();
    let lines = [
        ("description", annotations.description.clone().unwrap_or_default()),
        ("tags", annotations.tags.join(" ")),
        ("metadata", metadata.join(" ")),
        ("git", git(config, shown.changes)),
        ("code", code(*package)),
        ("folder", dir.to_string_lossy().into_owned()),
        ("file", dir.join("experiment.toml").to_string_lossy().into_owned()),
    ];
    let archived = if annotations.archived { ", archived" } else { "" };
    let submitted = age(row.created, page.now);
    let first = format!("{} is {} (submitted {submitted}){archived}", row.id, row.state.as_str());
    let others = lines
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(title, text)| titled(title, &escape_line(text), page));
    std::iter::once(first).chain(others).collect::<Vec<_>>().join("\n")
}

/// A text behind its title, under which its further lines stand.
fn titled(title: &str, text: &str, page: &Page) -> String {
    let width = page.width.map_or(usize::MAX, |width| width.saturating_sub(TITLE));
    let indent = format!("\n{:TITLE$}", "");
    format!("{title:<TITLE$}{}", wrap(text, width, 0).join(&indent))
}

/// The width of the titles.
const TITLE: usize = 13;

fn code(package: Option<&ShippedPackage>) -> String {
    package.map_or_else(String::new, |package| {
        let (files, size) = (count(package.files, "file"), bytes(package.bytes));
        format!("{files} ({size}) of {} in {}", package.root.display(), package.dir.0.display())
    })
}

fn git(config: &ConfigFile, changes: Option<UncommittedChanges>) -> String {
    let Some(git) = &config.git else { return String::new() };
    let commit = git.commit.as_deref().unwrap_or("no commit yet");
    let branch = git.branch.as_ref().map_or_else(String::new, |branch| format!(" on {branch}"));
    let dirty = changes.map_or_else(String::new, |changes| format!(", {}", changes.in_words()));
    format!("{commit}{branch}{dirty} ({})", git.repo)
}

fn trials(shown: &Shown<'_>, page: &Page) -> Option<String> {
    let mut grid = Grid::new(&[
        ("trial", ColumnFit::Whole),
        ("parameters", ColumnFit::Words),
        ("changed", ColumnFit::Words),
        ("folder", ColumnFit::Spare(0)),
    ]);
    for trial in shown.trials {
        let text = |key: &str| trial.get(key).map(value).unwrap_or_default();
        let params = trial.get("params").and_then(Value::as_object).into_iter().flatten();
        let params = params.map(|(name, own)| format!("{name}={}", value(own))).collect::<Vec<_>>();
        let name = format!("{}/{}", text("task"), text("trial"));
        grid.row([
            TextCell::from(name),
            TextCell::from(params.join(" ")),
            TextCell::from(keys(trial.get("set"))),
            TextCell::from(text("dir")),
        ]);
    }
    (!shown.trials.is_empty()).then(|| grid.without_empty().lines(page).join("\n"))
}

/// `executor.mem=64G restart.crashes=3`.
fn keys(set: Option<&Value>) -> String {
    let keys = set.and_then(Value::as_object).into_iter().flatten();
    keys.map(|(key, own)| format!("{key}={}", value(own))).collect::<Vec<_>>().join(" ")
}

/// Where long keys leave too little room for values, keys stand below the names of their tables.
fn configuration(shown: &Shown<'_>, page: &Page) -> Option<String> {
    let resolved = shown.resolved;
    let mut grid = Grid::new(&[
        ("key", ColumnFit::Whole),
        ("value", ColumnFit::Text),
        ("from", ColumnFit::Text),
    ]);
    let entries = resolved.entries();
    let longest = entries.iter().map(|(key, _)| length(key)).max().unwrap_or(0);
    let is_grouped = page.width.is_some_and(|width| longest + LEAST_BESIDE > width);
    let mut tables = Vec::new();
    for (key, own) in &entries {
        let origin = resolved.origin.get(key).map(String::as_str).unwrap_or_default();
        // An argument of the command line has the value once more.
        let origin = elide(origin, LONGEST_VALUE);
        let own = elide(&readable(own), LONGEST_VALUE);
        let (table, key) = if is_grouped { table_of(key) } else { (None, key.as_str()) };
        let indent = if table.is_some() { "  " } else { "" };
        tables.push(table);
        grid.row([
            TextCell::from(format!("{indent}{key}")),
            TextCell::from(own),
            TextCell::from(origin),
        ]);
    }
    let mut rows = grid.rows(page).into_iter();
    let mut lines = rows.next()?;
    let mut last = None;
    for (table, row) in tables.into_iter().zip(rows) {
        lines.extend(table.filter(|_| table != last).map(|table| escape_line(table).into_owned()));
        lines.extend(row);
        last = table;
    }
    (!entries.is_empty()).then(|| lines.join("\n"))
}

/// The least columns that values and sources need beside the keys.
const LEAST_BESIDE: usize = 46;

/// The table that a key is shown below, `task.NAME` or `metadata`, and the rest of the key.
fn table_of(key: &str) -> (Option<&str>, &str) {
    let n_parts = if key.starts_with("task.") || key.starts_with("executor.") { 2 } else { 1 };
    match key.match_indices('.').nth(n_parts - 1) {
        Some((dot, _)) => (Some(&key[..dot]), &key[dot + 1..]),
        None => (None, key),
    }
}

/// A value that can be broken between the items of a list.
fn readable(own: &Value) -> String {
    match own {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        own => value(own),
    }
}

fn generations(shown: &Shown<'_>, page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("generation", ColumnFit::Whole),
        ("submitted", ColumnFit::Whole),
        ("why", ColumnFit::Whole),
        ("by", ColumnFit::Words),
        ("trials", ColumnFit::Whole),
        ("jobs", ColumnFit::Words),
    ]);
    for generation in shown.generations {
        grid.row([
            TextCell::from(generation.number),
            TextCell::from(generation.created.map(time).unwrap_or_default()),
            TextCell::from(why(generation)),
            TextCell::from(by(generation)),
            TextCell::from(generation.trials),
            TextCell::from(generation.jobs.join(" ")),
        ]);
    }
    grid.without_empty().lines(page).join("\n")
}

fn why(generation: &ShownGeneration) -> String {
    let why = generation.why;
    if generation.refused { format!("{why} (refused)") } else { why.to_owned() }
}

/// Who began a generation: a user, or rules of the file.
fn by(generation: &ShownGeneration) -> String {
    let rules =
        (!generation.rules.is_empty()).then(|| format!("rule {}", generation.rules.join(", ")));
    generation.user.clone().or(rules).unwrap_or_default()
}

/// What each retry changed: `1  train/3,17  from the start, executor.mem=64G  ada, advice on out_of_memory`.
fn changes(shown: &Shown<'_>, page: &Page) -> Option<String> {
    let mut grid = Grid::new(&[
        ("generation", ColumnFit::Whole),
        ("changed trials", ColumnFit::Words),
        ("now with", ColumnFit::Words),
        ("by", ColumnFit::Words),
    ]);
    let of = |generation: &'_ ShownGeneration| generation.changes.len();
    let is_empty = shown.generations.iter().map(of).sum::<usize>() == 0;
    for generation in shown.generations {
        for change in &generation.changes {
            let start = match change.from_step {
                Some(step) => Some(format!("from step {step}")),
                None => change.from_start.then(|| "from the start".to_owned()),
            };
            let set = change.changed.iter().map(|(key, value)| format!("{key}={value}"));
            let what: Vec<String> = start.into_iter().chain(set).collect();
            let rule = change.rule.as_ref().map(|rule| format!("rule {rule}"));
            let advice = change.advice.as_ref().map(|class| format!("advice on {class}"));
            let by: Vec<String> =
                generation.user.clone().into_iter().chain(rule).chain(advice).collect();
            grid.row([
                TextCell::from(generation.number),
                TextCell::from(format!("{}/{}", change.task, change.trials)),
                TextCell::from(what.join(", ")),
                TextCell::from(by.join(", ")),
            ]);
        }
    }
    (!is_empty).then(|| grid.without_empty().lines(page).join("\n"))
}

fn notes(shown: &Shown<'_>, page: &Page) -> Option<String> {
    let one = |(note, change): &(Note, NoteChange)| {
        let scope = note.scope().to_string();
        let about =
            scope.strip_prefix('/').map_or_else(String::new, |scope| format!(" on {scope}"));
        let text = note.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        let first = format!("{} {}{about}{text}", time(note.time), note.user);
        let first = hang(&escape_line(&first), page.width, 2);
        let changes = change_text(change);
        let changes = changes.lines().map(|line| hang(&format!("  {line}"), page.width, 4));
        std::iter::once(first).chain(changes).collect::<Vec<_>>().join("\n")
    };
    let notes = shown.notes.iter().map(one).collect::<Vec<_>>();
    (!notes.is_empty()).then(|| format!("NOTES\n{}", notes.join("\n")))
}

/// A time in UTC. A file may hold any number.
fn time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.round()).ok();
    let time = whole
        .filter(|whole| whole.as_secs() < YEAR_9999)
        .and_then(|whole| UNIX_EPOCH.checked_add(whole));
    time.map_or_else(|| "?".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Later times are none.
const YEAR_9999: u64 = 253_370_764_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_below_their_table() {
        assert_eq!(table_of("task.train.params.lr"), (Some("task.train"), "params.lr"));
        assert_eq!(table_of("metadata.model"), (Some("metadata"), "model"));
        assert_eq!(table_of("task.train"), (None, "task.train"));
        assert_eq!(table_of("seed"), (None, "seed"));
    }

    #[test]
    fn a_text_stands_behind_its_title() {
        let page = Page { now: 0.0, width: Some(26), colour: false };
        let shown = titled("description", "a sweep over rates", &page);
        assert_eq!(shown, "description  a sweep over\n             rates");
        assert_eq!(titled("file", "/a/b", &Page { width: None, ..page }), "file         /a/b");
    }
}
