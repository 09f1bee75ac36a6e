//! Points in time as people type them for `--since`: how long ago, or a date and a time in UTC.

use std::str::FromStr;

use nemo_core::duration;

/// The earliest time that is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Since {
    /// A number of seconds ago.
    Ago(f64),
    /// In unix seconds.
    At(f64),
}

impl Since {
    /// In unix seconds.
    #[must_use]
    pub fn at(self, now: f64) -> f64 {
        match self {
            Self::Ago(seconds) => now - seconds,
            Self::At(time) => time,
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_suffix(" ago").unwrap_or(text);
        let time = if is_date(text) {
            date(text).map(Self::At)
        } else if text.len() >= 9 && duration::is_number(text) {
            text.parse().ok().map(Self::At)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "less than 100 years")]
            duration::parse(text).ok().map(|seconds| Self::Ago(seconds as f64))
        };
        time.ok_or_else(|| {
            "it is not a time; write for example --since 2d, --since 2026-11-28 or --since 2026-11-28T14:30:00Z".to_owned()
        })
    }
}

fn is_date(text: &str) -> bool {
    let is_like = |(place, byte): (usize, &u8)| match place {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() >= 10 && text.as_bytes()[..10].iter().enumerate().all(is_like)
}

/// A date, or a date and a time, in UTC.
#[must_use]
pub fn date(text: &str) -> Option<f64> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.trim_start_matches(['T', 't', ' ']).trim_end_matches(['Z', 'z']);
    let time = match time.len() {
        0 => "00:00:00".to_owned(),
        5 => format!("{time}:00"),
        _ => time.to_owned(),
    };
    let time = humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_durations_or_dates() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected), "{text}");
        check("2d", Since::Ago(172_800.0));
        check("90min ago", Since::Ago(5400.0));
        check("2026-11-28", Since::At(1_795_824_000.0));
        check("2026-11-28T14:30", Since::At(1_795_876_200.0));
        check("2026-11-28 14:30:00", Since::At(1_795_876_200.0));
        check("2026-11-28T14:30:00Z", Since::At(1_795_876_200.0));
        check("1795876200", Since::At(1_795_876_200.0));
        for text in ["", "x", "5", "2026-13-01", "2026-11-28T25:00", "2026-11-28x"] {
            let why = text.parse::<Since>().unwrap_err();
            assert!(why.contains("--since 2d"), "{text}: {why}");
        }
    }
}
