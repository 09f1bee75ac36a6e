//! Cuts `TensorBoard`'s logs back to a checkpoint: what an interrupted attempt wrote after it is done again.
//!
//! Nothing is removed. A folder of logs gets a further file, which says that the run began again at a step; readers leave
//! out what earlier files have from that step on. Which step that is follows from times, since a program may count there
//! otherwise than in its checkpoints: it is the first one that was written after the checkpoint.

use std::fs;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nemo_core::{durable, open};

/// Deeper folders are not looked into.
const DEEPEST: u32 = 8;
/// What the names of the files have in common.
const MARK: &str = "tfevents";
/// How much of a record is read: its time and its step come first.
const HEAD: usize = 32;

/// Cuts all logs below a folder back to a checkpoint that was saved at a time.
pub(super) fn cut_back(folder: &Path, saved_at: f64, now: f64) -> io::Result<()> {
    cut_folder(folder, saved_at, now, DEEPEST)
}

fn cut_folder(folder: &Path, saved_at: f64, now: f64, deeper: u32) -> io::Result<()> {
    let mut first: Option<i64> = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && deeper > 0 {
            cut_folder(&entry.path(), saved_at, now, deeper - 1)?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().contains(MARK) {
            let is_older = entry.metadata()?.modified().is_ok_and(|at| seconds(at) <= saved_at);
            let own = if is_older { None } else { first_after(&entry.path(), saved_at)? };
            first = first.into_iter().chain(own).min();
        }
    }
    let Some(first) = first else { return Ok(()) };
    let bytes = [
        record(&[&[0x09], &now.to_le_bytes()[..], &[0x1a, 13], b"brain.Event:2"].concat()),
        record(&restart(first, now)),
    ];
    // Readers take the files in the order of their names: the program's next one, of the same second too, comes behind it.
    let name = format!("events.out.{MARK}.{:010}.-nemo-restart", now.floor());
    durable::replace_file_durably(&folder.join(name), &bytes.concat())
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The lowest step of what was written after a time. A file that is torn or of another kind is read as far as it goes.
fn first_after(path: &Path, after: f64) -> io::Result<Option<i64>> {
    let mut file = BufReader::new(open::to_read(path)?);
    let mut lowest: Option<i64> = None;
    let mut length = [0; 12];
    while file.read_exact(&mut length).is_ok() {
        let length = u64::from_le_bytes(length[..8].try_into().unwrap_or_default());
        let mut head = [0; HEAD];
        let in_head = usize::try_from(length).unwrap_or(HEAD).min(HEAD);
        if file.read_exact(&mut head[..in_head]).is_err() {
            break;
        }
        if let Some((time, step)) = time_and_step(&head[..in_head])
            && time > after
        {
            lowest = Some(lowest.map_or(step, |lowest| lowest.min(step)));
        }
        let rest = length - in_head as u64 + 4;
        match i64::try_from(rest).map(|rest| file.seek(SeekFrom::Current(rest))) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(lowest)
}

/// The time of an event and its step, if it has one with values.
fn time_and_step(head: &[u8]) -> Option<(f64, i64)> {
    let (time, rest) = head.strip_prefix(&[0x09])?.split_first_chunk::<8>()?;
    let time = f64::from_le_bytes(*time);
    let Some(rest) = rest.strip_prefix(&[0x10]) else {
        // Step 0 is not written. What has no values tells of the file itself.
        return matches!(rest.first(), Some(0x2a)).then_some((time, 0));
    };
    let mut step: u64 = 0;
    for (at, byte) in rest.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((time, step.cast_signed()));
        }
    }
    None
}

/// An event that says that the run began again at a step.
fn restart(step: i64, now: f64) -> Vec<u8> {
    let mut event = [&[0x09], &now.to_le_bytes()[..], &[0x10]].concat();
    let mut rest = step.cast_unsigned();
    while rest >= 0x80 {
        event.extend(u8::try_from(rest & 0x7f).map(|low| low | 0x80));
        rest >>= 7;
    }
    event.extend(u8::try_from(rest));
    event.extend([0x3a, 2, 0x08, 1]);
    event
}

/// A record as the file holds it: its length and its bytes, each with a checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let (of_length, of_bytes) = (checksum(&length), checksum(bytes));
    [&length[..], &of_length.to_le_bytes(), bytes, &of_bytes.to_le_bytes()].concat()
}

/// CRC-32C, turned and moved as the format wants it.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    (!sum).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event with a value, as writers make it.
    fn event(time: f64, step: i64) -> Vec<u8> {
        let mut bytes = [&[0x09], &time.to_le_bytes()[..]].concat();
        if step > 0 {
            let head = restart(step, time);
            bytes = head[..head.len() - 4].to_vec();
        }
        bytes.extend([0x2a, 2, 0x0a, 0]);
        record(&bytes)
    }

    fn write(path: &Path, bytes: &[u8]) {
        durable::replace_file_durably(path, bytes).unwrap();
    }

    #[test]
    fn the_step_is_the_first_that_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a/b");
        fs::create_dir_all(&run).unwrap();
        let version = record(&[&[0x09], &99.0_f64.to_le_bytes()[..], &[0x1a, 1, b'x']].concat());
        let events =
            [version, event(10.0, 0), event(20.0, 300), event(30.0, 301), event(40.0, 302)];
        write(&run.join("events.out.tfevents.1.h"), &events.concat());
        write(&folder.path().join("other"), b"x");
        let first = |after| first_after(&run.join("events.out.tfevents.1.h"), after).unwrap();
        assert_eq!([first(20.0), first(35.0), first(0.0)], [Some(301), Some(302), Some(0)]);
        assert_eq!(first(50.0), None);
        cut_back(folder.path(), 20.0, 5000.7).unwrap();
        let restart_file = "events.out.tfevents.0000005000.-nemo-restart";
        assert!("events.out.tfevents.0000004999.z" < restart_file);
        assert!(restart_file < "events.out.tfevents.0000005000.gpu01.4711.0");
        let written = fs::read(run.join(restart_file)).unwrap();
        assert!(written.ends_with(&record(&restart(301, 5000.7))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "only where there are logs");
    }

    #[test]
    fn a_torn_or_foreign_file_is_read_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tfevents");
        let whole = [event(10.0, 1), event(20.0, 2)].concat();
        for end in 0..whole.len() {
            write(&path, &whole[..end]);
            first_after(&path, 0.0).unwrap();
        }
        write(&path, &[0xff; 64]);
        assert_eq!(first_after(&path, 0.0).unwrap(), None);
    }

    #[test]
    fn the_checksum_is_the_formats() {
        let plain = |bytes| checksum(bytes).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(plain(b"123456789"), 0xe306_9283);
    }
}
