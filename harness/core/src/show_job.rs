//! What `scontrol -o show job` prints: records of `Key=value`, one a line but for names and comments with line breaks.

/// The fields between the job's name, which can hold anything, and those after `NumNodes`, which can too.
///
/// Slurm prints `Key=value` with one blank between; values hold blanks and `=`, so only the known order tells them apart.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    head: &'a str,
    tail: &'a str,
}

impl<'a> Fields<'a> {
    /// Splits a record; none if it is no job's.
    #[must_use]
    pub fn new(record: &'a str) -> Option<Self> {
        let (head, rest) = record.split_once(" JobName=").unwrap_or(("", record));
        let rest = rest.find(" UserId=").map(|at| &rest[at..])?;
        let end = rest.find(" NumNodes=").unwrap_or(rest.len());
        Some(Self { head, tail: &rest[..end] })
    }

    /// The value of a key, if it has one. Between name and nodes no value holds a blank.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let value = find(self.head, key).or_else(|| find(self.tail, key));
        value.filter(|value| *value != "(null)")
    }
}

fn find<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The records, each with the number of its first line, from 1. A line that begins none goes on with the one before.
#[must_use]
pub fn records(text: &str) -> Vec<(usize, String)> {
    let mut records: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match records.last_mut() {
            Some((_, record)) if !begins_job(line, record) => {
                record.push('\n');
                record.push_str(line);
            }
            Some(_) | None => records.push((index + 1, line.to_owned())),
        }
    }
    records
}

/// Whether a line begins a job, and isn't a piece of the name of the job before it.
fn begins_job(line: &str, before: &str) -> bool {
    let is_over = before.contains(" UserId=") || !before.starts_with("JobId=");
    let next_key = line
        .strip_prefix("JobId=")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        .and_then(|rest| rest.strip_prefix(' '));
    let known = ["ArrayJobId=", "HetJobId=", "JobName="];
    is_over && next_key.is_some_and(|rest| known.iter().any(|key| rest.starts_with(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "slurm_load_jobs: a warning\nJobId=7 JobName=a PreemptTime=1\nJobId=8 b UserId=x(1) JobState=RUNNING \
                    Reason=(null) NumNodes=1 JobState=NO\n\nJobId=9 JobName=c UserId=y(2) JobState=PENDING\n";
        let records = records(text);
        let lines: Vec<usize> = records.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 5]);
        assert!(Fields::new(&records[0].1).is_none(), "a warning is no job");
        let first = Fields::new(&records[1].1).unwrap();
        assert_eq!((first.get("JobId"), first.get("JobState")), (Some("7"), Some("RUNNING")));
        assert_eq!((first.get("PreemptTime"), first.get("Reason")), (None, None));
        let second = Fields::new(&records[2].1).unwrap();
        assert_eq!((second.get("JobId"), second.get("JobState")), (Some("9"), Some("PENDING")));
    }
}
