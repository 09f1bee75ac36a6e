//! The rows of `sacct` about memory and processors: what each step of a job has used, and what the job had.

use std::collections::HashMap;

use super::queue::DELIMITER;
use super::time::Limit;
use super::tres::Tres;

/// What `sacct --format` is asked for.
pub const FIELDS: [&str; 5] = ["JobID", "MaxRSS", "AllocTRES", "TotalCPU", "CPUTimeRAW"];

/// What a job used, in all its runs and steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// The job, as Slurm shows it: `104_1`.
    pub job: String,
    /// The most bytes that a process of it was seen with, where Slurm looked.
    pub peak: Option<u64>,
    /// The bytes that it was given on each node.
    pub given: Option<u64>,
    /// The processors that it was given on all nodes.
    pub cpus: Option<u64>,
    /// The seconds that processors worked for it.
    pub cpu_seconds: Option<u64>,
    /// The seconds that processors were there for it.
    pub processor_seconds: Option<u64>,
}

/// Reads the rows; those of one job are together, whatever their order. A number that can't be read is not there.
#[must_use]
pub fn parse(output: &[u8]) -> Vec<JobUsage> {
    let mut jobs: Vec<JobUsage> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in String::from_utf8_lossy(output).lines() {
        let mut fields = line.split(char::from(DELIMITER));
        let mut field = || fields.next().unwrap_or_default().trim();
        let (id, peak, tres) = (field(), field(), field());
        let job = id.split('.').next().unwrap_or_default();
        if job.is_empty() {
            continue;
        }
        let place = *places.entry(job.to_owned()).or_insert_with(|| {
            jobs.push(JobUsage { job: job.to_owned(), ..JobUsage::default() });
            jobs.len() - 1
        });
        let known = &mut jobs[place];
        known.peak =
            known.peak.max(format!("mem={peak}").parse::<Tres>().ok().and_then(|it| it.get("mem")));
        let tres = tres.parse::<Tres>().ok();
        known.given = known.given.max(tres.as_ref().and_then(per_node));
        // The rows of the job itself hold the sums of its steps.
        if !id.contains('.') {
            known.cpus = known.cpus.max(tres.as_ref().and_then(|tres| tres.get("cpu")));
            let used = field().parse::<Limit>().ok().and_then(Limit::seconds);
            known.cpu_seconds = sum(known.cpu_seconds, used);
            known.processor_seconds = sum(known.processor_seconds, field().parse().ok());
        }
    }
    jobs
}

/// One more run of a job.
fn sum(known: Option<u64>, more: Option<u64>) -> Option<u64> {
    known.map_or(more, |known| Some(known.saturating_add(more.unwrap_or(0))))
}

fn per_node(tres: &Tres) -> Option<u64> {
    Some(tres.get("mem")? / tres.get("node").unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_job_are_one() {
        let row = |fields: [&str; 5]| fields.join(&char::from(DELIMITER).to_string()) + "\n";
        let text = [
            row(["104_1", "", "billing=1,cpu=1,mem=200M,node=2", "01:02.500", "124"]),
            row(["104_1", "", "cpu=1,mem=200M,node=2", "00:02", "10"]),
            row(["104_1.batch", "51200K", "cpu=1,mem=100M,node=1", "01:02", "124"]),
            row(["104_1.extern", "12K", "billing=1,cpu=1,mem=200M,node=2", "00:00", "124"]),
            row(["104_2", "", "", "", ""]),
        ];
        let shown: Vec<String> = parse(text.concat().as_bytes())
            .iter()
            .map(|it| format!("{} {:?} {:?}", it.job, it.peak, it.given))
            .collect();
        let first = &parse(text.concat().as_bytes())[0];
        assert_eq!((first.cpu_seconds, first.processor_seconds), (Some(64), Some(134)));
        assert_eq!(shown, ["104_1 Some(52428800) Some(104857600)", "104_2 None None"]);
    }
}
