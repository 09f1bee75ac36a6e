//! One process at a time submits an experiment: at once, after a crash, from another host, by force.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::{CHAIN, CHAIN_ARRAYS, FakeSlurm};
use crate::support::{Printed, printed};

/// A submission of five arrays that takes a second, once its first array is in.
fn half_way() -> (FakeSlurm, Child) {
    let fake = FakeSlurm::new(2);
    fake.world.write("exp.toml", CHAIN);
    std::fs::write(fake.state("slow"), "").unwrap();
    let child = start(&fake, &["submit", "exp.toml"]);
    let began = Instant::now();
    while fake.names().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is submitted");
        std::thread::sleep(Duration::from_millis(5));
    }
    (fake, child)
}

fn killed_half_way() -> FakeSlurm {
    let (fake, mut child) = half_way();
    child.kill().unwrap();
    child.wait().unwrap();
    fake
}

fn start(fake: &FakeSlurm, arguments: &[&str]) -> Child {
    let mut command = fake.world.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Printed {
    printed(&child.wait_with_output().unwrap())
}

/// Changes the newest claim as if its holder were on another host, where it gave its last sign so many seconds ago.
fn move_claim(fake: &FakeSlurm, age: f64) {
    let folder = std::fs::read_dir(fake.world.path("home/experiments")).unwrap().next().unwrap();
    let folder = folder.unwrap().path();
    let path = folder.join("claim.0.json");
    let mut claim: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    claim["node"] = json!("login1");
    claim["boot_id"] = json!("11111111-2222-3333-4444-555555555555");
    claim["seen"] = json!(now.as_secs_f64() - age);
    claim.as_object_mut().unwrap().remove("checksum");
    std::fs::write(path, claim.to_string()).unwrap();
    // Its last `sbatch` began long ago too: else it would be waited for.
    let journal = folder.join("journal.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let line = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event.as_object_mut().unwrap().remove("checksum");
        if event["event"] == "intended" {
            event["time"] = json!(event["time"].as_f64().unwrap() - 3600.0);
        }
        event.to_string() + "\n"
    };
    std::fs::write(journal, lines.lines().map(line).collect::<String>()).unwrap();
}

#[test]
fn two_that_go_on_at_once_submit_each_array_once() {
    for _ in 0..5 {
        let fake = killed_half_way();
        let both = [(); 2].map(|()| start(&fake, &["submit", "--continue", "chain"]));
        let both = both.map(end);
        let mut codes = both.each_ref().map(|printed| printed.code);
        codes.sort_unstable();
        assert!(codes == [0, 5] || codes == [0, 0], "{both:?}");
        for refused in both.iter().filter(|printed| printed.code == 5) {
            assert!(refused.stderr.contains("is working on it"), "{refused:?}");
            assert!(refused.stderr.contains("--take-over"), "{refused:?}");
        }
        assert_eq!(fake.names(), CHAIN_ARRAYS);
    }
}

#[test]
fn a_submission_that_died_on_another_host_is_continued() {
    let fake = killed_half_way();
    move_claim(&fake, 3600.0);
    let printed = fake.world.run(&["submit", "--continue", "chain"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("on login1, last seen 3600 s ago"), "{printed:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS);
}

#[test]
fn one_that_may_be_alive_on_another_host_is_taken_over_by_force() {
    let fake = killed_half_way();
    move_claim(&fake, 1.0);
    let status = fake.world.ok(&["status", "chain"]);
    assert!(status.contains("is being submitted"), "{status}");
    let printed = fake.world.run(&["submit", "--continue", "chain", "--take-over"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("Taken over from process"), "{printed:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS);
}

#[test]
fn who_is_taken_over_stops() {
    let (fake, first) = half_way();
    let refused = fake.world.run(&["submit", "--continue", "chain"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {} on ", first.id())), "{refused:?}");
    let second = fake.world.run(&["submit", "--continue", "chain", "--take-over"]);
    let first = end(first);
    assert_eq!(second.code, 0, "{second:?}");
    assert_eq!(first.code, 5, "{first:?}");
    assert!(first.stderr.contains("has taken it over"), "{first:?}");
    assert_eq!(fake.names(), CHAIN_ARRAYS);
}
