//! What a compute node sees: the script of a job that looks at the home, what it answers, and what follows. Pure.
//!
//! The job and the command write to each other through files of the home. From both ways follow the time that a file
//! needs to appear, and how far the clocks differ.

use super::{CheckResult, Promise};

/// Seconds that the job waits for the other's file: it must end within its minute.
const PATIENCE: u32 = 45;
/// A file should appear within so many seconds; what waits for files of others is patient for a minute.
const LATE: f64 = 35.0;
const SLOW: f64 = 5.0;
/// Clocks that differ by more seconds make times wrong.
const SKEW: f64 = 2.0;

/// The name of the job.
pub const JOB_NAME: &str = "nemo-slurm-doctor";
/// The job writes this file first.
pub const HELLO: &str = "hello";
/// The command answers with this one.
pub const ANSWER: &str = "answer";
/// The job ends with this one.
pub const REPORT: &str = "report";

/// The script. `folder` is a word of the shell.
#[must_use]
pub fn script(folder: &str, partition: Option<&str>) -> String {
    let partition =
        partition.map(|name| format!("#SBATCH --partition={name}\n")).unwrap_or_default();
    format!(
        r#"#!/bin/sh
#SBATCH --job-name={JOB_NAME}
#SBATCH --time=1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --output=/dev/null
#SBATCH --no-requeue
{partition}cd {folder} || exit 3
echo "node=$(uname -n) time=$(date +%s.%N)" >.{HELLO} && mv .{HELLO} {HELLO} || exit 4
n=0
while [ ! -e {ANSWER} ] && [ $n -lt {PATIENCE}0 ]; do ls >/dev/null; sleep 0.1; n=$((n + 1)); done
seen=$(date +%s.%N)
[ -e {ANSWER} ] || seen=
echo x >.own; ln .own .claim 2>/dev/null && ! ln .own .claim 2>/dev/null && link=yes || link=no
submit=no
for program in squeue sbatch; do
  case $program in
    squeue) squeue --noheader --jobs="$SLURM_JOB_ID" >/dev/null 2>&1 && asked=yes || asked=no ;;
    sbatch) sbatch --test-only --time=1 --wrap true >/dev/null 2>&1 && submit=yes ;;
  esac
done
command -v curl >/dev/null 2>&1 && curl=yes || curl=no
PATH=$PATH:/usr/sbin:/usr/lib
{{ command -v sendmail || command -v mail; }} >/dev/null 2>&1 && mail=yes || mail=no
echo "seen=$seen link=$link asked=$asked submit=$submit curl=$curl mail=$mail" >.{REPORT} && mv .{REPORT} {REPORT}
"#
    )
}

/// What the job wrote: words `name=value`.
#[must_use]
pub fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut words = text.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    words.find(|(own, value)| *own == name && !value.is_empty()).map(|(_, value)| value)
}

fn time(text: &str, name: &str) -> Option<f64> {
    word(text, name)?.parse().ok()
}

/// What was seen of a node.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub struct NodeFacts {
    /// Its name.
    pub node: String,
    /// Seconds that a file needs to appear on the other side.
    pub delay: f64,
    /// How far the node's clock is ahead of ours, in seconds.
    pub skew: f64,
    /// Whether hard links work.
    pub links: bool,
    /// Whether it may ask Slurm.
    pub may_ask: bool,
    /// Whether it may submit.
    pub may_submit: bool,
    /// Whether `curl` is there.
    pub has_curl: bool,
    /// Whether a mailer is there.
    pub has_mailer: bool,
}

/// Puts together what both sides saw: when we saw the job's file, and when we wrote ours.
#[must_use]
pub fn facts(hello: &str, hello_seen: f64, answered: f64, report: &str) -> Option<NodeFacts> {
    let there = hello_seen - time(hello, "time")?;
    let back = time(report, "seen")? - answered;
    let is = |name: &str| word(report, name) == Some("yes");
    Some(NodeFacts {
        node: word(hello, "node")?.to_owned(),
        delay: f64::midpoint(there, back).max(0.0),
        skew: (back - there) / 2.0,
        links: is("link"),
        may_ask: is("asked"),
        may_submit: is("submit"),
        has_curl: is("curl"),
        has_mailer: is("mail"),
    })
}

/// What follows. `looks`: seconds between two looks of ours, which the delay holds too.
#[must_use]
pub fn findings(facts: &NodeFacts, looks: f64) -> Vec<CheckResult> {
    let NodeFacts { node, delay, skew, .. } = facts;
    let topic = "node";
    let seen = format!(
        "node `{node}` sees the home; a file of one side appears on the other after {delay:.1} s"
    );
    let mut findings = vec![match *delay {
        it if it < SLOW + looks => CheckResult::ok(topic, seen),
        it if it < LATE => CheckResult::advice(topic, seen)
            .since("states in `status`, and requests such as `pause`, come as late"),
        _ => CheckResult::problem(topic, seen)
            .since("a node may take another one for dead, because it sees its heartbeat too late"),
    }];
    findings.push(if facts.links {
        CheckResult::ok("node: hard links", "hard links work")
    } else {
        CheckResult::problem("node: hard links", format!("hard links don't work on `{node}`"))
            .since("trials are claimed by them: none could run there")
            .by_typing("set NEMO_SLURM_HOME to a folder on another disk")
    });
    // Each look of ours may come so much late.
    findings.push(if skew.abs() < SKEW + looks {
        CheckResult::ok("node: clock", "its clock agrees with this machine's")
    } else {
        CheckResult::advice(
            "node: clock",
            format!("its clock differs from this machine's by {skew:.1} s"),
        )
        .since("times in logs and lists differ by as much")
    });
    findings.push(match (facts.may_ask, facts.may_submit) {
        (true, true) => CheckResult::ok("node: Slurm", "jobs may ask Slurm, and submit"),
        (true, false) => CheckResult::advice("node: Slurm", "jobs may ask Slurm, and not submit")
            .since(
                "retries by rules, and what Slurm forgot, wait for cron's `poll` on this machine",
            )
            .by_typing("nemo-slurm poll --install"),
        (false, _) => CheckResult::problem("node: Slurm", "jobs may not ask Slurm")
            .since("a job can't requeue itself: cron's `poll` on this machine must do it")
            .by_typing("nemo-slurm poll --install"),
    });
    if !facts.has_curl && !facts.has_mailer {
        findings.push(
            CheckResult::advice("node: notifications", "it has neither `curl` nor a mailer")
                .since("`notify` by `url` or `email` is sent by cron's `poll` on this machine")
                .by_typing("nemo-slurm poll --install"),
        );
    }
    findings
}

/// What the nodes leave of what we promise.
#[must_use]
pub fn promises(facts: &NodeFacts) -> Vec<Promise> {
    let by_cron = "only by cron's `poll`: nodes may not use Slurm's commands";
    let holds = facts.may_ask && facts.may_submit;
    vec![Promise {
        promise: "what is killed runs again without cron",
        holds: Some(holds),
        why: (!holds).then(|| by_cron.to_owned()),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn delay_and_clock_follow_from_both_ways() {
        // The node's clock is 10 s ahead, and a file needs 2 s.
        let report = "seen=122.0 link=yes asked=yes submit=no curl=no mail=no\n";
        let facts = facts("node=n1 time=110.0\n", 102.0, 110.0, report).unwrap();
        assert!((facts.delay - 2.0).abs() < 1e-9 && (facts.skew - 10.0).abs() < 1e-9, "{facts:?}");
        let all = findings(&facts, 0.2);
        let level = |topic: &str| all.iter().find(|it| it.topic == topic).unwrap().level;
        assert_eq!(level("node"), Level::Ok);
        assert_eq!(level("node: clock"), Level::Advice);
        assert_eq!(level("node: Slurm"), Level::Advice);
        assert_eq!(promises(&facts)[0].holds, Some(false));
        assert_eq!(super::facts("node=n1 time=1.0", 1.0, 1.0, "seen= link=yes"), None);
    }

    #[test]
    fn the_script_is_one_of_sh() {
        let script = script("'/home/a b'", Some("main"));
        assert!(
            script.contains("#SBATCH --partition=main\ncd '/home/a b' || exit 3\n"),
            "{script}"
        );
        assert!(script.contains("[ $n -lt 450 ]"), "{script}");
    }
}
