//! Slurm's commands and answers: why the job is being stopped, and its requeue. The only module that knows `scontrol`.

pub(crate) mod cancel;
pub(crate) mod dependency;
pub(crate) mod exclude_nodes;
pub(crate) mod final_state;
pub(crate) mod gate;
pub(crate) mod requeue;
pub(crate) mod run;
pub(crate) mod sentinel;

use nemo_core::show_job::{self, Fields};
use nemo_core::slurm_words;

use crate::supervise::StopCause;

/// How many seconds early Slurm's signal before a time limit may come, plus the time of the question.
const EARLY: f64 = 75.0;

/// Slurm does not end a job by itself this many seconds before the end of a grace.
const EARLIER: f64 = 2.0;
/// The shortest time limit that Slurm has, in seconds.
const SHORTEST_LIMIT: f64 = 60.0;

/// The command that shows a job.
pub(crate) fn show_job(id: &str) -> [&str; 5] {
    ["scontrol", "-o", "show", "job", id]
}

/// The command that requeues a job, and holds it if it is paused. It ends the caller's job, so it must come last. The
/// controller ignores it for a job that has ended, or was cancelled, and `scontrol` exits with 0 all the same.
pub(crate) fn requeue(id: &str, paused: bool) -> [&str; 4] {
    let [scontrol, requeue, id] = requeue_ended(id, paused);
    [scontrol, requeue, "Incomplete", id]
}

/// The same, for a job that has ended too.
pub(crate) fn requeue_ended(id: &str, paused: bool) -> [&str; 3] {
    ["scontrol", if paused { "requeuehold" } else { "requeue" }, id]
}

/// The command that holds a waiting job.
pub(crate) fn hold(id: &str) -> [&str; 3] {
    ["scontrol", "hold", id]
}

/// Seconds after a requeue at which the job may start again.
///
/// Slurm makes a requeued job wait until its old credentials have expired (two minutes by default), since one of the
/// same second as the requeue is refused by the node. A later time that was set before the job has left its node is
/// kept instead; one that is over by then is not, and Slurm's own wait applies.
const START_AFTER: u32 = 3;

/// The command that lets a requeued job start soon.
pub(crate) fn start_soon(id: &str) -> [String; 4] {
    start_later(id, START_AFTER)
}

/// The command that cancels jobs.
pub(crate) fn cancel(id: &str) -> [&str; 3] {
    ["scancel", "--quiet", id]
}

/// The command that keeps Slurm from requeueing a job by itself.
pub(crate) fn never_again(id: &str) -> [String; 4] {
    let job = format!("JobId={id}");
    ["scontrol".to_owned(), "update".to_owned(), job, "Requeue=0".to_owned()]
}

/// The command that lets Slurm requeue a job that it may not requeue.
pub(crate) fn allow_requeue(id: &str) -> [String; 4] {
    let job = format!("JobId={id}");
    ["scontrol".to_owned(), "update".to_owned(), job, "Requeue=1".to_owned()]
}

/// The command that delays a waiting job by so many seconds.
pub(crate) fn start_later(id: &str, seconds: u32) -> [String; 4] {
    let job = format!("JobId={id}");
    ["scontrol".to_owned(), "update".to_owned(), job, format!("StartTime=now+{seconds}")]
}

/// The command that excludes nodes from a waiting job.
pub(crate) fn exclude(id: &str, nodes: &str) -> [String; 4] {
    let job = format!("JobId={id}");
    ["scontrol".to_owned(), "update".to_owned(), job, format!("ExcNodeList={nodes}")]
}

/// The command that shows a partition.
pub(crate) fn show_partition(name: &str) -> [&str; 5] {
    ["scontrol", "-o", "show", "partition", name]
}

/// The number of nodes in a partition.
pub(crate) fn total_nodes(text: &str) -> Option<usize> {
    text.split_whitespace().find_map(|word| word.strip_prefix("TotalNodes="))?.parse().ok()
}

/// The fields of `scontrol show job` that the harness needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Job {
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) restarts: u32,
    pub(crate) preempt: Option<f64>,
    /// When it was submitted or, if it was requeued, when that was.
    pub(crate) submitted: Option<f64>,
    pub(crate) start: Option<f64>,
    pub(crate) end: Option<f64>,
    /// Whether the time that it has run is shown as none.
    pub(crate) has_not_run: bool,
    pub(crate) partition: String,
    /// The excluded nodes and the required nodes.
    pub(crate) excluded: String,
    pub(crate) required: String,
    /// The node of its batch script.
    pub(crate) host: Option<String>,
}

impl Job {
    /// Whether it has ended and will not run again.
    pub(crate) fn is_over(&self) -> bool {
        slurm_words::is_over(&self.state)
    }

    /// Whether this run is over, if it was not requeued.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_over() || self.state == "COMPLETING"
    }

    /// Whether it waits for its next run, while Slurm still ends the last one. Its times are then those that Slurm expects of
    /// the next one, and its `Restarts` counts it already: only a job that waits has not run, and yet a time limit.
    fn waits_while_completing(&self) -> bool {
        let has_limit =
            self.start.zip(self.end).is_none_or(|(start, end)| end - start >= SHORTEST_LIMIT);
        self.state == "COMPLETING" && self.has_not_run && has_limit
    }

    /// Whether a preemption has begun in this run or an earlier one.
    pub(crate) fn was_preempted(&self) -> bool {
        self.preempt.is_some()
    }

    /// Whether this run is being preempted, or was.
    fn is_preempted(&self) -> bool {
        let began = self.start.unwrap_or(0.0);
        self.preempt.is_some_and(|preempt| preempt >= began) || self.state == "PREEMPTED"
    }

    /// Whether it is the run that was restarted so often, and under way.
    pub(crate) fn is_run(&self, restarts: u32) -> bool {
        self.restarts == restarts && slurm_words::is_running(&self.state)
    }

    /// The end of the grace of a preemption that is under way.
    pub(crate) fn grace_end(&self) -> Option<f64> {
        self.end.filter(|_| self.is_preempted() && slurm_words::is_running(&self.state))
    }

    /// Whether Slurm mistakes this run for a later one on the same node. That happens when a lost node comes back and
    /// reports that the job runs there. The end of this process would then end the job.
    pub(crate) fn takes_for_its_later_run(&self, own_restarts: u32, node: &str) -> bool {
        self.restarts > own_restarts
            && slurm_words::is_running(&self.state)
            && self.host.as_deref() == Some(node)
    }
}

/// Parses the answer. Returns none if it is not a job.
pub(crate) fn parse(text: &str) -> Option<Job> {
    let records = show_job::records(text);
    let fields = records.iter().find_map(|(_, record)| Fields::new(record))?;
    Some(Job {
        state: fields.get("JobState")?.to_owned(),
        reason: word(&fields, "Reason"),
        restarts: fields.get("Restarts").and_then(|count| count.parse().ok()).unwrap_or(0),
        preempt: time(&fields, "PreemptTime"),
        submitted: time(&fields, "SubmitTime"),
        start: time(&fields, "StartTime"),
        end: time(&fields, "EndTime"),
        has_not_run: fields.get("RunTime") == Some("00:00:00"),
        partition: word(&fields, "Partition"),
        excluded: word(&fields, "ExcNodeList"),
        required: word(&fields, "ReqNodeList"),
        host: fields.get("BatchHost").map(str::to_owned),
    })
}

fn word(fields: &Fields<'_>, name: &str) -> String {
    fields.get(name).unwrap_or_default().to_owned()
}

fn time(fields: &Fields<'_>, name: &str) -> Option<f64> {
    fields.get(name)?.parse().ok().filter(|&time| time > 0.0)
}

/// The facts that this run of the job knows about itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OwnRun {
    pub(crate) restarts: u32,
    /// How many seconds before the end it wants to be asked to save.
    pub(crate) lead: f64,
    /// The end of the grace, from an earlier answer of Slurm's.
    pub(crate) grace_end: Option<f64>,
    /// When it began by Slurm's clock, from its first answer.
    pub(crate) start: Option<f64>,
}

impl OwnRun {
    /// Whether Slurm speaks of a later run of the job. A controller that was killed forgets what it started last, ends it,
    /// and starts the job once more, without counting that.
    fn is_before(&self, job: &Job) -> bool {
        job.restarts > self.restarts
            || self.start.zip(job.start).is_some_and(|(own, now)| now > own + 1.0)
    }

    /// Whether Slurm ends an earlier run of the job. A controller that was killed before it wrote down that this run was
    /// started still ends the one before, and starts the job once more after that.
    fn is_after(&self, job: &Job) -> bool {
        let is_older = job.restarts < self.restarts
            || self.start.zip(job.start).is_some_and(|(own, now)| now < own - 1.0);
        is_older && job.state == "COMPLETING"
    }
}

/// Why the job is being stopped, if it is.
pub(crate) fn stop_cause(job: &Job, own: &OwnRun, now: f64) -> Option<StopCause> {
    let waits = slurm_words::is_waiting(&job.state) || job.waits_while_completing();
    if waits || own.is_before(job) || own.is_after(job) {
        return Some(StopCause::Requeued);
    }
    if job.is_preempted() {
        // Slurm counts a requeue at once. A job that ends earlier than its grace, without a requeue, was cancelled.
        let is_early = own.grace_end.zip(job.end).is_some_and(|(grace, end)| end + EARLIER < grace);
        let is_cancelled = job.state == "COMPLETING" && is_early;
        return Some(if is_cancelled { StopCause::Cancelled } else { StopCause::Preempted });
    }
    if job.state.starts_with("CANCELLED") {
        return Some(StopCause::Cancelled);
    }
    if job.reason == "TimeLimit" || job.state == "TIMEOUT" {
        return Some(StopCause::TimeLimit);
    }
    // An `scancel` leaves no other trace. The state changes before TERM comes.
    if job.state == "COMPLETING" {
        return Some(StopCause::Cancelled);
    }
    let near = job.end.is_some_and(|end| end - now <= own.lead + EARLY);
    (slurm_words::is_running(&job.state) && near).then_some(StopCause::TimeLimit)
}

/// What Slurm answered to a requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequeueAnswer {
    /// The job is in the queue.
    Accepted,
    /// It was cancelled before.
    Cancelled,
    /// It can never work for this job.
    Refused(String),
    /// It may work later.
    Failed(String),
}

/// The words of a refusal for a job that Slurm may not requeue.
const DISABLED: &str = "presently disabled";

impl RequeueAnswer {
    /// Whether the job may not be requeued: its owner may change that.
    pub(crate) fn is_disabled(&self) -> bool {
        matches!(self, Self::Refused(why) if why.contains(DISABLED))
    }
}

/// Parses the answer to a requeue.
pub(crate) fn requeued(code: Option<i32>, text: &str) -> RequeueAnswer {
    let line = text.lines().next().unwrap_or("it said nothing").to_owned();
    if code == Some(0) || text.contains("pending execution") {
        return RequeueAnswer::Accepted; // it is in the queue already
    }
    let never = [DISABLED, "Invalid job id", "not found", "Access/permission denied"];
    if never.iter().any(|words| text.contains(words)) {
        return RequeueAnswer::Refused(line);
    }
    RequeueAnswer::Failed(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "JobId=7 ArrayJobId=5 ArrayTaskId=1 JobName=a PreemptTime=1 b UserId=root(0) GroupId=root(0) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 RunTime=00:00:07 StartTime=1000 EndTime=5000 Deadline=N/A PreemptTime=None SuspendTime=None Partition=main BatchHost=n1";

    fn job() -> Job {
        parse(LINE).unwrap()
    }

    #[test]
    fn the_line_is_read() {
        let job = job();
        assert_eq!((&*job.state, &*job.reason, job.restarts), ("RUNNING", "None", 2));
        assert_eq!((job.preempt, job.start, job.end), (None, Some(1000.0), Some(5000.0)));
        assert_eq!(parse("slurm_load_jobs error: Invalid job id specified"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn an_old_run_may_be_taken_for_the_new_one() {
        assert!(job().takes_for_its_later_run(1, "n1"));
        assert!(!job().takes_for_its_later_run(2, "n1"), "it is the new one");
        assert!(!job().takes_for_its_later_run(1, "n2"), "the new one runs elsewhere");
        let waiting = Job { state: "PENDING".into(), ..job() };
        assert!(!waiting.takes_for_its_later_run(1, "n1"));
    }

    #[track_caller]
    fn check(job: &Job, now: f64, expected: Option<StopCause>) {
        let own = OwnRun { restarts: 2, lead: 120.0, grace_end: None, start: Some(1000.0) };
        assert_eq!(stop_cause(job, &own, now), expected, "{job:?}");
    }

    #[test]
    fn what_ends_before_its_grace_was_cancelled() {
        let job = Job { preempt: Some(1900.0), end: Some(1930.0), ..job() };
        assert_eq!(job.grace_end(), Some(1930.0));
        let own = OwnRun { restarts: 2, lead: 60.0, grace_end: job.grace_end(), start: job.start };
        let ended = |end: f64, restarts: u32| {
            let state = "COMPLETING".to_owned();
            let job = Job { state, end: Some(end), restarts, ..job.clone() };
            assert_eq!(job.grace_end(), None);
            stop_cause(&job, &own, end)
        };
        assert_eq!(ended(1905.0, 2), Some(StopCause::Cancelled));
        assert_eq!(ended(1930.0, 2), Some(StopCause::Preempted));
        assert_eq!(ended(1905.0, 3), Some(StopCause::Requeued));
    }

    #[test]
    fn evidence_decides_the_cause() {
        check(&job(), 2000.0, None);
        check(&job(), 4850.0, Some(StopCause::TimeLimit));
        let signaling = Job { state: "SIGNALING".into(), ..job() };
        check(&signaling, 4850.0, Some(StopCause::TimeLimit));
        check(&Job { preempt: Some(1900.0), ..job() }, 2000.0, Some(StopCause::Preempted));
        check(&Job { preempt: Some(900.0), ..job() }, 2000.0, None); // of the run before
        check(&Job { restarts: 3, ..job() }, 2000.0, Some(StopCause::Requeued));
        check(&Job { state: "PENDING".into(), ..job() }, 2000.0, Some(StopCause::Requeued));
        let cancelled = Job { state: "CANCELLED".into(), end: Some(2000.0), ..job() };
        check(&cancelled, 2000.0, Some(StopCause::Cancelled));
        let completing = Job { state: "COMPLETING".into(), end: Some(2000.0), ..job() };
        check(&completing, 2000.0, Some(StopCause::Cancelled));
        check(&Job { restarts: 3, ..completing.clone() }, 2000.0, Some(StopCause::Requeued));
        let again = Job { start: Some(1005.0), ..completing.clone() };
        check(&again, 2000.0, Some(StopCause::Requeued));
        let forgotten = Job { restarts: 1, ..completing.clone() };
        check(&forgotten, 2000.0, Some(StopCause::Requeued));
        let runs = Job { state: "RUNNING".into(), end: Some(5000.0), ..forgotten.clone() };
        check(&runs, 2000.0, None);
        let cancelled = Job { state: "CANCELLED".into(), ..forgotten };
        check(&cancelled, 2000.0, Some(StopCause::Cancelled));
        let older = Job { start: Some(990.0), ..completing.clone() };
        check(&older, 2000.0, Some(StopCause::Requeued));
        let limit = Job { reason: "TimeLimit".into(), ..completing };
        check(&limit, 2000.0, Some(StopCause::TimeLimit));
    }

    /// A controller that was killed before it wrote down that this run was started ends the one before, as Slurm 22.05 and 24.11
    /// show it. Where the harness had no answer since it began, it knows no start of its own to compare.
    #[test]
    fn what_slurm_requeues_while_it_ends_was_not_cancelled() {
        let shown = |ran: &str, end: &str| {
            let line = LINE.replace("RUNNING", "COMPLETING").replace("00:00:07", ran);
            parse(&line.replace("EndTime=5000", &format!("EndTime={end}"))).unwrap()
        };
        let own = OwnRun { restarts: 2, lead: 120.0, grace_end: None, start: None };
        let check = |ran: &str, end: &str, expected: StopCause| {
            assert_eq!(stop_cause(&shown(ran, end), &own, 1001.0), Some(expected), "{ran} {end}");
        };
        check("00:00:00", "1600", StopCause::Requeued);
        check("00:00:00", "Unknown", StopCause::Requeued);
        check("00:00:00", "1000", StopCause::Cancelled); // in its first second
        check("00:10:00", "1600", StopCause::Cancelled);
    }

    #[test]
    fn a_requeue_that_is_already_done_is_done() {
        assert_eq!(requeued(Some(0), ""), RequeueAnswer::Accepted);
        assert_eq!(
            requeued(Some(1), "Job is pending execution for job 5_1"),
            RequeueAnswer::Accepted
        );
        let disabled = "Requested operation is presently disabled for job 5";
        assert_eq!(requeued(Some(1), disabled), RequeueAnswer::Refused(disabled.into()));
        for away in [
            "Unable to contact slurm controller (connect failure)",
            "Unexpected message received for job 7_3",
            "Socket timed out on send/recv operation",
            "Zero Bytes were transmitted or received",
        ] {
            assert_eq!(requeued(Some(1), away), RequeueAnswer::Failed(away.into()));
        }
    }
}
