//! Shells of scripts, which seldom save when they are asked to. A shell runs no `trap` before the command ends that it waits
//! for, unless that one runs in the background. And with `trap … EXIT`, bash catches every signal that would end it, to run that
//! trap and then die: the kernel shows the save signal as caught, though nobody saves.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;

use crate::os::serial_queue::SerialQueue;
use crate::os::{disposition, proc_fs};
use crate::program::command;

/// Signals that a script has no trap for, and that bash catches for the sake of one for its end.
const FOR_THE_END: [Signal; 2] = [Signal::SIGVTALRM, Signal::SIGSYS];
/// Where bash keeps the script that it reads open.
const SCRIPT_DESCRIPTOR: u32 = 255;
/// How much of a script is read.
const LONGEST_SCRIPT: u64 = 1 << 20;
/// How long its disk may take: a signal must not wait longer for it.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// What runs scripts, by the names of the programs.
const SHELLS: [&str; 10] =
    ["ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"];

/// Whether a program is a shell.
pub(crate) fn is_shell(exe: &Path) -> bool {
    exe.file_name().is_some_and(|name| SHELLS.iter().any(|shell| name == *shell))
}

/// What a signal that a process catches means to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reception {
    /// It is no shell, or no shell that catches it.
    OfTheProgram,
    /// Its script has a trap for it, or may have.
    Trap,
    /// It would only die of it.
    Death,
}

/// How a process receives the signal, if it is a shell.
pub(crate) fn reception(pid: u32, signal: Signal) -> Reception {
    let is_one = || proc_fs::exe(pid).is_some_and(|exe| is_shell(&exe));
    match disposition::catches(pid, signal) && is_one() {
        false => Reception::OfTheProgram,
        true if dies_of(pid, signal) => Reception::Death,
        true => Reception::Trap,
    }
}

/// Whether a script's shell runs this child in the background (`python train.py & wait`): it then has it ignore INT.
pub(crate) fn is_in_background(shell: u32, child: u32) -> bool {
    let ignores = |pid| disposition::ignores(pid, Signal::SIGINT);
    ignores(child) && !ignores(shell)
}

/// Whether bash would run its trap for the end, and die: its script has no trap for the signal.
pub(crate) fn dies_of(pid: u32, signal: Signal) -> bool {
    let is_bash = || proc_fs::exe(pid).is_some_and(|exe| exe.file_name() == Some("bash".as_ref()));
    FOR_THE_END.iter().all(|end| disposition::catches(pid, *end))
        && is_bash()
        && script(pid).is_some_and(|text| !command::names_outside_comments(&text, signal))
}

/// The text that a shell runs.
fn script(pid: u32) -> Option<String> {
    let arguments = proc_fs::arguments(pid);
    if let Some(text) = text_of_option(&arguments) {
        return Some(text.to_string_lossy().into_owned());
    }
    let path = PathBuf::from(format!("/proc/{pid}/fd/{SCRIPT_DESCRIPTOR}"));
    let disk = SerialQueue::start("script", None);
    disk.ask(move || read(path)).wait(READ_LIMIT)?.ok()
}

/// The text behind `-c`, which may stand among other letters: `bash -lc TEXT`.
fn text_of_option(arguments: &[OsString]) -> Option<&OsStr> {
    let is_option = |word: &&OsString| {
        let word = word.to_string_lossy();
        word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
    };
    let at = arguments.iter().position(|word| is_option(&word))?;
    arguments.get(at + 1).map(OsString::as_os_str)
}

/// A terminal may have that descriptor too: it is no file.
fn read(path: PathBuf) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST_SCRIPT).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stands_behind_its_option() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(text_of_option(&words("bash -c a")), Some("a".as_ref()));
        assert_eq!(text_of_option(&words("bash -o pipefail -lc a b")), Some("a".as_ref()));
        assert_eq!(text_of_option(&words("bash --norc train.sh")), None);
        assert_eq!(text_of_option(&words("bash train.sh")), None);
    }
}
