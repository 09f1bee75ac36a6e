//! Notes when the program's output came: a thread looks at the sizes of the files, so that nothing else waits for it.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_core::open;
use nemo_core::rundir::output_times::{TimeMark, index_of};

use crate::os::clock::unix_now;
use crate::os::serial_queue::SerialQueue;

/// The pause between two looks at first.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause of a program that runs for more than an hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause is this part of the time since the start, so that an index stays small.
const PART: u32 = 500;
const STACK: usize = 64 * 1024;

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct OutputClock {
    outputs: Arc<Mutex<Vec<TimedOutput>>>,
    records: SerialQueue,
    /// None if no thread could be started.
    _stop: Option<Sender<()>>,
}

/// One output and its index.
#[derive(Debug)]
struct TimedOutput {
    path: PathBuf,
    output: Option<File>,
    index: Option<File>,
    /// How many bytes the index knows of.
    noted: u64,
}

impl OutputClock {
    /// Starts the thread. `records` is the queue that writes the outputs.
    pub(crate) fn start(outputs: [PathBuf; 2], records: &SerialQueue) -> Self {
        let outputs = outputs.map(TimedOutput::new).into();
        let outputs: Arc<Mutex<Vec<TimedOutput>>> = Arc::new(Mutex::new(outputs));
        let (stop, stopped) = channel();
        let shared = Arc::clone(&outputs);
        let thread = std::thread::Builder::new().name("times".to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            let mut since_start = Duration::ZERO;
            loop {
                let pause = pause(since_start);
                since_start += pause;
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                note_all(&shared);
            }
        });
        Self { outputs, records: records.clone(), _stop: started.is_ok().then_some(stop) }
    }
}

impl Drop for OutputClock {
    /// The last look comes after all that was written before.
    fn drop(&mut self) {
        let outputs = Arc::clone(&self.outputs);
        self.records.add(0, move || note_all(&outputs));
    }
}

fn pause(since_start: Duration) -> Duration {
    (since_start / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

fn note_all(outputs: &Mutex<Vec<TimedOutput>>) {
    let Ok(mut outputs) = outputs.lock() else { return };
    for output in outputs.iter_mut() {
        // A full disk costs times, not the trial; the next look tries again.
        drop(output.note());
    }
}

impl TimedOutput {
    fn new(path: PathBuf) -> Self {
        Self { path, output: None, index: None, noted: 0 }
    }

    /// Adds a line to the index if the output has grown.
    fn note(&mut self) -> io::Result<()> {
        let output = match &self.output {
            Some(output) => output,
            None => self.output.insert(open::to_read(&self.path)?),
        };
        let bytes = output.metadata()?.len();
        if bytes <= self.noted {
            return Ok(());
        }
        let index = match &mut self.index {
            Some(index) => index,
            None => self.index.insert(open::to_append(&index_of(&self.path))?),
        };
        index.write_all(TimeMark { bytes, time: unix_now() }.line().as_bytes())?;
        self.noted = bytes;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use std::fs;

    use nemo_core::rundir::output_times::OutputTimes;

    use super::*;

    #[test]
    fn only_growth_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.out");
        let mut output = TimedOutput::new(path.clone());
        assert!(output.note().is_err(), "there is no output yet");
        fs::write(&path, "").unwrap();
        output.note().unwrap();
        assert!(!index_of(&path).exists());
        fs::write(&path, "one\n").unwrap();
        output.note().unwrap();
        output.note().unwrap();
        assert_eq!(fs::read_to_string(index_of(&path)).unwrap().lines().count(), 1);
        let times = OutputTimes::read(&path).unwrap();
        assert!(times.at(4).is_some_and(|time| (unix_now() - time).abs() < 60.0));
        assert_eq!(times.at(5), None);
    }

    #[test]
    fn the_end_is_noted_without_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.out");
        let outputs = [path.clone(), folder.path().join("0.err")];
        let clock = OutputClock::start(outputs, &SerialQueue::at_once());
        fs::write(&path, "the end\n").unwrap();
        drop(clock);
        assert!(OutputTimes::read(&path).unwrap().at(8).is_some());
    }

    #[test]
    fn the_pause_grows_with_the_age_of_the_program() {
        let check = |seconds, expected| {
            assert_eq!(pause(Duration::from_secs(seconds)), Duration::from_secs(expected));
        };
        check(0, 1);
        check(499, 1);
        check(2000, 4);
        check(86_400, 10);
    }
}
