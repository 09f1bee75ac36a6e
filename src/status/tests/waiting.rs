//! Why a trial waits, and who holds it.

use super::*;

#[test]
fn a_request_that_can_never_run_says_so() {
    let stored = stored();
    let described = |reason: &str| {
        let mut sources = sources(&stored);
        sources.queue = queue_rows(&format!("8_0|PENDING|{reason}"));
        let text = described(&sources);
        text.strip_prefix("pending: ")
            .unwrap()
            .strip_suffix(&format!(" ({reason}) []"))
            .unwrap()
            .to_owned()
    };
    for reason in [
        "BadConstraints",
        "PartitionTimeLimit",
        "QOSMaxWallDurationPerJobLimit",
        "AssocMaxCpuPerJobLimit",
        "QOSMaxMemoryPerNode",
    ] {
        let text = described(reason);
        assert!(
            text.starts_with("can") && text.ends_with("cancel it and ask for less"),
            "{reason}: {text}"
        );
    }
    assert!(
        described("BadConstraints").contains("no node of its partition has the memory, GPUs, CPUs")
    );
    assert!(described("PartitionNodeLimit").ends_with("cancel it and ask for fewer"));
    assert!(described("InvalidQOS").ends_with("cancel it and name another"));
    let jobs = "waits until other jobs of its account end: together they have all that the account may use";
    assert_eq!(described("AssocGrpJobsLimit"), jobs);
    let own =
        "waits until other jobs of yours end: together they have all that its QOS gives one user";
    assert_eq!(described("QOSMaxJobsPerUserLimit"), own);
    assert_eq!(described("QOSMaxCpuPerUserLimit"), own);
    let nodes = "waits for nodes that are not available now: in use, reserved or down";
    assert_eq!(described("ReqNodeNotAvail,_UnavailableNodes:n1"), nodes);
    assert_eq!(described("PartitionDown"), "waits, since its partition starts no jobs now");
}

#[test]
fn who_holds_a_job_is_told() {
    let wish = |action, task: &str, trial: Option<u32>| Request {
        action,
        scope: Scope {
            task: Some(task.to_owned()).filter(|task| !task.is_empty()),
            trials: trial.map(TrialSet::from),
        },
        time: 0,
        budget: None,
    };
    let described = |reason: &str, requests: &[Request]| {
        let stored = stored();
        let mut sources = sources(&stored);
        sources.queue = queue_rows(&format!("8_0|PENDING|{reason}"));
        sources.requests = requests.to_vec();
        described(&sources)
    };
    let pause = |task, trial| [wish(RequestedAction::Pause, task, trial)];
    let ours =
        |rest| format!("paused: paused; `nemo-slurm resume sample-00000100{rest}` resumes it []");
    // To Slurm, root is an administrator.
    assert_eq!(described("JobHeldAdmin", &pause("", None)), ours(""));
    assert_eq!(described("JobHeldUser", &pause("train", None)), ours("/train"));
    assert_eq!(described("JobHeldUser", &pause("train", Some(0))), ours("/train/0"));
    let not_ours = "paused: is held; `nemo-slurm resume sample-00000100/train` resumes it []";
    assert_eq!(described("JobHeldUser", &pause("train", Some(1))), not_ours);
    let admin = "paused: is held by root or an administrator (`scontrol release` by them) []";
    assert_eq!(described("JobHeldAdmin", &[]), admin);
    let [pause] = pause("train", None);
    assert_eq!(described("JobHeldAdmin", &[pause, wish(RequestedAction::Resume, "", None)]), admin);
    let often = "paused: is held by Slurm: it was requeued too often; \
                 `nemo-slurm resume sample-00000100/train` resumes it []";
    assert_eq!(described("JobHoldMaxRequeue", &[]), often);
    // A requeue that was asked for with `expedite` is held where the job failed.
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_0|REQUEUE_HOLD|None");
    let held = "paused: is held by Slurm after its job ended; \
                `nemo-slurm resume sample-00000100/train` resumes it []";
    assert_eq!(super::described(&sources), held);
}

/// Slurm cancels it some seconds later, or never, as the site wishes: a retry must not take it for one that will run.
#[test]
fn a_child_in_the_queue_is_blocked_as_soon_as_its_parents_record_says_failed() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_[0-2]|PENDING|Dependency");
    let mut parent = |cause, next| {
        let attempts = vec![start(0, 100.0), end(0, 150.0, cause, next)];
        let files = TrialFiles { attempts, ..TrialFiles::default() };
        sources.files.insert("prepare".to_owned(), [(0, files)].into());
        described(&sources)
    };
    let waits = "pending: waits for another task []";
    assert_eq!(parent(Cause::Completed, Next::Done), waits);
    assert_eq!(parent(Cause::Preempted, Next::Requeue), waits);
    assert_eq!(parent(Cause::Failed, Next::Failed), "blocked?: `prepare` trial 0 is failed []");
    // What Slurm alone says of the parent may change.
    sources.files.clear();
    sources.accounts = account_rows("7_0|FAILED|100|150");
    assert_eq!(described(&sources), waits);
}
