//! The lines that the harness writes into a log beside the program's: `nemo-harness: 2026-11-28T19:31:02Z warn TEXT`.

/// How they begin, so that they are told from the program's.
pub const PREFIX: &str = "nemo-harness: ";

// `nemo-slurm rehearse` looks for these texts in an attempt's log.

/// The harness asked the program to save. How it did follows in parentheses.
pub const SAVE_REQUESTED: &str = "the program is asked to save";
/// The harness sent SIGTERM.
pub const TERM_SENT: &str = "SIGTERM is sent to the program";
/// The harness sent SIGKILL.
pub const KILL_SENT: &str = "SIGKILL is sent to the program";
/// Processes of the program outlived it.
pub const LEFTOVERS_KILLED: &str = "processes that the program left behind are killed";
/// A save that was not complete when the program ended.
pub const MAY_BE_TORN: &str = "the program was ended while it wrote it in place: it may be torn";

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Every event and action, on request only.
    Debug,
    /// What the harness does.
    Info,
    /// Something is lost, or may be.
    Warn,
    /// The trial can't go on.
    Error,
}

impl LogLevel {
    const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A whole line. What the text quotes may hold anything: a line stays one.
#[must_use]
pub fn format(unix: f64, level: LogLevel, text: &str) -> String {
    let (text, mut time) = (text.replace(char::is_control, " "), time(unix));
    if level == LogLevel::Debug {
        let milliseconds = unix.max(0.0).fract() * 1000.0;
        time.insert_str(time.len() - 1, &format!(".{milliseconds:03.0}").replace("1000", "999"));
    }
    format!("{PREFIX}{time} {} {text}\n", level.name())
}

/// The text of such a line, without its beginning; none of any other line.
#[must_use]
pub fn text(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(PREFIX)?;
    let mut words = rest.splitn(3, ' ');
    let (Some(_), Some(level), Some(text)) = (words.next(), words.next(), words.next()) else {
        return Some(rest);
    };
    let is_level = LogLevel::ALL.iter().any(|known| known.name() == level);
    Some(if is_level { text } else { rest })
}

/// The text of a line that says why the trial can't go on; none of any other line.
#[must_use]
pub fn error(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix(PREFIX)?.split_once(' ')?;
    rest.strip_prefix(LogLevel::Error.name())?.strip_prefix(' ')
}

/// Seconds since 1970 as UTC; what is before that year is its beginning.
#[must_use]
pub fn time(unix: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; a clock's seconds fit"
    )]
    let seconds = unix.max(0.0) as u64;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day, so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unix: f64, expected: &str) {
        assert_eq!(time(unix), expected);
    }

    #[test]
    fn times_are_utc() {
        check(0.0, "1970-01-01T00:00:00Z");
        check(951_782_399.9, "2000-02-28T23:59:59Z");
        check(951_782_400.0, "2000-02-29T00:00:00Z");
        check(1_709_251_200.0, "2024-03-01T00:00:00Z");
        check(1_795_894_262.5, "2026-11-28T19:31:02Z");
        check(4_107_542_400.0, "2100-03-01T00:00:00Z");
        check(1_798_761_599.0, "2026-12-31T23:59:59Z");
        check(-1.0, "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_line_is_read_again() {
        let line = format(1_795_894_262.0, LogLevel::Warn, "no\nroom \u{1b}[2J");
        assert_eq!(line, "nemo-harness: 2026-11-28T19:31:02Z warn no room  [2J\n");
        assert_eq!(text(line.trim_end_matches('\n')), Some("no room  [2J"));
        let line = format(1_795_894_262.25, LogLevel::Debug, "x");
        assert_eq!(line, "nemo-harness: 2026-11-28T19:31:02.250Z debug x\n");
        assert_eq!(text("nemo-harness: as it was before"), Some("as it was before"));
        assert_eq!(text("step 1 warn x"), None);
        let line = format(1_795_894_262.0, LogLevel::Error, "no disk");
        assert_eq!(error(line.trim_end_matches('\n')), Some("no disk"));
        assert_eq!((error("nemo-harness: x warn error y"), error("error x")), (None, None));
    }
}
