//! What `doctor` found, for people: problems last, where they are seen.

use super::fit::hang;
use super::own_commands::with_home;
use super::{INDENT, Page};
use crate::doctor::{CheckResult, Level, Promise};
use crate::humanize::count;

/// All findings, the promises, and a line that sums up.
#[must_use]
pub fn doctor_text(findings: &[CheckResult], promises: &[Promise], page: &Page) -> String {
    let mut parts: Vec<String> = Vec::new();
    for level in [Level::Ok, Level::Advice, Level::Problem] {
        let of_level = findings.iter().filter(|finding| finding.level == level);
        parts.extend(of_level.map(|finding| text(finding, page)));
    }
    if !promises.is_empty() {
        parts.push(String::new());
        parts.push("What holds here:".to_owned());
        parts.extend(promises.iter().map(|promise| promise_text(promise, page)));
    }
    parts.push(String::new());
    parts.push(summary(findings));
    parts.join("\n")
}

fn text(finding: &CheckResult, page: &Page) -> String {
    let mark = match finding.level {
        Level::Ok => "ok",
        Level::Advice => "advice",
        Level::Problem => "problem",
    };
    let mut lines =
        vec![hang(&format!("{mark}: {}: {}", finding.topic, finding.what), page.width, INDENT)];
    let further = [
        ("", &finding.why),
        ("fix: ", &finding.fix),
        ("slurm.conf: ", &finding.slurm_conf),
        ("administrator: ", &finding.administrator),
    ];
    for (title, text) in further {
        let Some(text) = text else { continue };
        let width = page.width.map(|width| width.saturating_sub(INDENT));
        // A command stands behind a title, where it is not found by itself.
        let hung = hang(&format!("{title}{}", with_home(text)), width, INDENT);
        lines.extend(hung.lines().map(|line| format!("{:INDENT$}{line}", "")));
    }
    lines.join("\n")
}

fn promise_text(promise: &Promise, page: &Page) -> String {
    let holds = match promise.holds {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let why = promise.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let line = hang(&format!("{holds}: {}{why}", promise.promise), page.width, INDENT);
    line.lines().map(|line| format!("{:INDENT$}{line}", "")).collect::<Vec<_>>().join("\n")
}

fn summary(findings: &[CheckResult]) -> String {
    let of = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (of(Level::Problem), of(Level::Advice)) {
        (0, 0) => "All is well.".to_owned(),
        (0, advice) => format!(
            "No problem; {}.",
            count(advice, "advice").replace("advices", "pieces of advice")
        ),
        (problems, _) => format!("{}.", count(problems, "problem")),
    }
}
