//! What is written of an attempt, and the facts that decide what follows: gathered here, judged elsewhere.

use nemo_core::rundir::{AttemptEnd, AttemptStart};

use crate::attempt::history::History;
use crate::attempt::lease::LeaseHolder;
use crate::attempt::outcome::AttemptReport;
use crate::attempt::verdict::{AttemptFacts, AttemptVerdict, Exit, RestartBudget};
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::monitor::failure_class;
use crate::os::clock::unix_now;

/// How often a program that hangs is restarted before it must commit a new checkpoint.
const HANGS: u32 = 1;

pub(super) fn start_record(
    harness: &Harness,
    own: &LeaseHolder,
    attempt: u32,
    step: Option<u64>,
    began: f64,
) -> AttemptStart {
    AttemptStart {
        attempt,
        slurm_job: harness.context.slurm.as_ref().map(SlurmJob::id),
        restarts: own.restarts,
        process: own.process.clone(),
        time: unix_now(),
        resume_step: step,
        began: Some(began),
    }
}

pub(super) fn end_record(
    history: &History,
    report: &AttemptReport,
    attempt: u32,
    verdict: &AttemptVerdict,
) -> AttemptEnd {
    let (exit_code, signal) = match report.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::StartFailed(_) | Exit::NotStarted(_) => (None, None),
    };
    AttemptEnd {
        attempt,
        time: unix_now(),
        cause: verdict.cause,
        exit_code,
        signal,
        step: report.step,
        checkpoint_step: history.steps.iter().copied().chain(report.committed).max(),
        next: verdict.next,
        reason: Some(verdict.reason.clone()),
        stopped: report.notes.stopped,
        saving: report.saving.map(|saving| saving.as_secs_f64()),
    }
}

pub(super) fn facts(
    harness: &Harness,
    history: &History,
    report: &AttemptReport,
    last_line: Option<String>,
    seconds: f64,
    oom: bool,
) -> AttemptFacts {
    let spec = &harness.trial.spec;
    let code = if let Exit::Code(code) = report.exit { Some(code) } else { None };
    AttemptFacts {
        exit: report.exit.clone(),
        stop: report.stop,
        was_notified: report.was_notified,
        from_program: report.from_program.clone(),
        failure_class: failure_class::judge(
            code,
            last_line.as_deref().unwrap_or_default(),
            report.notes.worked,
        ),
        stop_restarting: report.notes.stop_restarting.clone(),
        leave_node: report.notes.leave_node,
        had_no_room: report.notes.had_no_room,
        // If the harness killed the program, an earlier kill for memory did not end it.
        oom: oom && !report.killed,
        progress: report.committed.is_some()
            || report.is_taken
            || report.notes.went_on > history.went_on,
        crashes: RestartBudget { used: history.crashes, limit: spec.restart.crashes },
        hangs: RestartBudget { used: history.hangs, limit: HANGS },
        stuck: RestartBudget { used: history.stuck, limit: spec.restart.no_progress },
        #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
        over: spec.deadline.is_some_and(|at| at as f64 <= unix_now()),
        summary: report.summary(seconds, last_line),
    }
}
