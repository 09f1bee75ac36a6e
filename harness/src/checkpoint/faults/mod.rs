//! Faults on a real disk: a real kill before each system call of a commit, and each error in each of them.
//!
//! `NEMO_FAULTS=10000 cargo test -p nemo-harness checkpoint:: -- --nocapture | grep ^fault=` tries every call once, and
//! goes on with kills until there were so many: other orders of the threads. It prints a line for each kind of fault;
//! without it a slice of each is tried. `TMPDIR` says on which file system: 10,000 take minutes on `/dev/shm`.
//!
//! A kill leaves the page cache. What a power loss takes away is tried on the store in memory (`commit_tests`), which
//! drops whatever was not synced: that a real disk keeps what it said to have synced can't be tried here.
#![cfg(target_arch = "x86_64")]

mod altered;
mod scene;
mod tracer;

use nix::libc::{EDQUOT, EINTR, EIO, ENOSPC, EROFS, ESTALE};

use scene::{Expected, Kept, SHAPES, Scene};
use tracer::{Calls, Fault, run};

const FAULTS: [(&str, Fault); 12] = [
    ("kill", Fault::Kill),
    ("ENOSPC", Fault::Fail(Calls::Files, ENOSPC)),
    ("EDQUOT", Fault::Fail(Calls::Files, EDQUOT)),
    ("EIO", Fault::Fail(Calls::Files, EIO)),
    ("EIO-at-fsync", Fault::Fail(Calls::Syncs, EIO)),
    ("EIO-at-close", Fault::Fail(Calls::Closes, EIO)),
    ("ESTALE", Fault::Fail(Calls::Files, ESTALE)),
    ("EROFS", Fault::Fail(Calls::Files, EROFS)),
    ("EINTR", Fault::Fail(Calls::Files, EINTR)),
    ("short-transfer", Fault::Short),
    ("rename-answer-lost", Fault::Lose(Calls::Renames, EIO)),
    ("fsync-answer-lost", Fault::Lose(Calls::Syncs, EIO)),
];

/// How often a fault was injected, and how often each promise held.
#[derive(Default)]
struct Tally {
    injected: u32,
    kept: [u32; 4],
}

impl Tally {
    fn add(&mut self, kept: [bool; 4]) {
        self.injected += 1;
        for (sum, kept) in self.kept.iter_mut().zip(kept) {
            *sum += u32::from(kept);
        }
    }

    fn print(&self, name: &str) {
        let Self { injected, kept: [p1, p2, p3, p4] } = self;
        println!("\nfault={name} store=disk injected={injected} P1={p1} P2={p2} P3={p3} P4={p4}");
        assert!(*injected > 0, "{name}");
    }
}

/// Every `stride`-th point of a fault, in one shape.
fn all_points(template: &Scene, (name, fault): (&str, Fault), stride: usize, tally: &mut Tally) {
    let folder = tempfile::tempdir().unwrap();
    for at in (1..).step_by(stride) {
        let path = folder.path().join(at.to_string());
        let scene = template.copy(&path);
        let (request, lease) = (scene.saved(), scene.first());
        let ended = run(|| scene.live(&lease, &request), fault, at);
        if !ended.is_injected {
            return;
        }
        let told = ended.code == Some(0);
        let expected = if told { Expected::New } else { Expected::Either };
        let Kept(kept) = scene.recover(&request, expected);
        let text = format!("{name} at call {at}, {:?}: {ended:?}: {kept:?}", scene.shape);
        assert!(kept.iter().all(|kept| *kept), "{text}");
        tally.add(kept);
        std::fs::remove_dir_all(&path).unwrap();
    }
}

/// Without a wish only a slice of what there are many of.
fn stride(fault: Fault) -> usize {
    match fault {
        Fault::Kill => 59,
        Fault::Fail(Calls::Files, _) => 71,
        Fault::Fail(..) | Fault::Lose(..) | Fault::Short => 13,
    }
}

/// How many faults are asked for.
#[expect(clippy::disallowed_methods, reason = "a test may be told how long to go on")]
fn wanted() -> Option<u32> {
    std::env::var("NEMO_FAULTS").ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_real_fault_at_each_system_call_keeps_every_promise() {
    let wanted = wanted();
    let folder = tempfile::tempdir().unwrap();
    let template = |shape| Scene::build(shape, &folder.path().join(format!("{shape:?}")));
    let templates = SHAPES.map(template);
    let mut tallies: Vec<Tally> = FAULTS.iter().map(|_| Tally::default()).collect();
    for (&(name, fault), tally) in FAULTS.iter().zip(&mut tallies) {
        let stride = if wanted.is_some() { 1 } else { stride(fault) };
        let least = wanted.filter(|_| fault == Fault::Kill).unwrap_or(1);
        while tally.injected < least {
            for template in &templates {
                all_points(template, (name, fault), stride, tally);
            }
        }
    }
    for ((name, _), tally) in FAULTS.iter().zip(tallies) {
        tally.print(name);
    }
}
