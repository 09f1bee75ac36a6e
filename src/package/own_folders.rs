//! Which folders of a trial's working folder are its own, and what they have links to that was not shipped.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use super::PackagedFile;
use crate::error::{CommandError, IoResultExt};
use crate::experiment::Experiment;

/// The paths that are each trial's own, name by name: where its program runs, and what `checkpoint` says that it writes.
#[derive(Debug)]
pub(super) struct OwnPaths {
    folder: PathBuf,
    written: Vec<Vec<Pattern>>,
}

/// What a path is to a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathRole {
    /// The program writes it: nobody else's is there.
    Own,
    /// Something of the trial's own lies below it.
    Above,
    /// Neither.
    Other,
}

impl OwnPaths {
    pub(super) fn of(experiment: &Experiment, folder: &Path) -> Self {
        let specs = experiment.tasks.iter().map(|task| &task.checkpoint);
        let texts = specs.flat_map(|spec| spec.from.iter().chain(&spec.restore_to));
        let relative = texts.filter(|text| !text.starts_with(['/', '{']));
        Self {
            folder: folder.to_owned(),
            written: relative.map(|text| patterns(&folder.join(text))).collect(),
        }
    }

    /// Whether `checkpoint` names no path beside the file.
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    fn role(&self, path: &Path) -> PathRole {
        let roles = self.written.iter().map(|pattern| role_by(pattern, path));
        let is_on_the_way = self.folder.starts_with(path);
        let above = if is_on_the_way { PathRole::Above } else { PathRole::Other };
        roles.chain([above]).find(|role| *role != PathRole::Other).unwrap_or(PathRole::Other)
    }
}

/// A pattern for each name of a path. What a placeholder stands for may be any name.
fn patterns(path: &Path) -> Vec<Pattern> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let pattern = |name: String| {
        let text = without_placeholders(&name);
        Pattern::new(&text).or_else(|_| Pattern::new(&Pattern::escape(&text))).unwrap_or_default()
    };
    names.map(pattern).collect()
}

fn without_placeholders(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        text.push('*');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text + rest
}

fn role_by(pattern: &[Pattern], path: &Path) -> PathRole {
    let mut names = path.components();
    for part in pattern {
        if part.as_str() == "**" {
            return PathRole::Own;
        }
        match names.next() {
            None => return PathRole::Above,
            Some(name) if part.matches(&name.as_os_str().to_string_lossy()) => {}
            Some(_) => return PathRole::Other,
        }
    }
    PathRole::Own
}

/// What a working folder has beside the package's files.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The folders that are no links, each after the one that it lies in.
    pub(super) own: Vec<PathBuf>,
    /// What it has links to.
    pub(super) linked: Vec<PathBuf>,
    /// What it has not, since programs write there.
    pub(super) left_out: Vec<PathBuf>,
}

/// Names of folders that programs write. A link would let the trials write into one folder: each has its own instead.
const OUTPUTS: [&str; 20] = [
    "__pycache__",
    "artifacts",
    "checkpoint",
    "checkpoints",
    "ckpt",
    "ckpts",
    "lightning_logs",
    "log",
    "logs",
    "mlruns",
    "multirun",
    "out",
    "output",
    "outputs",
    "result",
    "results",
    "runs",
    "tb_logs",
    "tensorboard",
    "wandb",
];

/// Patterns of files that programs write: checkpoints, weights and logs. Through a link, a trial would resume from the
/// user's file, or from that of another trial, and write over it.
const OUTPUT_FILES: [&str; 21] = [
    "*.ckpt",
    "*.keras",
    "*.log",
    "*.out",
    "*.pt",
    "*.pth",
    "*.safetensors",
    "*.tfevents.*",
    "*.weights.h5",
    "*model*.h5",
    "*model*.joblib",
    "*model*.pkl",
    "best.*",
    "checkpoint*",
    "ckpt*",
    "last.*",
    "latest.*",
    "metrics.csv",
    "metrics.jsonl",
    "snapshot*",
    "state.*",
];

/// Extensions of sources and settings: no program writes them.
const SOURCES: [&str; 10] = ["cfg", "ini", "md", "pxd", "py", "pyx", "sh", "so", "toml", "yaml"];

/// Whether programs write what has this name. A program, and a file that nobody may write to, are only read.
fn is_output(name: &OsStr, path: &Path) -> bool {
    let text = name.to_string_lossy();
    let is_named = |pattern: &&str| Pattern::new(pattern).is_ok_and(|own| own.matches(&text));
    OUTPUTS.iter().any(|output| name == *output)
        || !path.is_dir()
            && !is_source(path)
            && OUTPUT_FILES.iter().any(is_named)
            && !is_only_read(path)
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|own| SOURCES.iter().any(|source| own == *source))
}

fn is_only_read(path: &Path) -> bool {
    let (execute, write) = (0o111, 0o222);
    fs::metadata(path).is_ok_and(|found| {
        let mode = found.permissions().mode();
        mode & execute != 0 || mode & write == 0
    })
}

/// Whether what a link leads to is a single file that programs may write over. Hidden files are settings.
pub(super) fn is_shared_file(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    path.is_file() && !is_hidden && !is_source(path) && !is_only_read(path)
}

/// Looks into the folders that are a trial's own. Of git's own folder they have no link: a command of git there would take
/// the work tree for another one.
pub(super) fn find(
    root: &Path,
    own: &OwnPaths,
    files: &[PackagedFile],
) -> Result<Beside, CommandError> {
    let mut shipped: BTreeSet<&Path> = BTreeSet::new();
    for file in files {
        shipped.extend(file.path.ancestors());
    }
    let mut beside = Beside { own: vec![PathBuf::new()], ..Beside::default() };
    let mut at = 0;
    while let Some(level) = beside.own.get(at).cloned() {
        at += 1;
        let whole = root.join(&level);
        for entry in fs::read_dir(&whole).at("read", &whole)? {
            let entry = entry.at("read", &whole)?;
            let path = level.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match own.role(&path) {
                _ if entry.file_name() == ".git" => {}
                _ if is_folder && shipped.contains(path.as_path()) => beside.own.push(path),
                PathRole::Above if is_folder => beside.own.push(path),
                _ if shipped.contains(path.as_path()) => {}
                PathRole::Own => {}
                PathRole::Above | PathRole::Other
                    if is_output(&entry.file_name(), &entry.path()) =>
                {
                    beside.left_out.push(path);
                }
                PathRole::Above | PathRole::Other => beside.linked.push(path),
            }
        }
    }
    beside.linked.sort();
    beside.left_out.sort();
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_writes_is_its_own() {
        let texts =
            ["sub/out/ckpt*.pt", "sub/runs/**/last.ckpt", "sub/run_{n}/x", "sub/snapshot.pt"];
        let own = OwnPaths {
            folder: "sub".into(),
            written: texts.iter().map(|text| patterns(Path::new(text))).collect(),
        };
        let check = |path: &str, role| assert_eq!(own.role(Path::new(path)), role, "{path}");
        check("sub", PathRole::Above);
        check("sub/out", PathRole::Above);
        check("sub/out/ckpt7.pt", PathRole::Own);
        check("sub/out/log.txt", PathRole::Other);
        check("sub/runs/a/b", PathRole::Own);
        check("sub/snapshot.pt", PathRole::Own);
        check("sub/run_3/x", PathRole::Own);
        check("data", PathRole::Other);
    }

    #[test]
    fn checkpoints_and_logs_are_outputs_and_data_and_sources_are_none() {
        let is = |name: &str| is_output(OsStr::new(name), Path::new(name));
        for name in ["ckpt.pt", "m.safetensors", "a.log", "snapshot.json", "my_model.pkl", "ckpt"] {
            assert!(is(name), "{name}");
        }
        for name in ["data.npz", "train.h5", "words.pkl", "checkpoint.py", "last_names.txt", "x"] {
            assert!(!is(name), "{name}");
        }
    }
}
