//! Faults on a real disk: a real kill before each system call of a commit, and each error in each of them.
//!
//! A slice of each is tried; with `NEMO_FAULTS_FULL` every call, and then kills until there were 10,000: other orders of
//! the threads. `TMPDIR` says on which file system; on `/dev/shm` all of it takes a few minutes:
//!
//! `NEMO_FAULTS=/dev/stderr NEMO_FAULTS_FULL=1 TMPDIR=/dev/shm cargo test -p nemo-harness --bin nemo-harness checkpoint::`
//!
//! A kill leaves the page cache. What a power loss takes away is tried on the store in memory (`commit_tests`), which
//! drops whatever was not synced: that a real disk keeps what it said to have synced can't be tried here.
#![cfg(target_arch = "x86_64")]

mod altered;
mod scene;
mod tracer;

use nix::libc::{EDQUOT, EINTR, EIO, ENOSPC, EROFS, ESTALE};

use super::fake::report;
use scene::{ExpectedResume, PromisesKept, SHAPES, SaveShape, Scene};
use tracer::{CountedCalls, InjectedFault, run};

const FAULTS: [(&str, InjectedFault); 12] = [
    ("A: SIGKILL of the harness", InjectedFault::Kill),
    ("A: ENOSPC", InjectedFault::Fail(CountedCalls::Files, ENOSPC)),
    ("A: EDQUOT", InjectedFault::Fail(CountedCalls::Files, EDQUOT)),
    ("A: EIO", InjectedFault::Fail(CountedCalls::Files, EIO)),
    ("A: EIO only at fsync or close", InjectedFault::Fail(CountedCalls::Syncs, EIO)),
    ("A: EIO only at fsync or close", InjectedFault::Fail(CountedCalls::Closes, EIO)),
    ("A: EIO only at fsync or close", InjectedFault::Lose(CountedCalls::Syncs, EIO)),
    ("A: ESTALE", InjectedFault::Fail(CountedCalls::Files, ESTALE)),
    ("A: EROFS", InjectedFault::Fail(CountedCalls::Files, EROFS)),
    ("A: short writes and EINTR", InjectedFault::Fail(CountedCalls::Files, EINTR)),
    ("A: short writes and EINTR", InjectedFault::Short),
    ("A: the answer to a rename lost", InjectedFault::Lose(CountedCalls::Renames, EIO)),
];

/// What these tests assert after each.
const PROMISES: &str = "P1,P2,P3,P4";
/// Real kills of a full run.
const KILLS: u32 = 10_000;

/// Every `stride`-th point of a fault, in one shape. Answers with how many there were.
fn all_points(template: &Scene, (name, fault): (&str, InjectedFault), stride: usize) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let mut injected = 0;
    for at in (1..).step_by(stride) {
        let path = folder.path().join(at.to_string());
        let scene = template.copy(&path);
        let (request, lease) = (scene.saved(), scene.first());
        let ended = run(|| scene.live(&lease, &request), fault, at);
        if !ended.is_injected {
            break;
        }
        let told = ended.code == Some(0);
        let expected = if told { ExpectedResume::New } else { ExpectedResume::Either };
        let PromisesKept(kept) = scene.recover(&request, expected);
        let text = format!("{name} at call {at}, {:?}: {ended:?}: {kept:?}", scene.shape);
        assert!(kept.iter().all(|kept| *kept), "{text}");
        injected += 1;
        std::fs::remove_dir_all(&path).unwrap();
    }
    let name = match template.shape {
        SaveShape::Same if fault == InjectedFault::Kill => {
            "A: the step exists already, same content"
        }
        SaveShape::Other if fault == InjectedFault::Kill => {
            "A: the step exists already, other content"
        }
        SaveShape::Retention if fault == InjectedFault::Kill => "A: retention killed half way",
        _ => name,
    };
    report(name, injected, PROMISES);
    injected
}

/// Without a wish for all, only a slice of what there are many of.
fn stride(fault: InjectedFault) -> usize {
    match fault {
        InjectedFault::Kill => 59,
        InjectedFault::Fail(CountedCalls::Files, _) => 71,
        InjectedFault::Fail(..) | InjectedFault::Lose(..) | InjectedFault::Short => 13,
    }
}

/// Whether everything is to be tried.
#[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
fn is_full() -> bool {
    std::env::var_os("NEMO_FAULTS_FULL").is_some()
}

#[test]
fn a_real_fault_at_each_system_call_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let template = |shape| Scene::build(shape, &folder.path().join(format!("{shape:?}")));
    let templates = SHAPES.map(template);
    for (name, fault) in FAULTS {
        let stride = if is_full() { 1 } else { stride(fault) };
        let least = if is_full() && fault == InjectedFault::Kill { KILLS } else { 1 };
        let mut injected = 0;
        while injected < least {
            let points = |template| all_points(template, (name, fault), stride);
            injected += templates.iter().map(points).sum::<u32>();
        }
    }
}
