//! When Slurm expects jobs to start: the rows of `squeue`, and what `sbatch --test-only` says.

use super::record::{Interner, ParseRow, RecordFields, all, exactly};
use super::time::{UnixTime, point};
use super::{Expected, Parsed};
use crate::slurm::id::{JobId, Tasks};

/// What `squeue --Format` is asked for.
pub const FIELDS: [&str; 2] = ["JobArrayID", "StartTime"];

/// One row of `squeue`: a waiting job, task or array, and its expected start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForecastRow {
    /// The array's id.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// When Slurm expects it to start; nothing as long as it has not thought about it.
    pub start: Option<UnixTime>,
}

impl<'a> ParseRow<'a> for ForecastRow {
    fn take(fields: &mut RecordFields<'a>, _: &mut Interner<'a>) -> Result<Self, Expected<'a>> {
        let (array_job, tasks) = fields.shown_id()?;
        let start = exactly(point, fields.last()?)?;
        Ok(Self { array_job, tasks, start })
    }
}

/// Reads the whole output of a `squeue` that was asked for [`FIELDS`].
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<ForecastRow> {
    all(output)
}

/// The start in `sbatch: Job 12 to start at 1795966380 using 32 processors on …`, which stands on stderr.
#[must_use]
pub fn test_only(stderr: &[u8]) -> Option<UnixTime> {
    let text = String::from_utf8_lossy(stderr);
    let (_, rest) = text.split_once(" to start at ")?;
    rest.split_ascii_whitespace().next()?.parse().ok().and_then(UnixTime::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read_and_words_for_none_are_none() {
        let rows = parse(b"173_[0-2]\x1f1795967280\x1f\n174\x1fN/A\x1f\n175_1\x1f0\x1f\n");
        assert!(rows.unread.is_empty(), "{:?}", rows.unread);
        let starts: Vec<_> = rows.rows.iter().map(|row| row.start.map(UnixTime::seconds)).collect();
        assert_eq!(starts, [Some(1_795_967_280), None, None]);
        assert!(rows.rows[0].tasks.contains(2) && !rows.rows[0].tasks.contains(3));
        for word in ["soon", "4294967296", "-1"] {
            let row = format!("173\x1f{word}\x1f\n");
            assert_eq!(parse(row.as_bytes()).unread.len(), 1, "{word}");
        }
    }

    #[test]
    fn the_start_is_found_among_a_sites_notices() {
        let text = b"Welcome!\nsbatch: Job 174 to start at 1795966380 using 32 processors on nodes n[1-2]\n";
        assert_eq!(test_only(text).map(UnixTime::seconds), Some(1_795_966_380));
        assert_eq!(test_only(b"sbatch: Job 174 to start at 2026-11-29T15:33:00 using"), None);
        assert_eq!(
            test_only(b"allocation failure: Requested node configuration is not available"),
            None
        );
    }
}
