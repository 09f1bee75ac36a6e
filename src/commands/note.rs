//! `note`: adds a text to an experiment, or changes what it is found by. Each change is a file of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use clap::Args;
use nemo_core::rundir::{ExperimentDir, Note, notes};
use serde_json::{Value, json};
use tracing::debug;

use super::App;
use super::filter_args::word;
use crate::annotations::{Annotations, NoteChange};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Override, check_tag};
use crate::process::ProcessId;
use crate::report::{change_text, out, out_json, say};
use crate::store::{ExperimentId, Target};
use crate::summary;
use crate::user;

/// `note`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm note @ 'diverges after step 4000, see the loss of trial 3'\n  \
    nemo-slurm note digits --tag paper --untag draft --set reviewed=true\n  \
    nemo-slurm note digits --describe 'baseline with the old data' --set data.version=2"
)]
pub struct NoteArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    pub target: String,
    /// A text for people
    pub text: Option<String>,
    /// Add a tag; may be given several times
    #[arg(long, value_name = "NAME", value_parser = tag)]
    pub tag: Vec<String>,
    /// Remove a tag; may be given several times
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub untag: Vec<String>,
    /// Replace the description; an empty text removes it
    #[arg(long, value_name = "TEXT")]
    pub describe: Option<String>,
    /// Set a key of metadata, as in `--set reviewed=true`; `KEY=` removes it; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<Override>,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn tag(text: &str) -> Result<String, String> {
    check_tag(text).map_err(|why| format!("{why}; write for example --tag paper"))?;
    Ok(text.to_owned())
}

fn setting(text: &str) -> Result<Override, String> {
    text.parse::<Override>()
        .map_err(|why| format!("{why} (here a key of metadata, for example --set reviewed=true)"))
}

/// Seconds in which the same text of the same user is one that a killed command wrote already.
const REPEATED: f64 = 600.0;

/// Notes something.
pub(super) fn note(app: &App, args: &NoteArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let wanted = wanted(app, args, &target)?;
    let known = notes::read_all(&stored.dir).at("read", &stored.dir.notes())?;
    for path in &known.damaged {
        say(&format!("warning: the note `{}` is damaged and ignored", path.display()));
    }
    let all: Vec<&Note> = known.whole.iter().map(|(_, note)| note).collect();
    let mut annotations = Annotations::of_file(&stored.experiment).after(all.iter().copied());
    for tag in wanted.untagged.iter().filter(|tag| !annotations.tags.contains(tag)) {
        say(&format!("warning: `{}` has no tag `{tag}`", stored.id));
    }
    let change = annotations.apply(&wanted);
    let is_repeated = all.last().is_some_and(|last| is_repeated(last, &wanted));
    let is_new = !change.is_empty() || (wanted.text.is_some() && !is_repeated);
    if is_new && !args.dry_run {
        write(app, (&stored.id, &stored.dir), &wanted)?;
    }
    if args.json {
        return out_json(&json!({
            "schema": 1,
            "id": stored.id,
            "dry_run": args.dry_run,
            "written": is_new && !args.dry_run,
            "note": note_json(&wanted, &change),
            "tags": annotations.tags,
            "description": annotations.description,
            "metadata": annotations.metadata,
        }));
    }
    if !is_new {
        say(&format!("Nothing to change: `{target}` has all of this already."));
        return Ok(ExitCode::Fine);
    }
    let lines = change_text(&change);
    if !lines.is_empty() {
        out(&lines)?;
    }
    say(&format!(
        "{} `{target}`.",
        if args.dry_run { "Would add this to" } else { "Added this to" }
    ));
    Ok(ExitCode::Fine)
}

/// A note as `show --json` and `note --json` print it.
pub(super) fn note_json(note: &Note, change: &NoteChange) -> Value {
    let scope = note.scope().to_string();
    json!({
        "time": note.time,
        "user": note.user,
        "target": scope.strip_prefix('/'),
        "text": note.text,
        "change": (!change.is_empty()).then_some(change),
    })
}

fn wanted(app: &App, args: &NoteArgs, target: &Target) -> Result<Note, CommandError> {
    let text =
        args.text.as_ref().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let has_changes = !(args.tag.is_empty()
        && args.untag.is_empty()
        && args.describe.is_none()
        && args.set.is_empty());
    if text.is_none() && !has_changes {
        return Err(CommandError::new(ExitCode::Usage, "there is nothing to note").hinted(
            "write a text or a change: `nemo-slurm note @ 'a text'`, or `nemo-slurm note @ --tag paper`",
        ));
    }
    if has_changes && target.scope.task.is_some() {
        let text = "tags, the description and metadata are those of a whole experiment";
        let hint =
            format!("name the experiment alone: `nemo-slurm note {} --tag paper`", target.id);
        return Err(CommandError::new(ExitCode::Usage, text).hinted(hint));
    }
    Ok(Note {
        time: clock::now(),
        user: user(app),
        task: target.scope.task.clone(),
        trials: target.scope.trials.clone(),
        text,
        tags: args.tag.clone(),
        untagged: args.untag.clone(),
        description: args.describe.as_ref().map(|text| text.trim().to_owned()),
        metadata: args.set.iter().map(|setting| (setting.key(), setting.json())).collect(),
        archived: None,
    })
}

/// Whether a command that was killed after it wrote `last` is run again.
fn is_repeated(last: &Note, wanted: &Note) -> bool {
    let is_recent = (0.0..REPEATED).contains(&(wanted.time - last.time));
    let is_same = last.user == wanted.user && last.text == wanted.text;
    is_recent && is_same && last.scope() == wanted.scope()
}

/// Who changes something.
pub(super) fn user(app: &App) -> String {
    user_name(app).unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

/// The user's name: as Slurm tells a job, the shell its programs, or this machine.
pub(super) fn user_name(app: &App) -> Option<String> {
    let told = ["SLURM_JOB_USER", "LOGNAME", "USER"].iter().find_map(|name| app.variable(name));
    told.map(|name| name.to_string_lossy().into_owned()).or_else(user::name_here)
}

/// Counts the notes of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// When and where something was said: how the names of notes and of their marks in the index begin.
pub(super) fn stamp(time: f64) -> String {
    let this = ProcessId::current();
    format!("{time:.6}-{}-{}", this.node, this.pid)
}

/// Says first that the index does not hold any more, and then what is new: after a kill in between, nothing is believed
/// that does not hold.
pub(super) fn write(
    app: &App,
    (id, dir): (&ExperimentId, &ExperimentDir),
    note: &Note,
) -> Result<(), CommandError> {
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{n}.json", stamp(note.time));
    let index = app.home.index();
    summary::mark_as_noted(&app.home, id, &name).at("write", &index)?;
    let path = dir.notes().join(&name);
    debug!("note: `{}`", path.display());
    Ok(notes::write(dir, &name, note).at("write", &path)?)
}
