//! Faults B: what happens to a checkpoint after it was committed.
#![expect(clippy::disallowed_methods, reason = "nothing here is meant to be durable")]

use std::fs;
use std::path::{Path, PathBuf};

use super::PROMISES;
use super::scene::{ExpectedResume, NEW, SaveShape, Scene};
use crate::attempt::history::History;
use crate::attempt::start_error::StartError;
use crate::checkpoint::fake::report;
use crate::checkpoint::resume;
use crate::checkpoint::store::DiskStore;

const SHAPES: [SaveShape; 4] =
    [SaveShape::Folder, SaveShape::File, SaveShape::Many, SaveShape::Nested];

/// What is gone, and how.
type DataLoss = (&'static str, fn(&Scene));

/// A trial whose newest checkpoint is committed and recorded.
fn committed(shape: SaveShape, folder: &Path) -> Scene {
    let scene = Scene::build(shape, folder);
    assert_eq!(scene.live(&scene.first(), &scene.saved()), 0);
    scene
}

/// The newest checkpoint's first data file, and its manifest.
fn files(scene: &Scene) -> [PathBuf; 2] {
    let folder = scene.dir().checkpoint(NEW);
    let names = ["model".to_owned(), "shard-0".to_owned(), scene.entry(NEW)];
    let data = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    [data.unwrap(), folder.join("MANIFEST")]
}

/// Alters it each time in another way, until there is none left.
fn check(name: &str, alter: impl Fn(&Scene, usize) -> bool) {
    check_from(name, ExpectedResume::Before, alter);
}

fn check_from(name: &str, expected: ExpectedResume, alter: impl Fn(&Scene, usize) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut injected = 0;
    for shape in SHAPES {
        let template = committed(shape, &folder.path().join(format!("{shape:?}")));
        let old = template.saved();
        for n in 0.. {
            let path = folder.path().join(format!("{shape:?}-{n}"));
            let scene = template.copy(&path);
            if !alter(&scene, n) {
                break;
            }
            let kept = scene.recover(&old, expected).0;
            assert!(kept.iter().all(|kept| *kept), "{name} {n} of {shape:?}: {kept:?}");
            injected += 1;
            fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(injected > 0, "{name}");
    report(name, injected, PROMISES);
}

fn change(path: &Path, mut change: impl FnMut(&mut Vec<u8>)) -> bool {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    fs::write(path, &bytes).unwrap();
    bytes != before
}

#[test]
fn a_checkpoint_that_was_altered_is_never_resumed_from() {
    check("B: truncated by a byte", |scene, n| {
        let file = files(scene).into_iter().nth(n);
        file.is_some_and(|file| change(&file, |bytes| bytes.truncate(bytes.len() - 1)))
    });
    check("B: truncated to nothing", |scene, n| {
        let file = files(scene).into_iter().nth(n);
        file.is_some_and(|file| change(&file, Vec::clear))
    });
    // A prime number of bits apart: each place of a byte has its turn.
    let apart = if super::is_full() { 7 } else { 1009 };
    for (at, name) in ["B: one bit flipped in the data", "B: one bit flipped in the manifest"]
        .into_iter()
        .enumerate()
    {
        check(name, |scene, n| {
            change(&files(scene)[at], |bytes| {
                if let Some(byte) = bytes.get_mut(n * apart / 8) {
                    *byte ^= 1 << (n * apart % 8);
                }
            })
        });
    }
    check("B: a file missing", |scene, n| {
        files(scene).get(n).is_some_and(|file| fs::remove_file(file).is_ok())
    });
    check("B: a file added", |scene, n| {
        n == 0 && fs::write(scene.dir().checkpoint(NEW).join("added"), "").is_ok()
    });
    check("B: a file swapped", |scene, n| {
        // The same file of the checkpoint before.
        let [data, _] = files(scene);
        let other = data.to_string_lossy().replace("step-3", "step-2");
        n == 0 && fs::copy(other, data).is_ok()
    });
    check("B: written by a newer format", |scene, n| {
        let [_, manifest] = files(scene);
        n == 0
            && change(&manifest, |bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                *bytes = text.replacen("nemo-manifest 1", "nemo-manifest 2", 1).into_bytes();
            })
    });
}

#[test]
fn without_any_good_checkpoint_nothing_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let template = committed(shape, &folder.path().join(format!("{shape:?}")));
        let alter: [DataLoss; 3] = [
            ("B: all bad", |scene| {
                for step in 1..=NEW {
                    fs::write(scene.dir().checkpoint(step).join("MANIFEST"), "").unwrap();
                }
            }),
            ("B: the folder empty because a mount is missing", |scene| {
                fs::remove_dir_all(scene.dir().checkpoints()).unwrap();
                fs::create_dir(scene.dir().checkpoints()).unwrap();
            }),
            ("B: the folder empty because a mount is missing", |scene| {
                fs::remove_dir_all(scene.dir().checkpoints()).unwrap();
            }),
        ];
        for (name, alter) in alter {
            let copy = tempfile::tempdir().unwrap();
            let scene = template.copy(copy.path());
            alter(&scene);
            let recorded = History::read(&scene.dir().attempts()).unwrap().recorded(None);
            let checkpoints = scene.dir().checkpoints();
            let found = resume::find(&mut DiskStore::default(), &checkpoints, &recorded, "x");
            let Err(StartError::Permanent(why)) = found else {
                panic!("{name} {shape:?}: {found:?}")
            };
            assert!(why.contains("not begun anew"), "{name} {shape:?}: {why}");
            report(name, 1, "P1,P2");
        }
    }
}

#[test]
fn a_torn_record_and_a_clock_that_goes_backwards_change_nothing() {
    check_from("A: a torn journal line", ExpectedResume::New, |scene, n| {
        // The last line is the new checkpoint's: the scan finds what it tells of.
        n < 30 && change(&scene.dir().attempts(), |bytes| bytes.truncate(bytes.len() - 1 - n))
    });
    check_from("A: a clock that goes backwards", ExpectedResume::New, |scene, n| {
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let [data, manifest] = files(scene);
        for path in [data, manifest, scene.dir().attempts(), scene.dir().metrics()] {
            fs::File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
        }
        let mut time = 1e9;
        n == 0
            && change(&scene.dir().attempts(), |bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                let earlier = |line: &str| {
                    time -= 1.0;
                    format!("{}\n", line.replace("\"time\":1.0", &format!("\"time\":{time}")))
                };
                *bytes = text.lines().map(earlier).collect::<String>().into_bytes();
            })
    });
}
