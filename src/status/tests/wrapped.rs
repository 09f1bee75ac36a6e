//! Jobs under `nemo-harness wrap`: a plain job has no index, and an array may begin anywhere.

use super::*;
use crate::journal;
use crate::plan::{JobArray, Plan, WrappedName};

/// What one task of a wrapped job tells the journal.
fn told(job: u32, trials: &str, is_array: bool) -> [Event; 3] {
    let (task, trials): (_, IndexSet) = ("train".to_owned(), trials.parse().unwrap());
    let array = JobArray {
        task: task.clone(),
        index: 0,
        offset: 0,
        trials: trials.clone(),
        throttle: None,
        after: Vec::new(),
        held: false,
        outside: Vec::new(),
        behind: Vec::new(),
        after_jobs: Vec::new(),
        wrapped: Some(WrappedName { name: "old".to_owned(), is_array }),
    };
    let (token, time) = ("old".to_owned(), 0.0);
    [
        Event::Planned { plan: Plan { generation: 0, arrays: vec![array] }, retry: None },
        Event::Intended { token: token.clone(), task, array: 0, offset: 0, trials, time },
        Event::Submitted { token, slurm_job: JobId(job), time },
    ]
}

/// A task `train` of wrapped jobs, with the trials 0 to `last`.
fn wrapped(last: u32, journal: Vec<Event>) -> Stored {
    let mut stored = stored();
    stored.dir = ExperimentDir("/home/jobs/old-00000100".into());
    stored.experiment.tasks = vec![sample_task("train", last as usize + 1, 0, &[])];
    stored.journal = journal;
    stored
}

/// It was preempted and requeued, and cancelled while it waited: accounting has a row for each.
#[test]
fn a_plain_job_is_what_the_newest_of_its_rows_says() {
    let stored = wrapped(0, told(56, "0", false).to_vec());
    let mut first = start(0, 100.0);
    if let AttemptRecord::Start(start) = &mut first {
        start.slurm_job = Some("56".to_owned());
    }
    let records = vec![first, end(0, 150.0, Cause::Preempted, Next::Requeue)];
    let mut sources = sources(&stored);
    let files = TrialFiles { attempts: records, ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    sources.accounts = account_rows("56|PREEMPTED|100|150 56|CANCELLED+0|160|160");
    let state = |sources: &StatusInputs<'_>| join(sources).tasks[0].trials[0].state;
    assert_eq!(state(&sources), State::Cancelled);
    // Squeue still shows the end.
    sources.queue = queue_rows("56|CANCELLED|None");
    assert_eq!(state(&sources), State::Cancelled);
    sources.queue = queue_rows("");
    sources.accounts = account_rows("56|PREEMPTED|100|150 56|COMPLETED|160|170");
    let trial = join(&sources).tasks.swap_remove(0).trials.swap_remove(0);
    assert_eq!(trial.attempts.len(), 2, "each row is a run: {trial:?}");
    assert_eq!(trial.attempts[1].slurm_job.as_deref(), Some("56"));
}

#[test]
fn a_run_of_an_earlier_job_in_the_folder_has_its_number() {
    let stored = wrapped(0, [told(27, "0", false), told(29, "0", false)].concat());
    let mut sources = sources(&stored);
    sources.accounts = account_rows("27|PREEMPTED|100|150 29|CANCELLED+0|160|160");
    let trial = join(&sources).tasks.swap_remove(0).trials.swap_remove(0);
    assert_eq!((trial.state, trial.slurm_job.as_deref()), (State::Cancelled, Some("29")));
    assert_eq!(trial.attempts[0].slurm_job.as_deref(), Some("27"));
}

#[test]
fn an_array_that_begins_at_1_has_no_trial_0() {
    // Two of its tasks have told of it, side by side.
    let stored = wrapped(3, [told(2, "1-3", true), told(2, "1-3", true)].concat());
    let mut sources = sources(&stored);
    sources.queue = queue_rows("2_[1-3]|PENDING|Priority");
    let status = join(&sources);
    let shown: Vec<u32> = status.tasks[0].trials.iter().map(|trial| trial.index).collect();
    assert_eq!(shown, [1, 2, 3]);
    let task = &stored.experiment.tasks[0];
    assert_eq!(journal::trials(&stored.journal, task).to_string(), "1-3");
    assert_eq!(journal::n_trials(&stored.journal, &stored.experiment), 3);
    assert_eq!(journal::unplanned(&stored.journal, task).to_string(), "", "nothing is due");
    assert_eq!(journal::submitted_arrays(&stored.journal).len(), 1);
    assert_eq!(journal::submitted(&stored.journal).len(), 1);
}

/// The first task of `1,5,9` got no answer from Slurm, the next one did.
#[test]
fn an_array_with_gaps_has_the_tasks_that_were_told_last() {
    let stored = wrapped(9, [told(2, "1-9", true), told(2, "1,5,9", true)].concat());
    let mut sources = sources(&stored);
    sources.queue = queue_rows("2_[5,9]|PENDING|Priority");
    let shown: Vec<u32> = join(&sources).tasks[0].trials.iter().map(|trial| trial.index).collect();
    assert_eq!(shown, [1, 5, 9]);
    let task = &stored.experiment.tasks[0];
    assert_eq!(journal::trials(&stored.journal, task).to_string(), "1-9:4");
    assert!(journal::unplanned(&stored.journal, task).is_empty(), "nothing is due");
}

#[test]
fn jobs_of_one_name_in_one_folder_keep_their_own_trials() {
    let stored = wrapped(6, [told(2, "1-3", true), told(3, "5-6", true)].concat());
    let mut sources = sources(&stored);
    sources.queue = queue_rows("3_[5-6]|PENDING|Priority");
    let status = join(&sources);
    let job = |index: u32| {
        let trial = status.tasks[0].trials.iter().find(|trial| trial.index == index);
        trial.and_then(|trial| trial.slurm_job.clone()).unwrap_or_default()
    };
    assert_eq!([1, 3, 4, 5, 6].map(job), ["2_1", "2_3", "", "3_5", "3_6"]);
}

/// Only its script starts it again.
#[test]
fn one_that_slurm_has_forgotten_is_not_submitted_again() {
    let stored = wrapped(0, told(56, "0", false).to_vec());
    let trial = join(&sources(&stored)).tasks.swap_remove(0).trials.swap_remove(0);
    assert_eq!((trial.state, trial.remedy), (State::Unknown, None));
}
