//! Times and durations as Slurm prints them.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::char;
use nom::combinator::{map, map_opt, opt, value};
use nom::error::context;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};
use std::fmt;
use std::num::NonZeroU32;

use super::id::whole;
use super::number::number as digits;
use super::{Expected, ParseError, Reading};
use nemo_core::duration::slurm_time;

/// How long something may take, as Slurm prints a limit or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Limit {
    /// A duration in seconds.
    Seconds(u64),
    /// For ever.
    Unlimited,
    /// Whatever the partition says.
    PartitionLimit,
    /// Nothing was asked for yet, or nothing applies.
    NotSet,
    /// Slurm computed nonsense, such as a negative time.
    Invalid,
}

impl Limit {
    /// The seconds, if it is that definite.
    #[must_use]
    pub const fn seconds(self) -> Option<u64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Unlimited | Self::PartitionLimit | Self::NotSet | Self::Invalid => None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => f.write_str(&slurm_time(*seconds)),
            Self::Unlimited => f.write_str("UNLIMITED"),
            Self::PartitionLimit => f.write_str("Partition_Limit"),
            Self::NotSet => f.write_str("NOT_SET"),
            Self::Invalid => f.write_str("INVALID"),
        }
    }
}

impl std::str::FromStr for Limit {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        whole(limit, text.as_bytes())
    }
}

/// A point in time, in epoch seconds, up to 2106. Never 0, which is Slurm's "none": so an `Option` of it takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(NonZeroU32);

impl UnixTime {
    /// A time in seconds after 1970; none for 0.
    #[must_use]
    pub const fn new(seconds: u32) -> Option<Self> {
        match NonZeroU32::new(seconds) {
            Some(seconds) => Some(Self(seconds)),
            None => None,
        }
    }

    /// The seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0.get() as u64
    }
}

/// A point in time, as `SLURM_TIME_FORMAT=%s` prints it; 0 and the words for "none" give nothing.
#[inline]
pub fn point(input: &[u8]) -> Reading<'_, Option<UnixTime>> {
    // Most of an answer's bytes are those of times.
    if let Ok((rest, seconds)) = digits(input) {
        return Ok((rest, UnixTime::new(seconds)));
    }
    let none = alt((tag("Unknown"), tag("N/A"), tag("None"), tag("NONE"), tag("(null)")));
    context("a time in epoch seconds", value(None, none)).parse(input)
}

/// `1-02:04:00`, `02:04:00`, `0:04`, `UNLIMITED` and its like.
pub fn limit(input: &[u8]) -> Reading<'_, Limit> {
    let words = alt((
        value(Limit::Unlimited, alt((tag("UNLIMITED"), tag("INFINITE"), tag("infinite")))),
        value(Limit::PartitionLimit, tag("Partition_Limit")),
        value(Limit::NotSet, alt((tag("NOT_SET"), tag("NONE"), tag("None"), tag("N/A")))),
        value(Limit::NotSet, alt((tag("Unknown"), tag("UNKNOWN"), tag("(null)")))),
        value(Limit::Invalid, tag("INVALID")),
    ));
    context("a duration", alt((words, map(clock, Limit::Seconds)))).parse(input)
}

/// `[days-][hours:]minutes:seconds`, with a fraction of a second where a program prints one.
fn clock(input: &[u8]) -> Reading<'_, u64> {
    let days = opt(terminated(digits, char('-')));
    let fields = (digits, preceded(char(':'), digits), opt(preceded(char(':'), digits)));
    let read: IResult<_, _, Expected<'_>> = map_opt((days, fields), |(days, (a, b, c))| {
        let (hours, minutes, seconds): (u64, u64, u64) = c.map_or((0_u64, a, b), |c| (a, b, c));
        let days = days.unwrap_or(0_u64).checked_mul(86_400)?;
        let hours = hours.checked_mul(3600)?;
        days.checked_add(hours)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)
    })
    .parse(input);
    let (rest, total) = read?;
    let fraction = opt(preceded(char('.'), digits::<u64>)).parse(rest)?;
    Ok((fraction.0, total))
}
