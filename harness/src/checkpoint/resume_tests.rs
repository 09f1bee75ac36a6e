//! Each way in which a checkpoint can be bad.

use super::super::commit::{self, CommitOutcome};
use super::super::fake::{FakeStore, report, request};
use super::*;

const CHECKPOINTS: &str = "/t/checkpoints";
const NEWEST: &str = "/t/checkpoints/step-2";

fn world() -> FakeStore {
    let mut store = FakeStore::default();
    store.put("/t/checkpoints/.keep", b"");
    for (step, text) in [(1, &b"one"[..]), (2, b"two")] {
        let name = format!("step-{step}");
        store.put(&format!("/t/staging/0/{name}/model"), text);
        store.put(&format!("/t/staging/0/{name}/sub/other"), b"same");
        let request = request(&name, step);
        assert_eq!(
            commit::commit(&mut store, &request, &|| Ok(true)).unwrap(),
            CommitOutcome::Committed
        );
    }
    store
}

fn recorded() -> RecordedSteps {
    RecordedSteps { steps: BTreeSet::from([1, 2]), ..RecordedSteps::default() }
}

/// Alters the newest checkpoint: the one before must be used, and the reason be told.
#[track_caller]
fn check(alter: impl Fn(&mut FakeStore), why: &str) {
    let mut store = world();
    alter(&mut store);
    let found = find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x").unwrap();
    assert_eq!(found.resumed.map(|resumed| resumed.step), Some(1));
    assert!(found.notes.len() == 1 && found.notes[0].contains(why), "{:?}", found.notes);
    let names = store.list(Path::new(CHECKPOINTS)).unwrap();
    assert!(names.contains(&b"bad-step-2-x".to_vec()));
}

#[test]
fn the_newest_is_used() {
    let mut store = world();
    let found = find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x").unwrap();
    assert_eq!(found.resumed.unwrap().from, Path::new(NEWEST));
    assert_eq!(found.notes, [""; 0]);
}

#[test]
fn a_bad_one_is_moved_aside() {
    let path = |name: &str| format!("{NEWEST}/{name}");
    check(|store| store.put(&path("model"), b"tw"), "`model` is not as");
    check(|store| store.put(&path("model"), b""), "`model` is not as");
    check(|store| store.put(&path("model"), b"twp"), "`model` is not as");
    check(|store| store.put(&path("sub/other"), b"sane"), "`sub/other` is not as");
    check(|store| store.put(&path("extra"), b""), "`extra` was added");
    check(|store| store.remove(&path("model")), "`model` is missing");
    check(|store| store.remove(&path("sub/other")), "`sub/other` is missing");
    check(|store| store.remove(&path("MANIFEST")), "no MANIFEST");
    check(|store| store.put(&path("MANIFEST"), b""), "no manifest");
    check(
        |store| {
            let text = store.read(Path::new(&path("MANIFEST"))).unwrap();
            store.put(&path("MANIFEST"), &text[..text.len() - 1]);
        },
        "torn",
    );
    check(
        |store| {
            let other = store.read(Path::new("/t/checkpoints/step-1/MANIFEST")).unwrap();
            store.put(&path("MANIFEST"), &other);
            store.put(&path("model"), b"one");
        },
        "of step 1",
    );
}

/// What no node could change.
#[track_caller]
fn refused(found: Result<FoundCheckpoint, StartError>) -> String {
    let Err(StartError::Permanent(why)) = found else { panic!("{found:?}") };
    why
}

#[test]
fn all_bad_or_gone_is_an_error() {
    let mut store = world();
    store.put("/t/checkpoints/step-1/model", b"");
    store.put("/t/checkpoints/step-2/model", b"");
    let error = refused(find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x"));
    assert!(error.contains("up to step 2") && error.contains("not begun anew"), "{error}");
    let mut store = world();
    store.remove(CHECKPOINTS);
    let error = refused(find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x"));
    assert!(error.contains("can't be read"), "{error}");
    let nothing = RecordedSteps::default();
    assert_eq!(
        find(&mut store, Path::new(CHECKPOINTS), &nothing, "x"),
        Ok(FoundCheckpoint::default())
    );
}

#[test]
fn a_newer_one_that_is_gone_is_told() {
    let mut store = world();
    store.remove(NEWEST);
    let found = find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x").unwrap();
    assert_eq!(found.resumed.unwrap().step, 1);
    assert_eq!(found.notes, ["checkpoint step-2 was committed, but is gone"]);
}

#[test]
fn what_cannot_be_read_now_is_not_called_bad() {
    let mut store = world();
    store.fail_at = Some((store.ops.get() + 1, 5));
    assert!(find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x").is_err());
    assert!(store.stat(Path::new(NEWEST)).is_ok());
}

#[test]
fn only_our_names_are_steps() {
    for name in ["step-", "step-x", "step-07", "bad-step-1-x", ".tmp-step-1-x", "step-1.tmp"] {
        assert_eq!(step_of(name.as_bytes()), None, "{name}");
    }
    assert_eq!(step_of(b"step-0"), Some(0));
}

fn search(store: &mut FakeStore, recorded: &RecordedSteps) -> FoundCheckpoint {
    find(store, Path::new(CHECKPOINTS), recorded, "x").unwrap()
}

#[test]
fn what_was_removed_or_moved_aside_is_not_missed() {
    let mut store = world();
    store.remove(NEWEST);
    let removed = RecordedSteps { removed: BTreeSet::from([2]), ..recorded() };
    assert_eq!(search(&mut store, &removed).notes, [""; 0]);
    for word in ["bad", "set-aside"] {
        let mut store = world();
        store
            .rename_new(Path::new(NEWEST), &Path::new(CHECKPOINTS).join(format!("{word}-step-2-y")))
            .unwrap();
        assert_eq!(search(&mut store, &recorded()).notes, [""; 0], "{word}");
    }
}

#[test]
fn one_that_kills_the_program_twice_is_set_aside_while_there_is_one_before() {
    let suspect = |step| RecordedSteps { suspect: Some(step), ..recorded() };
    let mut store = world();
    let found = search(&mut store, &suspect(2));
    assert_eq!(found.resumed.unwrap().step, 1);
    assert!(
        found.notes.len() == 1 && found.notes[0].contains("crashed after it twice"),
        "{:?}",
        found.notes
    );
    assert!(store.stat(Path::new("/t/checkpoints/set-aside-step-2-x")).is_ok());
    // The last one is never given up, and what came after a suspect is not suspected.
    assert_eq!(search(&mut store, &suspect(1)).resumed.unwrap().step, 1);
    assert_eq!(search(&mut world(), &suspect(1)).resumed.unwrap().step, 2);
    // Nor is it, where the one before is bad.
    let mut store = world();
    store.put("/t/checkpoints/step-1/model", b"");
    let found = search(&mut store, &suspect(2));
    assert_eq!(found.resumed.unwrap().step, 2);
    assert!(
        found.notes.len() == 1 && found.notes[0].contains("step-1 is not used"),
        "{:?}",
        found.notes
    );
}

/// A retry that begins earlier: whatever fails on the way, the repeat begins there, and no checkpoint is lost.
#[test]
fn later_checkpoints_are_set_aside_for_a_retry_whatever_fails() {
    for (step, expected) in [(None, None), (Some(1), Some(1))] {
        let from = RestartFrom { generation: 3, step };
        let wanted = RecordedSteps { restart_from: Some(from), ..recorded() };
        let mut failures = 1;
        loop {
            let mut store = world();
            store.fail_at = Some((store.ops.get() + failures, 5));
            let first = find(&mut store, Path::new(CHECKPOINTS), &wanted, "x");
            store.fail_at = None;
            let found = find(&mut store, Path::new(CHECKPOINTS), &wanted, "y").unwrap();
            assert_eq!(found.resumed.map(|resumed| resumed.step), expected, "{failures}");
            assert_eq!(found.set_aside.unwrap().from, from);
            let names = store.list(Path::new(CHECKPOINTS)).unwrap();
            for step in [1, 2] {
                let own =
                    |name: &&Vec<u8>| step_of(name) == Some(step) || aside_step(name) == Some(step);
                assert_eq!(names.iter().filter(own).count(), 1, "{failures}: {names:?}");
            }
            failures += 1;
            if let Ok(found) = first {
                let steps: &[u64] = if step.is_none() { &[1, 2] } else { &[2] };
                assert_eq!(found.set_aside.unwrap().steps, steps);
                break;
            }
        }
        assert!(failures > 3, "{failures}");
    }
}

#[test]
fn a_newer_format_is_not_guessed_at() {
    check(
        |store| {
            let text = store.read(Path::new(&format!("{NEWEST}/MANIFEST"))).unwrap();
            let newer =
                String::from_utf8(text).unwrap().replacen("nemo-manifest 1", "nemo-manifest 2", 1);
            store.put(&format!("{NEWEST}/MANIFEST"), newer.as_bytes());
        },
        "format that this nemo-harness does not know",
    );
}

#[test]
fn latest_is_not_read_at_all() {
    // This project writes no `latest`; one that is there, whatever it says, changes nothing.
    for garbage in [&b""[..], b"step-1", b"\xff\0garbage", b"../../elsewhere"] {
        let mut store = world();
        store.put("/t/checkpoints/latest", garbage);
        store.put("/t/latest", garbage);
        assert_eq!(search(&mut store, &recorded()).resumed.unwrap().step, 2);
        report("A: latest missing or garbage", 1, "P1,P2");
    }
}

/// Every single bit of data and manifest, every cut of each.
#[test]
fn no_flipped_bit_and_no_cut_is_resumed_from() {
    for file in ["model", "sub/other", "MANIFEST"] {
        let path = format!("{NEWEST}/{file}");
        let whole = world().read(Path::new(&path)).unwrap();
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for bytes in flipped.chain(cut) {
            let mut store = world();
            store.put(&path, &bytes);
            assert_eq!(
                search(&mut store, &recorded()).resumed.unwrap().step,
                1,
                "{file}: {bytes:?}"
            );
        }
    }
}

#[test]
fn swapped_files_are_noticed() {
    check(
        |store| {
            let model = store.read(Path::new(&format!("{NEWEST}/model"))).unwrap();
            let other = store.read(Path::new(&format!("{NEWEST}/sub/other"))).unwrap();
            store.put(&format!("{NEWEST}/model"), &other);
            store.put(&format!("{NEWEST}/sub/other"), &model);
        },
        "is not as it was committed",
    );
    let mut store = world();
    store.rename_new(Path::new(NEWEST), Path::new("/t/checkpoints/away")).unwrap();
    store.rename_new(Path::new("/t/checkpoints/step-1"), Path::new(NEWEST)).unwrap();
    let error = refused(find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x"));
    assert!(error.contains("its MANIFEST is of step 1"), "{error}");
}

#[test]
fn an_empty_folder_where_a_mount_is_missing_is_an_error() {
    let mut store = FakeStore::default();
    store.put("/t/checkpoints/.keep", b"");
    store.remove("/t/checkpoints/.keep");
    let error = refused(find(&mut store, Path::new(CHECKPOINTS), &recorded(), "x"));
    assert!(error.contains("the folder holds none"), "{error}");
}
