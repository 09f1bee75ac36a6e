//! The options of `list` and `search` that choose and order experiments.

use std::cmp::Ordering;
use std::str::FromStr;

use clap::Args;

use crate::experiment::Goal;
use crate::filter::{Filters, ValueCondition, check_glob};
use crate::since::Since;
use crate::status::State;

/// Stands in place of a state.
pub(super) const DAMAGED: &str = "damaged";

/// What `list` and `search` share.
#[derive(Clone, Debug, Args)]
pub struct FilterArgs {
    /// Only experiments in one of these states, as in `--state failed,timeout`
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = state)]
    pub state: Vec<&'static str>,
    /// Only experiments with this tag; may be given several times
    #[arg(long, value_name = "TAG", value_parser = word)]
    pub tag: Vec<String>,
    /// Only experiments whose whole name fits, as in `--name 'digits-*'`
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub name: Vec<String>,
    /// Only experiments whose metadata, or else a trial's parameters, meet this: `model=gpt`, `'lr<0.01'`, `'params.lr>0.1'`.
    /// A number equals what is the same number (0.001, 1e-3), a text only the same text ("1.10" is not 1.1)
    #[arg(long = "where", value_name = "KEY=VALUE")]
    pub conditions: Vec<ValueCondition>,
    /// Only experiments submitted since then: `2d` ago, `2026-11-28`, or `2026-11-28T14:30:00Z` (UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Only archived experiments, which are left out otherwise
    #[arg(long)]
    pub archived: bool,
    /// Order: created, name, state, ended, trials, best or metadata.KEY; a `-` before it reverses the order
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub sort: Option<Sort>,
    /// Show at most N experiments; 0 shows all
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Show the last known states, without asking Slurm
    #[arg(long)]
    pub cached: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl FilterArgs {
    /// What must hold of an experiment, whatever its state.
    pub(super) fn filters(&self, now: f64) -> Filters {
        Filters {
            tags: self.tag.clone(),
            names: self.name.clone(),
            conditions: self.conditions.clone(),
            since: self.since.map(|since| since.at(now)),
        }
    }

    /// Whether some experiments are left out, beside those beyond the limit.
    pub(super) fn leave_any_out(&self) -> bool {
        !self.state.is_empty() || self.since.is_some() || self.filters(0.0) != Filters::default()
    }
}

pub(super) fn word(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty; write for example --tag paper or --name 'digits-*'".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn glob(text: &str) -> Result<String, String> {
    let text = word(text)?;
    check_glob(&text).map_err(|why| format!("{why}; write for example --name 'digits-[12]*'"))?;
    Ok(text)
}

fn state(text: &str) -> Result<&'static str, String> {
    let known = State::ALL.iter().map(|state| state.as_str()).chain([DAMAGED]);
    let word = text.trim().to_lowercase();
    known.clone().find(|known| *known == word).ok_or_else(|| {
        let known = known.collect::<Vec<_>>().join(", ");
        format!("there is no such state; write for example --state failed,timeout; the states are {known}")
    })
}

/// An order of experiments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// What counts.
    pub key: SortKey,
    /// Whether the last comes first.
    pub is_reversed: bool,
}

/// What an order follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The newest first.
    Created,
    /// In the order of letters.
    Name,
    /// In the order of letters.
    State,
    /// Those that ended last first; those that have not ended are last.
    Ended,
    /// Those with the most trials first.
    Trials,
    /// By the value of the best trial: those that minimize, the lowest first, then those that maximize, the highest first.
    Best,
    /// The lowest value of a key of metadata first.
    Metadata(String),
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, is_reversed) = match text.strip_prefix('-') {
            Some(word) => (word, true),
            None => (text, false),
        };
        let key = match word.split_once('.') {
            Some(("metadata", key)) if !key.is_empty() => Some(SortKey::Metadata(key.to_owned())),
            Some(_) => None,
            None => match word {
                "created" => Some(SortKey::Created),
                "name" => Some(SortKey::Name),
                "state" => Some(SortKey::State),
                "ended" => Some(SortKey::Ended),
                "trials" => Some(SortKey::Trials),
                "best" => Some(SortKey::Best),
                _ => None,
            },
        };
        let key = key.ok_or(
            "there is no such order; write for example --sort name, --sort -created or --sort metadata.model; \
             the keys are created, name, state, ended, trials, best and metadata.KEY",
        )?;
        Ok(Self { key, is_reversed })
    }
}

impl SortKey {
    /// Whether it may change from one look to the next.
    pub(super) fn follows_the_state(&self) -> bool {
        matches!(self, Self::State | Self::Ended | Self::Trials | Self::Best)
    }
}

/// What is compared. What is not there comes last, in either order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SortValue {
    Number(f64),
    Text(String),
    /// A value that is better the lower or the higher it is.
    Best(Goal, f64),
    Absent,
}

impl SortValue {
    /// The place among values of other kinds.
    fn kind(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Best(Goal::Min, _) => 2,
            Self::Best(Goal::Max, _) => 3,
            Self::Absent => 4,
        }
    }

    pub(super) fn order(&self, other: &Self, is_reversed: bool) -> Ordering {
        let turned = |order: Ordering| if is_reversed { order.reverse() } else { order };
        match (self, other) {
            (Self::Absent, Self::Absent) => Ordering::Equal,
            (Self::Absent, _) => Ordering::Greater,
            (_, Self::Absent) => Ordering::Less,
            (Self::Number(a), Self::Number(b))
            | (Self::Best(Goal::Min, a), Self::Best(Goal::Min, b)) => turned(a.total_cmp(b)),
            (Self::Text(a), Self::Text(b)) => turned(a.cmp(b)),
            (Self::Best(Goal::Max, a), Self::Best(Goal::Max, b)) => turned(b.total_cmp(a)),
            _ => turned(self.kind().cmp(&other.kind())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_comes_last_in_either_order() {
        let (one, two, none) = (SortValue::Number(1.0), SortValue::Number(2.0), SortValue::Absent);
        assert_eq!(one.order(&two, false), Ordering::Less);
        assert_eq!(one.order(&two, true), Ordering::Greater);
        assert_eq!(
            (none.order(&one, false), none.order(&one, true)),
            (Ordering::Greater, Ordering::Greater)
        );
        let (low, high) = (SortValue::Best(Goal::Min, 1.0), SortValue::Best(Goal::Min, 2.0));
        assert_eq!(low.order(&high, false), Ordering::Less);
        let (low, high) = (SortValue::Best(Goal::Max, 1.0), SortValue::Best(Goal::Max, 2.0));
        assert_eq!(low.order(&high, false), Ordering::Greater);
        assert_eq!(low.order(&SortValue::Best(Goal::Min, 9.0), false), Ordering::Greater);
        assert_eq!(
            "-metadata.lr".parse(),
            Ok(Sort { key: SortKey::Metadata("lr".to_owned()), is_reversed: true })
        );
        assert!("color".parse::<Sort>().unwrap_err().contains("--sort name"));
    }
}
