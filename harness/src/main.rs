//! `nemo-harness`: stands between Slurm and one training program.

mod attempt;
mod checkpoint;
mod event_loop;
mod job;
mod monitor;
mod os;
mod program;
mod protocol;
mod rank;
mod slurm;
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use job::environment;
use job::run::{self, Mode, TrialSelector};
use os::log;
use program::scontrol_shim;
use slurm::sentinel;

const HELP: &str = "\
nemo-harness runs one trial inside a job, and never loses its checkpoint.
It is started by the scripts that nemo-slurm writes; you seldom need it by hand.

Usage:
  nemo-harness run --task-dir DIR (--trial N | --offset N) [--local]
  nemo-harness sentinel --harness-pid PID --start-ticks TICKS
  nemo-harness exec --trial-dir DIR --attempt N --workdir DIR --port N [--lines] -- PROGRAM

run       runs trial N of the task in DIR (with task.json and trials.jsonl), writes its
          record, logs, metrics and checkpoints to DIR/trials/N, and ends with
            0    done                     1, 93  failed (93 in a Slurm job)
            75   it must be run again     143    cancelled
            124  the experiment's time is over
          --offset N  trial N + SLURM_ARRAY_TASK_ID
          --local     ignore the Slurm job around it
          Signals: USR1 asks the program to save; TERM saves and stops.
sentinel  waits for the TERM that a preemption begins with, and tells the harness.
exec      runs PROGRAM as one of several processes of a trial; srun starts it, once for each.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum HarnessCommand {
    Help,
    Version,
    Run { task_dir: PathBuf, which: TrialSelector, mode: Mode },
    Sentinel { pid: u32, start_ticks: u64 },
    Exec(rank::ExecOptions),
}

fn main() -> ExitCode {
    if scontrol_shim::is_meant(std::env::args_os().next().as_deref()) {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        return ExitCode::from(scontrol_shim::run(&arguments));
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match parse(&arguments) {
        Ok(HarnessCommand::Help) => {
            print(&mut std::io::stdout(), HELP);
            return ExitCode::SUCCESS;
        }
        Ok(HarnessCommand::Version) => {
            let version = concat!("nemo-harness ", env!("CARGO_PKG_VERSION"), "\n");
            print(&mut std::io::stdout(), version);
            return ExitCode::SUCCESS;
        }
        Ok(HarnessCommand::Run { task_dir, which, mode }) => run::run(&task_dir, which, mode),
        Ok(HarnessCommand::Sentinel { pid, start_ticks }) => {
            let ended = sentinel::run(pid, start_ticks);
            ended.map(|()| nemo_core::exit::DONE).map_err(|error| format!("the sentinel: {error}"))
        }
        Ok(HarnessCommand::Exec(options)) => rank::run(&options),
        Err(error) => {
            let text = format!("error: {error}\n\nhint: `nemo-harness --help` explains\n");
            print(&mut std::io::stderr(), &text);
            return ExitCode::from(nemo_core::exit::USAGE);
        }
    };
    result.map_or_else(
        |error| {
            log::log_error(&error);
            ExitCode::from(nemo_core::exit::FAILED)
        },
        ExitCode::from,
    )
}

/// Prints, where there is somebody to read it: an output that is closed or full is no reason to panic.
fn print(output: &mut impl std::io::Write, text: &str) {
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).ok();
}

/// Reads the command line.
fn parse(arguments: &[OsString]) -> Result<HarnessCommand, String> {
    if let Some((first, rest)) = arguments.split_first()
        && first == "exec"
    {
        return rank::ExecOptions::parse(rest).map(HarnessCommand::Exec);
    }
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((first, rest)) = arguments.split_first() else { return Ok(HarnessCommand::Help) };
    match first.as_str() {
        "-h" | "--help" | "help" => Ok(HarnessCommand::Help),
        "-V" | "--version" => Ok(HarnessCommand::Version),
        "run" => parse_run(rest),
        "sentinel" => parse_sentinel(rest),
        _ => Err(format!("`{first}` is no command of nemo-harness")),
    }
}

fn parse_run(arguments: &[String]) -> Result<HarnessCommand, String> {
    let (mut task_dir, mut which, mut mode) = (None, None, Mode::default());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--local" => mode.local = true,
            environment::DONE => mode.in_environment = true,
            "--task-dir" => task_dir = Some(PathBuf::from(value(word, words.next())?)),
            "--trial" => which = Some(TrialSelector::Trial(number(word, words.next())?)),
            "--offset" => which = Some(TrialSelector::Offset(number(word, words.next())?)),
            "-h" | "--help" => return Ok(HarnessCommand::Help),
            _ => return Err(format!("`run` has no option `{word}`")),
        }
    }
    let task_dir = task_dir.ok_or("`run` needs `--task-dir DIR`")?;
    let which = which.ok_or("`run` needs `--trial N` or `--offset N`")?;
    Ok(HarnessCommand::Run { task_dir, which, mode })
}

fn parse_sentinel(arguments: &[String]) -> Result<HarnessCommand, String> {
    let (mut pid, mut start_ticks) = (None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--harness-pid" => pid = Some(number(word, words.next())?),
            "--start-ticks" => start_ticks = Some(number(word, words.next())?),
            "-h" | "--help" => return Ok(HarnessCommand::Help),
            _ => return Err(format!("`sentinel` has no option `{word}`")),
        }
    }
    let pid = pid.ok_or("`sentinel` needs `--harness-pid PID`")?;
    let start_ticks = start_ticks.ok_or("`sentinel` needs `--start-ticks TICKS`")?;
    Ok(HarnessCommand::Sentinel { pid, start_ticks })
}

fn value<'a>(name: &str, value: Option<&'a String>) -> Result<&'a String, String> {
    value.ok_or_else(|| format!("`{name}` needs a value"))
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&String>) -> Result<T, String> {
    let text = value(name, text)?;
    text.parse().map_err(|_| format!("`{name}` takes a number, not `{text}`"))
}
