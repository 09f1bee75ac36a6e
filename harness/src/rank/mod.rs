//! `nemo-harness exec`: the shim that Slurm starts once for each process of a trial that has several.
//!
//! It starts the program, tells the harness the truth about it by its output, and does what the harness says by its
//! input. Signals of Slurm's change nothing here: the harness alone decides what a program is told. Once the
//! harness is silent for good, nothing of the program stays.

mod devices;
pub(crate) mod failed_rank;
pub(crate) mod multi_rank;
pub(crate) mod relay;
pub(crate) mod srun;

pub(crate) mod frame;
pub(crate) mod identity;
mod shim;

use std::ffi::OsString;
use std::path::PathBuf;

use nemo_core::rundir::TrialDir;

pub(crate) use shim::run;

/// The options of `exec`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExecOptions {
    pub(crate) dir: TrialDir,
    pub(crate) attempt: u32,
    pub(crate) workdir: PathBuf,
    /// The port on the first node where the ranks meet.
    pub(crate) port: u16,
    /// Rank 0 sends its lines to the harness.
    pub(crate) lines: bool,
    /// Each rank tells which GPUs it sees.
    pub(crate) devices: bool,
    /// The program is a launcher, one for each node, that starts this many workers.
    pub(crate) workers: Option<u32>,
    pub(crate) program: Vec<OsString>,
}

impl ExecOptions {
    /// The arguments that are read again by [`ExecOptions::parse`].
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["exec", "--trial-dir"].map(OsString::from).into();
        words.push(self.dir.path().into());
        words.extend(["--attempt".into(), self.attempt.to_string().into(), "--workdir".into()]);
        words.extend([self.workdir.clone().into(), "--port".into(), self.port.to_string().into()]);
        if self.lines {
            words.push("--lines".into());
        }
        if self.devices {
            words.push("--devices".into());
        }
        if let Some(workers) = self.workers {
            words.extend(["--workers".into(), workers.to_string().into()]);
        }
        words.push("--".into());
        words.extend(self.program.iter().cloned());
        words
    }

    /// Parses the arguments after `exec`.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, String> {
        let (mut dir, mut attempt, mut workdir, mut port) = (None, None, None, None);
        let (mut lines, mut devices, mut workers) = (false, false, None);
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let name = word.to_string_lossy();
            match &*name {
                "--lines" => lines = true,
                "--devices" => devices = true,
                "--trial-dir" => dir = rest.next().map(PathBuf::from),
                "--workdir" => workdir = rest.next().map(PathBuf::from),
                "--attempt" => attempt = Some(number(&name, rest.next())?),
                "--port" => port = Some(number(&name, rest.next())?),
                "--workers" => workers = Some(number(&name, rest.next())?),
                "--" => break,
                _ => return Err(format!("`exec` has no option `{name}`")),
            }
        }
        let program: Vec<OsString> = rest.cloned().collect();
        if program.is_empty() {
            return Err("`exec` needs `-- PROGRAM`".to_owned());
        }
        Ok(Self {
            dir: TrialDir(dir.ok_or("`exec` needs `--trial-dir DIR`")?),
            attempt: attempt.ok_or("`exec` needs `--attempt N`")?,
            workdir: workdir.ok_or("`exec` needs `--workdir DIR`")?,
            port: port.ok_or("`exec` needs `--port N`")?,
            lines,
            devices,
            workers,
            program,
        })
    }
}

fn number<T: std::str::FromStr>(name: &str, word: Option<&OsString>) -> Result<T, String> {
    let text = word.map(|word| word.to_string_lossy()).ok_or(format!("`{name}` needs a value"))?;
    text.parse().map_err(|_| format!("`{name}` takes a number, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_survives() {
        let options = ExecOptions {
            dir: TrialDir("/x y".into()),
            attempt: 3,
            workdir: "/w".into(),
            port: 23_456,
            lines: true,
            devices: true,
            workers: Some(4),
            program: ["p", "--", "--lines", "a b"].map(OsString::from).into(),
        };
        let words = options.arguments();
        assert_eq!(ExecOptions::parse(&words[1..]).as_ref(), Ok(&options));
        let plain = ExecOptions { lines: false, devices: false, workers: None, ..options };
        assert_eq!(ExecOptions::parse(&plain.arguments()[1..]).as_ref(), Ok(&plain));
        assert!(ExecOptions::parse(&["--".into()]).unwrap_err().contains("PROGRAM"));
    }
}
