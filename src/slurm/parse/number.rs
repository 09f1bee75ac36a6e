//! Decimal numbers, by hand: they are most of the bytes of an answer, and nom's own cost three times as much.

use nom::error::ErrorKind;

use super::{Expected, Reading};

/// A number of at most 19 digits, and what follows it.
#[inline]
fn digits(input: &[u8]) -> Option<(&[u8], u64)> {
    let mut value = 0_u64;
    let mut length = 0;
    while let Some(byte) = input.get(length)
        && byte.is_ascii_digit()
    {
        if length == 19 {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
        length += 1;
    }
    if length == 0 { None } else { Some((&input[length..], value)) }
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
