//! Durations as people type them, in `exp.toml` and on the command line: `1h 30min`, `90m`, or `01:30:00` as Slurm writes it.

use std::fmt;
use std::time::Duration;

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADuration {
    text: String,
    why: &'static str,
}

/// What to write instead.
pub const HINT: &str =
    "write for example \"90s\", \"10min\", \"1h 30min\", \"2d\", \"01:30:00\" or \"1-12:00:00\"";

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration{}", self.text, self.why)
    }
}

const DAY: u64 = 24 * 60 * 60;
const LONGEST_DURATION: u64 = 100 * 365 * DAY;

/// The names of each unit, larger units first.
const UNITS: [&[&str]; 5] = [
    &["w", "wk", "wks", "week", "weeks"],
    &["d", "day", "days"],
    &["h", "hr", "hrs", "hour", "hours"],
    &["m", "min", "mins", "minute", "minutes"],
    &["s", "sec", "secs", "second", "seconds"],
];

/// Whole seconds, of less than 100 years.
pub fn parse(text: &str) -> Result<u64, NotADuration> {
    let refuse = |why| NotADuration { text: text.to_owned(), why };
    let seconds = match text.trim() {
        number if is_number(number) => return Err(refuse(": it has no unit")),
        clock if clock.contains([':', '-']) => from_clock(clock),
        units => from_units(units),
    };
    match seconds {
        None => Err(refuse("")),
        Some(seconds) if seconds > LONGEST_DURATION => Err(refuse(" of less than 100 years")),
        Some(seconds) => Ok(seconds),
    }
}

/// The same, of at least a second.
pub fn parse_positive(text: &str) -> Result<u64, NotADuration> {
    match parse(text) {
        Ok(0) => Err(NotADuration { text: text.to_owned(), why: " of at least a second" }),
        other => other,
    }
}

/// What an option of the command line is given.
pub fn option(text: &str) -> Result<Duration, String> {
    parse(text).map(Duration::from_secs).map_err(|error| format!("{error}; {HINT}"))
}

/// The same for an option that counts in seconds where no unit is given.
pub fn option_in_seconds(text: &str) -> Result<Duration, String> {
    let number = Some(text.trim()).filter(|text| is_number(text));
    number
        .and_then(|text| text.parse().ok())
        .map_or_else(|| option(text), |n| Ok(Duration::from_secs(n)))
}

/// Whether there are only digits.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Seconds as Slurm writes them, and as every version of `sbatch` reads them: `04:00:00`, `1-02:03:04`.
pub fn slurm_time(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

/// Seconds of a time limit as `sbatch` reads it: a number alone are minutes, two are minutes and seconds; behind days they
/// begin with hours.
#[must_use]
pub fn from_sbatch(text: &str) -> Option<u64> {
    let (days, clock) =
        text.split_once('-').map_or((None, text), |(days, clock)| (Some(days), clock));
    let days: u64 = days.map_or(Some(0), |days| days.parse().ok())?;
    let parts: Vec<u64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let of_hours = [3600, 60, 1].as_slice();
    let units = match (text.contains('-'), parts.len()) {
        (true, 1..=3) | (false, 3) => of_hours,
        (false, 1 | 2) => &of_hours[1..],
        _ => return None,
    };
    let clock = parts.iter().zip(units).map(|(part, unit)| part.checked_mul(*unit));
    let clock = clock.sum::<Option<u64>>()?;
    days.checked_mul(DAY)?.checked_add(clock)
}

/// `1d 2h30m`: larger units first, each once; another order is a slip of the hand. Months and parts of a second are no units.
fn from_units(text: &str) -> Option<u64> {
    let mut units = UNITS.iter();
    let mut words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let in_order = words.all(|word| units.any(|names| names.contains(&word)));
    let duration = humantime::parse_duration(text).ok().filter(|_| in_order)?;
    (duration.subsec_nanos() == 0).then_some(duration.as_secs())
}

/// `D-HH`, `D-HH:MM`, `D-HH:MM:SS` or `HH:MM:SS`. Slurm's `MM:SS` is not taken: half of the people read it as hours.
fn from_clock(text: &str) -> Option<u64> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(number(days)?), clock),
        None => (None, text),
    };
    let parts: Vec<u64> = clock.split(':').map(number).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (Some(_) | None, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        (Some(_) | None, _) => return None,
    };
    if minutes >= 60 || seconds >= 60 || (days.is_some() && hours >= 24) {
        return None;
    }
    let days = days.unwrap_or(0).checked_mul(DAY)?;
    days.checked_add(hours.checked_mul(3600)?)?.checked_add(minutes * 60 + seconds)
}

fn number(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u64, &str>) {
        let found = parse_positive(text).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn durations_of_people_and_of_slurm() {
        check("90s", Ok(90));
        check("10m", Ok(600));
        check("4h", Ok(14_400));
        check("2d", Ok(172_800));
        check("1h30m", Ok(5400));
        check("1h 30min", Ok(5400));
        check("90min", Ok(5400));
        check("1.5h", Ok(5400));
        check("2 hours 5 minutes", Ok(7500));
        check("1w", Ok(604_800));
        check("1d 2h 3m 4s", Ok(93_784));
        check("1-02:04:00", Ok(93_840));
        check("1-00:00:00", Ok(86_400));
        check("1-02", Ok(93_600));
        check("1-02:04", Ok(93_840));
        check("01:30:00", Ok(5400));
        check("100:00:00", Ok(360_000));
        check(" 4h ", Ok(14_400));
    }

    #[test]
    fn what_is_no_duration() {
        check("", Err("\"\" is not a duration"));
        check("4", Err("\"4\" is not a duration: it has no unit"));
        check("0s", Err("\"0s\" is not a duration of at least a second"));
        check("0-00:00:00", Err("\"0-00:00:00\" is not a duration of at least a second"));
        check("-4h", Err("\"-4h\" is not a duration"));
        check("1.5s", Err("\"1.5s\" is not a duration"));
        check("30m1h", Err("\"30m1h\" is not a duration")); // a typo more likely than a wish
        check("1h1h", Err("\"1h1h\" is not a duration"));
        check("30M", Err("\"30M\" is not a duration")); // minutes are meant, and months are read
        check("500ms", Err("\"500ms\" is not a duration"));
        check("1y", Err("\"1y\" is not a duration"));
        check("10:30", Err("\"10:30\" is not a duration")); // MM:SS or HH:MM?
        check("00:99:00", Err("\"00:99:00\" is not a duration"));
        check("1-24:00:00", Err("\"1-24:00:00\" is not a duration"));
        check("1-2-3", Err("\"1-2-3\" is not a duration"));
        check(":::", Err("\":::\" is not a duration"));
        check("four hours", Err("\"four hours\" is not a duration"));
        check("4h!", Err("\"4h!\" is not a duration"));
        check("40000d", Err("\"40000d\" is not a duration of less than 100 years"));
        let huge = "99999999999999999999d";
        check(huge, Err("\"99999999999999999999d\" is not a duration"));
    }

    #[test]
    fn what_slurm_is_given_is_read_back() {
        let given = [1, 59, 14_400, 86_399, 86_400, 93_784].map(slurm_time);
        assert_eq!(
            given,
            ["00:00:01", "00:00:59", "04:00:00", "23:59:59", "1-00:00:00", "1-02:03:04"]
        );
        assert_eq!(
            given.map(|text| parse(&text).unwrap()),
            [1, 59, 14_400, 86_399, 86_400, 93_784]
        );
    }

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        let rows =
            [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-2", 93_600), ("1-2:30", 95_400)];
        for (given, expected) in rows {
            assert_eq!(from_sbatch(given), Some(expected), "{given}");
        }
        assert!(
            ["", "x", "1:2:3:4", "1-", "99999999999999999999"]
                .iter()
                .all(|own| from_sbatch(own).is_none())
        );
    }

    #[test]
    fn the_command_line_takes_the_same_and_zero() {
        assert_eq!(option("01:30:00"), Ok(Duration::from_mins(90)));
        assert_eq!(option("0s"), Ok(Duration::ZERO));
        assert_eq!(option("5"), Err(format!("\"5\" is not a duration: it has no unit; {HINT}")));
        assert_eq!(option_in_seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(option_in_seconds("2min"), Ok(Duration::from_mins(2)));
        assert!(option_in_seconds("x").is_err());
    }
}
