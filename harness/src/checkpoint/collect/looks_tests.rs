//! Stories of a file: when it is complete, and when nobody can tell.

use super::Decision::{Draft, Rest, SeeIfOpen, Take, Wait};
use super::*;
use crate::checkpoint::store::{FileKind, FileStat};
use crate::checkpoint::tree::FileEntry;

fn state(inode: u64, size: u64, modified: i64) -> PathState {
    let stat = FileStat { kind: FileKind::File, size, modified: (modified, 0) };
    PathState { id: (1, inode), tree: vec![FileEntry { path: Vec::new(), stat }] }
}

fn look(state: PathState, at: u64) -> Look {
    Look { state, is_renamed: false, is_told: false, at: Duration::from_millis(at) }
}

fn see(path: &mut TrackedPath, state: &PathState, at: u64) -> Decision {
    path.look(look(state.clone(), at), None, false)
}

#[test]
fn what_was_there_before_is_no_save() {
    let mut path = TrackedPath::from_before(state(1, 5, 1));
    assert_eq!(see(&mut path, &state(1, 5, 1), 9000), Rest);
    assert_eq!(see(&mut path, &state(1, 5, 2), 9100), Wait);
}

#[test]
fn a_rename_is_complete_at_once_and_a_rest_after_two_seconds() {
    let mut path = TrackedPath::default();
    let renamed = Look { is_renamed: true, ..look(state(1, 5, 1), 0) };
    assert_eq!(path.look(renamed, None, false), Take);
    path.taken(state(1, 5, 1));
    assert_eq!(see(&mut path, &state(1, 5, 1), 10), Rest);
    assert_eq!(see(&mut path, &state(1, 6, 2), 20), Wait);
    assert_eq!(see(&mut path, &state(1, 6, 2), 200), SeeIfOpen);
    path.see_open(false, Duration::from_millis(200));
    assert_eq!(see(&mut path, &state(1, 6, 2), 2300), SeeIfOpen, "it may have been opened since");
    path.see_open(false, Duration::from_millis(2300));
    assert_eq!(path.look(look(state(1, 6, 2), 9000), None, true), Wait, "another node may write");
    assert_eq!(see(&mut path, &state(1, 6, 2), 2400), Take);
}

#[test]
fn what_is_open_does_not_rest() {
    let mut path = TrackedPath::default();
    see(&mut path, &state(1, 5, 1), 0);
    for at in [200, 3000] {
        assert_eq!(see(&mut path, &state(1, 5, 1), at), SeeIfOpen);
        path.see_open(true, Duration::from_millis(at));
    }
    let killed =
        |path: &TrackedPath, at| path.last_look(&look(state(1, 5, 1), at), None, false, false);
    assert_eq!(killed(&path, 3100), Wait, "the kill has closed it");
    path.see_open(false, Duration::from_secs(4));
    assert_eq!(killed(&path, 9000), Wait, "it may have been opened since, and closed by the kill");
    path.see_open(false, Duration::from_secs(6));
    assert_eq!(killed(&path, 6100), Take);
    assert_eq!(see(&mut path, &state(1, 5, 1), 6200), Take);
}

#[test]
fn of_a_file_that_never_rests_what_was_written_anew_counts() {
    let mut path = TrackedPath::default();
    see(&mut path, &state(1, 5, 1), 0);
    assert_eq!(see(&mut path, &state(1, 5, 1), 300), SeeIfOpen, "most programs rest");
    see(&mut path, &state(1, 5, 2), 500);
    assert_eq!(see(&mut path, &state(1, 5, 2), 550), Wait);
    assert_eq!(see(&mut path, &state(1, 5, 2), 700), Draft);
    path.see_open(false, Duration::from_millis(700));
    path.drafted(state(1, 5, 2));
    assert_eq!(see(&mut path, &state(1, 5, 2), 800), SeeIfOpen, "one draft is enough");
    assert_eq!(path.draft_fate(&state(1, 5, 2)), DraftFate::Keep);
    assert_eq!(path.draft_fate(&state(1, 0, 3)), DraftFate::Complete);
    assert_eq!(path.draft_fate(&state(2, 9, 3)), DraftFate::Complete, "another file");
    assert_eq!(path.draft_fate(&state(1, 9, 3)), DraftFate::Compare);
}

#[test]
fn after_a_kill_only_what_is_known_to_be_whole_counts() {
    let last = |path: &TrackedPath, at, in_order| {
        path.last_look(&look(state(1, 5, 2), at), None, in_order, false)
    };
    let mut path = TrackedPath::default();
    assert_eq!((last(&path, 0, false), last(&path, 0, true)), (Wait, Take));
    see(&mut path, &state(1, 5, 2), 0);
    assert_eq!(last(&path, 9000, false), Wait, "nobody knows whether the kill has closed it");
    path.see_open(false, Duration::ZERO);
    path.drafted(state(1, 5, 2));
    assert_eq!(last(&path, 2000, false), Wait, "more might have followed");
    path.see_open(false, Duration::from_secs(2));
    assert_eq!(last(&path, 2000, false), Take);
}

#[test]
fn what_the_program_calls_complete_is_taken_until_it_changes() {
    let mut path = TrackedPath::default();
    let told = Look { is_told: true, ..look(state(1, 5, 1), 0) };
    assert_eq!(path.look(told.clone(), None, true), Take);
    assert_eq!(see(&mut path, &state(1, 5, 1), 10), Take, "its copy was put off");
    assert!(!path.is_renamed(), "a copy of it must be what was looked at");
    assert_eq!(see(&mut path, &state(1, 6, 2), 20), Wait);
    assert_eq!(path.last_look(&told, None, false, true), Take);
}
