//! What `sbatch --parsable` prints.

use nom::Parser;
use nom::bytes::complete::take_while1;
use nom::character::complete::char;
use nom::combinator::opt;
use nom::sequence::preceded;

use super::Reading;
use super::id::{job, whole};
use crate::slurm::id::JobId;

/// `N` or `N;cluster`, as a whole line.
fn line(input: &[u8]) -> Reading<'_, (JobId, Option<String>)> {
    let cluster = take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (job, opt(preceded(char(';'), cluster).map(|name| String::from_utf8_lossy(name).into_owned())))
        .parse(input)
}

/// The id of the submitted job, and its cluster where it is said: the one line that is nothing but an id, whatever a site's banner says around it.
///
/// Nothing if no line is, or if two such lines disagree: then the job has to be looked for by its name.
#[must_use]
pub fn parse(output: &[u8]) -> Option<(JobId, Option<String>)> {
    let lines = output.split(|byte| *byte == b'\n');
    let mut ids = lines.filter_map(|text| whole(line, text.trim_ascii()).ok());
    let first = ids.find(|(job, _)| job.0 > 0)?;
    ids.all(|(job, _)| job == first.0).then_some(first)
}
