//! Numbers and times in words.

/// `1 trial`, `2 trials`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `` `a`, `b`, `c` ``, or `none`.
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

/// Rising numbers as ranges: `0-3, 7`.
#[must_use]
pub fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect::<Vec<_>>()
        .join(", ")
}

/// Seconds as a person says them: `42s`, `3m 20s`, `5h 10m`, `2d 3h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds, never negative"
    )]
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m {}s", whole % 60),
        3600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A size in the units of 1024: `512 B`, `1.5 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut number = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    let text = if number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") };
    format!("{} {unit}", text.trim_end_matches(".0"))
}

/// How long ago something was.
#[must_use]
pub fn age(then: u64, now: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let seconds = now - then as f64;
    format!("{} ago", duration(seconds))
}

/// How long ago something was, in its largest unit: `2d ago`.
#[must_use]
pub fn short_age(seconds: f64) -> String {
    let whole = duration(seconds);
    format!("{} ago", whole.split(' ').next().unwrap_or(&whole))
}

/// A metric, with at least four significant digits: a loss of 0.001234 is not one of 0.0012. Null is what was kept of a
/// value that is not finite.
#[must_use]
pub fn metric(value: &serde_json::Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract().abs() < f64::EPSILON && number.abs() < 1e6 => {
            format!("{number}")
        }
        Some(number) if (1e-3..1e5).contains(&number.abs()) => {
            let decimals = match number.abs() {
                0.1.. => 4,
                0.01.. => 5,
                _ => 6,
            };
            let text = format!("{number:.decimals$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Some(number) => format!("{number:.3e}"),
        None if value.is_null() => "nan/inf".to_owned(),
        None => value.to_string(),
    }
}

/// GPU-seconds as GPU-hours, without digits that say nothing: `500`, `12.5`, `0.004`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
pub fn gpu_hours(gpu_seconds: u64) -> String {
    let hours = gpu_seconds as f64 / 3600.0;
    let text = if hours < 1.0 { format!("{hours:.3}") } else { format!("{hours:.1}") };
    match text.trim_end_matches('0').trim_end_matches('.') {
        "0" => format!("{hours:.5}"),
        short => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals() {
        assert_eq!(
            [count(0, "trial"), count(1, "trial"), count(2, "trial")],
            ["0 trials", "1 trial", "2 trials"]
        );
    }

    #[test]
    fn numbers_in_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(ranges(&[u32::MAX - 1, u32::MAX]), "4294967294-4294967295");
    }

    #[test]
    fn sizes() {
        let check = |number, expected| assert_eq!(bytes(number), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(25 << 20, "25 MiB");
        check(u64::MAX, "16384 PiB");
    }

    #[test]
    fn durations() {
        let check = |seconds, expected| assert_eq!(duration(seconds), expected);
        check(-1.0, "0s");
        check(59.4, "59s");
        check(200.0, "3m 20s");
        check(18_600.0, "5h 10m");
        check(183_600.0, "2d 3h");
    }

    #[test]
    fn metrics() {
        let check = |value: f64, expected| assert_eq!(metric(&serde_json::json!(value)), expected);
        check(0.123_456, "0.1235");
        check(12.0, "12");
        check(0.5, "0.5");
        check(0.001_234_56, "0.001235");
        check(0.023_456_78, "0.02346");
        check(1e-7, "1.000e-7");
        check(123_456.7, "1.235e5");
        assert_eq!(metric(&serde_json::Value::Null), "nan/inf");
    }
}
