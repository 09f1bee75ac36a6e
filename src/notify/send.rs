//! The ways on which a message is sent: the user's command, the site's mailer, and `curl` for a webhook. Each try has a
//! time, after which all that it has started is ended.
//!
//! `curl` knows the site's proxies and certificates, and is mended by its administrators. The address, which may hold a
//! token, is told to it on its standard input: the arguments of a process are everybody's to read.
#![expect(clippy::disallowed_methods, reason = "an edge: starts programs that are not Slurm's")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nemo_core::placeholder::{TemplatePart, scan};
use nemo_core::rundir::CommandSpec;
use nemo_core::shell;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::message::NoticeMessage;
use super::record::Way;
use crate::experiment::Notify;

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a program's error output that are kept.
const LONGEST_COMPLAINT: u64 = 4096;
/// Where `sendmail` lies if it is not in PATH.
const MAILER_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/lib", "/sbin"];

/// Sends a message once on one way. `workdir`: where the user's command runs.
pub fn deliver(
    way: Way,
    notify: &Notify,
    message: &NoticeMessage,
    workdir: &Path,
) -> Result<(), String> {
    match way {
        Way::Command => by_command(notify.command.as_ref().ok_or("no command")?, message, workdir),
        Way::Url => post(notify.url.as_deref().ok_or("no address")?, message),
        Way::Email => mail(&notify.email, message),
    }
}

/// The command gets the message as JSON, and its values as variables.
fn by_command(
    command: &CommandSpec,
    message: &NoticeMessage,
    workdir: &Path,
) -> Result<(), String> {
    let mut process = match command {
        CommandSpec::Shell(text) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &filled_text(text)?]);
            shell
        }
        CommandSpec::Exec(words) => {
            let words: Vec<String> = words.iter().map(|word| filled_word(word, message)).collect();
            let [program, arguments @ ..] = words.as_slice() else {
                return Err("the command is empty".to_owned());
            };
            let mut process = Command::new(program);
            process.args(arguments);
            process
        }
    };
    for (name, value) in message.values() {
        process.env(Notify::variable(&name), value.as_str().unwrap_or_default());
    }
    if workdir.is_dir() {
        process.current_dir(workdir);
    }
    run(process, format!("{}\n", message.json()).as_bytes())
}

/// The text for `sh`, with references to variables for its placeholders: no value ever becomes a part of it.
fn filled_text(text: &str) -> Result<String, String> {
    shell::fill(text, |name, place| {
        let place = place.map_err(|refusal| refusal.message().to_owned())?;
        Ok(place.reference(&Notify::variable(name)))
    })
}

fn filled_word(word: &str, message: &NoticeMessage) -> String {
    let values = message.values();
    let piece = |part: TemplatePart<'_>| match part {
        TemplatePart::Text(text) => text.to_owned(),
        TemplatePart::Name(name) => {
            values.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        }
    };
    scan(word).into_iter().map(piece).collect()
}

fn post(url: &str, message: &NoticeMessage) -> Result<(), String> {
    let curl =
        which::which("curl").map_err(|_| "`curl` is not in PATH; a webhook needs it".to_owned())?;
    let settings = [
        ("url", url),
        ("data-raw", &message.json().to_string()),
        ("header", "Content-Type: application/json"),
        ("header", &format!("Idempotency-Key: {}", message.id)),
        ("user-agent", concat!("nemo-slurm/", env!("CARGO_PKG_VERSION"))),
        ("max-time", &PATIENCE.as_secs().to_string()),
    ];
    let settings = settings.map(|(name, value)| format!("{name} = {}\n", quoted(value)));
    let mut process = Command::new(curl);
    process.args(["--silent", "--show-error", "--fail", "--output", "/dev/null", "--config", "-"]);
    // `curl` ends by itself, and says why, a moment before it is ended.
    let tried = run_for(PATIENCE + Duration::from_secs(1), process, settings.concat().as_bytes());
    tried.map_err(|error| without(&error, url))
}

/// A value in a file of settings for `curl`.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// An error that does not tell the address.
fn without(error: &str, url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.find('/').map_or("", |at| &path[at..]);
    let hidden = error.replace(url, "the address");
    if path.len() > 1 { hidden.replace(path, "/…") } else { hidden }
}

fn mail(addresses: &[String], message: &NoticeMessage) -> Result<(), String> {
    let folders = MAILER_FOLDERS.map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let searched = std::env::join_paths(std::env::split_paths(&paths).chain(folders));
    let searched = searched.unwrap_or(paths);
    let find = |name: &str| which::which_in_global(name, Some(&searched)).ok()?.next();
    if let Some(sendmail) = find("sendmail") {
        let mut process = Command::new(sendmail);
        process.args(["-t", "-i"]);
        return run(process, letter(addresses, message).as_bytes());
    }
    let Some(mail) = find("mail").or_else(|| find("mailx")) else {
        return Err("this machine has no `sendmail` and no `mail`".to_owned());
    };
    let mut process = Command::new(mail);
    process.args(["-s", &message.subject]).args(addresses);
    run(process, format!("{}\n", message.text).as_bytes())
}

/// A mail with its headers. A repeat has the same `Message-ID`.
fn letter(addresses: &[String], message: &NoticeMessage) -> String {
    let id: String =
        message.id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
    format!(
        "To: {}\nSubject: {}\nMessage-ID: <{id}@nemo-slurm>\nAuto-Submitted: auto-generated\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{}\n",
        addresses.join(", "),
        message.subject,
        message.text
    )
}

fn run(process: Command, input: &[u8]) -> Result<(), String> {
    run_for(PATIENCE, process, input)
}

/// Runs a program with an input, and says why it failed. The input and what it prints are files: nothing waits for it.
fn run_for(patience: Duration, mut process: Command, input: &[u8]) -> Result<(), String> {
    let name = Path::new(process.get_program()).file_name().unwrap_or(OsStr::new("?"));
    let name = name.to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("`{name}` can't be run: {error}");
    let complaints = tempfile::tempfile().map_err(failed)?;
    let printed = complaints.try_clone().map_err(failed)?;
    let stderr = complaints.try_clone().map_err(failed)?;
    let input = input_file(input).map_err(failed)?;
    process.stdin(input).stdout(printed).stderr(stderr).process_group(0);
    match wait_for(patience, process).map_err(failed)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let complaint = last_line(complaints).unwrap_or_default();
            let why = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
            Err(format!("`{name}` ended with {status}{why}"))
        }
        None => Err(format!("`{name}` did not end within {} s", patience.as_secs())),
    }
}

fn input_file(input: &[u8]) -> io::Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Waits for a program of its own group; none if it had to be ended.
fn wait_for(patience: Duration, process: Command) -> io::Result<Option<std::process::ExitStatus>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut child = tokio::process::Command::from(process).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        if let Ok(ended) = tokio::time::timeout(patience, child.wait()).await {
            return ended.map(Some);
        }
        if let Some(group) = group {
            killpg(group, Signal::SIGKILL).ok();
        }
        child.wait().await.map(|_| None)
    })
}

/// The last line that tells something of what a program printed.
fn last_line(mut file: File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_COMPLAINT)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(last.trim().chars().filter(|c| !c.is_control()).take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_no_part_of_the_text() {
        let filled = filled_text("a {id} '{id}' \"{id}\" {{no}}").unwrap();
        let id = "${NEMO_NOTICE_ID}";
        assert_eq!(filled, format!("a \"{id}\" ''\"{id}\"'' \"{id}\" {{no}}"));
    }

    #[test]
    fn an_error_does_not_tell_the_address() {
        let error = "curl: (22) https://x/T/secret and /T/secret: 404";
        assert_eq!(without(error, "https://x/T/secret"), "curl: (22) the address and /…: 404");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "(sleep 3; touch late) & sleep 60"]).current_dir(folder.path());
        let error = run_for(Duration::from_millis(100), shell, b"").unwrap_err();
        assert_eq!(error, "`sh` did not end within 0 s");
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat >&2; echo; exit 3"]);
        let error = run(shell, b"no\x1b[31m such room").unwrap_err();
        assert_eq!(error, "`sh` ended with exit status: 3: no[31m such room");
    }
}
