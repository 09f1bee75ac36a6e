//! What the settings of a site's Slurm mean for experiments. Pure.

use nemo_core::stop_times::DEFAULT_KILL_WAIT;

use super::{CheckResult, Promise};
use crate::humanize::{count, duration, listed};
use crate::slurm::{AccountGroup, AccountTree, Association, ClusterLimits, Partition, Qos};

/// What Slurm told. Nothing where it could not be asked.
#[derive(Clone, Debug)]
pub struct SiteFacts {
    /// `scontrol show config`.
    pub limits: ClusterLimits,
    /// `scontrol show partition`.
    pub partitions: Vec<Partition>,
    /// `sacctmgr show qos`, or why not.
    pub qos: Result<Vec<Qos>, String>,
    /// `sacctmgr show assoc` of the user, or why not.
    pub associations: Result<Vec<Association>, String>,
    /// What accounts allow all of their users together, as far as the site tells.
    pub groups: Vec<AccountGroup>,
    /// Why `sacct` gave no answer.
    pub accounting_error: Option<String>,
}

/// The versions that our tests run on, from and to.
const KNOWN: [(u32, u32); 2] = [(22, 5), (26, 5)];
/// Preemption sends the job's own signal by another setting from here on.
const USER_SIGNAL_MOVED: (u32, u32) = (23, 2);
/// A shorter grace is too short for most programs.
const SHORT_GRACE: u64 = 60;
/// Fewer indices cut a sweep into many arrays.
const SMALL_ARRAYS: u32 = 1001;
/// Cron comes every five minutes.
const CRON: u32 = 300;

/// A partition or a QOS whose jobs are preempted.
struct Preemptable {
    place: String,
    grace: u64,
    mode: String,
    /// How an administrator gives it a grace.
    setting: Setting,
}

/// Where something is set.
enum Setting {
    SlurmConf(String),
    Sacctmgr(String),
}

impl Setting {
    fn of(&self, finding: CheckResult) -> CheckResult {
        match self {
            Self::SlurmConf(line) => finding.by_slurm_conf(line),
            Self::Sacctmgr(command) => finding.by_administrator(command),
        }
    }
}

/// All that can be said.
#[must_use]
pub fn findings(facts: &SiteFacts) -> Vec<CheckResult> {
    let limits = &facts.limits;
    let mut findings = vec![version(&limits.version)];
    findings.extend(partitions(&facts.partitions));
    findings.extend(preemption(facts));
    findings.extend([accounting(facts), requeue(limits), arrays(limits), job_age(limits)]);
    findings.extend(kill_wait(limits));
    findings.extend(memory(limits));
    findings.extend(user_limits(facts));
    findings
}

/// `22.05.8` is `(22, 5)`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn version(version: &str) -> CheckResult {
    let topic = "version";
    let what = format!("Slurm {version}");
    match release(version) {
        Some(release) if (KNOWN[0]..=KNOWN[1]).contains(&release) => CheckResult::ok(topic, what),
        Some(release) if release < KNOWN[0] => CheckResult::advice(topic, what)
            .since("it is older than 22.05, the oldest that nemo-slurm is tested on")
            .by_typing("nemo-slurm rehearse exp.toml --executor slurm"),
        Some(_) => CheckResult::advice(topic, what)
            .since("it is newer than 26.05, the newest that nemo-slurm is tested on")
            .by_typing("nemo-slurm rehearse exp.toml --executor slurm"),
        None => CheckResult::advice(topic, what).since("this is no version that nemo-slurm knows"),
    }
}

fn partitions(all: &[Partition]) -> Vec<CheckResult> {
    let topic = "partitions";
    let up: Vec<&Partition> = all.iter().filter(|it| it.up).collect();
    if up.is_empty() {
        return vec![CheckResult::problem(topic, "no partition starts jobs").by_typing("sinfo")];
    }
    let names = listed(up.iter().map(|it| it.name.as_str()));
    if up.iter().any(|it| it.default) {
        return vec![CheckResult::ok(topic, format!("{names} start jobs"))];
    }
    let first = up.first().map_or("", |it| it.name.as_str());
    vec![
        CheckResult::advice(topic, format!("no default partition starts jobs; {names} do"))
            .since("a job that names no partition is refused, or waits")
            .by_typing(format!("[executor.gpu] partition = \"{first}\"")),
    ]
}

fn preemption(facts: &SiteFacts) -> Vec<CheckResult> {
    let (limits, topic) = (&facts.limits, "preemption");
    let preemptable = match &*limits.preempt_type {
        "preempt/none" => {
            return vec![CheckResult::ok(topic, "no job is preempted (PreemptType=preempt/none)")];
        }
        "preempt/qos" => match &facts.qos {
            Ok(qos) => by_qos(limits, qos, &facts.partitions),
            Err(error) => {
                return vec![
                    CheckResult::advice(
                        topic,
                        "PreemptType=preempt/qos, and `sacctmgr show qos` gave no answer",
                    )
                    .since(error.clone()),
                ];
            }
        },
        _ => by_partition(&facts.partitions),
    };
    if preemptable.is_empty() {
        return vec![CheckResult::ok(
            topic,
            format!("{}, but no job is preempted", limits.preempt_type),
        )];
    }
    let mut findings: Vec<CheckResult> = preemptable.iter().map(|it| grace(it, topic)).collect();
    if preemptable.iter().any(|it| it.grace > 0) {
        findings.push(user_signal(limits));
    }
    findings
}

fn by_partition(partitions: &[Partition]) -> Vec<Preemptable> {
    let is_preempted = |it: &&Partition| !it.preempt_mode.to_uppercase().contains("OFF");
    let of = |it: &Partition| Preemptable {
        place: format!("partition `{}`", it.name),
        grace: it.grace_time.into(),
        mode: it.preempt_mode.to_uppercase(),
        setting: Setting::SlurmConf(format!("PartitionName={} … GraceTime=120", it.name)),
    };
    partitions.iter().filter(is_preempted).map(of).collect()
}

fn by_qos(limits: &ClusterLimits, qos: &[Qos], partitions: &[Partition]) -> Vec<Preemptable> {
    let is_preempted = |it: &&Qos| qos.iter().any(|other| other.preempts.contains(&it.name));
    // Slurm takes the longer one of both.
    let of_partition = partitions.iter().map(|it| u64::from(it.grace_time)).max().unwrap_or(0);
    let of = |it: &Qos| {
        let own = it.preempt_mode.to_uppercase();
        let mode = if own == "CLUSTER" || own.is_empty() {
            limits.preempt_mode.to_uppercase()
        } else {
            own
        };
        Preemptable {
            place: format!("QOS `{}`", it.name),
            grace: it.grace_time.max(of_partition),
            mode,
            setting: Setting::Sacctmgr(format!(
                "sacctmgr modify qos {} set GraceTime=120",
                it.name
            )),
        }
    };
    qos.iter().filter(is_preempted).map(of).collect()
}

fn grace(it: &Preemptable, topic: &str) -> CheckResult {
    let Preemptable { place, grace, mode, setting } = it;
    let becomes = match mode.as_str() {
        mode if mode.contains("SUSPEND") || mode.contains("GANG") => {
            return CheckResult::ok(
                topic,
                format!("jobs of {place} are suspended, and go on later"),
            );
        }
        mode if mode.contains("REQUEUE") => "requeued",
        _ => "cancelled",
    };
    if *grace == 0 {
        let what = format!("jobs of {place} are {becomes} without a grace");
        let finding = CheckResult::advice(topic, what)
            .since("they end seconds after they are told: only what was saved before survives");
        return setting.of(finding.by_typing("[task.NAME] checkpoint.every = \"10min\""));
    }
    let what = format!("jobs of {place} are {becomes} after a grace of {grace} s");
    if *grace < SHORT_GRACE {
        let why = "a program that needs longer to save loses what it did since its last checkpoint";
        let finding = CheckResult::advice(topic, what).since(why);
        return setting.of(finding.by_typing("nemo-slurm rehearse exp.toml"));
    }
    if becomes == "cancelled" {
        return CheckResult::ok(topic, what)
            .since("the harness requeues them itself within that time");
    }
    CheckResult::ok(topic, what)
}

fn user_signal(limits: &ClusterLimits) -> CheckResult {
    let topic = "user signal";
    if limits.preempt_user_signal {
        return CheckResult::ok(topic, "a preempted job gets its own signal when its grace begins");
    }
    let line = if release(&limits.version) < Some(USER_SIGNAL_MOVED) {
        "SlurmctldParameters=preempt_send_user_signal"
    } else {
        "PreemptParameters=send_user_signal"
    };
    CheckResult::advice(topic, "a preempted job is not told when its grace begins")
        .since("nemo-slurm starts a small step in each job that hears it; with the setting it needs none")
        .by_slurm_conf(line)
}

fn accounting(facts: &SiteFacts) -> CheckResult {
    let topic = "accounting";
    match &facts.accounting_error {
        _ if !facts.limits.accounting => CheckResult::advice(topic, "Slurm has no accounting database")
            .since("if a harness could not record how a job ended, only the queue tells it, and not for long: run `poll` often")
            .by_typing("nemo-slurm poll --install")
            .by_slurm_conf("AccountingStorageType=accounting_storage/slurmdbd"),
        Some(error) => CheckResult::problem(topic, format!("`sacct` gives no answer: {error}"))
            .since("states of jobs that have left the queue stay uncertain until it does"),
        None => CheckResult::ok(topic, "`sacct` answers"),
    }
}

fn requeue(limits: &ClusterLimits) -> CheckResult {
    let topic = "requeue";
    if limits.job_requeue {
        return CheckResult::ok(topic, "jobs may be requeued (JobRequeue=1)");
    }
    CheckResult::advice(topic, "jobs are not requeued unless they ask for it (JobRequeue=0)")
        .since("those of nemo-slurm ask for it (`--requeue`); a site's job_submit plugin may refuse that")
        .by_typing("nemo-slurm rehearse exp.toml --executor slurm")
        .by_slurm_conf("JobRequeue=1")
}

fn arrays(limits: &ClusterLimits) -> CheckResult {
    let (topic, size) = ("arrays", limits.max_array_size);
    let tasks =
        limits.max_array_tasks.map(|n| format!(", max_array_tasks={n}")).unwrap_or_default();
    let what = format!("MaxArraySize={size}{tasks}");
    match size {
        0..=1 => CheckResult::problem(topic, what)
            .since("job arrays are switched off: each trial becomes a job of its own")
            .by_slurm_conf("MaxArraySize=10001"),
        2..SMALL_ARRAYS => CheckResult::advice(topic, what)
            .since("a sweep becomes many arrays, and each is a submission")
            .by_slurm_conf("MaxArraySize=10001"),
        _ => CheckResult::ok(topic, what),
    }
}

fn job_age(limits: &ClusterLimits) -> CheckResult {
    let (topic, age) = ("job age", limits.min_job_age);
    let what = format!("Slurm remembers a job for {age} s after its end (MinJobAge={age})");
    if age >= CRON {
        return CheckResult::ok(topic, what);
    }
    CheckResult::advice(topic, what)
        .since("cron runs `poll` every 300 s; Slurm may forget a job before that, and can't requeue what it has forgotten")
        .by_slurm_conf(format!("MinJobAge={CRON}"))
}

fn kill_wait(limits: &ClusterLimits) -> Option<CheckResult> {
    let wait = limits.kill_wait;
    (wait < DEFAULT_KILL_WAIT).then(|| {
        CheckResult::advice("kill wait", format!("a job is killed {wait} s after SIGTERM (KillWait={wait})"))
            .since("before a time limit the harness asks the program to save earlier (`checkpoint.lead`); a cancel, or a preemption without grace, leaves only this time")
            .by_slurm_conf(format!("KillWait={DEFAULT_KILL_WAIT}"))
    })
}

fn memory(limits: &ClusterLimits) -> Option<CheckResult> {
    (!limits.memory_measured).then(|| {
        CheckResult::advice(
            "memory",
            "Slurm does not measure the memory of jobs (JobAcctGatherType)",
        )
        .since(
            "`retry --advise` can't tell how much a trial needed, and asks for half as much again",
        )
        .by_slurm_conf("JobAcctGatherType=jobacct_gather/cgroup")
    })
}

fn user_limits(facts: &SiteFacts) -> Vec<CheckResult> {
    let topic = "limits";
    let associations = match &facts.associations {
        Ok(all) => all,
        Err(_) if !facts.limits.accounting => return Vec::new(),
        Err(error) => {
            return vec![
                CheckResult::advice(topic, "your limits can't be read").since(error.clone()),
            ];
        }
    };
    if !facts.limits.limits_enforced {
        return vec![CheckResult::ok(topic, "no limits of accounts or QOSes are enforced")];
    }
    let mut own: Vec<&Association> = associations.iter().collect();
    own.retain(|it| facts.limits.cluster.is_empty() || it.cluster == facts.limits.cluster);
    if own.is_empty() {
        return vec![
            CheckResult::problem(topic, "you have no account on this cluster")
                .since("Slurm refuses every job of yours: ask an administrator for an association"),
        ];
    }
    let qos = facts.qos.as_deref().unwrap_or_default();
    let of = |it: &&Association| {
        let its_qos = qos.iter().filter(|qos| it.qos.contains(&qos.name));
        let tree = AccountTree::new(&facts.groups, &it.cluster);
        let of_groups = tree.lineage(&it.account).filter_map(|group| group.max_submit);
        let of_qos = its_qos.clone().filter_map(|qos| qos.max_submit);
        let most = it.max_submit.into_iter().chain(of_qos).chain(of_groups).min();
        let running =
            it.max_running.into_iter().chain(its_qos.filter_map(|qos| qos.max_running)).min();
        let running = running.map(|n| format!(", {n} at once")).unwrap_or_default();
        match most {
            Some(most) => CheckResult::advice(topic, format!("account `{}`: at most {}{running}", it.account, jobs(most)))
                .since("each trial of a job array counts as a job; trials beyond the limit are submitted when jobs end, or by `poll`")
                .by_typing("nemo-slurm plan exp.toml"),
            None => CheckResult::ok(topic, format!("account `{}`: as many jobs as you like{running}", it.account)),
        }
    };
    own.iter().map(of).collect()
}

fn jobs(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), "job")
}

/// What the site leaves of what we promise.
#[must_use]
pub fn promises(facts: &SiteFacts) -> Vec<Promise> {
    let preempted: Vec<Preemptable> = match (&*facts.limits.preempt_type, &facts.qos) {
        ("preempt/none", _) | ("preempt/qos", Err(_)) => Vec::new(),
        ("preempt/qos", Ok(qos)) => by_qos(&facts.limits, qos, &facts.partitions),
        _ => by_partition(&facts.partitions),
    };
    let ends = |it: &&Preemptable| !it.mode.contains("SUSPEND") && !it.mode.contains("GANG");
    let shortest = preempted.iter().filter(ends).min_by_key(|it| it.grace);
    let is_known = facts.limits.preempt_type != "preempt/qos" || facts.qos.is_ok();
    let saved = match shortest {
        Some(it) if it.grace == 0 => (
            Some(false),
            Some(format!("{} gives no grace: work since the last checkpoint is lost", it.place)),
        ),
        Some(it) => (
            Some(true),
            Some(format!(
                "if a save takes less than {} ({})",
                duration(it.grace_as_f64()),
                it.place
            )),
        ),
        None if !is_known => (None, Some("the QOSes can't be read".to_owned())),
        None => (Some(true), None),
    };
    let accounts = facts.limits.accounting && facts.accounting_error.is_none();
    let short = facts.limits.min_job_age < CRON;
    let known = match (accounts, short) {
        (true, _) => (Some(true), None),
        (false, false) => (
            Some(true),
            Some("without accounting: only while `poll` runs at least every 5 minutes".to_owned()),
        ),
        (false, true) => (
            Some(false),
            Some(
                "without accounting, and with a short MinJobAge, a job may be forgotten unseen"
                    .to_owned(),
            ),
        ),
    };
    vec![
        Promise {
            promise: "a preempted trial saves before it stops",
            holds: saved.0,
            why: saved.1,
        },
        Promise {
            promise: "a trial that reaches its time limit saves before it",
            holds: Some(true),
            why: None,
        },
        Promise { promise: "what became of each job is known", holds: known.0, why: known.1 },
    ]
}

impl Preemptable {
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    fn grace_as_f64(&self) -> f64 {
        self.grace as f64
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
