//! `init`: an exp.toml to start from, and a program that shows how a trial is saved.

use std::path::{Path, PathBuf};

use clap::Args;
use nemo_core::durable;

use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::report::{out, say};

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nemo-slurm init my-experiment\n  nemo-slurm submit my-experiment/exp.toml --follow"
)]
pub struct InitArgs {
    /// The folder to write into
    #[arg(default_value = ".")]
    pub folder: PathBuf,
}

const FILES: [(&str, &str); 2] =
    [("exp.toml", include_str!("init/exp.toml")), ("train.py", include_str!("init/train.py"))];

/// Writes the files; one that is there already is never touched.
pub(super) fn init(args: &InitArgs) -> Result<ExitCode, CommandError> {
    for (name, _) in FILES {
        let path = args.folder.join(name);
        if path.exists() {
            let text = format!("`{}` exists already", path.display());
            return Err(CommandError::new(ExitCode::Refused, text)
                .hinted("name another folder: `nemo-slurm init my-experiment`"));
        }
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
