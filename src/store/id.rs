//! Ids of experiments: their name, when they were made, and a bit of chance: `digits-3kz81q7m`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Crockford's alphabet: no letter that reads like a digit. In the order of its values, so that text sorts as time does.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Six digits hold thirty-four years of seconds; two more keep submissions of one second apart, and in their order.
const TIME_DIGITS: usize = 6;
const CHANCE_DIGITS: usize = 2;
/// How many ids of one name a second has.
const PARTS: u16 = 1024;
/// 2025-01-01T00:00:00Z: ids count from here.
const EPOCH: u64 = 1_735_689_600;

/// An experiment's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExperimentId(String);

/// The text is no id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of an experiment")]
pub struct NotAnId(String);

impl ExperimentId {
    /// An id for an experiment of this name, made at `now` (unix seconds). `chance` tells two of one second apart.
    #[must_use]
    pub fn new(name: &str, now: u64, chance: u32) -> Self {
        let time = digits(now.saturating_sub(EPOCH), TIME_DIGITS);
        Self(format!("{name}-{time}{}", digits(u64::from(chance), CHANCE_DIGITS)))
    }

    /// An id that none of these is, for an experiment that is made at `now` (unix seconds). It sorts behind all of
    /// the same second, whatever their names.
    #[must_use]
    pub fn next(name: &str, now: f64, known: &[Self]) -> Self {
        let mut place = IdTime::at(now);
        let mut places: Vec<IdTime> = known.iter().map(Self::place).collect();
        places.sort_unstable();
        for known in places {
            if known >= place && known.second == place.second {
                place = known.next();
            }
        }
        Self::new(name, place.second, place.part.into())
    }

    fn place(&self) -> IdTime {
        let part =
            self.age_key().bytes().skip(TIME_DIGITS).fold(0, |part, byte| part * 32 + value(byte));
        IdTime { second: self.made_at(), part: u16::try_from(part).unwrap_or(PARTS - 1) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The experiment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(name, _)| name)
    }

    /// What sorts ids of any names by age.
    #[must_use]
    pub fn age_key(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(_, key)| key)
    }

    /// What sorts all ids, the oldest first.
    #[must_use]
    pub fn age(&self) -> (&str, &str) {
        (self.age_key(), self.as_str())
    }

    /// When it was made, in unix seconds.
    #[must_use]
    pub fn made_at(&self) -> u64 {
        let time = self.age_key().bytes().take(TIME_DIGITS);
        EPOCH + time.fold(0, |time, byte| time * 32 + value(byte))
    }
}

/// Where an id stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct IdTime {
    /// Unix seconds.
    second: u64,
    /// Which of the second's parts.
    part: u16,
}

impl IdTime {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    fn at(now: f64) -> Self {
        Self { second: now as u64, part: (now.fract() * f64::from(PARTS)) as u16 }
    }

    fn next(self) -> Self {
        match self.part + 1 {
            PARTS => Self { second: self.second + 1, part: 0 },
            part => Self { part, ..self },
        }
    }
}

/// What a letter of the alphabet stands for.
fn value(letter: u8) -> u64 {
    (0..).zip(ALPHABET).find(|(_, known)| **known == letter).map_or(0, |(value, _)| value)
}

/// The lowest `n` digits of a number in base 32.
fn digits(mut number: u64, n: usize) -> String {
    let mut text = vec![b'0'; n];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(number % 32) as usize];
        number /= 32;
    }
    text.into_iter().map(char::from).collect()
}

impl FromStr for ExperimentId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (name, key) = text.rsplit_once('-').ok_or_else(|| NotAnId(text.to_owned()))?;
        let whole = key.len() == TIME_DIGITS + CHANCE_DIGITS
            && key.bytes().all(|byte| ALPHABET.contains(&byte))
            && !name.is_empty()
            && !name.starts_with('.');
        if whole { Ok(Self(text.to_owned())) } else { Err(NotAnId(text.to_owned())) }
    }
}

impl TryFrom<String> for ExperimentId {
    type Error = NotAnId;
    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<ExperimentId> for String {
    fn from(id: ExperimentId) -> Self {
        id.0
    }
}

impl fmt::Display for ExperimentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_name_and_time() {
        let id = ExperimentId::new("my-digits", 1_795_230_000, 33);
        assert_eq!(id.as_str(), "my-digits-1rs0xg11");
        assert_eq!((id.name(), id.made_at()), ("my-digits", 1_795_230_000));
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn of_one_second_the_newest_sorts_last() {
        let id = |text: &str| text.parse::<ExperimentId>().unwrap();
        let next = |now, known: &[ExperimentId]| ExperimentId::next("b", now, known).to_string();
        assert_eq!(next(1_795_230_000.0, &[]), "b-1rs0xg00");
        assert_eq!(next(1_795_230_000.5, &[]), "b-1rs0xgg0");
        // Whatever their names and their order.
        let known = [id("a-1rs0xgh7"), id("b-1rs0xg33"), id("c-1rs0xf00"), id("d-1rs0xh00")];
        assert_eq!(next(1_795_230_000.5, &known), "b-1rs0xgh8");
        assert_eq!(next(1_795_230_000.9, &known), "b-1rs0xgws");
        // A second that is full goes on in the next one.
        assert_eq!(next(1_795_230_000.5, &[id("a-1rs0xgzz"), id("a-1rs0xh00")]), "b-1rs0xh01");
    }

    #[test]
    fn later_ids_sort_later() {
        let keys: Vec<String> = [0, 31, 32, 1 << 20, 1 << 29]
            .map(|s| ExperimentId::new("a", EPOCH + s, 0).age_key().to_owned())
            .to_vec();
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn other_names_are_no_ids() {
        for text in
            ["", "digits", "-3kz81q7m", ".tmp-3kz81q7m", "digits-3kz81q7", "digits-3kz81q7u"]
        {
            assert_eq!(text.parse::<ExperimentId>(), Err(NotAnId(text.to_owned())));
        }
    }
}
