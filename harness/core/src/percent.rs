//! Bytes as printable text without loss: `%XX` stands for a byte that is not plain. Pure.

use std::fmt::Write;

/// Adds the bytes to a text. `is_plain` says which stand for themselves: printable ASCII, and never `%`.
pub fn encode(bytes: &[u8], is_plain: impl Fn(u8) -> bool, text: &mut String) {
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            let written = write!(text, "%{byte:02X}");
            debug_assert!(written.is_ok(), "a string takes everything");
        }
    }
}

/// The bytes of a text; nothing where a `%` is not followed by two hexadecimal digits.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_encoded() {
        let mut text = String::new();
        encode(b"a b%\xff", |byte| byte == b'a', &mut text);
        assert_eq!(text, "a%20%62%25%FF");
        assert_eq!(decode(&text).as_deref(), Some(&b"a b%\xff"[..]));
        for damaged in ["%", "%4", "%zz", "%\u{e4}"] {
            assert_eq!(decode(damaged), None, "{damaged}");
        }
    }
}
