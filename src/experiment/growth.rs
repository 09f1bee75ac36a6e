//! Amounts of memory and time that a retry changes: `64G`, `4h`, or `x1.5` of what was asked for. Pure.

use nemo_core::duration;

/// How an amount changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// A multiple of what was asked for.
    Times(f64),
    /// A fixed amount: megabytes or seconds.
    To(u64),
}

impl Growth {
    /// `x1.5`, or an amount that `read` reads.
    fn parse(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<Self> {
        let text = text.trim();
        let Some(factor) = text.strip_prefix('x') else { return read(text).map(Self::To) };
        let factor: f64 = factor.trim().parse().ok()?;
        ((1.0..=100.0).contains(&factor) && factor > 1.0).then_some(Self::Times(factor))
    }

    /// Of memory.
    #[must_use]
    pub fn of_memory(text: &str) -> Option<Self> {
        Self::parse(text, megabytes)
    }

    /// Of a time limit.
    #[must_use]
    pub fn of_time(text: &str) -> Option<Self> {
        Self::parse(text, |text| duration::parse_positive(text).ok())
    }

    /// The amount after the change.
    #[must_use]
    pub fn after(self, before: u64) -> u64 {
        match self {
            Self::Times(factor) => scaled(before, factor),
            Self::To(amount) => amount,
        }
    }
}

/// A multiple, rounded up.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "memory and times are far below what a float can't hold"
)]
pub fn scaled(amount: u64, factor: f64) -> u64 {
    (amount as f64 * factor).ceil() as u64
}

/// Megabytes of `--mem`: `100`, `100M`, `8G`, `1T`, `2048K`.
#[must_use]
pub fn megabytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix(['B', 'b']).unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.to_ascii_uppercase().as_str() {
        "K" => Some(number.div_ceil(1024)),
        "" | "M" => Some(number),
        "G" => number.checked_mul(1024),
        "T" => number.checked_mul(1024 * 1024),
        _ => None,
    }
}

/// As `--mem` is written.
#[must_use]
pub fn memory_text(megabytes: u64) -> String {
    match megabytes {
        0 => "0".to_owned(),
        all if all % 1024 == 0 => format!("{}G", all / 1024),
        all => format!("{all}M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_slurm_reads_them() {
        for (text, expected) in
            [("100", 100), ("100M", 100), ("8G", 8192), ("1T", 1 << 20), ("2048K", 2)]
        {
            assert_eq!(megabytes(text), Some(expected), "{text}");
        }
        assert_eq!(megabytes("lots"), None);
        assert_eq!([memory_text(150), memory_text(98_304)], ["150M", "96G"]);
        assert_eq!(Growth::of_memory("x1.5").map(|it| it.after(65_536)), Some(98_304));
        assert_eq!(Growth::of_memory("96G").map(|it| it.after(1)), Some(98_304));
        assert_eq!(Growth::of_time("x2").map(|it| it.after(3600)), Some(7200));
        for text in ["x1", "x0.5", "x", "xx2", "x1000", "x-2", "xNaN", "more"] {
            assert_eq!(Growth::of_memory(text), None, "{text}");
        }
    }
}
