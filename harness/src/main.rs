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

use job::debug::{self, DebugOptions};
use job::environment;
use job::run::{self, Mode, TrialSelector};
use job::trial::TaskSource;
use job::wrap::{self, WrapOptions};
use os::log;
use program::scontrol_shim;
use slurm::sentinel;

const HELP: &str = "\
nemo-harness runs one trial inside a job, and never loses its checkpoint.
It is started by the scripts that nemo-slurm writes; you seldom need it by hand.

Usage:
  nemo-harness run --task-dir DIR (--trial N | --offset N) [--spec FILE] [--local] [--gpus LIST]
  nemo-harness wrap [OPTIONS] -- PROGRAM
  nemo-harness wrap --directives
  nemo-harness debug --task-dir DIR --trial N --attempt N [--remove-secrets]
  nemo-harness sentinel --harness-pid PID --start-ticks TICKS
  nemo-harness exec --trial-dir DIR --attempt N --workdir DIR --port N [--lines] -- PROGRAM
  nemo-harness --version [--json]

run       runs trial N of the task in DIR (with task.json and trials.jsonl), writes its
          record, logs, metrics and checkpoints to DIR/trials/N, and ends with
            0    done                     1, 93  failed (93 in a Slurm job)
            75   it must be run again     143    cancelled
            124  the experiment's time is over
          --offset N   run trial N + SLURM_ARRAY_TASK_ID
          --spec FILE  read this file of DIR instead of task.json (a retry writes it)
          --local      ignore the Slurm job around it
          --gpus LIST  GPUs of the trial on this machine
          Signals: USR1 asks the program to save; TERM saves and stops.
wrap      runs the program of any job script. The program is asked to save in time, its
          checkpoints are verified, and it resumes after the job is requeued. The script's last
          line is `exec nemo-harness wrap -- python train.py`.
          --dir DIR          folder for the state (default: below $NEMO_SLURM_HOME/jobs)
          --profile NAME     lightning, transformers, torchrun, submitit or condor
          --signal NAME      signal that asks the program to save: USR1, USR2, TERM, INT or HUP;
                             `none` if the program saves by itself
          --lead TIME        how long before the end the program is asked to save (default: 120s,
                             or half of a time limit below 4 minutes)
          --from PATTERN     where the program saves by itself; may be given several times
          --restore-to PATH  where the program looks for its own checkpoint when it starts
          --save-command T   command that saves the program from outside, for sh
          --resume-command T command that resumes from $NEMO_RESUME_FROM, instead of PROGRAM
          --metric N=REGEX   metric in the program's output; `step=…` is the step; may be given
                             several times
          --crashes N        how many crashes are followed by another attempt (default: 0)
          --directives       print the #SBATCH lines that this cluster needs, and run nothing
debug     becomes the program of trial N, and leaves its output and input to the caller.
          `nemo-slurm debug` starts it in a copy of the trial's folder.
          --remove-secrets   remove the secrets of that copy once they are read
sentinel  waits for the TERM that a preemption begins with, and tells the harness.
exec      runs PROGRAM as one of several processes of a trial. srun starts one for each.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum HarnessCommand {
    Help,
    /// As JSON, or as a line.
    Version(bool),
    Run {
        source: TaskSource,
        which: TrialSelector,
        mode: Mode,
    },
    Wrap(WrapOptions),
    Debug(DebugOptions),
    Sentinel {
        pid: u32,
        start_ticks: u64,
    },
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
        Ok(HarnessCommand::Version(is_json)) => {
            print(&mut std::io::stdout(), &version(is_json));
            return ExitCode::SUCCESS;
        }
        Ok(HarnessCommand::Run { source, which, mode }) => run::run(&source, which, mode),
        Ok(HarnessCommand::Wrap(options)) => wrap::run(&options),
        Ok(HarnessCommand::Debug(options)) => debug::run(&options),
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

/// Which build this is, in a line.
fn version(is_json: bool) -> String {
    let info = nemo_core::build_info!("nemo-harness");
    match serde_json::to_string(&info) {
        Ok(json) if is_json => json + "\n",
        _ => format!("nemo-harness {}\n", info.text()),
    }
}

/// Reads the command line.
fn parse(arguments: &[OsString]) -> Result<HarnessCommand, String> {
    if let Some((first, rest)) = arguments.split_first()
        && first == "exec"
    {
        return rank::ExecOptions::parse(rest).map(HarnessCommand::Exec);
    }
    if let Some((first, rest)) = arguments.split_first()
        && first == "wrap"
        && !is_help(rest)
    {
        return WrapOptions::parse(rest).map(HarnessCommand::Wrap);
    }
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((first, rest)) = arguments.split_first() else { return Ok(HarnessCommand::Help) };
    match first.as_str() {
        "-h" | "--help" | "help" | "wrap" => Ok(HarnessCommand::Help),
        "-V" | "--version" => Ok(HarnessCommand::Version(rest.iter().any(|it| it == "--json"))),
        "run" => parse_run(rest),
        "debug" => parse_debug(rest),
        "sentinel" => parse_sentinel(rest),
        _ => Err(format!("`{first}` is no command of nemo-harness")),
    }
}

/// Whether only help is asked for.
fn is_help(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|word| word == "-h" || word == "--help")
}

fn parse_run(arguments: &[String]) -> Result<HarnessCommand, String> {
    let (mut task_dir, mut spec, mut which, mut mode) = (None, None, None, Mode::default());
    let mut gpus = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--local" => mode.local = true,
            environment::DONE => mode.in_environment = true,
            "--task-dir" => task_dir = Some(PathBuf::from(value(word, words.next())?)),
            "--spec" => spec = Some(value(word, words.next())?.clone()),
            "--gpus" => gpus = Some(value(word, words.next())?.clone()),
            "--trial" => which = Some(TrialSelector::Trial(number(word, words.next())?)),
            "--offset" => which = Some(TrialSelector::Offset(number(word, words.next())?)),
            "-h" | "--help" => return Ok(HarnessCommand::Help),
            _ => return Err(format!("`run` has no option `{word}`")),
        }
    }
    let task_dir = task_dir.ok_or("`run` needs `--task-dir DIR`")?;
    let which = which.ok_or("`run` needs `--trial N` or `--offset N`")?;
    Ok(HarnessCommand::Run {
        source: TaskSource { dir: task_dir, spec, text: None, gpus },
        which,
        mode,
    })
}

fn parse_debug(arguments: &[String]) -> Result<HarnessCommand, String> {
    let (mut dir, mut trial, mut attempt) = (None, None, None);
    let (mut in_environment, mut remove_secrets) = (false, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            environment::DONE => in_environment = true,
            "--remove-secrets" => remove_secrets = true,
            "--task-dir" => dir = Some(PathBuf::from(value(word, words.next())?)),
            "--trial" => trial = Some(number(word, words.next())?),
            "--attempt" => attempt = Some(number(word, words.next())?),
            "-h" | "--help" => return Ok(HarnessCommand::Help),
            _ => return Err(format!("`debug` has no option `{word}`")),
        }
    }
    let dir = dir.ok_or("`debug` needs `--task-dir DIR`")?;
    let source = TaskSource { dir, spec: None, text: None, gpus: None };
    let trial = trial.ok_or("`debug` needs `--trial N`")?;
    let attempt = attempt.ok_or("`debug` needs `--attempt N`")?;
    Ok(HarnessCommand::Debug(DebugOptions {
        source,
        trial,
        attempt,
        in_environment,
        remove_secrets,
    }))
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
