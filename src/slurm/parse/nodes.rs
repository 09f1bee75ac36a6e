//! Host lists: `n[1-2]`, `nid0[0099,0156-0157]`, `a[1-2]b[3-4]`.

use std::fmt;
use std::str::FromStr;

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, map, map_opt, opt, value};
use nom::error::context;
use nom::multi::{many1, separated_list0, separated_list1};
use nom::sequence::{delimited, preceded};

use super::id::whole;
use super::{ParseError, Reading};

/// A list of host names, folded as Slurm folds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostList {
    hosts: Vec<Vec<HostPart>>,
}

/// A piece of a folded name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPart {
    Text(String),
    Numbers(Vec<HostNumbers>),
}

/// `0156-0157`: numbers of at least `width` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostNumbers {
    first: u64,
    last: u64,
    width: usize,
}

/// The most hosts that a list may stand for; Slurm itself stops at 64k nodes.
const MOST_HOSTS: u64 = 1 << 20;

impl HostList {
    /// How many hosts it stands for.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.hosts.iter().filter_map(|host| count(host)).sum::<u64>())
            .unwrap_or(usize::MAX)
    }

    /// Whether no host is meant: `None assigned`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.hosts.iter().flat_map(|host| names(host)).collect()
    }
}

fn count(host: &[HostPart]) -> Option<u64> {
    host.iter().try_fold(1_u64, |product, part| match part {
        HostPart::Text(_) => Some(product),
        HostPart::Numbers(list) => {
            let size = |numbers: &HostNumbers| (numbers.last - numbers.first).checked_add(1);
            let sum =
                list.iter().try_fold(0_u64, |sum, numbers| sum.checked_add(size(numbers)?))?;
            product.checked_mul(sum)
        }
    })
}

fn names(host: &[HostPart]) -> Vec<String> {
    host.iter().fold(vec![String::new()], |starts, part| match part {
        HostPart::Text(text) => starts.into_iter().map(|start| start + text).collect(),
        HostPart::Numbers(list) => {
            let numbers = list.iter().flat_map(|numbers| {
                (numbers.first..=numbers.last)
                    .map(|n| format!("{n:0width$}", width = numbers.width))
            });
            let ends: Vec<String> = numbers.collect();
            starts
                .iter()
                .flat_map(|start| ends.iter().map(move |end| format!("{start}{end}")))
                .collect()
        }
    })
}

fn number(input: &[u8]) -> Reading<'_, (u64, usize)> {
    let digits = take_while1(|byte: u8| byte.is_ascii_digit());
    let read = map_opt(digits, |text: &[u8]| {
        let width = if text.len() > 1 && text[0] == b'0' { text.len() } else { 1 };
        Some((str::from_utf8(text).ok()?.parse().ok()?, width))
    });
    context("a host's number", read).parse(input)
}

fn numbers(input: &[u8]) -> Reading<'_, HostNumbers> {
    let range = (number, opt(preceded(char('-'), number)));
    let read = map_opt(range, |((first, width), last)| {
        let last = last.map_or(first, |(last, _)| last);
        (first <= last && last - first < MOST_HOSTS).then_some(HostNumbers { first, last, width })
    });
    context("a range of hosts", read).parse(input)
}

fn part(input: &[u8]) -> Reading<'_, HostPart> {
    let name = take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let list = delimited(char('['), separated_list1(char(','), numbers), char(']'));
    let text = map(name, |text: &[u8]| HostPart::Text(String::from_utf8_lossy(text).into_owned()));
    context("a host name", alt((text, map(list, HostPart::Numbers)))).parse(input)
}

/// A whole host list.
pub fn host_list(input: &[u8]) -> Reading<'_, HostList> {
    let none = all_consuming(alt((tag("None assigned"), tag("(null)"), tag("N/A"), tag(""))));
    let host = map_opt(many1(part), |host| {
        count(&host).is_some_and(|count| count <= MOST_HOSTS).then_some(host)
    });
    let list = map(separated_list0(char(','), host), |hosts| HostList { hosts });
    alt((value(HostList::default(), none), list)).parse(input)
}

impl FromStr for HostList {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        whole(host_list, text.as_bytes())
    }
}

impl fmt::Display for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, host) in self.hosts.iter().enumerate() {
            f.write_str(if position == 0 { "" } else { "," })?;
            host.iter().try_for_each(|part| write!(f, "{part}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for HostPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Numbers(list) => {
                let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", shown.join(","))
            }
        }
    }
}

impl fmt::Display for HostNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, width } = self;
        write!(f, "{first:0width$}")?;
        if first == last { Ok(()) } else { write!(f, "-{last:0width$}") }
    }
}
