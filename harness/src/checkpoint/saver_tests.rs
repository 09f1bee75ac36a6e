//! What a saver sends to be committed, and as which step, with a worker whose part the test plays.

use std::sync::mpsc::Receiver;

use nix::sys::eventfd::EfdFlags;

use super::arrivals::{HOLD, SHORT_HOLD};
use super::*;
use crate::checkpoint::commit::CommitRequest;
use crate::checkpoint::worker::WorkerReply;
use crate::checkpoint::{fake, scan};

struct Scene {
    folder: tempfile::TempDir,
    saver: Saver,
    jobs: Receiver<WorkerJob>,
    replies: Sender<WorkerReply>,
}

/// A job of the worker: the save's name, and the step that the program told.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Save(String, Option<u64>),
    Again(u64),
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let staging = folder.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let (worker, jobs, replies) = Worker::by_hand(&wake);
        let saver = Saver::watching(staging, None, worker, None, &wake);
        Self { folder, saver, jobs, replies }
    }

    /// The program renames a save into place.
    #[expect(clippy::disallowed_methods, reason = "a program's save need not be durable")]
    fn rename(&self, name: &str) {
        let from = self.folder.path().join("writing");
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("model"), name).unwrap();
        std::fs::rename(from, self.folder.path().join("staging").join(name)).unwrap();
    }

    fn tell(&mut self, name: &str, step: Option<u64>) {
        self.saver.complete(name.into(), step, ProgramPosition::default(), Time::ZERO);
    }

    fn poll(&mut self, at: Duration) -> Vec<Sent> {
        self.saver.poll(at, &ProgramPosition::default());
        let sent = |job| match job {
            WorkerJob::Save(name, save) => Some(Sent::Save(display_name(&name), save.step)),
            WorkerJob::Commit(request) => Some(Sent::Again(request.step)),
            WorkerJob::ChooseRemovable(_) | WorkerJob::Remove(_) => None,
        };
        self.jobs.try_iter().filter_map(sent).collect()
    }

    /// The worker answers. It has taken the save, if it got that far.
    fn answer(&self, name: &str, step: u64, outcome: io::Result<CommitOutcome>) {
        std::fs::remove_dir_all(self.folder.path().join("staging").join(name)).ok();
        self.replies.send(reply(fake::request(name, step), outcome)).unwrap();
    }
}

fn reply(request: CommitRequest, outcome: io::Result<CommitOutcome>) -> WorkerReply {
    WorkerReply::Commit { request: Box::new(request), outcome, is_still_staged: false }
}

fn save(name: &str, step: Option<u64>) -> Sent {
    Sent::Save(name.to_owned(), step)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_told_step_counts_if_the_rename_is_read_in_the_same_turn() {
    let mut scene = Scene::new();
    scene.rename("epoch-3");
    scene.tell("epoch-3", Some(1200));
    assert_eq!(scene.poll(SECOND), [save("epoch-3", Some(1200))]);
}

#[test]
fn the_told_step_counts_if_the_rename_was_read_before() {
    let mut scene = Scene::new();
    scene.rename("epoch-3");
    assert_eq!(scene.poll(SECOND), []);
    scene.tell("epoch-3", Some(1200));
    assert_eq!(scene.poll(SECOND), [save("epoch-3", Some(1200))]);
}

#[test]
fn a_rename_without_a_message_waits_only_for_a_moment() {
    let mut scene = Scene::new();
    scene.rename("epoch-3");
    assert_eq!(scene.poll(SECOND), []);
    let due = scene.saver.next_poll(SECOND).unwrap();
    assert_eq!(due, SECOND + SHORT_HOLD);
    assert_eq!(scene.poll(due), [save("epoch-3", None)]);
    // Once the program tells steps, its next message may take longer.
    scene.tell("other", Some(1));
    scene.poll(SECOND);
    scene.rename("epoch-4");
    assert_eq!(scene.poll(2 * SECOND), []);
    assert_eq!(scene.poll(2 * SECOND + HOLD), [save("epoch-4", None)]);
}

#[test]
fn a_save_whose_moment_has_passed_is_due_at_once() {
    let mut scene = Scene::new();
    scene.rename("epoch-3");
    assert_eq!(scene.poll(SECOND), []);
    // The loop was busy between its look at the saves and its sleep.
    assert_eq!(scene.saver.next_poll(2 * SECOND), Some(SECOND + SHORT_HOLD));
    assert_eq!(scene.poll(2 * SECOND), [save("epoch-3", None)]);
}

/// A program goes on at once after a save, and prints the next step.
#[test]
fn a_save_belongs_to_the_step_that_was_read_before_it() {
    let mut scene = Scene::new();
    let at = |step| ProgramPosition { step: Some(step), metrics: None };
    scene.saver.note_position(SECOND, &at(3));
    scene.rename("first");
    scene.saver.note_position(SECOND + Duration::from_millis(1), &at(4));
    scene.rename("second");
    for time in [2, 3] {
        scene.saver.poll(time * SECOND, &at(4));
    }
    let step = |job| match job {
        WorkerJob::Save(name, save) => Some((display_name(&name), save.position.step)),
        _ => None,
    };
    let steps: Vec<_> = scene.jobs.try_iter().filter_map(step).collect();
    assert_eq!(steps, [("first".to_owned(), Some(3)), ("second".to_owned(), Some(4))]);
}

#[test]
fn saves_are_committed_in_the_order_of_their_steps() {
    let mut scene = Scene::new();
    for step in 1..30 {
        scene.rename(&format!("step-{step}"));
    }
    scene.poll(SECOND);
    let mut sent = Vec::new();
    let mut saves = scene.poll(2 * SECOND);
    while !saves.is_empty() {
        for save in &saves {
            let Sent::Save(name, _) = save else { panic!("{save:?}") };
            let step = name.rsplit_once('-').unwrap().1.parse().unwrap();
            sent.push(step);
            scene.answer(name, step, Ok(CommitOutcome::Committed));
        }
        assert_eq!(scene.saver.next_poll(2 * SECOND), None, "the worker wakes the loop");
        saves = scene.poll(2 * SECOND);
    }
    assert!(sent.is_sorted() && sent.len() == 29, "{sent:?}");
}

#[test]
fn in_a_hurry_the_newest_save_comes_first() {
    let mut scene = Scene::new();
    for step in 1..30 {
        scene.rename(&format!("step-{step}"));
    }
    scene.poll(SECOND);
    scene.saver.hurry();
    let first = scene.poll(2 * SECOND);
    assert_eq!(first[..2], [save("step-29", None), save("step-28", None)]);
}

#[test]
fn of_far_too_many_saves_the_newest_are_committed_and_one_line_says_so() {
    let mut scene = Scene::new();
    let all = u64::try_from(MAX_WAITING).unwrap() + 100;
    for step in 1..=all {
        scene.rename(&format!("step-{step}"));
    }
    let outcomes = scene.saver.poll(SECOND, &ProgramPosition::default());
    let [SaveOutcome { entry, result: Ok(CommitOutcome::Rejected(why)), .. }] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(entry == "step-2" && why.contains("saves faster"), "{why}");
    assert_eq!(scene.saver.saves.len(), MAX_WAITING);
    assert_eq!(scene.poll(2 * SECOND)[..2], [save("step-1", None), save("step-102", None)]);
    // They stay, and no scan takes them for new ones.
    let scan = scan::scan(&scene.saver.staging_scan()).unwrap();
    assert!(scan.entries.is_empty() && scan.gone.is_empty(), "{scan:?}");
    // What the program saves again under such a name counts.
    std::fs::remove_dir_all(scene.folder.path().join("staging/step-7")).unwrap();
    scene.rename("step-7");
    scene.tell("step-7", Some(1000));
    scene.saver.hurry();
    scene.answer("step-102", 102, Ok(CommitOutcome::Committed));
    assert_eq!(scene.poll(2 * SECOND), [save("step-7", Some(1000))]);
}

#[test]
fn a_program_that_saves_faster_than_saves_are_held_is_committed_all_the_same() {
    let mut scene = Scene::new();
    let turn = SHORT_HOLD / 4;
    let mut sent = Vec::new();
    for round in 0..12 {
        for step in 0..MAX_WAITING {
            scene.rename(&format!("step-{}", round * MAX_WAITING + step));
        }
        for save in scene.poll(SECOND + turn * u32::try_from(round).unwrap()) {
            let Sent::Save(name, _) = save else { panic!("{save:?}") };
            let step = name.rsplit_once('-').unwrap().1.parse().unwrap();
            scene.answer(&name, step, Ok(CommitOutcome::Committed));
            sent.push(step);
        }
    }
    assert!(sent.len() >= 2 && sent.is_sorted(), "{sent:?}");
}

#[test]
fn the_end_of_the_program_ends_the_wait() {
    let mut scene = Scene::new();
    scene.rename("epoch-3");
    assert_eq!(scene.poll(SECOND), []);
    scene.rename("epoch-4"); // read after the end
    scene.saver.finish(true);
    assert_eq!(scene.poll(SECOND), [save("epoch-3", None), save("epoch-4", None)]);
}

#[test]
fn a_told_step_is_not_that_of_a_later_save() {
    let mut scene = Scene::new();
    scene.tell("epoch-3", Some(1200));
    assert_eq!(scene.poll(SECOND), [save("epoch-3", Some(1200))]);
    scene.answer("epoch-3", 1200, Ok(CommitOutcome::Committed));
    scene.rename("epoch-3");
    assert_eq!(scene.poll(SECOND), []);
    assert_eq!(scene.poll(SECOND + HOLD), [save("epoch-3", None)]);
}

#[test]
fn a_new_save_does_not_replace_one_that_will_be_tried_again() {
    let mut scene = Scene::new();
    scene.tell("last", Some(1));
    assert_eq!(scene.poll(SECOND), [save("last", Some(1))]);
    scene.rename("last");
    scene.tell("last", Some(2)); // while the first is being committed
    assert_eq!(scene.poll(SECOND), []);
    scene.answer("last", 1, Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(scene.poll(SECOND), []);
    scene.tell("last", Some(3)); // while it waits
    assert_eq!(scene.poll(SECOND), []);
    assert_eq!(scene.poll(9 * SECOND), [Sent::Again(1)]);
    scene.answer("last", 1, Ok(CommitOutcome::Committed));
    assert_eq!(scene.poll(9 * SECOND), [save("last", Some(3))]);
}

#[test]
fn what_was_written_in_place_during_a_commit_is_committed_when_the_program_says_so() {
    let mut scene = Scene::new();
    scene.tell("last", Some(1));
    assert_eq!(scene.poll(SECOND), [save("last", Some(1))]);
    scene.tell("last", None);
    scene.answer("last", 1, Ok(CommitOutcome::Committed));
    assert_eq!(scene.poll(SECOND), [save("last", None)]);
}

#[test]
fn what_was_written_in_place_during_a_commit_is_looked_at_after_it() {
    let mut scene = Scene::new();
    scene.tell("last", Some(1));
    assert_eq!(scene.poll(SECOND), [save("last", Some(1))]);
    assert_eq!(scene.saver.next_poll(SECOND), None);
    scene.answer("last", 1, Ok(CommitOutcome::Committed));
    scene.poll(SECOND);
    assert!(scene.saver.pending_scan.is_some());
}
