//! Looks at what the program uses, now and then, on a thread of its own: nothing waits for it, and no decision rests on
//! it.

mod cgroup;
mod gpus;
mod meter;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_core::durable;

use crate::os::clock::{Clock, unix_now};
use crate::os::serial_queue::SerialQueue;
pub(crate) use gpus::helper;
use meter::Meter;
pub(crate) use meter::{Allotment, GpuChoice};

/// The pause between two looks at first.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause of a program that runs for more than a few minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// The pause is this part of the time since the start.
const PART: u32 = 10;
const STACK: usize = 128 * 1024;

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct UsageSampler {
    shared: Arc<Shared>,
    records: SerialQueue,
    /// None if no thread could be started.
    _stop: Option<Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    meter: Mutex<Meter>,
    clock: Clock,
    path: PathBuf,
}

impl UsageSampler {
    /// Starts the thread for an attempt that begins now. `records` is the queue that writes its files.
    pub(crate) fn start(
        path: PathBuf,
        attempt: u32,
        allotment: Allotment,
        records: &SerialQueue,
    ) -> Self {
        let meter = Mutex::new(Meter::start(attempt, allotment));
        let shared = Arc::new(Shared { meter, clock: Clock::start(), path });
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("usage".to_owned()).stack_size(STACK);
        let looked_at = Arc::clone(&shared);
        let started = thread.spawn(move || {
            loop {
                let pause = (looked_at.clock.now() / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                looked_at.look();
            }
        });
        Self { shared, records: records.clone(), _stop: started.is_ok().then_some(stop) }
    }
}

impl Drop for UsageSampler {
    /// What is over is counted once more: what ended in between is known only now.
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.records.add(0, move || shared.end());
    }
}

impl Shared {
    fn look(&self) {
        let command = {
            let Ok(mut meter) = self.meter.lock() else { return };
            if meter.is_over() {
                return;
            }
            meter.sample(self.clock.now(), unix_now());
            self.write(&meter);
            meter.gpu_command()
        };
        // The answer may take long, and the meter is not held meanwhile.
        let Some(argv) = command else { return };
        let answer = gpus::ask(&argv);
        let Ok(mut meter) = self.meter.lock() else { return };
        meter.count_gpus(answer);
        self.write(&meter);
    }

    fn end(&self) {
        let Ok(mut meter) = self.meter.lock() else { return };
        meter.end(self.clock.now(), unix_now());
        self.write(&meter);
    }

    /// A full disk costs a sample, not the trial.
    fn write(&self, meter: &Meter) {
        if let Some(text) = meter.json() {
            drop(durable::replace_file(&self.path, &text));
        }
    }
}
