//! Durations and amounts of memory, as people and Slurm write them.

use nemo_core::duration;

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

/// Seconds, as in `1h 30min` or `01:30:00`. Never 0.
pub(super) fn duration(text: &str) -> Result<u64, UnitError> {
    duration::parse_positive(text)
        .map_err(|error| UnitError::hinted(error.to_string(), duration::HINT))
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

/// Bytes, written as memory is.
pub(super) fn bytes(text: &str) -> Result<u64, UnitError> {
    let memory = memory(text)?;
    let digits = memory.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match memory.strip_prefix(digits) {
        Some("K") => 10,
        Some("M") => 20,
        Some("G") => 30,
        Some("T") => 40,
        _ => 0,
    };
    // Neither can fail: it was read before.
    Ok(digits.parse::<u64>().map_or(u64::MAX, |amount| amount << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_memory(text: &str, expected: Result<&str, &str>) {
        let found = memory(text).map_err(|refusal| refusal.message);
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_size_is_exact() {
        let read = |text: &str| bytes(text).ok();
        assert_eq!(["1K", "95MiB", "2G"].map(read), [Some(1024), Some(95 << 20), Some(2 << 30)]);
        assert_eq!(["0", "1", "0K", "much"].map(read), [Some(0), None, None, None]);
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
