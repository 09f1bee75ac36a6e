//! `runner.jsonl`, written as far as the disk allows: what does not fit now is kept, and written later.

use std::collections::VecDeque;
use std::path::Path;

use nemo_core::durable::Appender;
use nemo_core::rundir::runner::RunnerRecord;

use crate::file_error::{FileError, IoResultExt};
use crate::report::say;

/// Appends one line durably.
type Write = Box<dyn FnMut(&RunnerRecord) -> Result<(), FileError>>;

/// The runner's record.
pub(super) struct RunnerLog {
    write: Write,
    unwritten: VecDeque<RunnerRecord>,
}

impl RunnerLog {
    /// Opens the record, and says in it who writes from now on.
    pub(super) fn open(path: &Path, first: &RunnerRecord) -> Result<Self, FileError> {
        let mut file = Appender::open(path).at("open", path)?;
        file.line(first).at("write", path)?;
        let path = path.to_owned();
        let write = move |record: &RunnerRecord| file.line(record).at("write", &path);
        Ok(Self { write: Box::new(write), unwritten: VecDeque::new() })
    }

    /// Writes a record, after those that could not be written before.
    pub(super) fn add(&mut self, record: RunnerRecord) {
        self.unwritten.push_back(record);
        let is_first = self.unwritten.len() == 1;
        if let Err(error) = self.flush()
            && is_first
        {
            say(&format!("can't write the runner's record now: {}", error.with_cause()));
        }
    }

    /// Writes what could not be written before.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        while let Some(record) = self.unwritten.front() {
            (self.write)(record)?;
            self.unwritten.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_does_not_fit_is_written_later() {
        let disk = Rc::new(RefCell::new((Vec::new(), 1)));
        let (writer, record) = (Rc::clone(&disk), |time| RunnerRecord::Finished { time });
        let write = move |record: &RunnerRecord| {
            let (rows, room) = &mut *writer.borrow_mut();
            if rows.len() == *room {
                return Err(io::ErrorKind::StorageFull.into()).at("write", "runner.jsonl".as_ref());
            }
            rows.push(record.clone());
            Ok(())
        };
        let mut log = RunnerLog { write: Box::new(write), unwritten: VecDeque::new() };
        for time in [0.0, 1.0, 2.0] {
            log.add(record(time));
        }
        assert!(log.flush().is_err());
        assert_eq!(disk.borrow().0, [record(0.0)]);
        disk.borrow_mut().1 = 10;
        log.add(record(3.0));
        assert_eq!(disk.borrow().0, [0.0, 1.0, 2.0, 3.0].map(record));
    }
}
