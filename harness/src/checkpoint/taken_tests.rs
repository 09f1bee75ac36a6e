//! A stop before each operation of a commit: what was taken is finished by the next attempt, or it is not used.

use std::collections::BTreeSet;

use super::super::fake::{self, Crash, FakeStore, report};
use super::super::resume;
use super::*;

const CHECKPOINTS: &str = "/t/checkpoints";

fn hurried(folder: bool) -> CommitRequest {
    let name = if folder { "step-2" } else { "step-2.npz" };
    let metrics = Some(("/t/metrics.jsonl".into(), 7));
    CommitRequest { is_hurried: true, metrics, ..fake::request(name, 2) }
}

/// A trial with step 1 committed, and step 2 saved by the program: as a folder, or as a file.
fn world(folder: bool) -> FakeStore {
    let mut store = FakeStore::default();
    store.put("/t/metrics.jsonl", b"metrics");
    store.put("/t/checkpoints/.keep", b"");
    store.put("/t/staging/0/step-1/model", b"one");
    let first = fake::request("step-1", 1);
    assert_eq!(commit::commit(&mut store, &first, &|| Ok(true)).unwrap(), CommitOutcome::Committed);
    store.settle();
    if folder {
        store.put("/t/staging/0/step-2/model", b"two-two");
        store.put("/t/staging/0/step-2/optimizer/state", b"more");
    } else {
        store.put("/t/staging/0/step-2.npz", b"two-two");
    }
    store
}

fn finisher(boot_id: &str) -> CommitFinisher {
    CommitFinisher {
        attempt: 1,
        lease: "b".to_owned(),
        boot_id: boot_id.to_owned(),
        metrics: "/t/metrics.jsonl".into(),
        worked: Some(0),
    }
}

fn run_finish(store: &mut FakeStore, finisher: &CommitFinisher) -> io::Result<FinishedCommits> {
    finish(store, Path::new(CHECKPOINTS), finisher, &|| Ok(true))
}

/// The step that is found, and what the program would load.
#[track_caller]
fn found(store: &mut FakeStore) -> (u64, Vec<u8>, u64) {
    let recorded = resume::RecordedSteps { steps: BTreeSet::from([1]), ..Default::default() };
    let found = resume::find(store, Path::new(CHECKPOINTS), &recorded, "r").unwrap();
    let resumed = found.resumed.unwrap();
    let is_file = store.stat(&resumed.from).unwrap().kind == FileKind::File;
    let file = if is_file { resumed.from.clone() } else { resumed.from.join("model") };
    (resumed.step, store.read(&file).unwrap(), resumed.metrics)
}

#[track_caller]
fn check(store: &mut FakeStore, is_new: bool, told: &str) {
    let (step, text, metrics) = found(store);
    match step {
        1 => assert_eq!((text.as_slice(), is_new), (&b"one"[..], false), "{told}"),
        2 => assert_eq!((text.as_slice(), metrics), (&b"two-two"[..], 7), "{told}"),
        _ => panic!("{told}: step {step}"),
    }
}

/// Stopped before its n-th operation; whether it was told that the save is taken.
fn stop_at(store: &mut FakeStore, folder: bool, at: u32) -> (bool, bool) {
    store.crash_at = Some(store.ops.get() + at);
    let taken = std::cell::Cell::new(false);
    let told = || taken.set(true);
    let done = commit::commit_notifying(store, &hurried(folder), &|| Ok(true), &told);
    (taken.get(), done.is_ok())
}

#[test]
fn what_was_taken_is_finished_wherever_the_attempt_was_killed() {
    let mut injected = 0;
    for folder in [true, false] {
        for at in 1.. {
            let mut store = world(folder);
            let (taken, is_over) = stop_at(&mut store, folder, at);
            store.crash_at = None; // a kill: what was not synced is there still
            run_finish(&mut store, &finisher("boot")).unwrap();
            check(&mut store, taken, &format!("killed at {at}, folder {folder}"));
            injected += 1;
            if is_over {
                assert!(taken);
                break;
            }
        }
    }
    report("A: killed before a save was hashed", injected, "P1,P2");
}

#[test]
fn what_a_node_took_with_it_is_never_used() {
    for folder in [true, false] {
        for crash in [Crash::Data, Crash::Names, Crash::Both] {
            for at in 1.. {
                let mut store = world(folder);
                let (_, is_over) = stop_at(&mut store, folder, at);
                store.crash(crash);
                run_finish(&mut store, &finisher("another boot")).unwrap();
                check(&mut store, is_over, &format!("{crash:?} at {at}, folder {folder}"));
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn who_finishes_may_be_stopped_too() {
    for folder in [true, false] {
        // Taken, and durable: the commit stopped where it hashes.
        let taken_at =
            (1..100).find(|&at| stop_at(&mut world(folder), folder, at) == (true, false)).unwrap();
        for at in 1.. {
            let mut store = world(folder);
            stop_at(&mut store, folder, taken_at);
            store.crash_at = Some(store.ops.get() + at);
            let is_over = run_finish(&mut store, &finisher("boot")).is_ok();
            store.crash_at = None;
            let next = CommitFinisher { attempt: 2, lease: "c".to_owned(), ..finisher("boot") };
            run_finish(&mut store, &next).unwrap();
            check(&mut store, true, &format!("finishing stopped at {at}, folder {folder}"));
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn what_is_not_as_it_was_taken_is_named_and_not_used() {
    let taken = |change: &dyn Fn(&mut FakeStore), finisher: &CommitFinisher| {
        let mut store = world(true);
        let taken_at = (1..100).find(|&at| stop_at(&mut world(true), true, at) == (true, false));
        stop_at(&mut store, true, taken_at.unwrap());
        store.crash_at = None;
        change(&mut store);
        let finished = run_finish(&mut store, finisher).unwrap();
        check(&mut store, finished.step.is_some(), &format!("{finished:?}"));
        (finished.step.is_some(), finished.notes.join(";"))
    };
    let place = "/t/checkpoints/.tmp-step-2-n";
    let nothing = |_: &mut FakeStore| ();
    assert!(taken(&nothing, &finisher("boot")).0);
    let altered = |store: &mut FakeStore| store.put(&format!("{place}/model"), b"two-TWO");
    let (is_used, notes) = taken(&altered, &finisher("boot"));
    assert!(!is_used && notes.contains("changed after it was taken"), "{notes}");
    let added = |store: &mut FakeStore| store.put(&format!("{place}/more"), b"");
    assert!(!taken(&added, &finisher("boot")).0);
    let gone = |store: &mut FakeStore| store.remove(&format!("{place}/model"));
    assert!(!taken(&gone, &finisher("boot")).0);
    let torn =
        |store: &mut FakeStore| store.put("/t/checkpoints/.taken-step-2-n", b"{\"schema\":1,");
    assert!(!taken(&torn, &finisher("boot")).0);
    let (is_used, notes) = taken(&nothing, &finisher("another boot"));
    assert!(!is_used && notes.contains("another node"), "{notes}");
    let later = CommitFinisher { worked: Some(1), ..finisher("boot") };
    let (is_used, notes) = taken(&nothing, &later);
    assert!(!is_used && notes.contains("later attempt"), "{notes}");
}

#[test]
fn nobody_but_the_newest_attempt_finishes() {
    let mut store = world(true);
    let taken_at = (1..100).find(|&at| stop_at(&mut world(true), true, at) == (true, false));
    stop_at(&mut store, true, taken_at.unwrap());
    store.crash_at = None;
    finish(&mut store, Path::new(CHECKPOINTS), &finisher("boot"), &|| Ok(false)).unwrap();
    check(&mut store, false, "superseded");
}
