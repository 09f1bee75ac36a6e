//! A rehearsal for people and as JSON.

use comfy_table::Color;
use serde_json::{Value, json};

use super::table::{cell, table, text};
use crate::humanize::{count, duration};
use crate::rehearse::advice::Advice;
use crate::rehearse::compare::RunComparison;
use crate::rehearse::findings::{Finding, ONLY_METRICS, Reaction, Severity, is_safe, reaction};
use crate::rehearse::rehearser::RehearsalOutcome;
use crate::rehearse::run_record::{Injected, RehearsedAttempt, RehearsedRun, RunEnd};
use crate::rehearse::scenarios::{Fault, ScenarioKind};

/// Lines are broken to this width.
const WIDTH: usize = 80;

/// The table of runs, then what follows.
#[must_use]
pub fn rehearsal_text(outcome: &RehearsalOutcome) -> String {
    let mut parts = vec![runs_table(outcome)];
    parts.extend(outcome.findings.iter().map(finding_text));
    parts.push(advice_lines(&outcome.advice, &outcome.rehearsal.task).join("\n"));
    if !outcome.skipped.is_empty() {
        let names: Vec<&str> = outcome.skipped.iter().map(|kind| kind.as_str()).collect();
        parts.push(format!("There was no time for: {}.", names.join(", ")));
    }
    parts.push(headline(outcome));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn headline(outcome: &RehearsalOutcome) -> String {
    let task = &outcome.rehearsal.task;
    let errors = outcome.findings.iter().filter(|own| own.level == Severity::Error).count();
    let has = |code: &str| outcome.findings.iter().any(|own| own.code == code);
    if errors > 0 {
        return format!("`{task}` is not safe to be interrupted: {}.", count(errors, "error"));
    }
    let but = if has("not-deterministic") {
        ", as far as a program can tell that is not deterministic"
    } else if !outcome.skipped.is_empty() {
        ", as far as it was rehearsed"
    } else if has(ONLY_METRICS) {
        ", as far as its metrics tell"
    } else {
        ""
    };
    format!("`{task}` is safe to be interrupted{but}.")
}

fn all_runs(outcome: &RehearsalOutcome) -> Vec<(&RehearsedRun, Option<&RunComparison>)> {
    let all = &outcome.rehearsal;
    let again = all.again.iter().map(|(run, own)| (run, Some(own)));
    let runs = all.runs.iter().map(|(run, own)| (run, Some(own)));
    std::iter::once((&all.baseline, None)).chain(again).chain(runs).collect()
}

fn runs_table(outcome: &RehearsalOutcome) -> String {
    let mut table = table(&["run", "what was done", "what was seen", ""]);
    for (run, comparison) in all_runs(outcome) {
        let codes = codes(outcome, run.kind);
        let worst = codes.iter().map(|(level, _)| *level).min();
        let colour = match worst {
            Some(Severity::Error) => Color::Red,
            Some(Severity::Warning) => Color::Yellow,
            Some(Severity::Note) | None => Color::Green,
        };
        let words: Vec<&str> = codes.iter().map(|(_, code)| *code).collect();
        let verdict = if words.is_empty() { "ok".to_owned() } else { words.join(", ") };
        table.add_row(vec![
            cell(run.kind.as_str()),
            cell(disturbances(run)),
            cell(observations(run, comparison, &outcome.rehearsal.baseline)),
            cell(verdict).fg(colour),
        ]);
    }
    text(&table)
}

/// The errors and warnings that a kind of run led to.
fn codes(outcome: &RehearsalOutcome, kind: ScenarioKind) -> Vec<(Severity, &'static str)> {
    let own = outcome.findings.iter().filter(|own| own.scenarios.contains(&kind));
    own.filter(|own| own.level != Severity::Note).map(|own| (own.level, own.code)).collect()
}

fn fault(fault: Fault) -> String {
    match fault {
        Fault::Preempt { lead } => format!("preempted with {lead}s notice"),
        Fault::Terminate { kill_wait } => format!("SIGTERM, SIGKILL {kill_wait}s later"),
        Fault::KillProgram => "program killed -9".to_owned(),
        Fault::KillHarness => "harness killed -9".to_owned(),
        Fault::TimeLimit { limit } => format!("a segment of {limit}s"),
        Fault::Requeue => "scontrol requeue".to_owned(),
    }
}

/// The disturbances that took place; the same ones in a row are said once.
fn disturbances(run: &RehearsedRun) -> String {
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    for attempt in &run.attempts {
        let Some(injected) = attempt.injected else { continue };
        let what = fault(injected.fault);
        let when = moment(attempt, injected);
        match parts.last_mut().filter(|(last, _)| *last == what) {
            Some((_, moments)) => moments.push(when),
            None => parts.push((what, vec![when])),
        }
    }
    let parts = parts.into_iter().map(|(what, moments)| {
        let is_time = moments.iter().any(|moment| moment.ends_with('s'));
        let unit = match (is_time, moments.len()) {
            (true, _) => "",
            (false, 1) => "step ",
            (false, _) => "steps ",
        };
        format!("{what} after {unit}{}", moments.join(", "))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("; then ") }
}

fn moment(attempt: &RehearsedAttempt, injected: Injected) -> String {
    match injected.step {
        Some(step) => step.to_string(),
        None => format!("{:.1}s", injected.time - attempt.start),
    }
}

fn observations(
    run: &RehearsedRun,
    comparison: Option<&RunComparison>,
    baseline: &RehearsedRun,
) -> String {
    let mut parts = Vec::new();
    let saved = run.attempts.iter().filter_map(|attempt| match reaction(attempt, baseline)? {
        Reaction::Saved(step, _) | Reaction::WentOn(step, _) => attempt.save_seconds(step),
        Reaction::Left | Reaction::DiedOfTerm | Reaction::Finished | Reaction::Nothing => None,
    });
    let last = baseline.steps().last().copied();
    if run.planned > 0 && !run.was_disturbed(last) {
        parts.push("nothing was disturbed".to_owned());
    } else if run.disturbed() < run.planned {
        parts.push(format!("{} of {} took place", run.disturbed(), run.planned));
    }
    if let Some(longest) = saved.reduce(f64::max) {
        parts.push(format!("saved in {longest:.2}s"));
    }
    let resumes: Vec<String> =
        run.attempts.iter().skip(1).map(|attempt| went_on_from(attempt, baseline)).collect();
    if !resumes.is_empty() {
        parts.push(format!("went on from {}", resumes.join(", ")));
    }
    match &run.end {
        RunEnd::Failed(_) => parts.push("failed".to_owned()),
        RunEnd::Stuck => parts.push("did not end".to_owned()),
        RunEnd::Completed => parts.push(compared(run, comparison)),
    }
    parts.join("; ")
}

/// The step of its checkpoint. One that was given none may have found a file of its own.
fn went_on_from(attempt: &RehearsedAttempt, baseline: &RehearsedRun) -> String {
    let first = attempt.steps().min().filter(|first| Some(first) > baseline.steps().first());
    match (attempt.resume_step, first) {
        (Some(step), _) => step.to_string(),
        (None, Some(first)) => format!("{} by itself", first.saturating_sub(1)),
        (None, None) => "the start".to_owned(),
    }
}

fn compared(run: &RehearsedRun, comparison: Option<&RunComparison>) -> String {
    let Some(own) = comparison else {
        let until = run.steps().last().map(|step| format!("to step {step} "));
        return format!("{}in {}", until.unwrap_or_default(), seconds(run.seconds));
    };
    match &own.series.first {
        _ if own.is_equal() && own.has_slack && own.series.compared > 0 => {
            "equal but for noise".to_owned()
        }
        _ if own.is_equal() => "equal".to_owned(),
        Some(first) => format!("differs from {} {} on", own.unit(), first.step),
        None if own.series.missing.is_empty() && own.doubled.is_empty() => {
            "files differ".to_owned()
        }
        None => "the record differs".to_owned(),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { duration(seconds) }
}

fn finding_text(finding: &Finding) -> String {
    let level = match finding.level {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut lines = vec![wrap(&format!("{level}[{}]: ", finding.code), &finding.what, 2)];
    lines.extend(finding.evidence.iter().map(|evidence| wrap("  = ", evidence, 4)));
    if !finding.hint.is_empty() {
        lines.push(wrap("  hint: ", &finding.hint, 8));
    }
    if let Some(paste) = &finding.paste {
        lines.extend(paste.lines().map(|line| format!("        {line}")));
    }
    lines.join("\n")
}

/// Breaks a text between words; further lines are indented.
fn wrap(start: &str, text: &str, indent: usize) -> String {
    let mut lines = vec![start.to_owned()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length + word.chars().count() > WIDTH && !lines[last].trim().is_empty() {
            lines.push(" ".repeat(indent));
        }
        let last = lines.len() - 1;
        lines[last].push_str(word);
        lines[last].push(' ');
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

fn advice_lines(advice: &Advice, task: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(save), Some(needed)) = (advice.save_seconds, advice.lead_needed) {
        let is_enough = advice.lead_is_enough == Some(true);
        let verdict = if is_enough { "is enough" } else { "is short; twice that time needs" };
        let text = format!(
            "A save takes {save:.2}s from the signal until it is committed: lead = \"{}s\" {verdict}{}",
            advice.lead,
            if is_enough { "." } else { ":" }
        );
        lines.push(wrap("", &text, 2));
        if !is_enough {
            lines.push(format!("  [task.{task}.checkpoint]\n  lead = \"{needed}s\""));
        }
    }
    let own = match (advice.saves_every_steps, advice.step_seconds) {
        (Some(steps), _) => {
            format!("it saves every {}", count(usize::try_from(steps).unwrap_or(0), "step"))
        }
        (None, _) => "it saves only when it is asked".to_owned(),
    };
    if let Some(every) = advice.every_seconds {
        #[expect(clippy::cast_precision_loss, reason = "seconds of an interval")]
        let steps = advice.step_seconds.filter(|step| *step > 0.0).map(|step| every as f64 / step);
        let steps =
            steps.map_or_else(String::new, |steps| format!(" (about {} steps)", rounded(steps)));
        let lost = advice.lost_steps.map_or_else(String::new, |lost| {
            format!("; the kill cost {}", count(usize::try_from(lost).unwrap_or(0), "step"))
        });
        lines.push(wrap(
            "",
            &format!(
                "If it is interrupted about every 4 h without notice, it loses least with a save every {}{steps}; {own}{lost}.",
                interval(every)
            ),
            2,
        ));
    }
    lines
}

/// As `exp.toml` takes it.
fn interval(seconds: u64) -> String {
    if seconds.is_multiple_of(60) { format!("{}m", seconds / 60) } else { format!("{seconds}s") }
}

/// Two digits that count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of steps")]
fn rounded(number: f64) -> u64 {
    let unit = 10f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    ((number / unit).round().max(1.0) * unit) as u64
}

/// All of it, `schema` 1; the fields are told in `docs/rehearse.md`.
#[must_use]
pub fn rehearsal_json(
    outcome: &RehearsalOutcome,
    trial: u32,
    seed: u64,
    folder: Option<&str>,
) -> Value {
    let runs: Vec<Value> = all_runs(outcome)
        .into_iter()
        .enumerate()
        .map(|(number, (run, own))| run_json(number + 1, run, own, outcome))
        .collect();
    json!({
        "schema": 1,
        "task": outcome.rehearsal.task,
        "trial": trial,
        "seed": seed,
        "safe": is_safe(&outcome.findings),
        "findings": outcome.findings,
        "advice": outcome.advice,
        "runs": runs,
        "skipped": outcome.skipped,
        "folder": folder,
    })
}

fn run_json(
    number: usize,
    run: &RehearsedRun,
    own: Option<&RunComparison>,
    outcome: &RehearsalOutcome,
) -> Value {
    let comparison = own.map(|own| {
        json!({
            "equal": own.is_equal(),
            "metrics": own.series,
            "doubled": own.doubled,
            "checkpoints": own.checkpoints.iter().map(|(step, tree)| json!({ "step": step, "difference": tree })).collect::<Vec<_>>(),
            "results": own.results,
        })
    });
    let codes: Vec<&str> = codes(outcome, run.kind).into_iter().map(|(_, code)| code).collect();
    json!({
        "number": number,
        "run": run.kind,
        "seconds": run.seconds,
        "planned": run.planned,
        "disturbed": run.was_disturbed(outcome.rehearsal.baseline.steps().last().copied()),
        "end": run.end,
        "codes": codes,
        "attempts": run.attempts.iter().map(attempt_json).collect::<Vec<_>>(),
        "comparison": comparison,
    })
}

fn attempt_json(attempt: &RehearsedAttempt) -> Value {
    json!({
        "resume_step": attempt.resume_step,
        "first_step": attempt.steps().next(),
        "last_step": attempt.steps().max(),
        "injected": attempt.injected.map(|injected| json!({
            "fault": injected.fault,
            "step": injected.step,
            "seconds": injected.time - attempt.start,
        })),
        "saved": attempt.saved_after_request().map(|(step, seconds)| json!({ "step": step, "seconds": seconds })),
        "checkpoints": attempt.checkpoints.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        "end": attempt.end,
    })
}
