//! From a trial's record: the nodes that failed it, and the ends that no attempt could write. Pure.

use std::collections::BTreeMap;

use nemo_core::process_id::ProcessId;
use nemo_core::rundir::{AttemptEnd, AttemptRecord, AttemptStart, Cause, Next};

use crate::attempt::lease::PreviousClaim;
use crate::attempt::verdict::TAKEN_OVER;

/// After this many failures a node is excluded.
const FAILURES: u32 = 2;

/// The nodes to exclude from the trial's next attempts: they failed it twice, or a log policy says so. Like a budget, the
/// count starts after the last final end.
pub(crate) fn bad(rows: &[AttemptRecord]) -> Vec<String> {
    let mut starts: BTreeMap<u32, &str> = BTreeMap::new();
    let mut failures: BTreeMap<&str, u32> = BTreeMap::new();
    for row in rows {
        match row {
            AttemptRecord::Start(start) => {
                starts.insert(start.attempt, &start.process.node);
            }
            AttemptRecord::ExcludeNode { node, .. } => {
                failures.insert(node, FAILURES);
            }
            AttemptRecord::End(end) => match (end.next, end.cause) {
                (Next::Done | Next::Failed | Next::Cancelled | Next::Timeout, _) => {
                    failures.clear();
                }
                (Next::Requeue | Next::Restart, Cause::NodeFailure) => {
                    let node = starts.get(&end.attempt).copied();
                    *failures.entry(node.unwrap_or_default()).or_default() += 1;
                }
                (Next::Requeue | Next::Restart, _) => {}
            },
            AttemptRecord::Checkpoint { .. }
            | AttemptRecord::Ready { .. }
            | AttemptRecord::WentOn { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::Removed { .. }
            | AttemptRecord::SetAside { .. }
            | AttemptRecord::Hang { .. }
            | AttemptRecord::Label { .. } => {}
        }
    }
    let bad = failures.into_iter().filter(|(node, count)| *count >= FAILURES && !node.is_empty());
    bad.map(|(node, _)| node.to_owned()).collect()
}

/// Whether an attempt must leave the node: it is bad, and no attempt has left it for that reason yet.
pub(crate) fn must_leave(rows: &[AttemptRecord], node: &str) -> bool {
    bad(rows).iter().any(|bad| bad == node) && !rows.iter().any(|row| has_left(row, node))
}

fn has_left(row: &AttemptRecord, node: &str) -> bool {
    matches!(row, AttemptRecord::ExcludeNode { node: own, left: true, .. } if own == node)
}

/// The missing starts of the attempts between the last recorded one and `own`, which were lost before they could write
/// one. `before` has those of their claims that are still there.
pub(crate) fn missing_starts(
    rows: &[AttemptRecord],
    before: &[PreviousClaim],
    own: u32,
    now: f64,
) -> Vec<AttemptStart> {
    let first = rows.iter().map(|row| row.attempt() + 1).max().unwrap_or(0);
    let missing = (first..own).map(|attempt| {
        let claim = before.iter().find(|claim| claim.attempt == attempt);
        claim.map_or_else(|| unclaimed_start(attempt, now), start_of_claim)
    });
    missing.collect()
}

fn start_of_claim(claim: &PreviousClaim) -> AttemptStart {
    let PreviousClaim { attempt, holder, time } = claim;
    AttemptStart {
        attempt: *attempt,
        slurm_job: holder.slurm_job.clone(),
        restarts: holder.restarts,
        process: holder.process.clone(),
        time: *time,
        resume_step: None,
        began: Some(*time),
    }
}

/// The start of an attempt whose claim is gone: several in a row were lost before one could write a record.
fn unclaimed_start(attempt: u32, now: f64) -> AttemptStart {
    let process = ProcessId { node: String::new(), boot_id: String::new(), pid: 0, start_ticks: 0 };
    AttemptStart {
        attempt,
        slurm_job: None,
        restarts: 0,
        process,
        time: now,
        resume_step: None,
        began: Some(now),
    }
}

/// The missing ends of attempts that can't write any more.
///
/// `alive` is an attempt that still ran on this node. `job` is the Slurm job that now has the trial. An earlier run of
/// the same job that was not alive was lost with its node, its daemon or its harness. Slurm's accounting may know more.
pub(crate) fn missing_ends(
    rows: &[AttemptRecord],
    alive: Option<u32>,
    job: Option<&str>,
    now: f64,
) -> Vec<AttemptEnd> {
    let mut open: BTreeMap<u32, &AttemptStart> = BTreeMap::new();
    let mut saved = None;
    for row in rows {
        match row {
            AttemptRecord::Start(start) => {
                open.insert(start.attempt, start);
            }
            AttemptRecord::End(end) => {
                open.remove(&end.attempt);
            }
            AttemptRecord::Checkpoint { step, .. } => saved = saved.max(Some(*step)),
            AttemptRecord::Ready { .. }
            | AttemptRecord::WentOn { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::Removed { .. }
            | AttemptRecord::SetAside { .. }
            | AttemptRecord::Hang { .. }
            | AttemptRecord::Label { .. }
            | AttemptRecord::ExcludeNode { .. } => {}
        }
    }
    let ends = open.into_values().map(|start| {
        let is_other_job = start.slurm_job.is_some() && start.slurm_job.as_deref() != job;
        let is_superseded = alive == Some(start.attempt) || is_other_job;
        let (cause, reason) = if is_superseded { superseded() } else { lost(start) };
        AttemptEnd {
            attempt: start.attempt,
            time: now,
            cause,
            exit_code: None,
            signal: None,
            step: None,
            checkpoint_step: saved,
            next: Next::Requeue,
            reason: Some(reason),
            stopped: None,
            saving: None,
        }
    });
    ends.collect()
}

fn superseded() -> (Cause, String) {
    (Cause::Superseded, TAKEN_OVER.to_owned())
}

fn lost(start: &AttemptStart) -> (Cause, String) {
    let node = match start.process.node.as_str() {
        "" => "its node".to_owned(),
        node => format!("`{node}`"),
    };
    let reason = format!("it recorded no end: {node}, its daemon or the harness was lost");
    (Cause::NodeFailure, reason)
}

/// The exclusion to request from Slurm.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// These nodes, and those that the user excluded.
    Nodes(String),
    /// Too few nodes would be left. Only those that the user excluded stay excluded.
    Relaxed(String),
}

/// The exclusion for a job that needs `needed` of `nodes` nodes. `before` is its own list, and `required` are the nodes
/// that it must have.
pub(crate) fn exclusion(
    bad: &[String],
    before: &str,
    required: &str,
    needed: usize,
    nodes: usize,
) -> Option<Exclusion> {
    // The list also has the nodes that an earlier requeue excluded.
    let user: Vec<&str> = before
        .split(',')
        .filter(|node| !node.is_empty() && !bad.iter().any(|bad| bad == node))
        .collect();
    // This is a lower bound: the user's list may name several nodes by one word.
    let excluded = bad.len() + user.len();
    let user = user.join(",");
    if bad.is_empty() {
        return None;
    }
    if !required.is_empty() || excluded + needed > nodes {
        return Some(Exclusion::Relaxed(user));
    }
    let all = if user.is_empty() { bad.join(",") } else { format!("{user},{}", bad.join(",")) };
    Some(Exclusion::Nodes(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::lease::LeaseHolder;
    use serde_json::json;

    /// `s0@n1` starts attempt 0 on n1; `x0` ends it as a node failure, `p0` as preempted, `f0` for good; `e@n2` excludes, `l@n1` leaves.
    fn rows(text: &str) -> Vec<AttemptRecord> {
        let row = |word: &str| {
            let (word, node) = word.split_once('@').unwrap_or((word, ""));
            let (kind, number) = word.split_at(1);
            let attempt: u32 = number.parse().unwrap_or(0);
            let (cause, next) = match kind {
                "x" => ("node_failure", "requeue"),
                "p" => ("preempted", "requeue"),
                _ => ("failed", "failed"),
            };
            serde_json::from_value(match kind {
                "s" => json!({"event": "start", "attempt": attempt, "slurm_job": "7", "node": node, "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 1.0, "resume_step": null}),
                "e" => json!({"event": "exclude_node", "attempt": attempt, "node": node, "reason": "", "time": 1.0}),
                "l" => json!({"event": "exclude_node", "attempt": attempt, "node": node, "reason": "", "left": true, "time": 1.0}),
                "c" => json!({"event": "checkpoint", "attempt": 0, "step": attempt, "time": 1.0}),
                _ => json!({"event": "end", "attempt": attempt, "time": 1.0, "cause": cause, "exit_code": null, "signal": null, "step": null, "checkpoint_step": null, "next": next, "reason": null}),
            })
            .unwrap()
        };
        text.split_whitespace().map(row).collect()
    }

    #[test]
    fn a_node_that_fails_the_same_trial_twice_is_bad() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(bad(&rows(text)), expected, "{text}");
        check("", &[]);
        check("s0@n1 x0 s1@n2 x1", &[]);
        check("s0@n1 x0 s1@n2 x1 s2@n1 x2", &["n1"]);
        check("s0@n1 p0 s1@n1 p1", &[]);
        check("s0@n1 e0@n1 p0", &["n1"]);
        check("s0@n1 x0 s1@n1 x1 s2@n2 f2 s3@n1", &[]); // begun anew by somebody
    }

    #[test]
    fn a_bad_node_is_left_once() {
        let leaves = |text: &str, node| must_leave(&rows(text), node);
        assert!(leaves("s0@n1 x0 s1@n1 x1", "n1"));
        assert!(!leaves("s0@n1 x0 s1@n1 x1", "n2"));
        assert!(!leaves("s0@n1 x0 s1@n1 x1 s2@n1 l2@n1 p2", "n1"));
    }

    #[test]
    fn an_attempt_that_was_lost_before_its_start_has_one() {
        let holder = LeaseHolder {
            slurm_job: Some("7".into()),
            restarts: 2,
            process: nemo_core::process_id::ProcessId {
                node: "n1".into(),
                boot_id: "b".into(),
                pid: 1,
                start_ticks: 1,
            },
            nonce: "a".into(),
        };
        let claim = |attempt| PreviousClaim { attempt, holder: holder.clone(), time: 5.0 };
        let check = |text: &str, before: &[u32], own, expected: &[(u32, &str, f64)]| {
            let before: Vec<PreviousClaim> = before.iter().copied().map(claim).collect();
            let starts = missing_starts(&rows(text), &before, own, 9.0);
            let told: Vec<(u32, &str, f64)> = starts
                .iter()
                .map(|start| (start.attempt, start.process.node.as_str(), start.time))
                .collect();
            assert_eq!(told, expected, "{text}");
        };
        check("", &[], 0, &[]);
        check("s0@n1 p0 s1@n1", &[1], 2, &[]);
        check("s0@n1 p0", &[1], 2, &[(1, "n1", 5.0)]);
        // Two in a row were lost; of three, the first one's claim is gone.
        check("s0@n1 p0", &[1, 2], 3, &[(1, "n1", 5.0), (2, "n1", 5.0)]);
        check("s0@n1 p0", &[2, 3], 4, &[(1, "", 9.0), (2, "n1", 5.0), (3, "n1", 5.0)]);
        // A start that is damaged was written once.
        check("s0@n1 p0 p1", &[1], 2, &[]);
    }

    #[test]
    fn when_all_are_bad_none_is_excluded() {
        let bad = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let nodes = |list: &str| Some(Exclusion::Nodes(list.to_owned()));
        assert_eq!(exclusion(&bad(&[]), "", "", 1, 4), None);
        assert_eq!(exclusion(&bad(&["n1"]), "", "", 1, 4), nodes("n1"));
        assert_eq!(exclusion(&bad(&["n1", "n2"]), "n1", "", 1, 4), nodes("n1,n2"));
        assert_eq!(exclusion(&bad(&["n1"]), "n[3-4]", "", 1, 4), nodes("n[3-4],n1"));
        assert_eq!(exclusion(&bad(&["n1"]), "", "", 3, 4), nodes("n1"));
        let relaxed = |list: &str| Some(Exclusion::Relaxed(list.to_owned()));
        assert_eq!(exclusion(&bad(&["n1", "n2"]), "n1", "", 1, 2), relaxed(""));
        assert_eq!(exclusion(&bad(&["n1"]), "", "n1", 1, 4), relaxed(""));
        assert_eq!(exclusion(&bad(&["n1"]), "", "", 4, 4), relaxed(""), "it needs them all");
    }

    #[test]
    fn every_attempt_gets_its_end() {
        let causes = |text: &str, alive, job| -> Vec<(u32, Cause, Option<u64>)> {
            let ends = missing_ends(&rows(text), alive, Some(job), 2.0);
            ends.iter().map(|end| (end.attempt, end.cause, end.checkpoint_step)).collect()
        };
        assert_eq!(causes("s0@n1 p0 s1@n1 x1", None, "7"), []);
        assert_eq!(causes("s0@n1 c5", None, "7"), [(0, Cause::NodeFailure, Some(5))]);
        assert_eq!(causes("s0@n1", Some(0), "7"), [(0, Cause::Superseded, None)]);
        assert_eq!(causes("s0@n1", None, "8"), [(0, Cause::Superseded, None)]);
        assert_eq!(causes("s0@n1 s1@n2", Some(1), "7").len(), 2);
    }
}
