//! Copies of paths that the program changes meanwhile.

use std::sync::mpsc::channel;

use nemo_core::durable;

use super::*;
use crate::os::clock::Clock;

/// A thread that is told nothing by itself, its news, and its folder.
fn scene() -> (tempfile::TempDir, CollectorThread, Receiver<CollectorNews>) {
    let top = tempfile::tempdir().unwrap();
    fs::DirBuilder::new().create(top.path().join("staging")).unwrap();
    let config = CollectorConfig {
        paths: vec![OwnPath::new(top.path(), "latest").unwrap()],
        profile: None,
        staging: top.path().join("staging"),
        record: top.path().join("collected.json"),
        is_multi_node: false,
        clock: Clock::start(),
        tier: Some(top.path().join("tier")),
    };
    let (sender, news) = channel();
    let tell = move |one| sender.send(one).unwrap();
    let thread = CollectorThread::new(config, Arc::new(AtomicBool::new(false)), Arc::new(tell));
    (top, thread, news)
}

fn write(path: &Path, text: &str) {
    durable::create_dir_all(path.parent().unwrap()).unwrap();
    durable::replace_file_durably(path, text.as_bytes()).unwrap();
}

#[test]
fn a_folder_that_was_replaced_meanwhile_is_no_copy() {
    let (top, mut thread, _news) = scene();
    let path = top.path().join("latest");
    write(&path.join("model"), "old");
    let looked = PathState::of(&path).unwrap();
    assert!(thread.copied(&path, &looked, true).is_some());
    DiskStore::default().rename_new(&path, &top.path().join("before")).unwrap();
    write(&path.join("model"), "new");
    assert_eq!(thread.copied(&path, &looked, true), None);
}

#[test]
fn a_file_that_was_replaced_before_it_was_opened_is_no_copy_and_one_replaced_after_it_is() {
    let (top, mut thread, _news) = scene();
    let path = top.path().join("latest");
    write(&path, "old");
    let looked = PathState::of(&path).unwrap();
    let opened = path.metadata().unwrap();
    write(&path, "new");
    assert_eq!(thread.copied(&path, &looked, true), None);
    assert!(same_still(&path, &looked, Some(&opened), true).is_ok());
    assert!(same_still(&path, &looked, Some(&opened), false).is_err());
}

/// A later save under the same name stays.
#[test]
fn what_was_committed_leaves_the_tier_and_nothing_else_does() {
    let (top, mut thread, _news) = scene();
    let path = top.path().join("tier/step-1");
    let other = top.path().join("latest");
    let mut commit = |path: &Path, change: &dyn Fn()| {
        let state = PathState::of(path).unwrap();
        let name = thread.copied(path, &state, true).unwrap();
        thread.on_their_way.insert(name.clone(), OnItsWay { path: path.to_owned(), state });
        change();
        thread.done(&name, Some(1));
    };
    write(&path.join("model"), "1");
    write(&other, "1");
    commit(&path, &|| ());
    assert!(!path.exists());
    commit(&other, &|| ());
    assert!(other.exists(), "the program's own");
    write(&path, "1");
    commit(&path, &|| write(&path, "2"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "2");
    assert_eq!(fs::read_dir(top.path().join("tier")).unwrap().count(), 1);
}

#[test]
fn a_copy_that_fails_at_the_programs_end_is_told() {
    let (top, mut thread, news) = scene();
    let path = top.path().join("latest");
    write(&path, "old");
    let looked = PathState::of(&path).unwrap();
    write(&path, "newer");
    thread.copied(&path, &looked, true);
    assert!(news.try_recv().is_err(), "the next look tries again");
    thread.ended = Some(true);
    thread.copied(&path, &looked, true);
    let Ok(CollectorNews::Refused { why, .. }) = news.try_recv() else {
        panic!("nothing was told")
    };
    assert!(why.contains(copy::CHANGED), "{why}");
}
