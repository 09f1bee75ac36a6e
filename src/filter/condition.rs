//! `--where KEY=VALUE`: one condition on metadata or parameters. Pure.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueCondition {
    /// Where the key is looked for.
    pub place: KeySource,
    /// Dotted.
    pub key: String,
    relation: Comparator,
    /// As typed.
    value: String,
    /// The same, where it is a number.
    number: Option<f64>,
}

/// Where a key is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `metadata.K`
    Metadata,
    /// `params.K`
    Params,
    /// In metadata and, where the key is not there, in parameters.
    Either,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparator {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// Text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotACondition {
    why: &'static str,
}

impl fmt::Display for NotACondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; write KEY=VALUE, KEY<VALUE or KEY>VALUE, for example --where model=gpt or --where 'params.lr<0.01'",
            self.why
        )
    }
}

impl std::error::Error for NotACondition {}

impl FromStr for ValueCondition {
    type Err = NotACondition;

    fn from_str(text: &str) -> Result<Self, NotACondition> {
        let refuse = |why| NotACondition { why };
        let at = text.find(['=', '<', '>']).ok_or(refuse("it has no `=`, `<` or `>`"))?;
        let (key, rest) = (text[..at].trim(), &text[at..]);
        let (relation, length) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Comparator::AtMost, 2),
            [b'>', b'=', ..] => (Comparator::AtLeast, 2),
            [b'=', b'=', ..] => (Comparator::Equal, 2),
            [b'<', ..] => (Comparator::Less, 1),
            [b'>', ..] => (Comparator::More, 1),
            _ => (Comparator::Equal, 1),
        };
        let value = rest[length..].trim();
        let (place, key) = match key.split_once('.') {
            Some(("metadata", key)) => (KeySource::Metadata, key),
            Some(("params", key)) => (KeySource::Params, key),
            _ => (KeySource::Either, key),
        };
        // `!=`, `~=`, `<>`, `=<` and the like would look for other keys and values, and find nothing.
        if key.ends_with(['!', '~', ':']) || value.starts_with(['<', '>', '=']) {
            return Err(refuse(
                "the comparisons are `=`, `<`, `<=`, `>` and `>=`; a value that begins with one of these is written in quotes, as in note=\"<none>\"",
            ));
        }
        if key.is_empty() {
            return Err(refuse("it has no key"));
        }
        if value.is_empty() && relation != Comparator::Equal {
            return Err(refuse("it has no value"));
        }
        let value = unquoted(value);
        Ok(Self {
            place,
            key: key.to_owned(),
            relation,
            number: number(value),
            value: value.to_owned(),
        })
    }
}

/// A value may be quoted as in the file.
fn unquoted(value: &str) -> &str {
    let inner =
        ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
    inner.unwrap_or(value)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| !number.is_nan())
}

impl ValueCondition {
    /// Whether a value meets it. Of a list one item is enough.
    #[must_use]
    pub fn is_met_by(&self, value: &Value) -> bool {
        match value {
            Value::Array(items) => {
                items.iter().any(|item| self.is_met_by(item))
                    || self.is_met_by_text(&value.to_string())
            }
            Value::Number(own) => match (own.as_f64(), self.number) {
                (Some(own), Some(number)) => self.holds(own.partial_cmp(&number)),
                _ => false,
            },
            Value::String(own) => match (number(own), self.number) {
                // Versions and hashes look like numbers: `1.10` is not `1.1`.
                (Some(own), Some(number)) if self.relation != Comparator::Equal => {
                    self.holds(own.partial_cmp(&number))
                }
                _ => self.is_met_by_text(own),
            },
            Value::Bool(flag) => self.is(if *flag { "true" } else { "false" }),
            Value::Null => self.is("null"),
            Value::Object(_) => false,
        }
    }

    fn is(&self, word: &str) -> bool {
        self.relation == Comparator::Equal && self.value == word
    }

    fn is_met_by_text(&self, own: &str) -> bool {
        self.holds(Some(own.cmp(self.value.as_str())))
    }

    fn holds(&self, order: Option<Ordering>) -> bool {
        let Some(order) = order else { return false };
        match self.relation {
            Comparator::Less => order == Ordering::Less,
            Comparator::AtMost => order != Ordering::Greater,
            Comparator::Equal => order == Ordering::Equal,
            Comparator::AtLeast => order != Ordering::Less,
            Comparator::More => order == Ordering::Greater,
        }
    }

    /// Whether a number from `least` to `most` may meet it, where both of them are there.
    #[must_use]
    pub fn may_hold_within(&self, least: f64, most: f64) -> bool {
        let Some(number) = self.number else { return false };
        match self.relation {
            Comparator::Equal => (least..=most).contains(&number),
            Comparator::Less | Comparator::AtMost => self.holds(least.partial_cmp(&number)),
            Comparator::AtLeast | Comparator::More => self.holds(most.partial_cmp(&number)),
        }
    }

    /// Whether it is certain to hold for one of the numbers if it may hold: the nearest bound is one of them.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.relation != Comparator::Equal
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(condition: &str, value: &Value, expected: bool) {
        let read: ValueCondition = condition.parse().unwrap();
        assert_eq!(read.is_met_by(value), expected, "{condition} {value}");
    }

    #[test]
    fn numbers_compare_as_numbers() {
        check("lr=0.01", &json!(0.01), true);
        check("lr=1e-2", &json!(0.01), true);
        check("lr = 0.010", &json!(0.01), true);
        check("lr<0.01", &json!(0.01), false);
        check("lr<=0.01", &json!(0.01), true);
        check("lr>9", &json!(10), true);
        check("lr>9", &json!("10"), true);
        check("lr>=10", &json!(10.0), true);
        check("lr<x", &json!(3), false);
        check("model=gpt", &json!("gpt"), true);
        check("model=\"gpt\"", &json!("gpt"), true);
        check("date>2026-11-01", &json!("2026-11-28"), true);
        check("date<2026-11-01", &json!("2026-11-28"), false);
        check("flag=true", &json!(true), true);
        check("flag<true", &json!(true), false);
        check("x=null", &json!(null), true);
        check("x=", &json!(""), true);
        check("x=b", &json!(["a", "b"]), true);
        check("x=[\"a\",\"b\"]", &json!(["a", "b"]), true);
        check("x=c", &json!(["a", "b"]), false);
        check("x=1", &json!({ "x": 1 }), false);
    }

    #[test]
    fn a_text_is_equal_only_to_the_same_text() {
        check("version=1.10", &json!("1.10"), true);
        check("version=1.1", &json!("1.10"), false);
        check("version=\"1.10\"", &json!("1.10"), true);
        check("version=1.1", &json!(["1.10", "1.1"]), true);
        check("commit=100", &json!("1e2"), false);
        check("lr=0.001", &json!(1e-3), true);
        check("lr=\"1e-3\"", &json!(0.001), true);
        check("n>=9", &json!("10"), true);
        check("n<9", &json!("10"), false);
        check("version<=1.1", &json!("1.10"), true);
    }

    #[test]
    fn keys_say_where_they_are_looked_for() {
        let place = |text: &str| {
            let read: ValueCondition = text.parse().unwrap();
            (read.place, read.key)
        };
        assert_eq!(place("lr=1"), (KeySource::Either, "lr".to_owned()));
        assert_eq!(place("metadata.a.b=1"), (KeySource::Metadata, "a.b".to_owned()));
        assert_eq!(place("params.optimizer.lr<1"), (KeySource::Params, "optimizer.lr".to_owned()));
        assert_eq!(place("a.b=x=y"), (KeySource::Either, "a.b".to_owned()));
        assert_eq!(place("a:b='<none>'"), (KeySource::Either, "a:b".to_owned()));
        for text in ["lr!=3", "lr~=3", "lr:=3", "lr<>3", "lr=<3", "lr=>3", "note=<none>"] {
            let why = text.parse::<ValueCondition>().unwrap_err().to_string();
            assert!(why.contains("is written in quotes"), "{text}: {why}");
        }
        for text in ["lr", "", "=3", "params.=3", "lr<", "lr!=3"] {
            let why = text.parse::<ValueCondition>().unwrap_err().to_string();
            assert!(why.contains("--where 'params.lr<0.01'"), "{text}: {why}");
        }
    }

    #[test]
    fn a_range_tells_what_it_can() {
        let may = |text: &str| text.parse::<ValueCondition>().unwrap().may_hold_within(1.0, 5.0);
        for text in ["x=1", "x=3.5", "x<1.1", "x<=1", "x>4", "x>=5"] {
            assert!(may(text), "{text}");
        }
        for text in ["x=0", "x=6", "x<1", "x>5", "x=a"] {
            assert!(!may(text), "{text}");
        }
    }
}
