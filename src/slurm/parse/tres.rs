//! Trackable resources: `billing=4,cpu=4,gres/gpu:h100=8,mem=400M,node=2`.

use std::fmt;
use std::str::FromStr;

use nom::Parser;
use nom::bytes::complete::take_while1;
use nom::character::complete::{char, one_of, u64 as digits};
use nom::combinator::{map, map_opt, opt};
use nom::error::context;
use nom::multi::separated_list0;
use nom::sequence::{preceded, separated_pair};

use super::id::whole;
use super::{ParseError, Reading};

/// How much of each resource, in Slurm's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tres {
    items: Vec<(String, Amount)>,
}

/// A number as printed: digits, perhaps hundredths, perhaps a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amount {
    whole: u64,
    fraction: Option<(u32, u8)>,
    unit: Option<char>,
}

impl Tres {
    /// How much of `name` there is, in its own unit (bytes for memory); nothing if it isn't listed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.items.iter().find(|(known, _)| known == name).map(|(_, amount)| amount.value())
    }

    /// How many GPUs, of any type.
    #[must_use]
    pub fn gpus(&self) -> u64 {
        let typed = self.items.iter().filter(|(name, _)| name.starts_with("gres/gpu:"));
        let typed = typed.fold(0_u64, |sum, (_, amount)| sum.saturating_add(amount.value()));
        self.get("gres/gpu").unwrap_or(typed)
    }
}

impl Amount {
    fn value(self) -> u64 {
        let power = self.unit.and_then(|unit| "KMGTPE".find(unit)).map_or(0, |index| index + 1);
        let scale = 1_u64 << (10 * power);
        let part = self.fraction.map_or(0, |(digits, places)| {
            u128::from(digits) * u128::from(scale) / 10_u128.pow(u32::from(places))
        });
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        self.whole.saturating_mul(scale).saturating_add(part)
    }
}

fn amount(input: &[u8]) -> Reading<'_, Amount> {
    let places = take_while1(|byte: u8| byte.is_ascii_digit());
    let fraction = map_opt(preceded(char('.'), places), |text: &[u8]| {
        Some((str::from_utf8(text).ok()?.parse().ok()?, u8::try_from(text.len()).ok()?))
    });
    let fraction = nom::combinator::verify(fraction, |(_, places)| *places <= 9);
    let read = (digits, opt(fraction), opt(one_of("KMGTPE")));
    let read = map(read, |(whole, fraction, unit)| Amount { whole, fraction, unit });
    context("an amount", read).parse(input)
}

/// A whole list.
pub fn tres(input: &[u8]) -> Reading<'_, Tres> {
    let name = take_while1(|byte: u8| byte.is_ascii_graphic() && byte != b'=' && byte != b',');
    let name = map(name, |name: &[u8]| String::from_utf8_lossy(name).into_owned());
    let item = separated_pair(context("a resource", name), char('='), amount);
    map(separated_list0(char(','), item), |items| Tres { items }).parse(input)
}

impl FromStr for Tres {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        whole(tres, text.as_bytes())
    }
}

impl fmt::Display for Tres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, amount)) in self.items.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{name}={}", amount.whole)?;
            if let Some((digits, places)) = amount.fraction {
                write!(f, ".{digits:0width$}", width = usize::from(places))?;
            }
            amount.unit.map_or(Ok(()), |unit| write!(f, "{unit}"))?;
        }
        Ok(())
    }
}
