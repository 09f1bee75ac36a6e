//! Decimal numbers, by hand, eight digits at once: they are most of the bytes of an answer, and nom's own cost five times as
//! much.

use nom::error::ErrorKind;

use super::{Expected, Reading};

/// A number of at most 19 digits, and what follows it.
#[inline]
fn digits(input: &[u8]) -> Option<(&[u8], u64)> {
    let (mut rest, mut value) = (input, 0);
    // A time begins with so many; of those shorter than that, each digit is a step.
    if let Some((word, more)) = input.split_first_chunk::<8>()
        && let Some(eight) = eight_digits(u64::from_le_bytes(*word))
    {
        (rest, value) = (more, eight);
    }
    while let Some((byte @ b'0'..=b'9', more)) = rest.split_first() {
        if input.len() - more.len() > MAX_DIGITS {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
        rest = more;
    }
    (rest.len() < input.len()).then_some((rest, value))
}

/// More digits than this may not fit into 64 bits.
const MAX_DIGITS: usize = 19;

/// The value of 8 bytes that are digits, without a step for each: all are looked at as one word, and neighbours are added in
/// pairs, then pairs of pairs.
#[inline]
const fn eight_digits(word: u64) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let values = word ^ (EACH * 0x30);
    // The top bit of each byte that is above 9.
    let others = (values | ((values & (EACH * 0x7f)) + EACH * 0x76)) & (EACH * 0x80);
    if others != 0 {
        return None;
    }
    let pairs = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// A number that fits.
#[inline]
pub(super) fn number<T: TryFrom<u64>>(input: &[u8]) -> Reading<'_, T> {
    let read = digits(input).and_then(|(rest, value)| Some((rest, T::try_from(value).ok()?)));
    read.ok_or_else(|| {
        nom::Err::Error(<Expected<'_> as nom::error::ParseError<_>>::from_error_kind(
            input,
            ErrorKind::Digit,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, u64)>) {
        let read = digits(text.as_bytes());
        assert_eq!(read, expected.map(|(rest, value)| (rest.as_bytes(), value)), "of `{text}`");
    }

    #[test]
    fn numbers_of_every_length_are_read() {
        for length in 1..=19 {
            let number = &"9876543210123456789"[..length];
            for rest in ["", "/", ":", "x", "\u{1f}1759999940", " 12345678", "é"] {
                check(&format!("{number}{rest}"), Some((rest, number.parse().unwrap())));
            }
        }
        check("00000000000000007_", Some(("_", 7)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "éé1234567",
            "\u{1f}12345678",
            "12345678901234567890",
            "123456789012345678901234x",
        ] {
            check(text, None);
        }
    }
}
