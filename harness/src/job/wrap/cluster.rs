//! What a wrapped job must know of its cluster, and what can be put right about the job itself.

use std::thread::sleep;
use std::time::Duration;

use nemo_core::show_job::{self, Fields};

use super::script::ScriptOptions;
use super::variable;
use crate::job::context::SlurmJob;
use crate::os::clock::Clock;
use crate::os::log::{log_info, log_stderr};
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm;

/// How long Slurm may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// How often it is asked for what must be known, and the pause between.
const ASKED: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What `scontrol show config` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(super) struct ClusterFacts {
    /// A sentinel must listen for the start of a preemption's grace.
    pub(super) needs_sentinel: bool,
    pub(super) kill_wait: Option<u64>,
    pub(super) requeue_exit: Option<u8>,
    preempts: bool,
    /// Which jobs are preempted, and with which grace, is a matter of their QOS.
    by_qos: bool,
    /// The signal of a job, if it has one, comes in place of the TERM at a preemption.
    sends_user_signal: bool,
    /// Slurm adds to its log of a job that runs once more.
    appends: bool,
    /// Jobs are requeued unless they say otherwise.
    requeues: bool,
}

impl ClusterFacts {
    /// Asks Slurm. Without an answer nothing is taken for granted.
    pub(super) fn ask(clock: &Clock) -> Self {
        match subprocess::ask(&["scontrol", "show", "config"], clock, ANSWER) {
            SubprocessResult::Ended { text, .. } => Self::read(&text),
            SubprocessResult::NoAnswer(_) => Self { needs_sentinel: true, ..Self::default() },
        }
    }

    fn read(text: &str) -> Self {
        let value = |name: &str| {
            let line =
                text.lines().find(|line| line.split('=').next().map(str::trim) == Some(name));
            line.and_then(|line| line.split_once('=')).map(|(_, value)| value.trim())
        };
        let number = |name: &str| value(name)?.split(' ').next()?.parse::<u64>().ok();
        let parameters = value("PreemptParameters").unwrap_or_default();
        let kind = value("PreemptType").unwrap_or("preempt/none");
        let preempts = kind != "preempt/none";
        let sends_user_signal = parameters.contains("send_user_signal");
        Self {
            needs_sentinel: preempts && !sends_user_signal,
            preempts,
            by_qos: kind == "preempt/qos",
            sends_user_signal,
            appends: number("JobFileAppend") == Some(1),
            kill_wait: number("KillWait"),
            requeue_exit: number("RequeueExit").and_then(|code| code.try_into().ok()),
            requeues: number("JobRequeue") == Some(1),
        }
    }

    /// Whether the job's partition says if a preemption may come with a grace. A QOS may be changed while the job waits.
    pub(super) fn depends_on_partition(&self) -> bool {
        self.preempts && !self.by_qos
    }

    /// Takes note of a partition without preemption, or without a grace that one could hear of: nobody need listen there.
    pub(super) fn heed_partition(&mut self, shown: &str) {
        let value = |name: &str| {
            shown.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let is_off = value("PreemptMode").is_some_and(|mode| mode.contains("OFF"));
        if is_off || value("GraceTime") == Some("0") {
            self.preempts = false;
            self.needs_sentinel = false;
        }
    }

    /// Has a sentinel listen unless the script is known to hear of a preemption itself; and says what the script lacks.
    pub(super) fn heed(&mut self, script: Option<&ScriptOptions>, lead: u64) {
        let is_told = script.is_some_and(ScriptOptions::signals_harness);
        self.needs_sentinel |= self.preempts && !is_told;
        for line in script.into_iter().flat_map(|script| self.missing(script, lead)) {
            log_info(&line);
        }
    }

    fn missing(&self, script: &ScriptOptions, lead: u64) -> Vec<String> {
        let signal = format!(
            "a job step listens for preemptions, since the script has no signal for itself: add \
             `#SBATCH --signal=B:USR1@{lead}` to it"
        );
        let lacks_signal = self.preempts && self.sends_user_signal && !script.signals_harness();
        let mode = "Slurm begins this log anew whenever the job is requeued: add `#SBATCH --open-mode=append` to the script";
        let lacks_mode = !self.appends && !script.is_appending();
        let signal = lacks_signal.then_some(signal);
        signal.into_iter().chain(lacks_mode.then(|| mode.to_owned())).collect()
    }

    /// The lines that a script needs for what can't be put right later.
    pub(super) fn directives(&self, lead: u64) -> String {
        let requeue = if self.requeues { "" } else { "#SBATCH --requeue\n" };
        format!("{requeue}#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@{lead}\n")
    }
}

/// What Slurm shows of the partition that the job runs in; nothing where it does not answer.
pub(super) fn show_partition(shown: &str, clock: &Clock) -> String {
    let fields = nemo_core::show_job::Fields::new(shown);
    let Some(name) = fields.and_then(|fields| fields.get("Partition")) else {
        return String::new();
    };
    match subprocess::ask(&slurm::show_partition(name), clock, ANSWER) {
        SubprocessResult::Ended { text, .. } => text,
        SubprocessResult::NoAnswer(_) => String::new(),
    }
}

/// What Slurm shows of the job; nothing where it does not answer.
///
/// It is asked again where the variables may be those of the job that submitted this one.
pub(super) fn show_job(own: &SlurmJob, clock: &Clock) -> String {
    let is_array_of_another = own.array.as_ref().is_some_and(|(array, _)| *array != own.raw);
    let asked = if is_array_of_another || own.restarts > 0 { ASKED } else { 1 };
    let mut again = false;
    let answers = (0..asked).find_map(|_| {
        if std::mem::replace(&mut again, true) {
            sleep(PAUSE);
        }
        shown_once(&own.raw, clock)
    });
    answers.unwrap_or_default()
}

/// The record of the job with this raw id. One task of an array has the array's number, under which all tasks are shown.
fn shown_once(raw: &str, clock: &Clock) -> Option<String> {
    let answer = subprocess::ask(&slurm::show_job(raw), clock, ANSWER);
    let SubprocessResult::Ended { text, .. } = answer else { return None };
    let mut records = show_job::records(&text).into_iter().map(|(_, record)| record);
    let is_own = |record: &String| {
        Fields::new(record).is_some_and(|fields| fields.get("JobId") == Some(raw))
    };
    records.find(is_own)
}

/// What the job's script and its `sbatch` say; none where that can't be seen, as in a job without a script.
pub(super) fn script(own: &SlurmJob, shown: &str, clock: &Clock) -> Option<ScriptOptions> {
    let argv = ["scontrol", "write", "batch_script", &own.raw, "-"];
    let SubprocessResult::Ended { code: Some(0), text } = subprocess::ask(&argv, clock, ANSWER)
    else {
        return None;
    };
    let named = |name, option| variable(name).map(|value| format!("{option}={value} "));
    let inherited = [("SBATCH_SIGNAL", "--signal"), ("SBATCH_OPEN_MODE", "--open-mode")];
    let inherited: String =
        inherited.into_iter().filter_map(|(name, option)| named(name, option)).collect();
    Some(ScriptOptions::read(&text, &inherited, shown))
}

/// The job's name. In a step of it, as a tool may start one, `SLURM_JOB_NAME` is the step's.
pub(super) fn job_name(shown: &str) -> Option<String> {
    let (_, rest) = shown.split_once(" JobName=")?;
    rest.split_once(" UserId=").map(|(name, _)| name.to_owned())
}

/// Lets Slurm requeue the job, where its script did not say so; and says what can't be put right.
pub(super) fn prepare_job(own: &SlurmJob, shown: &str, clock: &Clock) {
    let may_not = shown.split_whitespace().any(|word| word == "Requeue=0");
    if !may_not {
        return;
    }
    let update = slurm::allow_requeue(&own.id());
    let done = subprocess::ask(&update.each_ref().map(String::as_str), clock, ANSWER);
    if !matches!(done, SubprocessResult::Ended { code: Some(0), .. }) {
        log_stderr(
            "this job may not be requeued, so a preemption ends it for good: add `#SBATCH --requeue` to its script \
             (`nemo-harness wrap --directives` prints what this cluster needs)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_blanks() {
        let shown = "JobId=7 ArrayJobId=7 JobName=my train UserId=x(1) JobState=RUNNING";
        assert_eq!(job_name(shown).as_deref(), Some("my train"));
        assert_eq!(job_name("slurm_load_jobs error: Invalid job id specified"), None);
    }

    #[test]
    fn the_directives_are_what_the_cluster_needs() {
        let text = "JobRequeue              = 1\nKillWait                = 30 sec\nPreemptType             = preempt/partition_prio\n\
                    PreemptParameters       = send_user_signal\nRequeueExit             = (null)\n";
        let facts = ClusterFacts::read(text);
        let expected = ClusterFacts {
            kill_wait: Some(30),
            requeues: true,
            preempts: true,
            sends_user_signal: true,
            ..Default::default()
        };
        assert_eq!(facts, expected);
        assert_eq!(
            facts.directives(120),
            "#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@120\n"
        );
        let silent = ClusterFacts::read(&text.replace("send_user_signal", "(null)"));
        assert!(silent.needs_sentinel);
        assert!(ClusterFacts::default().directives(60).starts_with("#SBATCH --requeue\n"));
    }

    #[test]
    fn a_sentinel_listens_where_the_script_hears_nothing() {
        let cluster =
            "PreemptType = preempt/qos\nPreemptParameters = send_user_signal\nJobFileAppend = 0\n";
        let check = |cluster: &str, script: Option<&str>, listens: bool, expected: &[&str]| {
            let mut facts = ClusterFacts::read(cluster);
            let own = script.map(|text| ScriptOptions::read(text, "", ""));
            let missing = own.as_ref().map(|own| facts.missing(own, 90)).unwrap_or_default();
            facts.heed(own.as_ref(), 90);
            assert_eq!(facts.needs_sentinel, listens, "{script:?}");
            let said: Vec<_> = missing.iter().map(|line| line.split('`').nth(1).unwrap()).collect();
            assert_eq!(said, expected, "{script:?}");
        };
        let [signal, mode] = ["#SBATCH --signal=B:USR1@90", "#SBATCH --open-mode=append"];
        check(cluster, Some(&format!("{signal}\n{mode}\n")), false, &[]);
        check(cluster, Some("#!/bin/sh\n"), true, &[signal, mode]);
        check(cluster, Some("#SBATCH --signal=USR2@60\n"), true, &[signal, mode]);
        check(cluster, None, true, &[]);
        let partition = |cluster: &str, shown: &str| {
            let mut facts = ClusterFacts::read(cluster);
            if facts.depends_on_partition() {
                facts.heed_partition(shown);
            }
            facts.heed(None, 90);
            facts.needs_sentinel
        };
        let by_partition = cluster.replace("preempt/qos", "preempt/partition_prio");
        let [never, at_once] = ["GraceTime=20 PreemptMode=OFF", "GraceTime=0 PreemptMode=REQUEUE"];
        assert!(!partition(&by_partition, never) && !partition(&by_partition, at_once));
        assert!(partition(&by_partition, "GraceTime=20 PreemptMode=GANG,REQUEUE"));
        assert!(partition(&by_partition, "slurm_load_partitions error"), "nothing is known");
        assert!(partition(cluster, never), "the QOS decides");
        let plain = cluster.replace("send_user_signal", "(null)").replace("= 0", "= 1");
        check(&plain, Some("#!/bin/sh\n"), true, &[]);
        check(&plain.replace("preempt/qos", "preempt/none"), Some("#!/bin/sh\n"), false, &[]);
    }
}
