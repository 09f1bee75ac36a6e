//! A checksum in the last field of a JSON object, so that damage to a line or a file is noticed.
//!
//! `{"event":"end"}` becomes `{"event":"end","checksum":"a1b2c3d4"}`: the BLAKE3 hash of all bytes before the comma, cut
//! to 32 bits. An object without the field is read as it is: another program may have written it.

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

/// The hexadecimal digits of a checksum.
const DIGITS: usize = 8;

/// What the checksum of an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It has none.
    Absent,
    /// The object is as it was written.
    Right,
    /// It is not.
    Wrong,
}

/// A value as one line of JSON with a checksum, without a line break. A value that is no object gets none.
pub fn to_vec(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    seal(&mut text, "", "");
    Ok(text)
}

/// A value as a file for people and programs: indented, with a checksum and a last line break.
pub fn to_vec_pretty(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    seal(&mut text, "\n  ", "\n");
    text.push(b'\n');
    Ok(text)
}

/// Reads a value back. A wrong checksum is an error like a missing bracket.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    from_checked(text, check(text))
}

/// The same for a text whose checksum was compared already.
pub(crate) fn from_checked<T: DeserializeOwned>(
    text: &[u8],
    checksum: Checksum,
) -> serde_json::Result<T> {
    match checksum {
        Checksum::Wrong => Err(serde_json::Error::custom("its checksum does not fit its content")),
        Checksum::Right | Checksum::Absent => serde_json::from_slice(text),
    }
}

/// Compares an object's checksum, where it has one, with its content.
#[must_use]
pub fn check(text: &[u8]) -> Checksum {
    match split(text) {
        None => Checksum::Absent,
        Some((content, digits)) if digits == of(content) => Checksum::Right,
        Some(_) => Checksum::Wrong,
    }
}

/// Puts the field behind the last one of an object that has any.
fn seal(text: &mut Vec<u8>, before: &str, after: &str) {
    let Some(content) = text.strip_suffix(b"}").map(<[u8]>::trim_ascii_end) else { return };
    if content.ends_with(b"{") {
        return;
    }
    let (length, digits) = (content.len(), of(content));
    text.truncate(length);
    let parts =
        [b",", before.as_bytes(), b"\"checksum\":\"", &digits, b"\"", after.as_bytes(), b"}"];
    text.extend_from_slice(&parts.concat());
}

/// An object's bytes before the field, and the digits in it.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end().strip_suffix(b"\"")?;
    let (text, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    let text = text.strip_suffix(b"\"checksum\":\"")?.trim_ascii_end();
    Some((text.strip_suffix(b",")?, digits))
}

/// The checksum of a content, in hexadecimal digits.
pub(crate) fn of(content: &[u8]) -> [u8; DIGITS] {
    let hash = blake3::hash(content);
    let digit = |place: usize| (hash.as_bytes()[place / 2] >> (4 * (1 - place % 2))) & 0xf;
    std::array::from_fn(|place| b"0123456789abcdef"[usize::from(digit(place))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_was_written_is_read_back() {
        for value in [json!({"event": "end", "time": 1.5}), json!({"a": {"b": "}\"checksum\":"}})] {
            for text in [to_vec(&value).unwrap(), to_vec_pretty(&value).unwrap()] {
                assert_eq!(check(&text), Checksum::Right);
                let Value::Object(mut read) = from_slice(&text).unwrap() else { panic!() };
                assert!(read.remove("checksum").is_some());
                assert_eq!(Value::Object(read), value);
            }
        }
        assert_eq!(check(b"{\"event\":\"end\"}"), Checksum::Absent);
        assert_eq!(to_vec(&7).unwrap(), b"7");
        assert_eq!(to_vec(&json!({})).unwrap(), b"{}");
    }

    /// Flips each bit. Whatever is then still read is what was written.
    #[track_caller]
    fn check_flips(value: &Value, text: &[u8]) {
        for place in 0..text.len() * 8 {
            let mut flipped = text.to_vec();
            flipped[place / 8] ^= 1 << (place % 8);
            let read = from_slice::<serde_json::Map<String, Value>>(&flipped).ok();
            for (key, own) in value.as_object().unwrap() {
                assert!(read.as_ref().is_none_or(|read| read.get(key) == Some(own)), "bit {place}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_changes_no_value() {
        let value = json!({"event": "end", "attempt": 0, "time": 17.25, "next": "done", "x": null});
        check_flips(&value, &to_vec(&value).unwrap());
        check_flips(&value, &to_vec_pretty(&value).unwrap());
    }
}
