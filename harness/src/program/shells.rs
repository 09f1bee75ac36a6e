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
pub(crate) enum ShellReception {
    /// It is no shell, or no shell that catches it.
    NoShell,
    /// Its script has a trap for it, or may have.
    Trap,
    /// It would only die of it.
    Death,
}

/// How a process receives the signal, if it is a shell.
pub(crate) fn reception(pid: u32, signal: Signal) -> ShellReception {
    let is_one = || proc_fs::exe(pid).is_some_and(|exe| is_shell(&exe));
    match disposition::catches(pid, signal) && is_one() {
        false => ShellReception::NoShell,
        true if !catches_for_the_end(pid) => ShellReception::Trap,
        true => by_script(may_have_trap(script(pid), signal)),
    }
}

/// What is not known in time is left alone: a request that nobody catches is sent again later.
fn by_script(may_have_trap: Option<bool>) -> ShellReception {
    match may_have_trap {
        Some(true) => ShellReception::Trap,
        Some(false) | None => ShellReception::Death,
    }
}

/// Whether a script's shell runs this child in the background (`python train.py & wait`): it then has it ignore INT and QUIT.
pub(crate) fn is_in_background(shell: u32, child: u32) -> bool {
    let ignores = disposition::ignores;
    if ignores(shell, Signal::SIGINT) {
        return false; // so does what it waits for
    }
    // A program that handles INT itself still ignores QUIT. So does every bash, and all of us if we were started so.
    let is_shell = || proc_fs::exe(child).is_some_and(|exe| is_shell(&exe));
    let is_inherited = || ignores(std::process::id(), Signal::SIGQUIT);
    ignores(child, Signal::SIGINT)
        || ignores(child, Signal::SIGQUIT) && !is_shell() && !is_inherited()
}

/// Whether bash would certainly run its trap for the end, and die: its script has no trap for the signal.
pub(crate) fn dies_of(pid: u32, signal: Signal) -> bool {
    catches_for_the_end(pid) && may_have_trap(script(pid), signal) == Some(false)
}

/// Whether it is bash with a trap for the end of its script.
fn catches_for_the_end(pid: u32) -> bool {
    let is_bash = || proc_fs::exe(pid).is_some_and(|exe| exe.file_name() == Some("bash".as_ref()));
    FOR_THE_END.iter().all(|end| disposition::catches(pid, *end)) && is_bash()
}

/// Whether a script may have a trap for the signal, as one that can't be read may. None: it was not read in time.
fn may_have_trap(script: Option<io::Result<String>>, signal: Signal) -> Option<bool> {
    Some(script?.map_or(true, |text| command::names_outside_comments(&text, signal)))
}

/// The text that a shell runs, if it can be read in time.
fn script(pid: u32) -> Option<io::Result<String>> {
    let arguments = proc_fs::arguments(pid);
    if let Some(text) = text_of_option(&arguments) {
        return Some(Ok(text.to_string_lossy().into_owned()));
    }
    let path = PathBuf::from(format!("/proc/{pid}/fd/{SCRIPT_DESCRIPTOR}"));
    let disk = SerialQueue::start("script", None);
    disk.ask(move || read(path)).wait(READ_LIMIT)
}

/// The text of `bash -c TEXT`: the first word after the options, of which `c` may stand among other letters (`-lc`). What
/// stands behind a script is the script's own.
fn text_of_option(arguments: &[OsString]) -> Option<&OsStr> {
    let mut words = arguments.iter().skip(1);
    let mut has_text = false;
    while let Some(word) = words.next() {
        let option = word.to_string_lossy();
        if matches!(&*option, "-" | "--") {
            return words.next().filter(|_| has_text).map(OsString::as_os_str);
        }
        if !option.starts_with(['-', '+']) {
            return has_text.then_some(word);
        }
        if option.starts_with("--") {
            if matches!(&*option, "--rcfile" | "--init-file") {
                words.next();
            }
            continue;
        }
        has_text |= option.starts_with('-') && option.contains('c');
        // `-o pipefail`, `-euo pipefail`, `-O extglob`
        for _ in option.matches(['o', 'O']) {
            words.next();
        }
    }
    None
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
        for line in
            ["bash -euo pipefail -c a", "bash -c +O extglob -e -- a", "bash --rcfile c -c a -x"]
        {
            assert_eq!(text_of_option(&words(line)), Some("a".as_ref()), "{line}");
        }
    }

    #[test]
    fn the_options_of_a_script_are_its_own() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in [
            "bash train.sh -c a",
            "bash -e ./train.sh -lc a",
            "bash -o pipefail train.sh -c a",
            "bash -- -c a",
        ] {
            assert_eq!(text_of_option(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn a_script_that_is_not_read_in_time_is_left_alone() {
        let received = |script| by_script(may_have_trap(script, Signal::SIGUSR1));
        let unreadable = io::ErrorKind::NotFound.into();
        assert_eq!(received(None), ShellReception::Death);
        assert_eq!(received(Some(Err(unreadable))), ShellReception::Trap);
        assert_eq!(received(Some(Ok("trap save USR1".to_owned()))), ShellReception::Trap);
        assert_eq!(received(Some(Ok("trap clean EXIT".to_owned()))), ShellReception::Death);
        assert_eq!(may_have_trap(None, Signal::SIGUSR1), None, "it is not certain either");
    }
}
