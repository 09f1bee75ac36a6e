//! `archive` and `restore`: puts experiments away, so that lists leave them out, and takes them back. Each is a note:
//! nothing is moved or deleted.

use std::collections::BTreeSet;

use clap::Args;
use nemo_core::rundir::{ExperimentDir, Note, notes};
use serde_json::{Value, json};

use super::follow::{Settled, standing};
use super::polling::query_slurm;
use super::status::{look, look_by};
use super::{App, followers, note};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::humanize::{count, listed};
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::{out_json, say};
use crate::status::State;
use crate::store::{ExperimentId, Stored, Target, resolve};
use crate::summary::{self, Index, KnownExperiment};

/// `archive`.
#[derive(Debug, Args)]
#[command(
    after_help = "An archived experiment stays where it is, with all its files. Only `list`, `search` and `@` leave it out.\n\n\
    Examples:\n  nemo-slurm archive digits-3kz81q7m\n  nemo-slurm archive digits prep --dry-run\n  \
    nemo-slurm list -n 0 --state failed --json | jq -r '.experiments[].id' | xargs nemo-slurm archive"
)]
pub struct ArchiveArgs {
    /// What to archive.
    #[command(flatten)]
    pub chosen: ChosenArgs,
}

/// `restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm restore digits-3kz81q7m\n  nemo-slurm list --archived    # shows what can be restored"
)]
pub struct RestoreArgs {
    /// What to restore.
    #[command(flatten)]
    pub chosen: ChosenArgs,
}

/// What both share.
#[derive(Debug, Args)]
pub struct ChosenArgs {
    /// EXPERIMENT, one or several
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// An experiment that is meant.
struct Chosen {
    id: ExperimentId,
    dir: ExperimentDir,
    /// Whether it is as it is wanted already.
    is_done: bool,
}

/// The most experiments that a sentence names.
const MOST_NAMED: usize = 5;

/// Archives experiments: all that are named, or none if one of them is not over.
pub(super) fn archive(app: &App, args: &ArchiveArgs) -> Result<ExitCode, CommandError> {
    let chosen = chosen(app, &args.chosen, true)?;
    require_over(app, &chosen)?;
    set(app, &args.chosen, &chosen, true)
}

/// Takes archived experiments back.
pub(super) fn restore(app: &App, args: &RestoreArgs) -> Result<ExitCode, CommandError> {
    let chosen = chosen(app, &args.chosen, false)?;
    let code = set(app, &args.chosen, &chosen, false)?;
    for own in chosen.iter().filter(|own| !own.is_done) {
        let stored = app.home.load(&own.id)?;
        // What blocked it may have been retried meanwhile.
        if followers::is_waiting(&stored) && !args.chosen.dry_run {
            look(&app.on_cluster_of(&stored), &stored)?;
        }
    }
    Ok(code)
}

/// Fails for what would change an archived experiment.
pub(super) fn refuse_archived(stored: &Stored) -> Result<(), CommandError> {
    if !is_archived(stored)? {
        return Ok(());
    }
    let text = format!("`{}` is archived", stored.id);
    let hint = format!("`nemo-slurm restore {}` takes it back", stored.id);
    Err(CommandError::new(ExitCode::Refused, text).hinted(hint))
}

pub(super) fn is_archived(stored: &Stored) -> Result<bool, CommandError> {
    Ok(notes::is_archived(&stored.dir).at("read", &stored.dir.notes())?)
}

/// The experiments that are named, each once, oldest first.
fn chosen(app: &App, args: &ChosenArgs, archived: bool) -> Result<Vec<Chosen>, CommandError> {
    let mut ids = Vec::new();
    for text in &args.targets {
        let target = resolve(&app.home, text)?;
        require_whole(&target, archived)?;
        ids.push(target.id);
    }
    ids.sort_by(|a, b| a.age().cmp(&b.age()));
    ids.dedup();
    let one = |id: ExperimentId| {
        let dir = app.home.experiment(&id);
        let is_archived = notes::is_archived(&dir).at("read", &dir.notes())?;
        Ok(Chosen { id, dir, is_done: is_archived == archived })
    };
    ids.into_iter().map(one).collect()
}

fn require_whole(target: &Target, archived: bool) -> Result<(), CommandError> {
    if target.scope.task.is_none() {
        return Ok(());
    }
    let again = if archived {
        format!("`nemo-slurm archive {}`", target.id)
    } else {
        format!("`nemo-slurm restore {}`", target.id)
    };
    let text = format!("`{target}` is a part of an experiment");
    let hint = format!("name the experiment alone: {again}");
    Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
}

/// Fails if one of them is not over. Slurm is asked once for all of which that is not known.
fn require_over(app: &App, chosen: &[Chosen]) -> Result<(), CommandError> {
    let ids: Vec<ExperimentId> =
        chosen.iter().filter(|it| !it.is_done).map(|it| it.id.clone()).collect();
    let index = Index::read(&app.home);
    let known = summary::known(&app.home, &ids, &index);
    let open: Vec<(&ExperimentId, &KnownExperiment<'_>)> =
        ids.iter().zip(&known).filter(|(_, known)| !known.is_final()).collect();
    let wanted = open.iter().filter_map(|(id, known)| summary::wanted(&app.home, id, known));
    let answers = query_slurm(app, &wanted.collect::<Vec<_>>(), clock::now(), &Vec::new);
    for (id, _) in open {
        let stored = app.home.load(id)?;
        let app = &app.on_cluster_of(&stored);
        let (status, _) = look_by(app, &stored, SlurmSource::Asked(&answers), Depth::All)?;
        let (state, settled) = standing(&stored, &status, &Target::whole(id.clone()))?;
        if status.experiment.stale {
            let text = format!("Slurm gave no answer: whether `{id}` is over is not known");
            return Err(CommandError::new(ExitCode::NoAnswer, text));
        }
        if !matches!(settled, Settled::Over | Settled::Doubtful) {
            return Err(not_over(id, state));
        }
    }
    Ok(())
}

fn not_over(id: &ExperimentId, state: State) -> CommandError {
    let text = if state.is_final() {
        // A rule of its file retries it, or `poll` brings it back.
        format!("`{id}` is {}, but runs again by itself: nothing is archived", state.as_str())
    } else {
        format!("`{id}` is {}, not over: nothing is archived", state.as_str())
    };
    CommandError::new(ExitCode::Refused, text).hinted(format!(
        "`nemo-slurm wait {id}` returns when it is over; `nemo-slurm cancel {id}` ends it"
    ))
}

fn set(
    app: &App,
    args: &ChosenArgs,
    chosen: &[Chosen],
    archived: bool,
) -> Result<ExitCode, CommandError> {
    let mut warnings = BTreeSet::new();
    for own in chosen.iter().filter(|own| !own.is_done && !args.dry_run) {
        let note = Note {
            time: clock::now(),
            user: note::user(app),
            archived: Some(archived),
            ..Note::default()
        };
        note::write(app, (&own.id, &own.dir), &note)?;
        warnings.extend(renew_summary(app, own)?);
    }
    for path in warnings {
        say(&format!("warning: the note `{path}` is damaged and ignored"));
    }
    if args.json {
        let rows: Vec<Value> = chosen.iter().map(|own| row(args, own, archived)).collect();
        return out_json(&json!({ "schema": 1, "dry_run": args.dry_run, "experiments": rows }));
    }
    for text in summary_lines(args, chosen, archived) {
        say(&text);
    }
    Ok(ExitCode::Fine)
}

fn row(args: &ChosenArgs, own: &Chosen, archived: bool) -> Value {
    let is_written = !own.is_done && !args.dry_run;
    let is_archived = if own.is_done || is_written { archived } else { !archived };
    json!({ "id": own.id, "archived": is_archived, "written": is_written })
}

/// Brings what a list shows up to its notes, where there is a summary. Names the notes that are damaged.
fn renew_summary(app: &App, own: &Chosen) -> Result<Vec<String>, CommandError> {
    let notes = notes::read_all(&own.dir).at("read", &own.dir.notes())?;
    if let Some(mut summary) = summary::read(&own.dir)
        && let Ok(stored) = app.home.load(&own.id)
    {
        summary.set_notes((&own.dir, &stored.experiment), &notes);
        summary::keep(&own.dir, &summary);
    }
    Ok(notes.damaged.iter().map(|path| path.display().to_string()).collect())
}

/// What was done, and of which nothing had to be done.
fn summary_lines(args: &ChosenArgs, chosen: &[Chosen], archived: bool) -> Vec<String> {
    let (done, new): (Vec<&Chosen>, Vec<&Chosen>) = chosen.iter().partition(|own| own.is_done);
    let mut lines = Vec::new();
    if !done.is_empty() {
        let is = if archived { "archived already" } else { "not archived" };
        lines.push(format!("Nothing to change of what is {is}: {}.", names(&done)));
    }
    if !new.is_empty() {
        let what = match (archived, args.dry_run) {
            (true, true) => "Would archive",
            (true, false) => "Archived",
            (false, true) => "Would restore",
            (false, false) => "Restored",
        };
        lines.push(format!("{what} {}: {}.", count(new.len(), "experiment"), names(&new)));
    }
    lines
}

fn names(chosen: &[&Chosen]) -> String {
    let more = chosen.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", listed(chosen.iter().take(MOST_NAMED).map(|own| own.id.as_str())))
}
