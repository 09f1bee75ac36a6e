//! Plans of all shapes, each held against the independent checker.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::experiment::{Executor, Goal, LocalExecutor};
use nemo_core::rundir::{CheckpointSpec, CommandSpec, Params, RestartSpec};

pub(crate) fn task(name: &str, trials: usize, concurrent: u32, after: &[(&str, On)]) -> Task {
    Task {
        name: name.to_owned(),
        executor: "local".to_owned(),
        run: CommandSpec::Shell("true".to_owned()),
        after: after.iter().map(|&(task, on)| Dependency { task: task.to_owned(), on }).collect(),
        trials: vec![Params::new(); trials],
        concurrent: NonZeroU32::new(concurrent),
        metric: None,
        goal: Goal::Min,
        checkpoint: CheckpointSpec {
            signal: "USR1".to_owned(),
            lead: 60,
            every: None,
            keep: nemo_core::rundir::Keep::default(),
        },
        restart: RestartSpec { crashes: 0, no_progress: 3, hang: None },
        metrics: BTreeMap::new(),
        log_policy: Vec::new(),
        profile: None,
        launch: None,
    }
}

pub(crate) fn experiment(tasks: Vec<Task>) -> Experiment {
    Experiment {
        name: "sample".to_owned(),
        description: None,
        tags: Vec::new(),
        metadata: BTreeMap::new(),
        timeout: None,
        seed: 0,
        workdir: "/".into(),
        executors: [("local".to_owned(), Executor::Local(LocalExecutor::default()))].into(),
        tasks,
    }
}

fn limits(max_array: u32) -> Limits {
    Limits { max_array: NonZeroU32::new(max_array).unwrap() }
}

/// A plan as a reader would sketch it: `task[first..last]%throttle after…`.
fn sketch(plan: &Plan) -> String {
    let one = |array: &JobArray| {
        let throttle = array.throttle.map_or_else(String::new, |n| format!("%{n}"));
        let after: Vec<String> =
            array.after.iter().map(|edge| format!(" {:?}:{}", edge.on, edge.array)).collect();
        let held = if array.held { " held" } else { "" };
        let (first, last) = (array.offset, array.offset + array.trials.get() - 1);
        format!("{}[{first}-{last}]{throttle}{}{held}", array.task, after.concat())
    };
    plan.arrays.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check_plan(tasks: Vec<Task>, max_array: u32, expected: &str) {
    let experiment = experiment(tasks);
    let plan = Plan::new(&experiment, limits(max_array)).unwrap();
    assert_eq!(sketch(&plan), expected);
    assert_eq!(check(&experiment, &plan, limits(max_array)), []);
}

#[test]
fn tasks_become_arrays() {
    use On::{Any, Each, Failed, Ok};
    check_plan(vec![task("a", 1, 0, &[])], 1001, "a[0-0]");
    check_plan(vec![task("a", 1001, 0, &[])], 1001, "a[0-1000]");
    check_plan(vec![task("a", 1002, 0, &[])], 1001, "a[0-500] held; a[501-1001] held");
    check_plan(vec![task("a", 10, 3, &[])], 10, "a[0-9]%3");
    check_plan(vec![task("a", 3, 8, &[])], 10, "a[0-2]");
    check_plan(vec![task("a", 6, 3, &[])], 3, "a[0-2]%2 held; a[3-5]%1 held");
    check_plan(vec![task("a", 9, 2, &[])], 3, "a[0-2]%1 held; a[3-5]%1 held; a[6-8]%1 AfterAny:0");
    check_plan(
        vec![task("a", 1, 0, &[]), task("b", 4, 0, &[("a", Ok)]), task("c", 1, 0, &[("b", Any)])],
        2,
        "a[0-0] held; b[0-1] AfterOk:0; b[2-3] AfterOk:0; c[0-0] AfterAny:1 AfterAny:2",
    );
    check_plan(
        vec![
            task("a", 4, 0, &[]),
            task("b", 4, 0, &[("a", Each)]),
            task("c", 1, 0, &[("a", Failed)]),
        ],
        2,
        "a[0-1] held; a[2-3] held; b[0-1] AfterCorr:0; b[2-3] AfterCorr:1; \
         c[0-0] AnyAfterNotOk:0 AnyAfterNotOk:1",
    );
}

#[test]
fn alternatives_do_not_mix() {
    let tasks = vec![
        task("a", 4, 0, &[]),
        task("b", 1, 0, &[]),
        task("c", 1, 0, &[("a", On::Failed), ("b", On::Ok)]),
    ];
    let error = Plan::new(&experiment(tasks), limits(2)).unwrap_err();
    assert!(error.to_string().contains("`c` waits for a failure in `a`"), "{error}");
}

#[track_caller]
fn check_note(spoil: impl Fn(&mut Plan), expected: &str) {
    let tasks = vec![task("a", 4, 2, &[]), task("b", 4, 0, &[("a", On::Each)])];
    let experiment = experiment(tasks);
    let mut plan = Plan::new(&experiment, limits(2)).unwrap();
    assert_eq!(check(&experiment, &plan, limits(2)), []);
    spoil(&mut plan);
    let notes = check(&experiment, &plan, limits(2));
    assert!(notes.iter().any(|note| note.text.contains(expected)), "{expected}: {notes:?}");
}

#[test]
fn the_checker_sees_what_is_wrong() {
    check_note(|plan| plan.arrays[1].offset = 1, "each trial once");
    check_note(|plan| drop(plan.arrays.remove(3)), "each trial once");
    check_note(|plan| plan.arrays[0].trials = NonZeroU32::new(5).unwrap(), "more than 2");
    check_note(|plan| plan.arrays[2].after[0].array = 3, "not submitted before");
    check_note(|plan| plan.arrays[2].after[0].array = 1, "does not wait for `a`");
    check_note(|plan| plan.arrays[2].after.clear(), "could end before");
    check_note(|plan| plan.arrays[0].held = false, "could end before");
    check_note(|plan| plan.arrays[0].throttle = None, "could run at once");
    check_note(|plan| "z".clone_into(&mut plan.arrays[3].task), "no task is called `z`");
}

proptest! {
    #[test]
    fn every_plan_is_sound(
        sizes in proptest::collection::vec((1_usize..40, 0_u32..12, 0_u8..5), 1..6),
        max_array in 1_u32..20,
    ) {
        let mut tasks: Vec<Task> = Vec::new();
        for (place, (trials, concurrent, on)) in sizes.into_iter().enumerate() {
            let previous = tasks.last().map(|task| (task.name.clone(), task.trials.len()));
            let (trials, after) = match (previous, on) {
                (Some((name, _)), 1) => (trials, vec![(name, On::Ok)]),
                (Some((name, n)), 2) => (n, vec![(name, On::Each)]),
                (Some((name, _)), 3) => (trials, vec![(name, On::Any)]),
                (Some((name, _)), 4) => (1, vec![(name, On::Failed)]),
                _ => (trials, vec![]),
            };
            let after: Vec<(&str, On)> = after.iter().map(|(name, on)| (name.as_str(), *on)).collect();
            tasks.push(task(&format!("t{place}"), trials, concurrent, &after));
        }
        let experiment = experiment(tasks);
        let plan = Plan::new(&experiment, limits(max_array)).unwrap();
        prop_assert_eq!(check(&experiment, &plan, limits(max_array)), vec![]);
        prop_assert_eq!(&Plan::new(&experiment, limits(max_array)).unwrap(), &plan);
    }
}
