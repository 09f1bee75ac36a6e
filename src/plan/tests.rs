//! Plans of all shapes, each held against the independent checker.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::experiment::{Executor, Goal, LocalExecutor};
use nemo_core::rundir::{CheckpointSpec, CommandSpec, RestartSpec};

pub(crate) fn task(name: &str, trials: usize, concurrent: u32, after: &[(&str, On)]) -> Task {
    Task {
        name: name.to_owned(),
        executor: "local".to_owned(),
        run: CommandSpec::Shell("true".to_owned()),
        after: after.iter().map(|&(task, on)| Dependency { task: task.to_owned(), on }).collect(),
        n_trials: u32::try_from(trials).unwrap(),
        concurrent: NonZeroU32::new(concurrent),
        metric: None,
        goal: Goal::Min,
        checkpoint: CheckpointSpec {
            signal: "USR1".to_owned(),
            lead: 60,
            every: None,
            keep: nemo_core::rundir::Keep::default(),
            from: Vec::new(),
            restore_to: None,
            tier: None,
            command: None,
            resume: None,
        },
        restart: RestartSpec { crashes: 0, no_progress: 3, hang: None },
        metrics: BTreeMap::new(),
        log_policy: Vec::new(),
        profile: None,
        trackers: Vec::new(),
        retry: std::collections::BTreeMap::new(),
        rehearse: crate::experiment::RehearsalRules::default(),
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
        after: Vec::new(),
        notify: None,
        seed: 0,
        package: crate::experiment::PackageKeys::default(),
        workdir: "/".into(),
        executors: [("local".to_owned(), Executor::Local(LocalExecutor::default()))].into(),
        tasks,
    }
}

fn limits(max_array: u32) -> Limits {
    Limits { max_array: NonZeroU32::new(max_array).unwrap() }
}

/// A plan as a reader would sketch it: `task[offset+indices]%throttle after…`.
fn sketch(plan: &Plan) -> String {
    let one = |array: &JobArray| {
        let throttle = array.throttle.map_or_else(String::new, |n| format!("%{n}"));
        let after: Vec<String> =
            array.after.iter().map(|edge| format!(" {:?}:{}", edge.on, edge.array)).collect();
        let behind =
            array.behind.iter().fold(String::new(), |text, job| format!("{text} behind {job}"));
        let held = if array.held { " held" } else { "" };
        let offset = if array.offset > 0 { format!("{}+", array.offset) } else { String::new() };
        let (task, indices) = (&array.task, array.indices());
        format!("{task}[{offset}{indices}]{throttle}{}{behind}{held}", after.concat())
    };
    plan.arrays.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check_plan(tasks: Vec<Task>, max_array: u32, expected: &str) {
    let experiment = experiment(tasks);
    check_selection(&experiment, &Selection::all(&experiment), max_array, expected);
}

#[track_caller]
fn check_selection(experiment: &Experiment, selection: &Selection, max_array: u32, expected: &str) {
    let plan = Plan::new(experiment, selection, limits(max_array)).unwrap();
    assert_eq!(sketch(&plan), expected);
    assert_eq!(check(experiment, selection, &plan, limits(max_array)), []);
}

fn selection(trials: &[(&str, &str)]) -> Selection {
    let set = |(task, text): &(&str, &str)| ((*task).to_owned(), text.parse().unwrap());
    let trials = trials.iter().map(set).collect();
    let earlier_arrays = [("a".to_owned(), 2)].into();
    Selection { generation: 1, trials, earlier_arrays, ..Selection::default() }
}

#[test]
fn some_trials_become_sparse_arrays() {
    use On::{Each, Ok};
    let check = |tasks: Vec<Task>, trials: &[(&str, &str)], max_array, expected: &str| {
        check_selection(&experiment(tasks), &selection(trials), max_array, expected);
    };
    let one = || vec![task("a", 60, 4, &[])];
    check(one(), &[("a", "3,17,40-49")], 1001, "a[3,17,40-49]%4");
    check(one(), &[("a", "3")], 1001, "a[3]");
    check(one(), &[], 1001, "");
    // Windows of 20: an index is never higher than Slurm allows, and the same in every generation.
    check(one(), &[("a", "3,17,40-49")], 20, "a[3,17] held; a[40+0-9]%2 held");
    let pair = |on| vec![task("a", 60, 0, &[]), task("b", 60, 0, &[("a", on)])];
    check(pair(Ok), &[("a", "3,17"), ("b", "0-59")], 1001, "a[3,17] held; b[0-59] AfterOk:0");
    check(pair(Each), &[("b", "5,7")], 1001, "b[5,7]");
    check(pair(Each), &[("a", "3,17"), ("b", "3,17")], 1001, "a[3,17] held; b[3,17] AfterCorr:0");
    // Trial 5 of `a` is done: `aftercorr` would look for an array index that is not there.
    check(
        pair(Each),
        &[("a", "3,17"), ("b", "3,5,17")],
        1001,
        "a[3,17] held; b[3,17] AfterCorr:0; b[5] held",
    );
    check(
        pair(Each),
        &[("a", "3,17,25"), ("b", "3,17,25")],
        20,
        "a[3,17] held; a[20+5] held; b[3,17] AfterCorr:0; b[20+5] AfterCorr:1",
    );
}

/// `at_once` trials of earlier submissions, in jobs `7` and `8_3`, may still run beside these.
#[track_caller]
fn check_beside(trials: &str, concurrent: u32, at_once: u32, expected: &str) {
    let experiment = experiment(vec![task("a", 60, concurrent, &[])]);
    let ongoing = Ongoing { at_once, jobs: vec!["7".to_owned(), "8_3".to_owned()] };
    let selected =
        Selection { ongoing: [("a".to_owned(), ongoing)].into(), ..selection(&[("a", trials)]) };
    check_selection(&experiment, &selected, 20, expected);
}

#[test]
fn what_is_submitted_again_keeps_concurrent_with_what_still_runs() {
    check_beside("3,17", 4, 3, "a[3,17]%1");
    check_beside("3,17", 4, 2, "a[3,17]");
    check_beside("3,17", 4, 4, "a[3,17] behind 7 behind 8_3");
    check_beside("3,17", 1, 5, "a[3,17]%1 behind 7 behind 8_3");
    check_beside("3,17", 0, 5, "a[3,17]");
    // An array that follows another in its lane need not wait for the others itself.
    check_beside("3,25", 1, 1, "a[3] behind 7 behind 8_3 held; a[20+5] AfterAny:0");
    check_beside("3,25", 2, 1, "a[3] held; a[20+5] AfterAny:0");

    let experiment = experiment(vec![task("a", 60, 2, &[])]);
    let selected = selection(&[("a", "3,17")]);
    let plan = Plan::new(&experiment, &selected, limits(20)).unwrap();
    let ongoing = Ongoing { at_once: 1, jobs: Vec::new() };
    let beside = Selection { ongoing: [("a".to_owned(), ongoing)].into(), ..selected };
    let notes = check(&experiment, &beside, &plan, limits(20));
    assert!(notes[0].text.contains("3 trials of `a` could run at once"), "{notes:?}");
}

#[test]
fn only_tasks_without_a_parent_wait_for_what_is_outside() {
    let tasks = vec![task("a", 9, 2, &[]), task("b", 1, 0, &[("a", On::Ok)])];
    let experiment = experiment(tasks);
    let edge = OutsideEdge { on: Relation::AfterOk, job: "7_3".to_owned() };
    let all = Selection { outside: vec![edge], ..Selection::all(&experiment) };
    let plan = Plan::new(&experiment, &all, limits(3)).unwrap();
    let n_outside: Vec<usize> = plan.arrays.iter().map(|array| array.outside.len()).collect();
    assert_eq!(n_outside, [1, 1, 1, 0], "each array, also one that follows another in its lane");
}

#[test]
fn trials_that_run_differently_have_arrays_of_their_own() {
    let mut selected = selection(&[("a", "1,3,17,25"), ("b", "0")]);
    let sets = ["3,25", "17"].map(|set| set.parse().unwrap());
    selected.separate = [("a".to_owned(), sets.into())].into();
    let tasks = vec![task("a", 60, 0, &[]), task("b", 1, 0, &[("a", On::Ok)])];
    check_selection(
        &experiment(tasks),
        &selected,
        20,
        "a[1] held; a[3] held; a[17] held; a[20+5] held; b[0] AfterOk:0 AfterOk:1 AfterOk:2 AfterOk:3",
    );
    let experiment = experiment(vec![task("a", 60, 0, &[])]);
    let selected =
        Selection { trials: [("a".to_owned(), "3,4".parse().unwrap())].into(), ..selected };
    let mixed =
        Plan::new(&experiment, &Selection { separate: [].into(), ..selected.clone() }, limits(99));
    let notes = check(&experiment, &selected, &mixed.unwrap(), limits(99));
    assert!(notes[0].text.contains("mixes trials"), "{notes:?}");
}

#[test]
fn tasks_become_arrays() {
    use On::{Any, Each, Failed, Ok};
    check_plan(vec![task("a", 1, 0, &[])], 1001, "a[0]");
    check_plan(vec![task("a", 1001, 0, &[])], 1001, "a[0-1000]");
    check_plan(vec![task("a", 1002, 0, &[])], 1001, "a[0-500] held; a[501+0-500] held");
    check_plan(vec![task("a", 10, 3, &[])], 10, "a[0-9]%3");
    check_plan(vec![task("a", 3, 8, &[])], 10, "a[0-2]");
    check_plan(vec![task("a", 6, 3, &[])], 3, "a[0-2]%2 held; a[3+0-2]%1 held");
    check_plan(
        vec![task("a", 9, 2, &[])],
        3,
        "a[0-2]%1 held; a[3+0-2]%1 held; a[6+0-2]%1 AfterAny:0",
    );
    check_plan(
        vec![task("a", 1, 0, &[]), task("b", 4, 0, &[("a", Ok)]), task("c", 1, 0, &[("b", Any)])],
        2,
        "a[0] held; b[0-1] AfterOk:0; b[2+0-1] AfterOk:0; c[0] AfterAny:1 AfterAny:2",
    );
    check_plan(
        vec![
            task("a", 4, 0, &[]),
            task("b", 4, 0, &[("a", Each)]),
            task("c", 1, 0, &[("a", Failed)]),
        ],
        2,
        "a[0-1] held; a[2+0-1] held; b[0-1] AfterCorr:0; b[2+0-1] AfterCorr:1; \
         c[0] AnyAfterNotOk:0 AnyAfterNotOk:1",
    );
}

#[test]
fn alternatives_do_not_mix() {
    let tasks = vec![
        task("a", 4, 0, &[]),
        task("b", 1, 0, &[]),
        task("c", 1, 0, &[("a", On::Failed), ("b", On::Ok)]),
    ];
    let experiment = experiment(tasks);
    let error = Plan::new(&experiment, &Selection::all(&experiment), limits(2)).unwrap_err();
    assert!(error.to_string().contains("`c` waits for a failure in `a`"), "{error}");
}

#[track_caller]
fn check_note(spoil: impl Fn(&mut Plan), expected: &str) {
    let tasks = vec![task("a", 4, 2, &[]), task("b", 4, 0, &[("a", On::Each)])];
    let experiment = experiment(tasks);
    let all = Selection::all(&experiment);
    let mut plan = Plan::new(&experiment, &all, limits(2)).unwrap();
    assert_eq!(check(&experiment, &all, &plan, limits(2)), []);
    spoil(&mut plan);
    let notes = check(&experiment, &all, &plan, limits(2));
    assert!(notes.iter().any(|note| note.text.contains(expected)), "{expected}: {notes:?}");
}

#[test]
fn the_checker_sees_what_is_wrong() {
    check_note(|plan| plan.arrays[1].trials = "1-2".parse().unwrap(), "each trial once");
    check_note(|plan| drop(plan.arrays.remove(3)), "each trial once");
    check_note(|plan| plan.arrays[0].trials = IndexSet::below(5), "index 4 is not below 2");
    check_note(|plan| plan.arrays[1].offset = 0, "index 3 is not below 2");
    check_note(|plan| plan.arrays[1].offset = 3, "below its offset 3");
    check_note(|plan| plan.arrays[1].trials = IndexSet::default(), "holds no trial");
    check_note(|plan| plan.arrays[1].index = 0, "not numbered from 0");
    check_note(|plan| plan.arrays[3].offset = 1, "does not wait for `a`");
    check_note(|plan| plan.arrays[2].after[0].array = 3, "not submitted before");
    check_note(|plan| plan.arrays[2].after[0].array = 1, "does not wait for `a`");
    check_note(|plan| plan.arrays[2].after.clear(), "could end before");
    check_note(|plan| plan.arrays[0].held = false, "could end before");
    check_note(|plan| plan.arrays[0].throttle = None, "could run at once");
    check_note(|plan| "z".clone_into(&mut plan.arrays[3].task), "no task is called `z`");
}

/// `b` waits for what earlier submissions may still run of `a`: for all of it, or for the trials of its own numbers.
#[test]
fn the_checker_sees_that_an_open_parent_is_not_waited_for() {
    let by_trial = [(1, "8_1".to_owned()), (3, "8_3".to_owned())].into();
    let open = OpenTrials { jobs: vec!["8".to_owned(), "9_4".to_owned()], by_trial };
    for (on, jobs) in [(On::Ok, &["8", "9_4"][..]), (On::Any, &["8", "9_4"]), (On::Each, &["8_3"])]
    {
        let experiment = experiment(vec![task("a", 60, 0, &[]), task("b", 60, 0, &[("a", on)])]);
        let open_parents = [("a".to_owned(), open.clone())].into();
        let selected = Selection { open_parents, ..selection(&[("b", "3,5")]) };
        let mut plan = Plan::new(&experiment, &selected, limits(99)).unwrap();
        assert_eq!(plan.arrays[0].after_jobs, jobs);
        assert_eq!(check(&experiment, &selected, &plan, limits(99)), []);
        plan.arrays[0].after_jobs.pop();
        let notes = check(&experiment, &selected, &plan, limits(99));
        let text = "array 0 of `b` does not wait for what still runs of `a`";
        assert_eq!(notes, [PlanFault { array: None, text: text.to_owned() }], "{on:?}");
    }
}

/// An experiment of any shape; of each task some trials.
fn any_selection() -> impl Strategy<Value = (Experiment, Selection)> {
    let sizes = proptest::collection::vec((1_usize..40, 0_u32..12, 0_u8..5, any::<u64>()), 1..6);
    (sizes, 0_u32..3).prop_map(|(sizes, generation)| {
        let mut tasks: Vec<Task> = Vec::new();
        let mut trials = BTreeMap::new();
        for (place, (size, concurrent, on, chosen)) in sizes.into_iter().enumerate() {
            let previous = tasks.last().map(|task| (task.name.clone(), task.n_trials as usize));
            let (size, after) = match (previous, on) {
                (Some((name, _)), 1) => (size, vec![(name, On::Ok)]),
                (Some((name, n)), 2) => (n, vec![(name, On::Each)]),
                (Some((name, _)), 3) => (size, vec![(name, On::Any)]),
                (Some((name, _)), 4) => (1, vec![(name, On::Failed)]),
                _ => (size, vec![]),
            };
            let after: Vec<(&str, On)> =
                after.iter().map(|(name, on)| (name.as_str(), *on)).collect();
            let task = task(&format!("t{place}"), size, concurrent, &after);
            let is_chosen = |trial: &u32| generation == 0 || chosen >> trial & 1 == 1;
            trials.insert(task.name.clone(), (0..task.n_trials).filter(is_chosen).collect());
            tasks.push(task);
        }
        let earlier = |task: &Task| (task.name.clone(), generation as usize * 3);
        let earlier_arrays = tasks.iter().map(earlier).collect();
        (
            experiment(tasks),
            Selection { generation, trials, earlier_arrays, ..Selection::default() },
        )
    })
}

proptest! {
    #[test]
    fn every_plan_is_valid((experiment, selection) in any_selection(), max_array in 1_u32..20) {
        let plan = Plan::new(&experiment, &selection, limits(max_array)).unwrap();
        prop_assert_eq!(check(&experiment, &selection, &plan, limits(max_array)), vec![]);
        prop_assert_eq!(&Plan::new(&experiment, &selection, limits(max_array)).unwrap(), &plan);
        let text = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Plan>(&text).unwrap(), &plan);
    }

    /// A trial has one array index in all generations: its job ids are read alike.
    #[test]
    fn an_index_does_not_depend_on_the_selection(
        (experiment, some) in any_selection(),
        max_array in 1_u32..20,
    ) {
        let all = Plan::new(&experiment, &Selection::all(&experiment), limits(max_array)).unwrap();
        let some = Plan::new(&experiment, &some, limits(max_array)).unwrap();
        for array in &some.arrays {
            for trial in array.trials.iter() {
                let index = array.index_of(trial).unwrap();
                prop_assert!(index < max_array);
                let first = all.arrays.iter().find(|it| it.task == array.task && it.trials.contains(trial));
                prop_assert_eq!(first.unwrap().index_of(trial), Some(index));
            }
        }
    }
}
