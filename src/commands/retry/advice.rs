//! What a retry should change, by why the trial failed: more memory, a longer segment, another node, or nothing. Pure.

use serde::Serialize;

use crate::experiment::{
    ChangedKeys, Executor, Growth, SlurmExecutor, megabytes, memory_text, scaled,
};
use crate::slurm::parse::nodes::HostList;
use crate::trial_error::ErrorClass;
use crate::usage::ROOM_ABOVE_PEAK;

/// How much more memory is asked for where it ran out.
const MORE: f64 = 1.5;
/// How much longer a segment becomes in which no checkpoint came.
const LONGER: f64 = 2.0;

/// What is known of a failed trial and of where it runs.
#[derive(Debug)]
pub(super) struct FailureFacts<'a> {
    pub(super) class: ErrorClass,
    pub(super) executor: &'a Executor,
    /// Megabytes that it was seen with, at most.
    pub(super) peak: Option<u64>,
    /// Megabytes that Slurm gave it on each node.
    pub(super) given: Option<u64>,
    pub(super) partition: Option<&'a PartitionLimits>,
    /// The nodes that the file itself excludes, as a host list.
    pub(super) excluded_by_file: Option<&'a str>,
    /// Where it ran last.
    pub(super) node: Option<&'a str>,
    /// Whether its last attempt committed a new checkpoint.
    pub(super) has_progress: bool,
    /// Whether the time of the whole experiment was over.
    pub(super) is_out_of_time: bool,
}

/// What a partition allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionLimits {
    pub(super) name: String,
    /// Megabytes that a job can have on a node.
    pub(super) memory: Option<u64>,
    /// Seconds that a job can run.
    pub(super) time: Option<u64>,
    /// Seconds that a job runs which asks for none.
    pub(super) default_time: Option<u64>,
    pub(super) nodes: Vec<String>,
}

impl PartitionLimits {
    /// What one of two allows.
    pub(super) fn or(self, other: Self) -> Self {
        let most = |one: Option<u64>, other: Option<u64>| one.zip(other).map(|(a, b)| a.max(b));
        let least = self.default_time.into_iter().chain(other.default_time).min();
        let mut nodes = self.nodes;
        nodes.extend(other.nodes);
        nodes.sort();
        nodes.dedup();
        Self {
            name: format!("{},{}", self.name, other.name),
            memory: most(self.memory, other.memory),
            time: most(self.time, other.time),
            default_time: least,
            nodes,
        }
    }
}

/// What becomes of a failed trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RetryAdvice {
    pub(super) class: ErrorClass,
    /// Whether it is retried.
    pub(super) retry: bool,
    /// The keys that change.
    pub(super) set: ChangedKeys,
    /// For people.
    pub(super) why: String,
}

/// What is asked for by the file, in place of what is advised by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WantedGrowth {
    pub(super) mem: Option<Growth>,
    pub(super) time: Option<Growth>,
}

/// Decides what a retry changes.
pub(super) fn advise(facts: &FailureFacts<'_>) -> RetryAdvice {
    let (class, slurm) = (facts.class, slurm(facts.executor));
    let decided = match (class, slurm) {
        (ErrorClass::OutOfMemory, Some(slurm)) => more_memory(facts, slurm, Growth::Times(MORE)),
        (ErrorClass::OutOfMemory, None) => Err("this machine can't give it more memory".to_owned()),
        (ErrorClass::TimeLimit, _) if facts.is_out_of_time => {
            Ok((ChangedKeys::new(), "the `timeout` of the experiment was over, and begins anew".to_owned()))
        }
        (ErrorClass::TimeLimit, _) if facts.has_progress => {
            Ok((ChangedKeys::new(), "it goes on from its new checkpoint".to_owned()))
        }
        (ErrorClass::TimeLimit, _) => longer_segment(facts, Growth::Times(LONGER)),
        (ErrorClass::NodeFailure, slurm) => Ok(another_node(facts, slurm)),
        (ErrorClass::MissingModule, _) => {
            Err("a module is missing, so it would fail again: install it or correct `setup`".to_owned())
        }
        (ErrorClass::BadConfiguration, _) => {
            Err("its configuration is wrong, so it would fail again: correct the program or its files".to_owned())
        }
        (ErrorClass::GpuOutOfMemory, _) => {
            Err("its GPU is too small, so it would fail again: ask for a larger one, or change the program".to_owned())
        }
        (ErrorClass::Hung | ErrorClass::Nan | ErrorClass::Crash | ErrorClass::Unknown, _) => {
            Ok((ChangedKeys::new(), "nothing to change is known".to_owned()))
        }
    };
    match decided {
        Ok((set, why)) => RetryAdvice { class, retry: true, set, why },
        Err(why) => RetryAdvice { class, retry: false, set: ChangedKeys::new(), why },
    }
}

/// What the file wants to be changed for a class of failures. What a limit keeps from growing stays as it was, and the
/// rest changes all the same.
pub(super) fn wanted(facts: &FailureFacts<'_>, growth: WantedGrowth) -> ChangedKeys {
    let mut set = ChangedKeys::new();
    if let (Some(mem), Some(slurm)) = (growth.mem, slurm(facts.executor)) {
        set.extend(more_memory(facts, slurm, mem).into_iter().flat_map(|it| it.0));
    }
    if let Some(time) = growth.time {
        set.extend(longer_segment(facts, time).into_iter().flat_map(|it| it.0));
    }
    set
}

/// Changed keys and why, or why it is not retried.
type Decision = Result<(ChangedKeys, String), String>;

fn slurm(executor: &Executor) -> Option<&SlurmExecutor> {
    match executor {
        Executor::Slurm(slurm) => Some(slurm),
        Executor::Local(_) => None,
    }
}

fn key(name: &str, value: String) -> ChangedKeys {
    ChangedKeys::from([(format!("executor.{name}"), value)])
}

/// The key by which an executor asks for memory, and how many megabytes it asks for.
fn requested_memory(slurm: &SlurmExecutor, given: Option<u64>) -> (&'static str, Option<u64>) {
    const PER_PART: [(&str, &str); 2] =
        [("mem-per-cpu", "sbatch.mem-per-cpu"), ("mem-per-gpu", "sbatch.mem-per-gpu")];
    let per_part = PER_PART
        .into_iter()
        .find_map(|(option, key)| Some((key, megabytes(slurm.sbatch.get(option)?))));
    per_part.unwrap_or_else(|| {
        let own = slurm.mem.as_deref().and_then(megabytes).filter(|own| *own > 0);
        ("mem", own.or(given))
    })
}

fn more_memory(facts: &FailureFacts<'_>, slurm: &SlurmExecutor, growth: Growth) -> Decision {
    let (name, asked) = requested_memory(slurm, facts.given);
    let Some(asked) = asked else {
        return Err(
            "how much memory it had is not known: give it with --set executor.mem=…".to_owned()
        );
    };
    // What a node gives, where the key is of a part of it.
    let given = if name == "mem" { asked } else { facts.given.unwrap_or(asked) };
    let peak = facts.peak.map(|peak| scaled(peak, ROOM_ABOVE_PEAK));
    let wanted = match growth {
        Growth::Times(_) => growth.after(given).max(peak.unwrap_or(0)),
        Growth::To(amount) => amount.max(given),
    };
    let limit = facts.partition.and_then(|partition| partition.memory);
    let granted = limit.map_or(wanted, |limit| wanted.min(limit));
    if granted <= given {
        let all = memory_text(limit.unwrap_or(given));
        let name = facts.partition.map_or("its partition", |partition| &partition.name);
        return Err(format!(
            "it had {}, and no node of `{name}` gives a job more than {all}",
            memory_text(given)
        ));
    }
    let value = if name == "mem" { granted } else { part_of(asked, granted, given) };
    let why = match (facts.peak, granted < wanted) {
        (_, true) => format!("it had {}; this is all that a node gives", memory_text(given)),
        (Some(peak), _) if wanted == scaled(peak, ROOM_ABOVE_PEAK) => {
            format!("it had {}, and its peak was {}", memory_text(given), memory_text(peak))
        }
        _ => format!("it had {}", memory_text(given)),
    };
    Ok((key(name, memory_text(value)), why))
}

/// The share of a processor or GPU grows as the whole does.
fn part_of(asked: u64, granted: u64, given: u64) -> u64 {
    asked.saturating_mul(granted).div_ceil(given.max(1))
}

fn longer_segment(facts: &FailureFacts<'_>, growth: Growth) -> Decision {
    let (own, partition) = match facts.executor {
        Executor::Slurm(slurm) => (slurm.time, facts.partition),
        Executor::Local(local) => (local.time, None),
    };
    let Some(before) = own.or(partition.and_then(|it| it.default_time)) else {
        return Ok((ChangedKeys::new(), "its segment has no time limit to change".to_owned()));
    };
    let limit = partition.and_then(|it| it.time);
    let granted = limit.map_or(growth.after(before), |limit| growth.after(before).min(limit));
    if granted <= before {
        return Err(format!(
            "no checkpoint came in {before} s, and a segment can't be longer there"
        ));
    }
    let why = format!("no new checkpoint came in a segment of {before} s");
    Ok((key("time", format!("{granted}s")), why))
}

fn another_node(facts: &FailureFacts<'_>, slurm: Option<&SlurmExecutor>) -> (ChangedKeys, String) {
    let plain = |why: &str| (ChangedKeys::new(), why.to_owned());
    let (Some(slurm), Some(node)) = (slurm, facts.node) else {
        return plain("its node was lost");
    };
    let excluding = |names: String, why: String| (key("sbatch.exclude", names), why);
    let earlier = slurm.sbatch.get("exclude").map(String::as_str);
    let all = with_node(earlier, node);
    if leaves_a_node(facts.partition, &all) {
        return excluding(all, format!("node {node} was lost"));
    }
    let newest = with_node(facts.excluded_by_file, node);
    if leaves_a_node(facts.partition, &newest) {
        let why =
            format!("node {node} was lost; the others were lost before, and may be used again");
        return excluding(newest, why);
    }
    plain("its node was lost, and there is no other one")
}

/// A host list with one node more.
fn with_node(names: Option<&str>, node: &str) -> String {
    let names = names.filter(|names| !names.is_empty());
    match names {
        Some(names) if hosts(names).iter().any(|name| name == node) => names.to_owned(),
        Some(names) => format!("{names},{node}"),
        None => node.to_owned(),
    }
}

/// The names of a host list; none where it is a file's path.
fn hosts(names: &str) -> Vec<String> {
    names.parse::<HostList>().map(|list| list.names()).unwrap_or_default()
}

/// Whether a job can run on some node of its partition while these are excluded, as far as it is known.
fn leaves_a_node(partition: Option<&PartitionLimits>, excluded: &str) -> bool {
    let excluded = hosts(excluded);
    partition.is_none_or(|partition| partition.nodes.iter().any(|node| !excluded.contains(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executor(mem: Option<&str>, options: &[(&str, &str)]) -> Executor {
        let sbatch = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Executor::Slurm(SlurmExecutor {
            mem: mem.map(str::to_owned),
            time: Some(3600),
            sbatch: sbatch.collect(),
            ..SlurmExecutor::default()
        })
    }

    fn partition() -> PartitionLimits {
        let (memory, time) = (Some(4000), Some(5400));
        let nodes = (1..=4).map(|n| format!("n{n}")).collect();
        PartitionLimits { name: "main".to_owned(), memory, time, default_time: None, nodes }
    }

    fn facts<'a>(
        class: ErrorClass,
        executor: &'a Executor,
        partition: &'a PartitionLimits,
    ) -> FailureFacts<'a> {
        FailureFacts {
            class,
            executor,
            peak: None,
            given: None,
            partition: Some(partition),
            excluded_by_file: None,
            node: Some("n2"),
            has_progress: false,
            is_out_of_time: false,
        }
    }

    #[track_caller]
    fn check(facts: &FailureFacts<'_>, expected: &str) {
        let advice = advise(facts);
        let set: Vec<String> =
            advice.set.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let shown = if advice.retry { set.join(" ") } else { format!("no: {}", advice.why) };
        assert!(shown.contains(expected) && shown.is_empty() == expected.is_empty(), "{shown}");
    }

    #[test]
    fn memory_grows_by_half_or_above_the_peak_within_the_limit() {
        let partition = partition();
        let check = |mem: Option<&str>, options, peak, given, expected| {
            let executor = executor(mem, options);
            let facts = facts(ErrorClass::OutOfMemory, &executor, &partition);
            check(&FailureFacts { peak, given, ..facts }, expected);
        };
        check(Some("1000M"), &[], None, None, "executor.mem=1500M");
        check(Some("1000M"), &[], Some(1000), None, "executor.mem=1500M");
        check(Some("1000M"), &[], Some(2000), None, "executor.mem=2600M");
        check(Some("3000M"), &[], None, None, "executor.mem=4000M");
        check(Some("4000M"), &[], None, None, "no: it had 4000M, and no node of `main` gives");
        check(None, &[], None, Some(200), "executor.mem=300M");
        check(None, &[], None, None, "no: how much memory it had is not known");
        check(
            None,
            &[("mem-per-cpu", "100M")],
            None,
            Some(800),
            "executor.sbatch.mem-per-cpu=150M",
        );
        check(None, &[("mem-per-cpu", "900M")], None, Some(3600), "mem-per-cpu=1000M");
    }

    #[test]
    fn of_several_partitions_the_most_generous_counts() {
        let (main, gpu) = (
            partition(),
            PartitionLimits {
                name: "gpu".to_owned(),
                memory: Some(9000),
                time: None,
                default_time: Some(600),
                nodes: vec!["n1".to_owned(), "n9".to_owned()],
            },
        );
        let both = main.clone().or(gpu);
        let executor = executor(Some("3000M"), &[]);
        check(&facts(ErrorClass::OutOfMemory, &executor, &both), "executor.mem=4500M");
        assert_eq!((both.time, both.default_time), (None, Some(600)));
        assert!(both.nodes.contains(&"n9".to_owned()) && both.nodes.len() == main.nodes.len() + 1);
    }

    #[test]
    fn a_segment_grows_and_a_node_is_left() {
        let (partition, executor) = (partition(), executor(Some("1G"), &[("exclude", "n1")]));
        let of = |class| facts(class, &executor, &partition);
        check(&of(ErrorClass::TimeLimit), "executor.time=5400s");
        check(&FailureFacts { has_progress: true, ..of(ErrorClass::TimeLimit) }, "");
        check(&FailureFacts { is_out_of_time: true, ..of(ErrorClass::TimeLimit) }, "");
        check(&of(ErrorClass::NodeFailure), "executor.sbatch.exclude=n1,n2");
        let alone = PartitionLimits { nodes: vec!["n2".to_owned()], ..partition.clone() };
        check(&facts(ErrorClass::NodeFailure, &executor, &alone), "");
        let short = PartitionLimits { time: Some(3600), ..partition.clone() };
        check(&facts(ErrorClass::TimeLimit, &executor, &short), "no: no checkpoint came in 3600 s");
    }

    #[test]
    fn some_node_of_the_partition_is_always_left() {
        let partition = partition();
        for (excluded, by_file, expected, is_told) in [
            ("n1,n3", None, "executor.sbatch.exclude=n1,n3,n2", false),
            ("n[1,3-4]", None, "executor.sbatch.exclude=n2", true),
            ("n1,n3,n4", Some("n1"), "executor.sbatch.exclude=n1,n2", true),
            ("n[1,3-4]", Some("n[1,3-4]"), "", false),
            ("n1,n2", None, "executor.sbatch.exclude=n1,n2", false),
            ("/a/file", Some("/a/file"), "executor.sbatch.exclude=/a/file,n2", false),
        ] {
            let executor = executor(None, &[("exclude", excluded)]);
            let facts = facts(ErrorClass::NodeFailure, &executor, &partition);
            let facts = FailureFacts { excluded_by_file: by_file, ..facts };
            check(&facts, expected);
            let why = advise(&facts).why;
            assert_eq!(why.contains("may be used again"), is_told, "{excluded}: {why}");
        }
    }

    #[test]
    fn what_the_file_wants_grows_by_itself() {
        let (partition, executor) = (partition(), executor(Some("4000M"), &[]));
        let facts = facts(ErrorClass::Crash, &executor, &partition);
        let (mem, time) = (Some(Growth::Times(2.0)), Some(Growth::Times(1.25)));
        let set = wanted(&facts, WantedGrowth { mem, time });
        assert_eq!(set, key("time", "4500s".to_owned()), "no node gives more memory");
    }

    #[test]
    fn what_would_fail_again_is_not_retried() {
        let (partition, executor) = (partition(), executor(None, &[]));
        for class in
            [ErrorClass::MissingModule, ErrorClass::BadConfiguration, ErrorClass::GpuOutOfMemory]
        {
            check(&facts(class, &executor, &partition), "no: ");
        }
        for class in [ErrorClass::Crash, ErrorClass::Unknown, ErrorClass::Hung, ErrorClass::Nan] {
            check(&facts(class, &executor, &partition), "");
        }
    }
}
