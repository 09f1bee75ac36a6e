//! `nemo-slurm`: experiments on Slurm, from a TOML file to a table of results.
#![expect(clippy::disallowed_methods, reason = "an edge: the environment is read here, once")]

use std::process::ExitCode;

use clap::error::ErrorKind;
use nemo_slurm::cli;
use nemo_slurm::commands::{self, Environment};
use nemo_slurm::report;

fn main() -> ExitCode {
    commands::completions::answer_shell();
    let environment = Environment {
        user_home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(Into::into),
        harness: std::env::var_os("NEMO_HARNESS").filter(|path| !path.is_empty()).map(Into::into),
        variables: std::env::vars_os().collect(),
        slurm_conf: std::env::var("SLURM_CONF").unwrap_or_default(),
    };
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    let result = match cli::parse() {
        Ok(cli) => commands::run(cli, environment),
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return cli::version(is_json),
        Err(error) if is_json && error.use_stderr() => return cli::usage_error(&error),
        Err(error) => error.exit(),
    };
    match result {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            if is_json {
                // Where nobody reads, the exit code still tells.
                drop(report::out_json(&error.json()));
            } else {
                report::say(error.render().trim_end());
            }
            ExitCode::from(error.code as u8)
        }
    }
}
