//! Gives the harness, and all that it starts, the environment that its program inherits: it executes itself once more in
//! that environment, as the same process.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nemo_core::checksum;
use nemo_core::environment::{self, InheritSpec, Variable};
use nemo_core::rundir::{ExperimentDir, TaskSpec};
use nix::unistd::{AccessFlags, access, execve};

use crate::attempt::start_error::StartError;
use crate::job::trial::{TaskSource, with_path};
use crate::os::log::log_stderr;

/// The option that says that this is done.
pub(crate) const DONE: &str = "--environment-set";

/// How many times an unreadable file is tried, and the pause between tries.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Returns only if there is nothing to inherit, or with an error.
///
/// Blocked signals stay blocked, and pending ones are read by the new run.
pub(crate) fn enter(source: &TaskSource, local: bool) -> Result<(), StartError> {
    let Some(variables) = variables(source, local)? else { return Ok(()) };
    let Err(error) = run_anew(variables);
    Err(StartError::Node(format!("the environment of the program: {error}")))
}

/// What the program inherits. Only a specification that was read can say that this is nothing.
fn variables(source: &TaskSource, local: bool) -> Result<Option<Vec<Variable>>, StartError> {
    let task_dir = in_tries(&source.dir, || source.task_dir())?;
    let path = source.spec(&task_dir);
    let text = in_tries(&path, || source.text(&task_dir))?;
    let spec = checksum::from_slice::<TaskSpec>(&text);
    let spec = spec.map_err(|error| StartError::Node(with_path(&path, &error)))?.inherit;
    let (Some(spec), Some(dir)) = (spec, ExperimentDir::of_task(&task_dir)) else {
        return Ok(None);
    };
    let mut kept = read(&dir.environment())?;
    if !spec.secrets.is_empty() {
        kept.extend(read(&dir.secrets()).map_err(|error| gone(&dir.secrets(), error))?);
    }
    if let Some(name) = spec.missing(&kept) {
        let text = format!("the secret `{name}` is not in `{}`", dir.secrets().display());
        return Err(StartError::Permanent(text));
    }
    Ok(Some(inherited(kept, local, &spec)))
}

/// The error of missing secrets. They are removed once all trials are over, so a retry would not help.
fn gone(path: &Path, error: StartError) -> StartError {
    if path.parent().is_some_and(Path::is_dir) && !path.exists() {
        return StartError::Permanent(format!(
            "`{}` is gone: secrets are removed once all trials are over; submit the file again",
            path.display()
        ));
    }
    error
}

fn inherited(kept: Vec<Variable>, local: bool, spec: &InheritSpec) -> Vec<Variable> {
    if local {
        environment::on_this_machine(kept, spec)
    } else {
        let job: Vec<Variable> = env::vars_os().collect();
        let node_says = job.iter().any(|(name, folder)| name == "TMPDIR" && folder != "/tmp");
        let kept = if node_says { kept } else { with_usable_folder(kept) };
        environment::in_job(kept, job, spec)
    }
}

/// Leaves out a `TMPDIR` of the submitting shell that can't be used on this node, as Slurm does with one
/// that `sbatch` exports.
fn with_usable_folder(mut kept: Vec<Variable>) -> Vec<Variable> {
    kept.retain(|(name, folder)| {
        let is_kept = name != "TMPDIR" || is_usable(Path::new(folder));
        if !is_kept {
            log_stderr(&format!(
                "TMPDIR of the shell that submitted, `{}`, can't be used on this node: `/tmp` is used",
                Path::new(folder).display()
            ));
        }
        is_kept
    });
    kept
}

fn is_usable(folder: &Path) -> bool {
    DirBuilder::new().mode(0o700).create(folder).ok(); // sbatch makes it too
    folder.is_dir() && access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

fn read(path: &Path) -> Result<Vec<Variable>, StartError> {
    let bytes = in_tries(path, || fs::read(path))?;
    let whole = environment::from_file(&bytes);
    whole.map_err(|error| StartError::Permanent(with_path(path, &error)))
}

/// Reads something of a path, and tries again where that fails.
fn in_tries<T>(path: &Path, read: impl Fn() -> io::Result<T>) -> Result<T, StartError> {
    let mut tries = 1;
    loop {
        match read() {
            Ok(found) => return Ok(found),
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(StartError::node(path, &error)),
        }
        sleep(PAUSE);
    }
}

/// Executes the harness again. `std::process::Command` would unblock pending signals.
fn run_anew(variables: Vec<Variable>) -> io::Result<Infallible> {
    let program = c_string(env::current_exe()?.into())?;
    let arguments = env::args_os().chain([DONE.into()]).map(c_string);
    let environment = variables.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string(name)
    });
    let environment = environment.collect::<io::Result<Vec<CString>>>()?;
    let arguments = arguments.collect::<io::Result<Vec<CString>>>()?;
    Ok(execve(&program, &arguments, &environment)?)
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_that_the_node_has_not_is_made_or_left_out() {
        let node = tempfile::tempdir().unwrap();
        let kept = |folder: &str| {
            let folder = node.path().join(folder);
            with_usable_folder(vec![("TMPDIR".into(), folder.into()), ("A".into(), "/x".into())])
        };
        assert_eq!(kept("made").len(), 2);
        assert!(node.path().join("made").is_dir());
        assert_eq!(kept("made").len(), 2);
        assert_eq!(kept("not/there"), [("A".into(), "/x".into())]);
    }
}
