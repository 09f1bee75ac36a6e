//! A crash before and after every effect, and every answer that Slurm can give.

use std::cell::RefCell;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::experiment::On;
use crate::file_error::IoResultExt;
use crate::plan::{Limits, Selection, sample_experiment, sample_task};

/// Slurm and the disk, in memory; the world stops after so many effects.
#[derive(Debug, Default)]
struct World {
    /// Name and arguments of each array that Slurm took, in order; its id is its place plus one.
    jobs: Vec<(String, String)>,
    held: Vec<JobId>,
    cancelled: Vec<JobId>,
    journal: Vec<Event>,
    /// How many of its lines would survive a crash of the machine.
    synced: usize,
    effects_left: Option<usize>,
    /// The crash comes after the effect, before its answer.
    answer_is_lost: bool,
    refuse: Option<&'static str>,
    /// Slurm has no room for this array.
    full: Option<&'static str>,
    /// A signal ends the `sbatch` of this array after Slurm took the job.
    kill_after: Option<&'static str>,
    /// `sbatch` is not installed.
    has_no_sbatch: bool,
    /// The program that gets no answer.
    silent: Option<&'static str>,
    /// Another process has taken over once the journal has so many lines.
    lost_after: Option<usize>,
    /// At the moment of each release, how many arrays were in.
    released_at: Vec<usize>,
}

#[derive(Clone)]
struct Handle(Rc<RefCell<World>>);

/// What a crash looks like to the code under test: an error it can't mistake for an answer.
fn crash() -> SlurmError {
    SlurmError::NoAnswer { program: "sbatch", waited: Duration::ZERO }
}

impl Handle {
    /// Does an effect, unless the world stops before it; `Err` also if it stops right after.
    fn effect<T>(&self, effect: impl FnOnce(&mut World) -> T) -> Result<T, SlurmError> {
        let mut world = self.0.borrow_mut();
        match world.effects_left {
            Some(0) => Err(crash()),
            Some(1) => {
                world.effects_left = Some(0);
                if world.answer_is_lost {
                    effect(&mut world);
                }
                Err(crash())
            }
            Some(left) => {
                world.effects_left = Some(left - 1);
                Ok(effect(&mut world))
            }
            None => Ok(effect(&mut world)),
        }
    }
}

impl Scheduler for Handle {
    fn submit(&mut self, script: &Path, arguments: &[String]) -> Result<JobId, SlurmError> {
        let name: PathBuf =
            script.iter().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
        let name = name.to_string_lossy().replace(".sbatch", "").replace('/', ".");
        if self.0.borrow().silent == Some("sbatch") {
            return Err(crash());
        }
        if self.0.borrow().refuse == Some(name.as_str()) {
            let reason = "Invalid partition name specified".to_owned();
            return Err(SlurmError::Refused { program: "sbatch", reason, code: Some(1) });
        }
        if self.0.borrow().full == Some(name.as_str()) {
            let reason = "AssocMaxSubmitJobLimit".to_owned();
            return Err(SlurmError::Refused { program: "sbatch", reason, code: Some(1) });
        }
        if self.0.borrow().has_no_sbatch {
            return Err(SlurmError::MissingProgram { program: "sbatch", path: "/bin".into() });
        }
        let id = self.effect(|world| {
            world.jobs.push((format!("sample-00000100.{name}"), arguments.join(" ")));
            let id = JobId(u32::try_from(world.jobs.len()).unwrap());
            if arguments.iter().any(|argument| argument == "--hold") {
                world.held.push(id);
            }
            id
        })?;
        if self.0.borrow().kill_after == Some(name.as_str()) {
            let reason = "it gave no reason".to_owned();
            return Err(SlurmError::Refused { program: "sbatch", reason, code: None });
        }
        Ok(id)
    }
    fn find(&mut self, token: &str, _: &Path, _: f64) -> Result<Option<JobId>, SlurmError> {
        let world = self.0.borrow();
        let place = world.jobs.iter().position(|(name, _)| name == token);
        Ok(place.map(|place| JobId(u32::try_from(place + 1).unwrap())))
    }
    fn release(&mut self, jobs: &[JobId]) -> Result<(), SlurmError> {
        self.effect(|world| {
            world.released_at.push(world.jobs.len());
            world.held.retain(|held| !jobs.contains(held));
        })
    }
    fn cancel(&mut self, jobs: &[JobId]) -> Result<(), SlurmError> {
        if self.0.borrow().silent == Some("scancel") {
            return Err(SlurmError::NoAnswer { program: "scancel", waited: Duration::ZERO });
        }
        self.effect(|world| world.cancelled.extend(jobs))
    }
}

const JOURNAL: &str = "journal.jsonl";

/// The journal's disk is the same world.
struct Disk {
    handle: Handle,
    events: Vec<Event>,
}

impl Record for Disk {
    fn events(&self) -> &[Event] {
        &self.events
    }
    fn check_claim(&self) -> Result<(), ClaimError> {
        let world = self.handle.0.borrow();
        let is_lost = world.lost_after.is_some_and(|events| world.journal.len() >= events);
        if is_lost { Err(ClaimError::Lost { holder: None }) } else { Ok(()) }
    }
    fn record(&mut self, event: Event) -> Result<(), FileError> {
        let kept = event.clone();
        let written = self.handle.effect(|world| world.journal.push(kept));
        written.map_err(io::Error::other).at("write", JOURNAL.as_ref())?;
        self.events.push(event);
        Ok(())
    }
    fn sync(&mut self) -> Result<(), FileError> {
        let synced = self.handle.effect(|world| world.synced = world.journal.len());
        synced.map_err(io::Error::other).at("sync", JOURNAL.as_ref())
    }
}

fn sample_plan() -> Plan {
    let tasks = vec![
        sample_task("prepare", 1, 0, &[]),
        sample_task("train", 5, 0, &[("prepare", On::Ok)]),
        sample_task("evaluate", 1, 0, &[("train", On::Any)]),
    ];
    let limits = Limits { max_array: NonZeroU32::new(2).unwrap() };
    let experiment = sample_experiment(tasks);
    Plan::new(&experiment, &Selection::all(&experiment), limits).unwrap()
}

/// One process: it reads the journal from the disk, and goes on.
fn run(handle: &Handle, plan: &Plan) -> Result<Vec<JobId>, SubmitError> {
    go_on(handle, plan, None)
}

fn go_on(
    handle: &Handle,
    plan: &Plan,
    damaged_since: Option<f64>,
) -> Result<Vec<JobId>, SubmitError> {
    run_submission(handle, |dir| Submission {
        id: ID,
        dir,
        plan,
        damaged_since,
        is_new: false,
        requests: &[],
    })
}

/// The process that made the folder, with the first intent in its journal.
fn run_new(handle: &Handle, plan: &Plan) -> Result<Vec<JobId>, SubmitError> {
    run_submission(handle, |dir| Submission {
        id: ID,
        dir,
        plan,
        damaged_since: None,
        is_new: true,
        requests: &[],
    })
}

fn run_submission<'a>(
    handle: &Handle,
    submission: impl FnOnce(&'a ExperimentDir) -> Submission<'a>,
) -> Result<Vec<JobId>, SubmitError> {
    static DIR: LazyLock<ExperimentDir> = LazyLock::new(|| ExperimentDir("/home".into()));
    let events = handle.0.borrow().journal.clone();
    let mut disk = Disk { handle: handle.clone(), events };
    let submission = submission(&DIR);
    submit(submission, &mut handle.clone(), &mut disk, &|| 1.0)
}

const ID: &str = "sample-00000100";
const NAMES: [&str; 5] = ["prepare.0", "train.0", "train.1", "train.2", "evaluate.0"];

fn names(world: &World) -> Vec<&str> {
    world.jobs.iter().map(|(name, _)| name.trim_start_matches("sample-00000100.")).collect()
}

/// What a crash of the machine loses.
fn lose_unsynced(world: &mut World) {
    let synced = world.synced;
    world.journal.truncate(synced);
}

#[test]
fn a_crash_anywhere_submits_each_array_once() {
    // 5 intents, 5 submissions, 5 answers, a release, the end of the record; 7 syncs. Before and after each.
    assert_eq!(crash_everywhere(&[], |_| ()), 2 * 24);
}

#[test]
fn so_does_a_crash_of_the_machine_which_loses_what_was_not_synced() {
    assert_eq!(crash_everywhere(&[], lose_unsynced), 2 * 24);
}

#[test]
fn so_does_a_crash_of_the_process_that_made_the_folder_with_the_first_intent() {
    // An intent and its sync less.
    let first = [intent(ID, &sample_plan().arrays[0], 1.0)];
    assert_eq!(crash_everywhere(&first, |_| ()), 2 * 22);
    assert_eq!(crash_everywhere(&first, lose_unsynced), 2 * 22);
}

/// Crashes before and after every effect, spoils the disk, and goes on. Returns how many crashes there were.
fn crash_everywhere(first: &[Event], spoil: impl Fn(&mut World)) -> usize {
    let plan = sample_plan();
    let mut points = 0;
    for answer_is_lost in [false, true] {
        for effects in 1.. {
            let (journal, synced) = (first.to_vec(), first.len());
            let effects_left = Some(effects);
            let world = World { journal, synced, effects_left, answer_is_lost, ..World::default() };
            let handle = Handle(Rc::new(RefCell::new(world)));
            let begin = if first.is_empty() { run } else { run_new };
            let crashed = begin(&handle, &plan).is_err();
            spoil(&mut handle.0.borrow_mut());
            handle.0.borrow_mut().effects_left = None;
            let ids = run(&handle, &plan).expect("the second run has no crash");
            let world = handle.0.borrow();
            assert_eq!(names(&world), NAMES, "crash at effect {effects}, {answer_is_lost}");
            assert_eq!(ids, [1, 2, 3, 4, 5].map(JobId));
            assert_eq!(world.held, [], "all heads are released");
            assert!(world.released_at.iter().all(|&jobs| jobs == 5), "only when all is in");
            assert!(journal::is_complete(&world.journal));
            if !crashed {
                break;
            }
            points += 1;
        }
    }
    points
}

#[test]
fn who_lost_the_claim_stops_before_the_next_effect() {
    let plan = sample_plan();
    for events in 0..11 {
        let handle = Handle(Rc::new(RefCell::new(World::default())));
        handle.0.borrow_mut().lost_after = Some(events);
        let error = run(&handle, &plan).unwrap_err();
        assert!(matches!(error, SubmitError::Claim(ClaimError::Lost { .. })), "{error}");
        let jobs = handle.0.borrow().jobs.len();
        // An intent, an answer: two lines for each array.
        assert_eq!(jobs, events / 2, "lost after {events} lines");
        assert_eq!(handle.0.borrow().released_at, [0; 0]);
        handle.0.borrow_mut().lost_after = None;
        run(&handle, &plan).unwrap();
        assert_eq!(names(&handle.0.borrow()), NAMES, "lost after {events} lines");
    }
}

#[test]
fn two_crashes_are_no_worse_than_one() {
    let plan = sample_plan();
    for first in 1..25 {
        for second in 1..25 {
            let world =
                World { effects_left: Some(first), answer_is_lost: true, ..World::default() };
            let handle = Handle(Rc::new(RefCell::new(world)));
            let _crash = run(&handle, &plan);
            handle.0.borrow_mut().effects_left = Some(second);
            let _crash = run(&handle, &plan);
            handle.0.borrow_mut().effects_left = None;
            run(&handle, &plan).expect("the third run has no crash");
            assert_eq!(names(&handle.0.borrow()), NAMES, "crashes at {first} and {second}");
        }
    }
}

/// Whichever line is lost, no array is submitted twice.
#[test]
fn a_damaged_journal_leads_to_no_second_array() {
    let plan = sample_plan();
    for lost in 0..11 {
        let handle = Handle(Rc::new(RefCell::new(World::default())));
        run(&handle, &plan).unwrap();
        let rest = |line: &(usize, Event)| line.0 != lost && line.0 != lost + 1;
        let journal: Vec<Event> = handle.0.borrow().journal.clone();
        let journal = journal.into_iter().enumerate().filter(rest).map(|(_, event)| event);
        handle.0.borrow_mut().journal = journal.collect();
        let ids = go_on(&handle, &plan, Some(0.0)).unwrap();
        assert_eq!(names(&handle.0.borrow()), NAMES, "without lines {lost} and {}", lost + 1);
        assert_eq!(ids, [1, 2, 3, 4, 5].map(JobId));
    }
}

#[test]
fn a_later_generation_submits_its_own_arrays_and_no_others() {
    let handle = Handle(Rc::new(RefCell::new(World::default())));
    let first = sample_plan();
    run(&handle, &first).unwrap();
    let tasks = vec![
        sample_task("prepare", 1, 0, &[]),
        sample_task("train", 5, 0, &[("prepare", On::Ok)]),
        sample_task("evaluate", 1, 0, &[("train", On::Any)]),
    ];
    let selection = Selection {
        generation: 1,
        trials: [("train", "1,4"), ("evaluate", "0")]
            .map(|(task, set)| (task.to_owned(), set.parse().unwrap()))
            .into(),
        earlier_arrays: [("train".to_owned(), 3), ("evaluate".to_owned(), 1)].into(),
        ..Selection::default()
    };
    let limits = Limits { max_array: NonZeroU32::new(2).unwrap() };
    let second = Plan::new(&sample_experiment(tasks), &selection, limits).unwrap();
    for plan in [&second, &first, &second] {
        run(&handle, plan).unwrap();
    }
    let world = handle.0.borrow();
    let later = ["train.3", "train.4", "evaluate.1"];
    assert_eq!(names(&world), [&NAMES[..], &later[..]].concat());
    assert!(world.jobs[7].1.starts_with("--dependency=afterany:6:7 "), "{:?}", world.jobs[7]);
    assert_eq!(world.held, []);
}

/// What is cancelled is not submitted, nor what waits for it: a dependency on it would have Slurm refuse the rest.
#[test]
fn what_was_cancelled_meanwhile_is_left_out() {
    use nemo_core::rundir::RequestedAction;
    use nemo_core::scope::Scope;
    let check = |task: Option<&str>, trials: Option<&str>, expected: &[&str]| {
        let world = World { effects_left: Some(7), ..World::default() };
        let handle = Handle(Rc::new(RefCell::new(world)));
        let _crash = run(&handle, &sample_plan());
        assert_eq!(names(&handle.0.borrow()), NAMES[..1]);
        handle.0.borrow_mut().effects_left = None;
        let scope = Scope {
            task: task.map(str::to_owned),
            trials: trials.map(|trials| trials.parse().unwrap()),
        };
        let cancel = Request { action: RequestedAction::Cancel, scope, time: 7, budget: None };
        let plan = sample_plan();
        run_submission(&handle, |dir| Submission {
            id: ID,
            dir,
            plan: &plan,
            damaged_since: None,
            is_new: false,
            requests: std::slice::from_ref(&cancel),
        })
        .unwrap();
        assert_eq!(names(&handle.0.borrow()), expected, "{task:?} {trials:?}");
        assert!(journal::is_complete(&handle.0.borrow().journal));
    };
    check(None, None, &NAMES[..1]);
    check(Some("prepare"), None, &NAMES[..1]);
    check(Some("evaluate"), None, &NAMES[..4]);
    check(Some("train"), Some("3"), &["prepare.0", "train.0", "train.2"]);
}

#[test]
fn children_name_their_parents() {
    let handle = Handle(Rc::new(RefCell::new(World::default())));
    run(&handle, &sample_plan()).unwrap();
    let world = handle.0.borrow();
    let arguments: Vec<&str> = world.jobs.iter().map(|(_, arguments)| arguments.as_str()).collect();
    let kill = "--kill-on-invalid-dep=yes";
    assert_eq!(arguments[0], "--hold");
    assert_eq!(arguments[1], format!("--dependency=afterok:1 {kill}"));
    assert_eq!(arguments[4], format!("--dependency=afterany:2:3:4 {kill}"));
}

#[test]
fn a_refusal_takes_back_what_was_in() {
    let world = World { refuse: Some("train.1"), ..World::default() };
    let handle = Handle(Rc::new(RefCell::new(world)));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Slurm refused job array `sample-00000100.train.1`: Invalid partition name specified"
    );
    let world = handle.0.borrow();
    assert_eq!(world.cancelled, [JobId(1), JobId(2)]);
    assert_eq!(journal::refusal(&world.journal), Some("Invalid partition name specified"));
}

#[test]
fn a_refusal_takes_back_no_job_of_an_array_that_is_postponed() {
    let world = World { full: Some("train.0"), refuse: Some("train.1"), ..World::default() };
    let handle = Handle(Rc::new(RefCell::new(world)));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert!(matches!(error, SubmitError::Refused { cancelled: 1, .. }), "{error:?}");
    assert_eq!(handle.0.borrow().cancelled, [JobId(1)]);
}

#[test]
fn no_answer_is_no_refusal() {
    let handle =
        Handle(Rc::new(RefCell::new(World { silent: Some("sbatch"), ..World::default() })));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert!(matches!(error, SubmitError::Slurm { source: SlurmError::NoAnswer { .. }, .. }));
    assert_eq!(handle.0.borrow().cancelled, []);
    handle.0.borrow_mut().silent = None;
    run(&handle, &sample_plan()).unwrap();
    assert_eq!(names(&handle.0.borrow()), NAMES);
}

#[test]
fn an_sbatch_that_a_signal_ended_may_have_submitted_its_array() {
    let world = World { kill_after: Some("train.1"), ..World::default() };
    let handle = Handle(Rc::new(RefCell::new(world)));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not tell whether Slurm accepted job array `sample-00000100.train.1`"
    );
    assert_eq!(handle.0.borrow().cancelled, [], "nothing is taken back");
    assert_eq!(journal::refusal(&handle.0.borrow().journal), None);
    handle.0.borrow_mut().kill_after = None;
    run(&handle, &sample_plan()).unwrap();
    assert_eq!(names(&handle.0.borrow()), NAMES, "its job is found, and no other is submitted");
}

#[test]
fn where_there_is_no_sbatch_nothing_was_submitted() {
    let world = World { has_no_sbatch: true, ..World::default() };
    let handle = Handle(Rc::new(RefCell::new(world)));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert_eq!(error.to_string(), "job array `sample-00000100.prepare.0` was not submitted");
    let error = crate::error::CommandError::from(error);
    assert_eq!(error.code, crate::error::ExitCode::Failed);
    assert!(error.hints[0].contains("load the module that provides Slurm"), "{:?}", error.hints);
    handle.0.borrow_mut().has_no_sbatch = false;
    run(&handle, &sample_plan()).unwrap();
    assert_eq!(names(&handle.0.borrow()), NAMES);
}

#[test]
fn a_refusal_is_one_also_if_the_arrays_before_it_can_not_be_cancelled() {
    let world = World { refuse: Some("train.1"), silent: Some("scancel"), ..World::default() };
    let handle = Handle(Rc::new(RefCell::new(world)));
    let error = run(&handle, &sample_plan()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Slurm refused job array `sample-00000100.train.1` (Invalid partition name specified), and the job arrays before it could not be cancelled"
    );
    let refusal = journal::refusal(&handle.0.borrow().journal).map(str::to_owned);
    assert_eq!(refusal.as_deref(), Some("Invalid partition name specified"));
    assert_eq!(crate::error::CommandError::from(error).code, crate::error::ExitCode::NoAnswer);
}
