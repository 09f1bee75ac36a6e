//! What the collector has copied from the program's own paths: each copy is a save like any other.

use std::os::unix::ffi::OsStrExt;

use super::{Saver, display_name};
use crate::checkpoint::candidate::{CompleteSave, ProgramPosition, SaveState};
use crate::checkpoint::collect::{CollectedSave, Collector, CollectorNews, is_collected};
use crate::checkpoint::commit::CommitRequest;
use crate::checkpoint::inotify::DirWatch;
use crate::os::clock::Time;

/// How many changes of files are remembered with where the program was.
const MAX_CHANGES: usize = 4096;

impl Saver {
    /// Takes the news of the collector.
    pub(super) fn take_collected(&mut self, now: Time, position: &ProgramPosition) {
        let news = self.collector.as_mut().map(Collector::news).unwrap_or_default();
        for news in news {
            match news {
                CollectorNews::Changed { number, not_before, seen } => {
                    self.changes.insert(number, self.positions.of_save(not_before, seen));
                    if self.changes.len() > MAX_CHANGES {
                        self.changes.pop_first();
                    }
                }
                CollectorNews::Copied(save) => self.add_collected(save, position, now),
                CollectorNews::Refused { path, why } => self.refuse(path, now, why),
                CollectorNews::Finished => {}
            }
        }
    }

    /// Notes where the program is by what it has printed, and that this is read by now. What is seen of its saves at the
    /// same time may be older.
    pub(crate) fn note_position(&mut self, read_at: Time, position: &ProgramPosition) {
        let before = self.position.replace(position.clone()).unwrap_or_else(|| {
            let start = position.without_step();
            self.positions.note(Time::ZERO, &start);
            start
        });
        let seen = self.watch.as_ref().map(DirWatch::read).unwrap_or_default();
        self.has_other |= seen.other;
        if let Some(collector) = &self.collector {
            collector.output_is_read(read_at);
        }
        self.positions.note(read_at, position);
        let last_read_at = std::mem::replace(&mut self.read_at, read_at);
        for name in seen.renamed {
            let step = self.positions.of_save(last_read_at, Some(read_at)).step;
            let own = if step == before.step { &before } else { position };
            self.renamed.push((name, own.clone()));
        }
    }

    fn add_collected(&mut self, save: CollectedSave, position: &ProgramPosition, now: Time) {
        let CollectedSave { name, path, change, step } = save;
        // Of a change that is forgotten, the program's present step would be too late a one.
        let own = self.changes.remove(&change);
        let position = own.unwrap_or_else(|| position.without_step());
        let told = self.told_steps.remove(&path).flatten();
        self.own_paths.insert(name.clone(), path);
        let step = match step {
            Ok(step) => told.or(step),
            Err(why) => return self.reject(name, now, why.to_string()),
        };
        let save = CompleteSave {
            position,
            step,
            written_at: now,
            is_confirmed: true,
            held_until: None,
            tree: None,
        };
        self.saves.insert(name, SaveState::Complete(save));
    }

    /// A copy is done with: committed as this step, or never.
    pub(super) fn end_collected(&mut self, name: &[u8], committed: Option<u64>) {
        if !is_collected(name) {
            return;
        }
        self.own_paths.remove(name);
        if let Some(collector) = &self.collector {
            collector.done(name.to_vec(), committed);
        }
    }

    /// The name of a save for people: the program's own path.
    pub(super) fn shown(&self, name: &[u8]) -> String {
        self.own_paths.get(name).cloned().unwrap_or_else(|| display_name(name))
    }

    /// The name under which a save is known here: where it lay in the staging folder.
    pub(super) fn name_of(&self, request: &CommitRequest) -> Vec<u8> {
        match request.from.strip_prefix(&self.staging) {
            Ok(name) => name.as_os_str().as_bytes().to_vec(),
            Err(_) => request.entry.clone(),
        }
    }

    /// Whether the collector still looks at what the program left.
    pub(super) fn is_collecting(&self) -> bool {
        self.collector.as_ref().is_some_and(|own| self.is_finished() && !own.is_finished())
    }
}
