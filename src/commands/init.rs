//! `init`: an exp.toml to start from, and a program that shows how a trial is saved; or a job script, turned.

use std::path::{Path, PathBuf};

use clap::Args;
use nemo_core::{durable, open};

use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::job_script::{self, JobScript, ScriptError};
use crate::report::{out, say};

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm init my-experiment\n  nemo-slurm submit my-experiment/exp.toml --follow\n  \
    nemo-slurm init --from old.sbatch    # turns a job script into ./exp.toml"
)]
pub struct InitArgs {
    /// The folder to write into
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// Turn a job script into an exp.toml; the script stays as it is
    #[arg(long, value_name = "SCRIPT")]
    pub from: Option<PathBuf>,
}

const FILES: [(&str, &str); 2] =
    [("exp.toml", include_str!("init/exp.toml")), ("train.py", include_str!("init/train.py"))];

/// Writes the files; one that is there already is never touched.
pub(super) fn init(args: &InitArgs) -> Result<ExitCode, CommandError> {
    if let Some(script) = &args.from {
        return from_script(args, script);
    }
    for (name, _) in FILES {
        require_free(&args.folder.join(name))?;
    }
    std::fs::create_dir_all(&args.folder).at("make", &args.folder)?;
    for (name, text) in FILES {
        let path = args.folder.join(name);
        durable::write_synced(&path, text.as_bytes()).at("write", &path)?;
    }
    let file = Path::new(&args.folder).join("exp.toml");
    say("Wrote exp.toml and train.py. Next:\n");
    out(&format!("nemo-slurm submit {} --follow", file.display()))
}

fn require_free(path: &Path) -> Result<(), CommandError> {
    // A link to nothing is there too: writing would make what it names.
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let text = format!("`{}` exists already", path.display());
    Err(CommandError::new(ExitCode::Refused, text)
        .hinted("name another folder: `nemo-slurm init my-experiment`"))
}

/// How a file is named from a folder: by its name alone where it lies in there, so that it is shipped with the folder.
fn seen_from(folder: &Path, file: &Path) -> std::io::Result<String> {
    let whole = file.canonicalize()?;
    let is_there = folder.canonicalize().is_ok_and(|folder| whole.parent() == Some(&*folder));
    let own = if is_there { whole.file_name().map(Path::new) } else { None };
    Ok(own.unwrap_or(&whole).to_string_lossy().into_owned())
}

/// Turns a job script into `exp.toml`.
fn from_script(args: &InitArgs, script: &Path) -> Result<ExitCode, CommandError> {
    let path = args.folder.join("exp.toml");
    require_free(&path)?;
    let text = open::read_named(script, job_script::LONGEST).at("read", script)?;
    let in_file = |error: ScriptError| {
        let text = format!("{}:{}: {}", script.display(), error.line, error.message);
        CommandError::new(ExitCode::Usage, text).hinted(error.hint)
    };
    let read = JobScript::read(&text).map_err(in_file)?;
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    let from_there = seen_from(&args.folder, script).at("find", script)?;
    let turned = job_script::turned(&read, &name, &from_there).map_err(in_file)?;
    for note in &turned.notes {
        say(&format!("note: {}:{}: {}", script.display(), note.line, note.text));
    }
    std::fs::create_dir_all(&args.folder).at("make", &args.folder)?;
    durable::write_synced(&path, turned.toml.as_bytes()).at("write", &path)?;
    say(&format!("Wrote `{}`; it runs in the folder of that file. Next:\n", path.display()));
    out(&format!("nemo-slurm check {0}\nnemo-slurm submit {0} --follow", path.display()))
}
