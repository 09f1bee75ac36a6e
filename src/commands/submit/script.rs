//! `submit` of a job script: its copy, in which the harness runs the program, goes to `sbatch`; the script stays as it is.
#![expect(
    clippy::disallowed_methods,
    reason = "an edge: asks the harness what its wrap needs here"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nemo_core::{durable, open};
use serde_json::json;

use super::{ScriptArgs, SubmitArgs};
use crate::commands::{App, paths};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::job_script::{self, Directive, JobScript, ScriptError, WrapWith, Wrapped};
use crate::report::{out, out_json, say};
use crate::slurm::SlurmError;
use crate::store;

/// Names that only job scripts have.
const EXTENSIONS: [&str; 5] = ["sbatch", "slurm", "sl", "sh", "job"];

/// The text of a job script; none if the file is no script, or can't be read.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let text = open::read_named(path, job_script::LONGEST).ok()?;
    let has_name =
        path.extension().and_then(|own| own.to_str()).is_some_and(|own| EXTENSIONS.contains(&own));
    (has_name || job_script::is_script(&text)).then_some(text)
}

/// Fails if something was typed that only means something for a script.
pub(super) fn require_none(args: &ScriptArgs) -> Result<(), CommandError> {
    let typed = [
        (!args.sbatch.is_empty(), "--sbatch"),
        (!args.wrap.is_empty(), "--wrap"),
        (args.whole, "--whole"),
        (!args.arguments.is_empty(), "--"),
    ];
    match typed.iter().find(|(is_typed, _)| *is_typed) {
        None => Ok(()),
        Some((_, option)) => {
            let text =
                format!("`{option}` is for job scripts, and this file does not begin with `#!/`");
            Err(CommandError::new(ExitCode::Usage, text)
                .hinted("an executor's options stand in the file: `sbatch = { … }`"))
        }
    }
}

/// Submits the script, or shows what would be submitted.
pub(super) fn submit(app: &App, args: &SubmitArgs, text: &[u8]) -> Result<ExitCode, CommandError> {
    refuse_other_options(args)?;
    let path = std::path::absolute(&args.file.file).at("find", &args.file.file)?;
    paths::check(&path)?;
    paths::check_home(app, true)?;
    let script = JobScript::read(text).map_err(|error| in_file(args, error))?;
    let sbatch: Vec<String> =
        args.script.sbatch.iter().flat_map(|own| job_script::words(own)).collect();
    let typed = job_script::options(0, &sbatch);
    refuse_wait(args, &script, &typed)?;
    refuse_signal(&typed)?;
    let mut harness = app.harness()?;
    if !args.dry_run {
        store::require_safe(&app.home)?;
        harness = store::install_program(&app.home, store::HARNESS_NAME, &harness)?;
        // Where a harness is killed, this one has its job requeued.
        store::install_program(&app.home, store::OWN_NAME, &app.program)?;
    }
    let name = path.file_name().map(|own| own.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = folder(app, text);
    let whole = folder.join("whole").join(&name);
    let runs_whole = args.script.whole || !script.is_for_a_shell();
    let mut options = job_script::typed_words(&args.script.wrap);
    options.extend(job_script::signal_options(&script, &options));
    let whole_path = whole.to_string_lossy();
    let with = WrapWith {
        harness: &harness.to_string_lossy(),
        home: &app.home.path().to_string_lossy(),
        options: &options,
        typed: &typed,
        whole: runs_whole.then_some(&*whole_path),
        needed: &needed(&harness, &options, time_limit(&script, &typed))?,
    };
    let wrapped = job_script::wrap(&script, &with).map_err(|error| in_file(args, error))?;
    for note in &wrapped.notes {
        say(&format!("note: {}:{}: {}", args.file.file.display(), note.line, note.text));
    }
    if args.dry_run {
        return show(args, &wrapped);
    }
    if runs_whole {
        keep(&whole, text)?;
    }
    let copy = folder_of_copy(app, &wrapped).join(&name);
    keep(&copy, wrapped.text.as_bytes())?;
    let accepted = app.slurm.submit_with_environment(&copy, &sbatch, &args.script.arguments);
    let accepted = accepted.map_err(|error| not_accepted(args, error))?;
    for notice in &accepted.notices {
        say(&format!("sbatch: {notice}"));
    }
    announce(args, &wrapped, &copy, &accepted.job.to_string())
}

/// Options that mean something for experiments only.
fn refuse_other_options(args: &SubmitArgs) -> Result<(), CommandError> {
    let typed = [
        (
            !args.file.set.is_empty(),
            "--set",
            "options of `sbatch` are given as `--sbatch '--time=1:00:00'`",
        ),
        (
            args.file.executor.is_some(),
            "--executor",
            "name a partition: `--sbatch '--partition=NAME'`",
        ),
        (
            args.sequential,
            "--sequential",
            "an array runs one task at a time with `--sbatch '--array=1-9%1'`",
        ),
        (args.follow, "--follow", "`nemo-slurm watch JOB` shows the job once it runs"),
        (args.wait, "--wait", "`nemo-slurm wait JOB` waits for the job once it runs"),
    ];
    match typed.iter().find(|(is_typed, ..)| *is_typed) {
        None => Ok(()),
        Some((_, option, hint)) => {
            let text = format!(
                "`{option}` is for experiments; `{}` is a job script",
                args.file.file.display()
            );
            Err(CommandError::new(ExitCode::Usage, text).hinted(*hint))
        }
    }
}

/// `sbatch` would not return before the job is over.
fn refuse_wait(
    args: &SubmitArgs,
    script: &JobScript<'_>,
    typed: &[Directive],
) -> Result<(), CommandError> {
    let own = job_script::directives(script.text);
    let Some(wait) = own.iter().chain(typed).find(|own| own.name == "wait") else { return Ok(()) };
    let place = match wait.line {
        0 => "`--sbatch`".to_owned(),
        line => format!("{}:{line}", args.file.file.display()),
    };
    let text = format!("{place}: with `--wait`, `sbatch` would not return before the job is over");
    let hint = "take it out; `nemo-slurm wait JOB` waits for the job once it runs";
    Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
}

/// Slurm's signal is for the harness, which asks the program itself.
fn refuse_signal(typed: &[Directive]) -> Result<(), CommandError> {
    let Some(signal) = typed.iter().find(|own| job_script::is_unheard(own)) else { return Ok(()) };
    let text = format!(
        "`--sbatch --signal={}`: nemo-slurm needs Slurm's signal for itself (`B:USR1`)",
        signal.value
    );
    let hint = "name what asks the program to save, and how long before the end: `--wrap '--signal USR2 --lead 90s'`";
    Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
}

/// Without an answer, the job may exist all the same: the same command again would make a second one.
fn not_accepted(args: &SubmitArgs, error: SlurmError) -> CommandError {
    if !error.is_no_answer() {
        return error.into();
    }
    let why = match error {
        SlurmError::Refused { .. } => "`sbatch` was ended by a signal".to_owned(),
        other => other.to_string(),
    };
    let file = args.file.file.display();
    let text = format!("it is not known whether `{file}` was submitted: {why}");
    CommandError::new(ExitCode::NoAnswer, text)
        .hinted("the job may exist: look with `squeue --me` before you submit it again")
}

/// The error of a script, with the file and the line that it is about.
fn in_file(args: &SubmitArgs, error: ScriptError) -> CommandError {
    let text = format!("{}:{}: {}", args.file.file.display(), error.line, error.message);
    CommandError::new(ExitCode::Usage, text).hinted(error.hint)
}

/// The time limit of jobs whose command line says none, for `sbatch` and for what `wrap` says that a script needs.
const TIME_LIMIT: &str = "SBATCH_TIMELIMIT";

/// The time limit that the command line or the script says. The environment counts more than the script.
fn time_limit(script: &JobScript<'_>, typed: &[Directive]) -> Option<String> {
    let of =
        |own: &[Directive]| own.iter().rfind(|own| own.name == "time").map(|own| own.value.clone());
    let is_inherited = std::env::var_os(TIME_LIMIT).is_some_and(|limit| !limit.is_empty());
    let of_script = || of(&job_script::directives(script.text)).filter(|_| !is_inherited);
    of(typed).or_else(of_script)
}

/// What `wrap` says that a script needs on this cluster. It reads the options too, and says what is wrong with them.
fn needed(
    harness: &Path,
    options: &[String],
    time_limit: Option<String>,
) -> Result<Vec<String>, CommandError> {
    let options = job_script::before_the_job(options);
    let mut command = Command::new(harness);
    command.envs(time_limit.map(|limit| (TIME_LIMIT, limit)));
    let asked =
        command.arg("wrap").args(&options).arg("--directives").output().at("run", harness)?;
    if !asked.status.success() {
        let said = String::from_utf8_lossy(&asked.stderr);
        let said =
            said.lines().next().unwrap_or_default().trim_start_matches("nemo-harness: ").to_owned();
        return Err(CommandError::new(ExitCode::Usage, format!("`--wrap`: {said}"))
            .hinted("`nemo-harness --help` lists the options of `wrap`"));
    }
    Ok(String::from_utf8_lossy(&asked.stdout).lines().map(str::to_owned).collect())
}

/// What is submitted is kept by its content: jobs of the same script share it.
fn folder(app: &App, text: &[u8]) -> PathBuf {
    app.home.jobs().join("scripts").join(&blake3::hash(text).to_hex()[..16])
}

fn folder_of_copy(app: &App, wrapped: &Wrapped) -> PathBuf {
    folder(app, wrapped.text.as_bytes())
}

fn keep(path: &Path, text: &[u8]) -> Result<(), CommandError> {
    if !std::fs::read(path).is_ok_and(|own| own == text) {
        let folder = path.parent().unwrap_or(path);
        durable::create_dir_all(folder).at("make", folder)?;
        durable::replace_file_durably(path, text).at("write", path)?;
    }
    // Also of one that is there: what wrote it may have been killed right here.
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).at("make executable", path)?;
    Ok(())
}

fn show(args: &SubmitArgs, wrapped: &Wrapped) -> Result<ExitCode, CommandError> {
    if args.file.json {
        return out_json(&json!({
            "schema": 1,
            "script": wrapped.text,
            "line": wrapped.line,
            "command": wrapped.command,
            "added": wrapped.added,
            "notes": notes(wrapped),
        }));
    }
    out(wrapped.text.trim_end())
}

fn notes(wrapped: &Wrapped) -> Vec<serde_json::Value> {
    wrapped.notes.iter().map(|note| json!({ "line": note.line, "text": note.text })).collect()
}

fn announce(
    args: &SubmitArgs,
    wrapped: &Wrapped,
    copy: &Path,
    job: &str,
) -> Result<ExitCode, CommandError> {
    if args.file.json {
        return out_json(&json!({
            "schema": 1,
            "jobs": [{ "task": "job", "slurm_job": job }],
            "script": copy,
            "line": wrapped.line,
            "command": wrapped.command,
            "added": wrapped.added,
            "notes": notes(wrapped),
        }));
    }
    let file = args.file.file.display();
    say(&match wrapped.line {
        Some(line) => {
            format!("Submitted `{file}`; the harness runs the command of its line {line}.")
        }
        None => format!("Submitted `{file}`; the harness runs it as a whole."),
    });
    say(&format!(
        "\n  nemo-slurm status {job}    # once it runs\n  nemo-slurm logs {job} --follow\n  nemo-slurm cancel {job}"
    ));
    out(job)
}
