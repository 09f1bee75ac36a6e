//! What is let go, and what a crash in the middle of it leaves.

use super::super::commit::{self, CommitOutcome};
use super::super::fake::{Crash, FakeStore, report, request};
use super::super::resume::{self, RecordedSteps};
use super::super::store::DiskStore;
use super::*;

const CHECKPOINTS: &str = "/t/checkpoints";

fn commit(store: &mut FakeStore, step: u64) {
    let name = format!("step-{step}");
    store.put(&format!("/t/staging/0/{name}/model"), name.as_bytes());
    store.put(&format!("/t/staging/0/{name}/sub/more"), b"more");
    let request = request(&name, step);
    assert_eq!(commit::commit(store, &request, &|| Ok(true)).unwrap(), CommitOutcome::Committed);
}

#[test]
fn a_kill_halfway_leaves_the_checkpoint_whole_or_gone() {
    let mut injected = 0;
    for crash in [Crash::Data, Crash::Names, Crash::Both] {
        for at in 1.. {
            let mut store = FakeStore::default();
            store.put("/t/checkpoints/.keep", b"");
            commit(&mut store, 1);
            commit(&mut store, 2);
            store.settle();
            store.crash_at = Some(store.ops.get() + at);
            let result = remove(&mut store, Path::new(CHECKPOINTS), 1, "r");
            store.crash(crash);
            let steps = BTreeSet::from([1, 2]);
            let removed = BTreeSet::from([1]);
            let recorded = RecordedSteps { steps, removed, ..RecordedSteps::default() };
            let found = resume::find(&mut store, Path::new(CHECKPOINTS), &recorded, "x").unwrap();
            assert_eq!((found.resumed.unwrap().step, found.notes), (2, vec![]), "{crash:?} {at}");
            let first = resume::verify(&store, &Path::new(CHECKPOINTS).join("step-1"));
            let gone = store.stat(&Path::new(CHECKPOINTS).join("step-1")).is_err();
            assert!(first.is_ok() || gone, "{crash:?} at {at}: {first:?}");
            if result.is_ok() {
                assert!(gone && at > 3, "{crash:?} at {at}");
                injected += at;
                break;
            }
        }
    }
    report("A: retention killed half way", injected, "P1,P2");
}

/// A step, and what was reported at it.
type Saved = (u64, Option<f64>);

/// A task on a real disk, with checkpoints and what was reported at them.
struct PruneFixture {
    folder: tempfile::TempDir,
}

impl PruneFixture {
    fn new(trials: &[(u32, &[Saved])]) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        for (trial, checkpoints) in trials {
            let dir = world.task().trial(*trial);
            let mut text = String::new();
            for (step, loss) in *checkpoints {
                std::fs::create_dir_all(dir.checkpoint(*step)).unwrap();
                if let Some(loss) = loss {
                    let row = serde_json::json!({"step": step, "attempt": 0, "time": 0.0, "values": {"loss": loss}});
                    text = format!("{text}{row}\n");
                }
            }
            std::fs::create_dir_all(dir.checkpoints().join("bad-step-0-x")).unwrap();
            nemo_core::durable::write_synced(&dir.metrics(), (text + "{\"torn").as_bytes())
                .unwrap();
        }
        world
    }

    fn task(&self) -> TaskDir {
        TaskDir(self.folder.path().to_owned())
    }

    #[track_caller]
    fn check(&self, trial: u32, numbers: [u32; 3], need: &StillNeeded, expected: &[u64]) {
        let [experiment_best, trial_best, trial_latest] = numbers;
        let keep = Keep { trial_latest, trial_best, experiment_best };
        let metric = Some(MetricSpec { name: "loss".to_owned(), larger_is_better: false });
        let rules = RetentionRules { task: self.task(), trial, keep, metric };
        assert_eq!(
            rules.removable(&DiskStore::default(), need).unwrap(),
            expected,
            "{keep:?} {need:?}"
        );
    }
}

fn verified(steps: &[u64]) -> StillNeeded {
    StillNeeded::Resume { verified: steps.iter().copied().collect() }
}

/// The documented example.
fn example() -> PruneFixture {
    PruneFixture::new(&[
        (0, &[(1, None), (2, None), (3, Some(0.6)), (4, Some(0.5)), (5, Some(0.4))]),
        (1, &[(6, None), (7, Some(0.2)), (8, Some(0.3)), (9, None), (10, None)]),
    ])
}

#[test]
fn a_done_trial_keeps_what_the_rules_say_and_no_more() {
    example().check(0, [2, 1, 1], &StillNeeded::Nothing, &[1, 2, 3, 4]);
    example().check(1, [2, 1, 1], &StillNeeded::Nothing, &[6, 9]);
    example().check(1, [0, 0, 0], &StillNeeded::Nothing, &[6, 7, 8, 9]);
}

#[test]
fn two_that_are_whole_stay_until_a_newer_one_is_committed() {
    let world = example();
    world.check(0, [0, 0, 1], &verified(&[4, 5]), &[1, 2, 3]);
    world.check(0, [0, 0, 1], &verified(&[2, 5]), &[1]); // 3 and 4 may have come since
    world.check(0, [0, 0, 1], &verified(&[5]), &[]); // the others were not read yet
    world.check(0, [0, 0, 1], &verified(&[]), &[]);
    world.check(0, [0, 0, 1], &verified(&[5, 77]), &[]); // 77 is not there
    world.check(1, [2, 1, 1], &verified(&[9, 10]), &[6]);
}

#[test]
fn only_whole_names_are_checkpoints_and_other_trials_need_no_metrics() {
    let world = PruneFixture::new(&[(0, &[(1, Some(0.1)), (2, Some(0.2)), (3, None)])]);
    std::fs::create_dir_all(world.task().trial(7).checkpoint(9)).unwrap();
    world.check(0, [1, 0, 1], &verified(&[2, 3]), &[]);
    world.check(0, [0, 0, 1], &verified(&[2, 3]), &[1]);
}
