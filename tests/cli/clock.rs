//! The machine's clock jumps an hour, forwards and back, while a trial runs. Only where that is wished for: it is everybody's clock.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::counting;
use crate::support::{World, causes, trials};

/// Sets the clock back when the test ends, whatever becomes of it.
struct Jump {
    real: SystemTime,
    since: Instant,
}

impl Jump {
    fn new() -> Self {
        let jump = Self { real: SystemTime::now(), since: Instant::now() };
        jump.set(3600);
        jump
    }

    fn set(&self, ahead: i64) {
        let now =
            (self.real + self.since.elapsed()).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seconds = i64::try_from(now.as_millis()).unwrap() + ahead * 1000;
        let (whole, rest) = (seconds / 1000, seconds % 1000);
        let time = format!("@{whole}.{rest:03}");
        assert!(Command::new("date").args(["-s", &time]).output().unwrap().status.success());
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[test]
fn the_clock_jumps_an_hour() {
    if std::env::var_os("NEMO_FAULTS_CLOCK").is_none() {
        eprintln!(
            "not tested: `scripts/faults --set-clock` sets this machine's clock for some seconds"
        );
        return;
    }
    let world = World::new();
    let executor = "kind = \"local\"\nparallel = 3\ntime = \"10m\"";
    counting::write(&world, executor, 120, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 10);
    let jump = Jump::new();
    std::thread::sleep(Duration::from_secs(3)); // the time that the fault lasts
    drop(jump);
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["completed"], "a segment of ten minutes did not end: {trial:#}");
    }
    counting::assert_undisturbed(&world, &id, 120);
    world.hold("E: the clock jumps an hour", &id);
}
