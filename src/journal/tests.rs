//! What follows from the lines of a journal.

use super::*;
use crate::plan::JobArray;

fn array(index: usize, offset: u32, trials: &str) -> JobArray {
    JobArray {
        task: "train".to_owned(),
        index,
        offset,
        trials: trials.parse().unwrap(),
        throttle: None,
        after: Vec::new(),
        held: false,
        outside: Vec::new(),
        behind: Vec::new(),
        after_jobs: Vec::new(),
        wrapped: None,
    }
}

fn intended(index: usize, offset: u32, trials: &str) -> Event {
    let array = array(index, offset, trials);
    let token = format!("x-1.train.{index}");
    let (task, trials) = (array.task, array.trials);
    Event::Intended { token, task, array: index, offset, trials, time: 0.0 }
}

fn submitted(index: usize, job: u32) -> Event {
    let token = format!("x-1.train.{index}");
    Event::Submitted { token, slurm_job: JobId(job), time: f64::from(job) }
}

fn planned(generation: u32, arrays: Vec<JobArray>) -> Event {
    Event::Planned { plan: Plan { generation, arrays }, retry: None }
}

#[test]
fn a_retry_that_slurm_refused_never_was() {
    let retry = |from_attempt, trials: &str| {
        let trials = trials.parse().unwrap();
        let group = RetriedTrials { from_attempt, trials, changed: None, rule: None, advice: None };
        Some(Retry { trials: [("train".to_owned(), vec![group])].into(), user: None })
    };
    let plan = |generation, index, trials: &str| {
        let Event::Planned { plan, .. } = planned(generation, vec![array(index, 0, trials)]) else {
            unreachable!()
        };
        plan
    };
    let complete = |generation| Event::Complete { generation, time: 9.0 };
    let mut journal = vec![
        planned(0, vec![array(0, 0, "0-9")]),
        submitted(0, 7),
        complete(0),
        Event::Planned { plan: plan(1, 1, "3,4"), retry: retry(1, "3,4") },
    ];
    let last = |journal: &[Event]| {
        let all = last_retries(journal, "train").into_iter();
        let shown = all.map(|(trial, it)| format!("{trial}:{}/{}", it.generation, it.from_attempt));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(last(&journal), "3:1/1 4:1/1");
    assert!(!is_complete(&journal));
    let reason = "no such partition".to_owned();
    journal.push(Event::Refused { token: "x-1.train.1".to_owned(), reason, time: 9.0 });
    assert_eq!(last(&journal), "");
    assert!(is_complete(&journal), "nothing is left to submit");
    assert_eq!(refusal(&journal), None, "the experiment was not refused");
    journal.push(Event::Planned { plan: plan(2, 2, "4"), retry: retry(3, "4") });
    assert_eq!(last(&journal), "4:2/3");
    assert!(!is_complete(&journal));
    journal.push(complete(2));
    assert!(is_complete(&journal));
}

#[test]
fn arrays_of_all_generations_are_known_with_their_trials() {
    let journal = [
        planned(0, vec![array(0, 0, "0-9"), array(1, 10, "10-19")]),
        intended(0, 0, "0-9"),
        submitted(0, 7),
        // The intent of the next one is damaged: what it runs was planned.
        submitted(1, 8),
        Event::Complete { generation: 0, time: 9.0 },
        planned(1, vec![array(2, 10, "13,17")]),
        intended(2, 10, "13,17"),
    ];
    let shown = |array: &Submitted<'_>| format!("{} {} {}", array.job, array.offset, array.trials);
    let shown: Vec<String> = submitted_arrays(&journal).iter().map(shown).collect();
    assert_eq!(shown, ["7 0 0-9", "8 10 10-19"]);
    assert_eq!(submitted_arrays(&journal)[1].trial_of(3), Some(13));
    assert_eq!(submitted_arrays(&journal)[1].trial_of(10), None);
    assert_eq!(submitted_at(&submitted_arrays(&journal), "train", 13), Some(8.0));
    assert!(is_generation_complete(&journal, 0) && !is_complete(&journal));
    let complete = [&journal[..], &[Event::Complete { generation: 1, time: 9.0 }]].concat();
    assert!(is_complete(&complete));
}

/// Trials that run alike after a retry may have run in different ways before it.
#[test]
fn a_retry_tells_what_is_new_with_it() {
    let set = |keys: &[(&str, &str)]| -> ChangedKeys {
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let group = |from_attempt, trials: &str, keys: &[(&str, &str)]| {
        let spec = "task.1.0.json".to_owned();
        let changed = Changed { spec, set: set(keys), restart_from: None, deadline: None };
        let (trials, changed) = (trials.parse().unwrap(), Some(changed));
        RetriedTrials { from_attempt, trials, changed, rule: None, advice: None }
    };
    let event = |generation, groups: Vec<RetriedTrials>| {
        let trials = [("train".to_owned(), groups)].into();
        let retry = Some(Retry { trials, user: Some("ada".to_owned()) });
        Event::Planned { plan: Plan { generation, arrays: Vec::new() }, retry }
    };
    let both = [("executor.mem", "16G"), ("executor.time", "2h")];
    let journal = [
        planned(0, vec![array(0, 0, "0-9")]),
        event(1, vec![group(1, "1", &both[..1])]),
        event(2, vec![group(1, "2", &both), group(2, "1", &both), group(3, "3", &both)]),
        event(3, vec![group(3, "1-3", &both)]),
    ];
    let shown = |at: usize| {
        let changes = setting_changes(&journal, at).into_iter();
        let one = |it: SettingChange<'_>| format!("{}:{}", it.trials, it.changed.len());
        changes.map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!([0, 1, 2, 3].map(shown), ["", "1:1", "2-3:2 1:1", ""]);
    assert_eq!(setting_changes(&journal, 2)[1].changed, set(&both[1..]));
    assert_eq!(setting_changes(&journal, 2)[1].set, set(&both));
}
