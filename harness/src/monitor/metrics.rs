//! Has `metrics.jsonl` written, and takes out what lies past the checkpoint that a trial goes on from.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use nemo_core::durable::{self, Appender};
use nemo_core::lines::{self, JsonLine};
use nemo_core::open;
use nemo_core::rundir::{MetricSpec, MetricsLine, Progress, TrialDir};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::os::patience::may_pass;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};

/// The pauses before a line is tried again: a server that restarts or fails over answers ESTALE for a moment.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(100), Duration::from_millis(500)];

/// Has `metrics.jsonl` written.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    attempt: u32,
    records: SerialQueue,
    file: Arc<Mutex<MetricsFile>>,
    /// The bytes in the file once all is written: what a checkpoint remembers where there are no steps.
    length: u64,
    written: Arc<WriteProgress>,
}

/// How much of what was to be written is.
#[derive(Debug, Default)]
struct WriteProgress {
    state: Mutex<WrittenState>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct WrittenState {
    /// Of [`Recorder::length`].
    until: u64,
    /// By how much the file is longer: negative where lines could not be written.
    more: i64,
}

/// A place in `metrics.jsonl`: where the program was when it saved.
#[derive(Clone, Debug)]
pub(crate) struct MetricsPosition {
    path: PathBuf,
    length: u64,
    written: Arc<WriteProgress>,
}

impl MetricsPosition {
    /// Waits until all before it is written. The file, and where it is there.
    pub(crate) fn reached(&self) -> (PathBuf, u64) {
        let state = self.written.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.written.more.wait_while(state, |state| state.until < self.length);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        (self.path.clone(), self.length.saturating_add_signed(state.more))
    }
}

impl Recorder {
    pub(crate) fn new(path: PathBuf, attempt: u32, records: &SerialQueue) -> Self {
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let state = WrittenState { until: length, more: 0 };
        let written = Arc::new(WriteProgress { state: Mutex::new(state), more: Condvar::new() });
        let (records, file) = (records.clone(), Arc::default());
        Self { path, attempt, records, file, length, written }
    }

    /// Where the program is.
    pub(crate) fn mark(&self) -> MetricsPosition {
        let (path, written) = (self.path.clone(), Arc::clone(&self.written));
        MetricsPosition { path, length: self.length, written }
    }

    /// Appends one report; it is durable only once a checkpoint is. `failed` is told, in the thread that writes. An error
    /// says that there is no room for it.
    pub(crate) fn report(
        &mut self,
        step: Option<u64>,
        time: f64,
        values: Map<String, Value>,
        validation: bool,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<()> {
        if self.records.is_full() {
            return Err(io::Error::other("the disk does not answer"));
        }
        let row = MetricsLine { step, attempt: self.attempt, time, values, validation };
        let line = serde_json::to_vec(&row)?;
        self.length += line.len() as u64 + 1;
        let (until, path) = (self.length, self.path.clone());
        let (file, written) = (Arc::clone(&self.file), Arc::clone(&self.written));
        self.records.add(line.len(), move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let result = file.append(&path, &line);
            let mut state = written.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.until = until;
            if !matches!(result, Ok(Tries::One))
                && let Ok(metadata) = fs::metadata(&path)
            {
                // From then on the file's length says what is in it.
                state.more = metadata.len().cast_signed().saturating_sub(until.cast_signed());
            }
            if let Err(error) = result {
                failed(error);
            }
            drop(state);
            written.more.notify_all();
        });
        Ok(())
    }
}

/// What an attempt's first step takes out of the record, where nobody knows before it at which step the program goes on:
/// it was given no checkpoint of ours, or one whose step was told from what it had printed when it saved. Such a program may
/// have printed a step right before the save or right after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutAtFirstStep {
    /// What was reported up to this step is in the checkpoint, and stays unless the first step is this one.
    pub(crate) resumed: Option<u64>,
}

impl Recorder {
    /// Takes out what was reported from this step on: it will be done again. Answers with the last step that stays, if the
    /// program goes on after it by itself.
    pub(crate) fn cut_at_first_step(
        &self,
        step: u64,
        CutAtFirstStep { resumed }: CutAtFirstStep,
    ) -> PendingAnswer<Option<u64>> {
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        let written = Arc::clone(&self.written);
        self.records.ask(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.open = None;
            // What has no step was cut back to the checkpoint, if there is one, when the attempt began.
            let length = if resumed.is_some() { u64::MAX } else { 0 };
            let last = step.checked_sub(1);
            // A step that was told too high by one is reported again.
            let last = if resumed == Some(step) { last } else { last.max(resumed) };
            roll_back(&path, last.map(|last| (last, length))).ok()?;
            let mut state = written.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(metadata) = fs::metadata(&path) {
                state.more = metadata.len().cast_signed().saturating_sub(state.until.cast_signed());
            }
            drop(state);
            last_step(&path).ok()?.filter(|last| resumed.is_none_or(|resumed| *last > resumed))
        })
    }
}

/// The last step in the record.
fn last_step(path: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    lines::each(path, |line| {
        let row = serde_json::from_slice::<ReportedStep>(line.text).ok();
        last = last.max(row.and_then(|row| row.step));
        Ok(())
    })?;
    Ok(last)
}

/// The open `metrics.jsonl`.
#[derive(Debug, Default)]
struct MetricsFile {
    open: Option<Appender>,
    /// The last line was given up: the next ones are not waited for.
    has_failed: bool,
}

/// How many tries a line took.
#[derive(Debug, PartialEq, Eq)]
enum Tries {
    One,
    /// The file may hold more than the line: the remains of the first.
    Several,
}

impl MetricsFile {
    /// Appends a line. What a disk does not take for a moment is tried again, once each line while nothing gets through.
    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<Tries> {
        let Err(mut error) = self.append_once(path, line) else {
            self.has_failed = false;
            return Ok(Tries::One);
        };
        let pauses = if self.has_failed { &[] } else { &PAUSES[..] };
        for pause in pauses {
            if !may_pass(&error) {
                break;
            }
            sleep(*pause);
            match self.append_again(path, line) {
                Ok(()) => return Ok(Tries::Several),
                Err(again) => error = again,
            }
        }
        self.has_failed = true;
        Err(error)
    }

    fn append_once(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Appender::open(path)?,
        };
        // After an error it is opened anew: the handle may be stale, the line torn.
        self.open.insert(open).plain_line_unsynced(line).inspect_err(|_| self.open = None)
    }

    /// The answer to a write that was done may have been lost.
    fn append_again(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        open::refresh(path);
        if ends_with(path, line)? { Ok(()) } else { self.append_once(path, line) }
    }
}

/// Whether this is the last line of a file.
fn ends_with(path: &Path, line: &[u8]) -> io::Result<bool> {
    let file = match open::to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut last = vec![0; line.len() + 1];
    let Some(from) = file.metadata()?.len().checked_sub(last.len() as u64) else {
        return Ok(false);
    };
    file.read_exact_at(&mut last, from)?;
    Ok(last.strip_suffix(b"\n") == Some(line))
}

/// The last step that was validated, and the best value of a metric then.
pub(crate) fn validated(
    path: &Path,
    metric: Option<&MetricSpec>,
) -> io::Result<(Option<u64>, Option<f64>)> {
    let (mut last, mut best): (Option<u64>, Option<f64>) = (None, None);
    lines::each(path, |line| {
        // Most lines are none: to look for the word is much faster than to read them.
        let word = b"\"validation\"";
        let is_meant = line.text.windows(word.len()).any(|part| part == word);
        if !is_meant {
            return Ok(());
        }
        let row = serde_json::from_slice::<MetricsLine>(line.text).ok();
        let Some(row) = row.filter(|row| row.validation) else { return Ok(()) };
        last = last.max(row.step);
        if let Some(metric) = metric
            && let Some(value) = row.values.get(&metric.name).and_then(Value::as_f64)
        {
            let better = if metric.larger_is_better { f64::max } else { f64::min };
            best = Some(best.map_or(value, |best| better(best, value)));
        }
        Ok(())
    })?;
    Ok((last, best))
}

/// How much of the record is read for the names in it.
const NAMES_WITHIN: u64 = 64 * 1024;

/// The names that earlier attempts have reported, as far as the beginning of the record tells; `step` where they told one.
pub(crate) fn names_reported(dir: &TrialDir) -> BTreeSet<String> {
    let mut text = Vec::new();
    if let Ok(file) = open::to_read(&dir.metrics()) {
        file.take(NAMES_WITHIN).read_to_end(&mut text).ok(); // then nothing is known to be reported
    }
    let rows = text.split(|&byte| byte == b'\n');
    let rows = rows.filter_map(|line| serde_json::from_slice::<MetricsLine>(line).ok());
    let names = rows.flat_map(|row| {
        let step = row.step.map(|_| "step".to_owned());
        step.into_iter().chain(row.values.into_iter().map(|(name, _)| name))
    });
    let progress = open::read(&dir.progress()).unwrap_or_default();
    let progress = serde_json::from_slice::<Progress>(&progress).ok();
    names.chain(progress.and_then(|own| own.step).map(|_| "step".to_owned())).collect()
}

/// What decides whether a line stays. Its values are read over: there may be millions of lines.
#[derive(Deserialize)]
#[expect(dead_code, reason = "a line without these fields is none of ours")]
struct ReportedStep {
    step: Option<u64>,
    attempt: IgnoredAny,
    time: IgnoredAny,
    values: IgnoredAny,
    #[serde(default)]
    validation: bool,
}

/// The checkpoint that the trial goes on from: its step, and how long `metrics.jsonl` was then.
pub(crate) type ResumedAt = Option<(u64, u64)>;

/// The row of a whole line.
fn row(line: &JsonLine<'_>) -> Option<ReportedStep> {
    let is_whole = line.text.ends_with(b"\n");
    serde_json::from_slice(line.text).ok().filter(|_| is_whole)
}

/// Takes out what was reported after the checkpoint that the trial goes on from: those steps will be done again.
pub(crate) fn roll_back(path: &Path, resumed: ResumedAt) -> io::Result<()> {
    keep_lines(path, |line| {
        let Some((step, length)) = resumed else { return false };
        row(line).is_some_and(|row| row.step.map_or(line.end <= length, |own| own <= step))
    })
}

/// Like [`roll_back`], but leaves the steps that training has reported for [`Recorder::cut_at_first_step`].
pub(crate) fn roll_back_all_but_steps(path: &Path, (step, length): (u64, u64)) -> io::Result<()> {
    keep_lines(path, |line| {
        row(line).is_some_and(|row| match row.step {
            Some(own) => own <= step || !row.validation,
            None => line.end <= length,
        })
    })
}

/// Takes out every line that does not stay. The file may be longer than the memory that a job has beside its program.
fn keep_lines(path: &Path, stays: impl Fn(&JsonLine<'_>) -> bool) -> io::Result<()> {
    // Where the first line is that goes, and whether one stays behind it.
    let (mut first, mut is_tail) = (None, true);
    lines::each(path, |line| {
        if stays(&line) {
            is_tail &= first.is_none();
        } else {
            first.get_or_insert(line.start);
        }
        Ok(())
    })?;
    match first {
        None => Ok(()),
        // As it nearly always is. A crash leaves the old length or the new one.
        Some(first) if is_tail => {
            let file = open::to_write(path)?;
            file.set_len(first)?;
            file.sync_all()
        }
        Some(_) => durable::rewrite_durably(path, |out| {
            lines::each(path, |line| if stays(&line) { out.write_all(line.text) } else { Ok(()) })
        }),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    #[test]
    fn a_mark_waits_for_what_was_reported_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let records = SerialQueue::start("test", None);
        let mut recorder = Recorder::new(path.clone(), 0, &records);
        let (go, hangs) = std::sync::mpsc::channel::<()>();
        records.add(0, move || hangs.recv().unwrap());
        recorder.report(Some(1), 1.0, Map::new(), false, |error| panic!("{error}")).unwrap();
        let mark = recorder.mark();
        recorder.report(Some(2), 1.0, Map::new(), false, |error| panic!("{error}")).unwrap();
        assert!(!path.exists());
        let waits = std::thread::spawn(move || mark.reached());
        go.send(()).unwrap();
        let (_, length) = waits.join().unwrap();
        recorder.mark().reached();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.split_inclusive('\n').next().unwrap();
        assert_eq!((length, text.lines().count()), (first.len() as u64, 2));
    }

    #[test]
    fn a_line_that_could_not_be_written_moves_what_comes_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::create_dir(&path).unwrap(); // it can't be opened
        let mut recorder = Recorder::new(path.clone(), 0, &SerialQueue::at_once());
        recorder.length = 0;
        let (failed, errors) = std::sync::mpsc::channel();
        let failed = move |error| failed.send(error).unwrap();
        recorder.report(Some(1), 1.0, Map::new(), false, failed).unwrap();
        assert!(errors.recv().is_ok());
        fs::remove_dir(&path).unwrap();
        let length = fs::metadata(&path).map_or(0, |own| own.len());
        recorder.written.state.lock().unwrap().more =
            length.cast_signed() - recorder.length.cast_signed();
        recorder.report(Some(2), 1.0, Map::new(), false, |error| panic!("{error}")).unwrap();
        assert_eq!(recorder.mark().reached().1, fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn a_line_that_was_written_is_known_by_the_end_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(!ends_with(&path, b"{}").unwrap());
        for (content, expected) in [("", false), ("{}", false), ("{}\n", true), ("{}\n{\n", false)]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(ends_with(&path, b"{}").unwrap(), expected, "{content:?}");
        }
        let mut file = MetricsFile::default();
        fs::write(&path, "{\"a\":1}\n{\"a\":").unwrap();
        file.append_again(&path, b"{\"a\":2}").unwrap();
        file.append_again(&path, b"{\"a\":2}").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"a\":<torn>\n{\"a\":2}\n");
    }

    #[test]
    fn what_came_after_the_checkpoint_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let row = |step: Option<u64>| {
            let step = step.map_or("null".to_owned(), |step| step.to_string());
            format!("{{\"step\":{step},\"attempt\":0,\"time\":1.0,\"values\":{{}}}}\n")
        };
        let all = format!("{}{}{}{}", row(Some(1)), row(None), row(Some(2)), row(None));
        let check = |resumed, expected: String| {
            fs::write(&path, format!("{all}{{\"torn")).unwrap();
            roll_back(&path, resumed).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{resumed:?}");
        };
        let half = (row(Some(1)).len() + row(None).len()) as u64;
        check(Some((1, half)), row(Some(1)) + &row(None));
        check(Some((2, u64::MAX)), all.clone());
        check(None, String::new());
        // Reports of later steps may stand before those that stay.
        let all =
            format!("{}{}{}no line\n{}", row(Some(3)), row(Some(1)), row(Some(4)), row(Some(2)));
        fs::write(&path, &all).unwrap();
        roll_back(&path, Some((2, 0))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), row(Some(1)) + &row(Some(2)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left half made");
        roll_back(&folder.path().join("none"), None).unwrap();
    }
}
