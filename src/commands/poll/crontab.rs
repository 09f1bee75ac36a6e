//! `poll --install` and `--uninstall`: the line of the user's crontab that runs `poll` every five minutes.
#![expect(clippy::disallowed_methods, reason = "an edge: `crontab` is no program of Slurm's")]

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nemo_core::durable;

use crate::commands::App;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::report::out;
use crate::script::shell_word;

/// Slurm forgets a job that has ended after `MinJobAge`, five minutes where nobody changed it.
const WHEN: &str = "*/5 * * * *";

/// Adds our line, or replaces it.
pub(super) fn install(app: &App, is_dry_run: bool) -> Result<ExitCode, CommandError> {
    let line = line(app)?;
    if is_dry_run {
        return out(&line);
    }
    let table = read()?;
    let kept = without_ours(&table, app);
    // Without the folder of its output the shell would not even start the line.
    let cache = app.home.cache();
    durable::create_dir_all(&cache).at("make", &cache)?;
    write(&format!("{kept}{line}\n"))?;
    out(&format!(
        "`nemo-slurm poll` now runs every five minutes on this machine; what it says goes to `{}`.",
        log(app).display()
    ))
}

/// Removes our line.
pub(super) fn uninstall(app: &App, is_dry_run: bool) -> Result<ExitCode, CommandError> {
    let table = read()?;
    let kept = without_ours(&table, app);
    if kept.len() == table.len() {
        return out("The crontab of this machine does not run `nemo-slurm poll` for this home.");
    }
    if is_dry_run {
        let ours: Vec<&str> = table.lines().filter(|line| is_ours(line, app)).collect();
        return out(&ours.join("\n"));
    }
    write(&kept)?;
    out("`nemo-slurm poll` runs no longer.")
}

/// Our line: cron gives a program almost no environment.
fn line(app: &App) -> Result<String, CommandError> {
    let home = text(app.home.path())?;
    let mut words = vec![WHEN.to_owned()];
    for name in ["PATH", "SLURM_CONF"] {
        if let Some(value) = app.variable(name) {
            words.push(format!("{name}={}", shell_word(&text(Path::new(value))?)));
        }
    }
    let program = text(&app.program)?;
    words.extend([
        shell_word(&program),
        format!("--home {}", shell_word(&home)),
        "poll".to_owned(),
    ]);
    words.push(format!(">{} 2>&1", shell_word(&text(&log(app))?)));
    // In a crontab `%` is a line break.
    let line = words.join(" ").replace('%', "\\%");
    Ok(format!("{line} {}", mark(app)))
}

/// What the line ends with. A user may have several homes.
fn mark(app: &App) -> String {
    format!("# nemo-slurm poll of {}", app.home.path().display()).replace('%', "\\%")
}

/// Whether this machine's cron runs it for this home; none where there is no cron to ask.
pub(in crate::commands) fn is_installed(app: &App) -> Option<bool> {
    let table = read().ok()?;
    Some(table.lines().any(|line| is_ours(line, app)))
}

fn is_ours(line: &str, app: &App) -> bool {
    line.ends_with(&mark(app))
}

fn without_ours(table: &str, app: &App) -> String {
    table.split_inclusive('\n').filter(|line| !is_ours(line.trim_end(), app)).collect()
}

/// The output of the last run alone: it grows no disk full.
fn log(app: &App) -> std::path::PathBuf {
    app.home.cache().join("poll.log")
}

fn text(path: &Path) -> Result<String, CommandError> {
    let text = path.to_str().filter(|text| !text.contains('\n'));
    text.map(str::to_owned).ok_or_else(|| {
        let text = format!("`{}` can't stand in a crontab", path.display());
        CommandError::new(ExitCode::Usage, text).hinted("use a path of plain letters")
    })
}

/// The user's crontab; empty if there is none.
fn read() -> Result<String, CommandError> {
    let output = run(&["-l"], None)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|_| failed("it is no UTF-8"));
    }
    // `no crontab for ada`: every cron says it so.
    if said.contains("no crontab for") { Ok(String::new()) } else { Err(failed(said.trim())) }
}

fn write(table: &str) -> Result<(), CommandError> {
    let output = run(&["-"], Some(table))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(failed(said.trim())) }
}

fn failed(why: &str) -> CommandError {
    CommandError::new(ExitCode::Failed, format!("the crontab can't be changed: {why}"))
        .hinted("`nemo-slurm poll --install --dry-run` prints the line; add it where your site runs such lines, for example with `scrontab`")
}

fn run(words: &[&str], input: Option<&str>) -> Result<Output, CommandError> {
    let run = || -> io::Result<Output> {
        let mut command = Command::new("crontab");
        command.args(words).env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn()?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            pipe.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    run().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed("there is no program `crontab` here"),
        _ => failed(&error.to_string()),
    })
}
