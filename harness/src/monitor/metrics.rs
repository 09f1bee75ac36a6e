//! Metrics by pattern: what a program prints becomes lines of `metrics.jsonl`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nemo_core::durable::{self, Appender};
use nemo_core::lines::{self, JsonLine};
use nemo_core::open;
use nemo_core::rundir::{MetricSpec, MetricsLine};
use regex_lite::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};

use crate::os::serial_queue::SerialQueue;

/// The patterns, and where the program is.
#[derive(Debug)]
pub(crate) struct Patterns {
    values: Vec<(String, Regex)>,
    /// The one that tells the step.
    step: Option<Regex>,
    pub(crate) current: Option<u64>,
}

impl Patterns {
    pub(crate) fn new(patterns: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut values = Vec::new();
        for (name, pattern) in patterns {
            let bad_pattern =
                |why: String| format!("the pattern of metric `{name}`, `{pattern}`: {why}");
            let regex = Regex::new(pattern).map_err(|error| bad_pattern(error.to_string()))?;
            if regex.captures_len() < 2 {
                return Err(bad_pattern("it needs a group `(…)` around the value".to_owned()));
            }
            values.push((name.clone(), regex));
        }
        let tells = ["step", "epoch"];
        let at = tells.iter().find_map(|step| values.iter().position(|(name, _)| name == step));
        let step = at.map(|at| values.remove(at).1);
        Ok(Self { values, step, current: None })
    }

    /// Whether there is anything to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.step.is_none()
    }

    /// Whether the program tells its steps.
    pub(crate) fn has_step(&self) -> bool {
        self.step.is_some()
    }

    /// All that one line tells. A line with only a step in it sets the step.
    pub(crate) fn line(&mut self, line: &str) -> Option<Map<String, Value>> {
        if let Some(step) = self.step.as_ref().and_then(|step| number(step, line)) {
            self.current = whole(step).or(self.current);
        }
        let mut found = Map::new();
        for (name, regex) in &self.values {
            if let Some(value) = number(regex, line) {
                found.insert(
                    name.clone(),
                    Number::from_f64(value).map_or(Value::Null, Value::Number),
                );
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

fn number(regex: &Regex, line: &str) -> Option<f64> {
    let text = regex.captures(line)?.get(1)?.as_str();
    text.trim().trim_end_matches([',', ';', '%']).replace('_', "").parse().ok()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn whole(step: f64) -> Option<u64> {
    (0.0..9e15).contains(&step).then_some(step as u64)
}

/// Has `metrics.jsonl` written.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    attempt: u32,
    records: SerialQueue,
    file: Arc<Mutex<Option<Appender>>>,
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
            let result = append(&mut file, &path, &line);
            let mut state = written.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.until = until;
            if let Err(error) = result {
                // From then on the file's length says what is in it.
                let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                state.more = length.cast_signed().saturating_sub(until.cast_signed());
                failed(error);
            }
            drop(state);
            written.more.notify_all();
        });
        Ok(())
    }
}

fn append(file: &mut Option<Appender>, path: &Path, line: &[u8]) -> io::Result<()> {
    let open = match file.take() {
        Some(open) => open,
        None => Appender::open(path)?,
    };
    // After an error it is opened anew: the handle may be stale, the line torn.
    file.insert(open).plain_line_unsynced(line).inspect_err(|_| *file = None)
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

/// What decides whether a line stays. Its values are read over: there may be millions of lines.
#[derive(Deserialize)]
#[expect(dead_code, reason = "a line without these fields is none of ours")]
struct ReportedStep {
    step: Option<u64>,
    attempt: IgnoredAny,
    time: IgnoredAny,
    values: IgnoredAny,
}

/// The checkpoint that the trial goes on from: its step, and how long `metrics.jsonl` was then.
pub(crate) type ResumedAt = Option<(u64, u64)>;

fn stays(line: &JsonLine<'_>, resumed: ResumedAt) -> bool {
    let Some((step, length)) = resumed else { return false };
    let is_whole = line.text.ends_with(b"\n");
    let row = serde_json::from_slice::<ReportedStep>(line.text).ok().filter(|_| is_whole);
    row.is_some_and(|row| row.step.map_or(line.end <= length, |own| own <= step))
}

/// Takes out what was reported after the checkpoint that the trial goes on from: those steps will be done again. The
/// file may be longer than the memory that a job has beside its program.
pub(crate) fn roll_back(path: &Path, resumed: ResumedAt) -> io::Result<()> {
    // Where the first line is that goes, and whether one stays behind it.
    let (mut first, mut is_tail) = (None, true);
    lines::each(path, |line| {
        if stays(&line, resumed) {
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
        Some(_) => {
            durable::rewrite_durably(path, |out| {
                lines::each(path, |line| {
                    if stays(&line, resumed) { out.write_all(line.text) } else { Ok(()) }
                })
            })
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    fn patterns(list: &[(&str, &str)]) -> Result<Patterns, String> {
        let owned = |(name, pattern): &(&str, &str)| ((*name).to_owned(), (*pattern).to_owned());
        Patterns::new(&list.iter().map(owned).collect())
    }

    #[track_caller]
    fn check(patterns: &mut Patterns, line: &str, step: Option<u64>, values: &str) {
        let found =
            patterns.line(line).map_or(String::new(), |found| Value::Object(found).to_string());
        assert_eq!((patterns.current, found.as_str()), (step, values), "{line:?}");
    }

    #[test]
    fn a_line_tells_values_and_the_step() {
        let list = [("loss", r"loss: (\S+)"), ("acc", r"acc=(\S+)"), ("step", r"step (\d+)")];
        let mut patterns = patterns(&list).unwrap();
        check(&mut patterns, "hello", None, "");
        check(&mut patterns, "loss: 0.5", None, r#"{"loss":0.5}"#);
        check(&mut patterns, "step 7", Some(7), "");
        check(&mut patterns, "loss: 1e-3, acc=97%", Some(7), r#"{"acc":97.0,"loss":0.001}"#);
        check(&mut patterns, "step 8 loss: nan", Some(8), r#"{"loss":null}"#);
        check(&mut patterns, "loss: inf acc=-inf", Some(8), r#"{"acc":null,"loss":null}"#);
        check(&mut patterns, "loss: what", Some(8), "");
    }

    #[test]
    fn epoch_is_the_step_where_there_is_no_step() {
        let mut patterns = patterns(&[("epoch", r"epoch (\S+)"), ("l", r"l=(\S+)")]).unwrap();
        check(&mut patterns, "epoch 3 l=1", Some(3), r#"{"l":1.0}"#);
    }

    #[test]
    fn a_bad_pattern_is_told() {
        assert!(patterns(&[("loss", "loss")]).unwrap_err().contains("group"));
        assert!(patterns(&[("loss", "(")]).unwrap_err().contains("`loss`"));
    }

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
