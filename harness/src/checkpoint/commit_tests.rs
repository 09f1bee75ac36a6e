//! A crash before each operation of a commit, and an error in each: the old or the new checkpoint is whole.

use std::collections::BTreeSet;

use super::super::fake::{self, Crash, FakeStore, report};
use super::super::resume;
use super::*;
use crate::checkpoint::resume::VerifiedCheckpoint;

const CHECKPOINTS: &str = "/t/checkpoints";

fn request(name: &str, step: u64) -> CommitRequest {
    CommitRequest { metrics: Some(("/t/metrics.jsonl".into(), 7)), ..fake::request(name, step) }
}

/// A trial with step 1 committed, and step 2 saved by the program: as a folder, or as a file.
fn world(folder: bool) -> (FakeStore, CommitRequest) {
    let mut store = FakeStore::default();
    store.put("/t/metrics.jsonl", b"metrics");
    store.put("/t/checkpoints/.keep", b"");
    store.put("/t/staging/0/step-1/model", b"one");
    assert_eq!(run(&mut store, &request("step-1", 1)).unwrap(), CommitOutcome::Committed);
    store.settle();
    if folder {
        store.put("/t/staging/0/step-2/model", b"two-two");
        store.put("/t/staging/0/step-2/optimizer/state", b"more");
        return (store, request("step-2", 2));
    }
    store.put("/t/staging/0/step-2.npz", b"two-two");
    (store, request("step-2.npz", 2))
}

fn run(store: &mut FakeStore, request: &CommitRequest) -> io::Result<CommitOutcome> {
    commit(store, request, &|| Ok(true))
}

#[track_caller]
fn find(store: &mut FakeStore, recorded: &[u64]) -> VerifiedCheckpoint {
    let steps: BTreeSet<u64> = recorded.iter().copied().collect();
    let recorded = resume::RecordedSteps { steps, ..resume::RecordedSteps::default() };
    let found = resume::find(store, Path::new(CHECKPOINTS), &recorded, "r").unwrap();
    found.resumed.unwrap()
}

/// What the program would load.
fn content(store: &FakeStore, resumed: &VerifiedCheckpoint) -> Vec<u8> {
    let file = if store.stat(&resumed.from).unwrap().kind == FileKind::File {
        resumed.from.clone()
    } else {
        resumed.from.join("model")
    };
    store.read(&file).unwrap()
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_whole() {
    let mut injected = 0;
    for folder in [true, false] {
        for crash in [Crash::Data, Crash::Names, Crash::Both] {
            let mut visited = 0;
            for at in 1.. {
                let (mut store, request) = world(folder);
                store.crash_at = Some(store.ops.get() + at);
                let result = run(&mut store, &request);
                store.crash(crash);
                let found = find(&mut store, &[1]);
                let text = content(&store, &found);
                let told = format!("{crash:?} at {at}, folder {folder}: {found:?}");
                match found.step {
                    1 => assert_eq!(text, b"one", "{told}"),
                    2 => {
                        assert_eq!(
                            (text.as_slice(), found.metrics),
                            (&b"two-two"[..], 7),
                            "{told}"
                        );
                    }
                    _ => panic!("{told}"),
                }
                if result.is_ok() {
                    assert_eq!(found.step, 2, "a commit that was told is never lost: {told}");
                    visited = at;
                    break;
                }
            }
            assert!(visited > 6, "only {visited} operations were seen");
            injected += visited;
        }
    }
    report("A: un-synced data dropped", injected, "P1,P2");
}

#[test]
fn an_error_at_any_operation_is_tried_again_and_loses_nothing() {
    use nix::libc::{EDQUOT, EINTR, EIO, ENOSPC, EROFS, ESTALE};
    for folder in [true, false] {
        for code in [ENOSPC, EDQUOT, EIO, ESTALE, EROFS, EINTR] {
            for at in 1.. {
                let (mut store, request) = world(folder);
                store.fail_at = Some((store.ops.get() + at, code));
                let first = run(&mut store, &request);
                let mut between = store.clone();
                between.fail_at = None;
                assert!(find(&mut between, &[1]).step >= 1);
                if first.is_ok() {
                    break;
                }
                let second = run(&mut store, &request);
                assert!(
                    matches!(
                        second,
                        Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted)
                    ),
                    "{second:?} after {code} at {at}"
                );
                assert_eq!(find(&mut store, &[1]).step, 2, "{code} at {at}");
            }
        }
    }
}

#[test]
fn a_later_attempt_may_commit_and_an_earlier_one_not() {
    let (mut store, request) = world(true);
    assert_eq!(commit(&mut store, &request, &|| Ok(false)).unwrap(), CommitOutcome::Superseded);
    assert_eq!(find(&mut store, &[1]).step, 1);
    let (mut store, request) = world(true);
    let unknown = commit(&mut store, &request, &|| Err(io::Error::from_raw_os_error(5)));
    assert!(unknown.is_err());
    assert_eq!(find(&mut store, &[1]).step, 1);
}

#[test]
fn a_step_that_exists_is_adopted_or_kept() {
    let (mut store, _) = world(true);
    store.put("/t/staging/0/step-1/model", b"one");
    assert_eq!(run(&mut store, &request("step-1", 1)).unwrap(), CommitOutcome::AlreadyCommitted);
    store.put("/t/staging/0/step-1/model", b"other");
    assert!(matches!(run(&mut store, &request("step-1", 1)).unwrap(), CommitOutcome::Rejected(_)));
    let found = find(&mut store, &[1]);
    assert_eq!(content(&store, &found), b"one");
}

#[test]
fn a_step_that_can_not_be_compared_now_costs_no_save() {
    // The other may be whole, so the new one stays until that is known.
    let (mut store, _) = world(true);
    store.put("/t/staging/0/step-1/model", b"other");
    let reads = |path: &Path| path.starts_with("/t/checkpoints/step-1");
    store.unreadable = Some(reads);
    assert!(run(&mut store, &request("step-1", 1)).is_err());
    let kept = request("step-1", 1).temporary().join("model");
    assert_eq!(store.read(&kept).unwrap(), b"other");
    store.unreadable = None;
    assert!(matches!(run(&mut store, &request("step-1", 1)).unwrap(), CommitOutcome::Rejected(_)));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_a_new_one_of_its_step() {
    let (mut store, _) = world(true);
    store.put("/t/checkpoints/step-1/model", b"damaged");
    store.put("/t/staging/0/step-1/model", b"one again");
    assert_eq!(run(&mut store, &request("step-1", 1)).unwrap(), CommitOutcome::Committed);
    let found = find(&mut store, &[1]);
    assert_eq!(content(&store, &found), b"one again");
    let names = store.list(Path::new(CHECKPOINTS)).unwrap();
    assert!(names.iter().any(|name| name.starts_with(b"bad-step-1-")), "{names:?}");
}

#[test]
fn the_same_content_without_a_number_is_nothing_new() {
    let (mut store, _) = world(true);
    store.put("/t/staging/0/step-1/model", b"one");
    let counted = CommitRequest { step: 2, counted_from: Some(1), ..request("step-1", 1) };
    assert_eq!(run(&mut store, &counted).unwrap(), CommitOutcome::SameContent(1));
    let left = store.read(Path::new("/t/staging/0/step-1/model")).unwrap();
    assert_eq!(left, b"one", "the program may yet read it");
    store.put("/t/staging/0/step-1/model", b"other");
    assert_eq!(run(&mut store, &counted).unwrap(), CommitOutcome::Committed);
}

#[test]
fn what_changed_is_given_back() {
    let (mut store, mut request) = world(true);
    request.tree = Some(tree::walk(&store, &request.from).unwrap());
    store.put("/t/staging/0/step-2/model", b"still writing");
    assert_eq!(run(&mut store, &request).unwrap(), CommitOutcome::StillChanging);
    assert_eq!(store.read(Path::new("/t/staging/0/step-2/model")).unwrap(), b"still writing");
    assert_eq!(find(&mut store, &[1]).step, 1);
}

#[test]
fn what_can_be_no_checkpoint_is_refused() {
    let (mut store, request) = world(true);
    store.put("/t/staging/0/step-2/MANIFEST", b"own");
    let CommitOutcome::Rejected(why) = run(&mut store, &request).unwrap() else { panic!() };
    assert!(why.contains("MANIFEST"), "{why}");
    let (mut store, request) = world(false);
    let named = CommitRequest { entry: b"MANIFEST".to_vec(), ..request };
    assert!(matches!(run(&mut store, &named).unwrap(), CommitOutcome::Rejected(_)));
    let (mut store, request) = world(true);
    store.remove("/t/staging/0/step-2/model");
    store.remove("/t/staging/0/step-2/optimizer");
    assert!(matches!(run(&mut store, &request).unwrap(), CommitOutcome::Rejected(_)));
}
