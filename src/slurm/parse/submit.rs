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
fn line(input: &[u8]) -> Reading<'_, JobId> {
    let cluster = take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (job, opt(preceded(char(';'), cluster))).map(|(job, _)| job).parse(input)
}

/// The id of the submitted job: the last line that is nothing but an id, whatever a site's banner says around it.
#[must_use]
pub fn parse(output: &[u8]) -> Option<JobId> {
    let lines = output.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|text| whole(line, text.trim_ascii()).ok()).find(|job| job.0 > 0)
}
