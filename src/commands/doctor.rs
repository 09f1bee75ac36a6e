//! `doctor`: looks at this site, and says what to change.

mod job;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::poll::is_installed;
use super::{App, build, note};
use crate::clock;
use crate::doctor::home;
use crate::doctor::node;
use crate::doctor::site::{self, SiteFacts};
use crate::doctor::{CheckResult, Level, Promise};
use crate::error::{CommandError, ExitCode};
use crate::report::{Page, doctor_text, out, out_json};
use crate::slurm::{JobId, SlurmError, accounting_since};
use crate::store::{StoreError, require_safe};

/// `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each finding has a level (`ok`, `advice`, `problem`), what was found, what follows from it, what to type, and which line of slurm.conf \
    an administrator would change. Nothing is changed: some small files are written to the home and removed. \
    With `--job` a job of one minute looks at the home from a compute node. Without Slurm only this machine is looked at. \
    The exit code is 1 if there is a problem.\n\n\
    Examples:\n  nemo-slurm doctor\n  nemo-slurm doctor --job             # in the default partition\n  nemo-slurm doctor --job scavenge --json"
)]
pub struct DoctorArgs {
    /// Also submit a job of one minute that looks at the home from a node; in this partition
    #[arg(long, value_name = "PARTITION", num_args = 0..=1, default_missing_value = "")]
    pub job: Option<String>,
    /// How long that job may wait for its start, as in `30s` or `10min`
    #[arg(long, value_name = "TIME", default_value = "5min", value_parser = nemo_core::duration::option_in_seconds)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was looked at.
struct Examination {
    findings: Vec<CheckResult>,
    promises: Vec<Promise>,
    version: Option<String>,
    cluster: Option<String>,
}

/// Looks at the site.
pub(super) fn doctor(app: &App, args: &DoctorArgs) -> Result<ExitCode, CommandError> {
    let mut seen =
        Examination { findings: Vec::new(), promises: Vec::new(), version: None, cluster: None };
    let has_slurm = slurm(app, &mut seen);
    disk(app, has_slurm, &mut seen);
    examine_machine(app, has_slurm, &mut seen);
    if let Some(partition) = &args.job {
        let partition = Some(partition.as_str()).filter(|name| !name.is_empty());
        match job::run(app, partition, args.timeout) {
            Ok(facts) => {
                // A node has seen it: it is no disk of this machine alone.
                seen.findings.retain(|it| it.topic != home::SHARED_DISK);
                seen.findings.extend(node::findings(&facts, job::LOOK.as_secs_f64()));
                seen.promises.extend(node::promises(&facts));
            }
            Err(finding) => seen.findings.push(*finding),
        }
    }
    let has_problem = seen.findings.iter().any(|it| it.level == Level::Problem);
    if args.json {
        out_json(&json!({
            "schema": 1,
            "home": app.home.path().to_string_lossy(),
            "slurm": seen.version.as_ref().map(|version| json!({ "version": version, "cluster": seen.cluster })),
            "findings": seen.findings,
            "promises": seen.promises,
        }))?;
    } else {
        out(&doctor_text(&seen.findings, &seen.promises, &Page::here(clock::now())))?;
    }
    Ok(if has_problem { ExitCode::Failed } else { ExitCode::Fine })
}

/// Asks Slurm. Returns whether there is one here.
fn slurm(app: &App, seen: &mut Examination) -> bool {
    let facts = match site_facts(app) {
        Ok(facts) => facts,
        Err(SlurmError::MissingProgram { .. }) => {
            let what = "Slurm's programs are not in PATH";
            seen.findings.push(
                CheckResult::ok("Slurm", what)
                    .since("experiments run on this machine (`kind = \"local\"`)"),
            );
            return false;
        }
        Err(error) => {
            let hint = error.hint();
            let error = CommandError::from(error).one_line();
            let finding = CheckResult::problem("Slurm", error)
                .since("nothing can be submitted until it answers; what runs is not affected");
            seen.findings.push(match hint {
                Some(hint) => finding.by_typing(hint),
                None => finding.by_typing("scontrol ping"),
            });
            return true;
        }
    };
    seen.version = Some(facts.limits.version.clone());
    seen.cluster = Some(facts.limits.cluster.clone());
    seen.findings.extend(site::findings(&facts));
    seen.promises.extend(site::promises(&facts));
    true
}

fn site_facts(app: &App) -> Result<SiteFacts, SlurmError> {
    let client = &app.slurm;
    let (limits, partitions) = client.limits_and_partitions()?;
    let told = |error: SlurmError| CommandError::from(error).one_line();
    let has_accounts = limits.accounting;
    let no_accounts = || "this cluster has no accounting database".to_owned();
    let (qos, associations) = if has_accounts {
        let user = note::user_name(app);
        let user = user.ok_or_else(|| {
            "your name is in neither LOGNAME nor USER, and `id -un` does not tell it".to_owned()
        });
        let associations = user.and_then(|user| client.associations(&user).map_err(told));
        (client.qos().map_err(told), associations)
    } else {
        (Err(no_accounts()), Err(no_accounts()))
    };
    let groups =
        if has_accounts { client.account_groups().unwrap_or_default() } else { Vec::new() };
    // A job that nobody has: the answer is empty, if there is one.
    let ask = || client.accounting(&[JobId(1)], accounting_since(clock::now()));
    let accounting_error = if has_accounts { ask().err().map(told) } else { None };
    Ok(SiteFacts { limits, partitions, qos, associations, groups, accounting_error })
}

fn disk(app: &App, has_slurm: bool, seen: &mut Examination) {
    let home = app.home.path();
    let distrust = match require_safe(&app.home) {
        Err(StoreError::Distrust(why)) => Some((why.to_string(), why.hint())),
        Ok(()) | Err(_) => None,
    };
    match home::measure(home) {
        Ok(facts) => {
            seen.findings.extend(home::findings(&facts, has_slurm, distrust));
            seen.promises.extend(home::promises(&facts));
        }
        Err(error) => seen.findings.push(
            CheckResult::problem("home", format!("can't write to `{}`: {error}", home.display()))
                .by_typing("use another folder: `--home FOLDER`, or NEMO_SLURM_HOME"),
        ),
    }
}

/// What else this machine should have.
fn examine_machine(app: &App, has_slurm: bool, seen: &mut Examination) {
    if has_slurm {
        seen.findings.push(match is_installed(app) {
            Some(true) => CheckResult::ok("cron", "`nemo-slurm poll` runs every five minutes on this machine"),
            Some(false) | None => CheckResult::advice("cron", "no cron on this machine runs `nemo-slurm poll`")
                .since("jobs requeue each other when they end; the last one, and failed notifications, need a `poll`")
                .by_typing("nemo-slurm poll --install"),
        });
    }
    seen.findings.push(match app.harness() {
        Ok(harness) => build::finding(&harness),
        Err(_) => CheckResult::problem("harness", "`nemo-harness` is not beside `nemo-slurm`")
            .since("no trial can run without it")
            .by_typing("cargo install --locked --path harness"),
    });
    if which::which("curl").is_err() {
        seen.findings.push(
            CheckResult::advice("notifications", "`curl` is not in PATH")
                .since("`notify` by `url` needs it"),
        );
    }
}
