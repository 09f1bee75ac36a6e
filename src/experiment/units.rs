//! Durations and amounts of memory, as people and Slurm write them.

/// Why a text was refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnitError {
    pub(super) message: String,
    pub(super) hint: String,
}

impl UnitError {
    pub(super) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

const DAY: u64 = 24 * 60 * 60;
const LONGEST: u64 = 100 * 365 * DAY;
const UNITS: [(char, u64); 4] = [('d', DAY), ('h', 3600), ('m', 60), ('s', 1)];

/// Seconds of `2d`, `1h30m`, `90s`, or Slurm's `1-02:04:00` and `HH:MM:SS`. Never 0.
pub(super) fn duration(text: &str) -> Result<u64, UnitError> {
    let refuse = |why: &str| {
        let hint = "write for example \"90s\", \"10m\", \"1h30m\", \"2d\" or \"1-12:00:00\"";
        Err(UnitError::hinted(format!("{text:?} is not a duration{why}"), hint))
    };
    let seconds = match text.trim() {
        "" => return refuse(""),
        number if number.bytes().all(|b| b.is_ascii_digit()) => return refuse(": it has no unit"),
        clock if clock.contains([':', '-']) => from_clock(clock),
        units => from_units(units),
    };
    match seconds {
        None => refuse(""),
        Some(0) => refuse(" of at least a second"),
        Some(seconds) if seconds > LONGEST => refuse(" of less than 100 years"),
        Some(seconds) => Ok(seconds),
    }
}

/// `1d 2h30m`: larger units first, each once.
fn from_units(text: &str) -> Option<u64> {
    let mut units = UNITS.into_iter();
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, seconds) = units.find(|(letter, _)| *letter == unit)?;
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = rest[digits + unit.len_utf8()..].trim_start();
    }
    Some(total)
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
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Memory as Slurm writes it: `8g`, `8GB` and `8GiB` are its `8G`. `0` is all that a node has.
pub(super) fn memory(text: &str) -> Result<String, UnitError> {
    let refuse = |why: &str| {
        let hint = "write for example \"500M\", \"8G\" or \"1T\"";
        Err(UnitError::hinted(format!("{text:?} is not an amount of memory{why}"), hint))
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim_start().to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
    if trimmed == "0" {
        return Ok(trimmed.to_owned());
    }
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "" if !number.is_empty() => return refuse(": it has no unit"),
        _ => return refuse(""),
    };
    match number.parse::<u64>() {
        Err(_) if number.is_empty() => refuse(""),
        Ok(0) => refuse(": it must be more than 0"),
        Ok(amount) if amount <= u64::MAX >> shift => Ok(format!("{amount}{unit}")),
        Ok(_) | Err(_) => refuse(": it is more than any machine has"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Result<u64, &str>) {
        let found = duration(text);
        assert_eq!(
            found.as_ref().map_err(|refusal| refusal.message.as_str()),
            expected.as_ref().map_err(|s| *s)
        );
    }

    #[test]
    fn durations_of_people_and_of_slurm() {
        check_duration("90s", Ok(90));
        check_duration("10m", Ok(600));
        check_duration("4h", Ok(14_400));
        check_duration("2d", Ok(172_800));
        check_duration("1h30m", Ok(5400));
        check_duration("1d 2h 3m 4s", Ok(93_784));
        check_duration("1-02:04:00", Ok(93_840));
        check_duration("1-02", Ok(93_600));
        check_duration("1-02:04", Ok(93_840));
        check_duration("04:00:00", Ok(14_400));
        check_duration("100:00:00", Ok(360_000));
        check_duration(" 4h ", Ok(14_400));
    }

    #[test]
    fn what_is_no_duration() {
        check_duration("", Err("\"\" is not a duration"));
        check_duration("4", Err("\"4\" is not a duration: it has no unit"));
        check_duration("0s", Err("\"0s\" is not a duration of at least a second"));
        check_duration("0-00:00:00", Err("\"0-00:00:00\" is not a duration of at least a second"));
        check_duration("-4h", Err("\"-4h\" is not a duration"));
        check_duration("1.5h", Err("\"1.5h\" is not a duration"));
        check_duration("30m1h", Err("\"30m1h\" is not a duration")); // a typo more likely than a wish
        check_duration("1h1h", Err("\"1h1h\" is not a duration"));
        check_duration("10:30", Err("\"10:30\" is not a duration")); // MM:SS or HH:MM?
        check_duration("00:99:00", Err("\"00:99:00\" is not a duration"));
        check_duration("1-24:00:00", Err("\"1-24:00:00\" is not a duration"));
        check_duration("1-2-3", Err("\"1-2-3\" is not a duration"));
        check_duration(":::", Err("\":::\" is not a duration"));
        check_duration("four hours", Err("\"four hours\" is not a duration"));
        check_duration("4h!", Err("\"4h!\" is not a duration"));
        check_duration("40000d", Err("\"40000d\" is not a duration of less than 100 years"));
        let huge = "99999999999999999999d";
        check_duration(huge, Err("\"99999999999999999999d\" is not a duration"));
    }

    #[track_caller]
    fn check_memory(text: &str, expected: Result<&str, &str>) {
        let found = memory(text).map_err(|refusal| refusal.message);
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[test]
    fn memory_is_written_as_slurm_does() {
        check_memory("8G", Ok("8G"));
        check_memory("500M", Ok("500M"));
        check_memory("1T", Ok("1T"));
        check_memory("8gb", Ok("8G"));
        check_memory("8 GiB", Ok("8G"));
        check_memory("08G", Ok("8G"));
        check_memory("0", Ok("0"));
        check_memory("8", Err("\"8\" is not an amount of memory: it has no unit"));
        check_memory("0G", Err("\"0G\" is not an amount of memory: it must be more than 0"));
        check_memory("", Err("\"\" is not an amount of memory"));
        check_memory("G", Err("\"G\" is not an amount of memory"));
        check_memory("-8G", Err("\"-8G\" is not an amount of memory"));
        check_memory("1.5G", Err("\"1.5G\" is not an amount of memory"));
        check_memory("8X", Err("\"8X\" is not an amount of memory"));
        check_memory(
            "99999999T",
            Err("\"99999999T\" is not an amount of memory: it is more than any machine has"),
        );
        check_memory("é", Err("\"é\" is not an amount of memory"));
    }
}
