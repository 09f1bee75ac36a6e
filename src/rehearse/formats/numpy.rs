//! NumPy's `.npy`, versions 1 to 3. Pure.

use std::borrow::Cow;

use super::{DType, Leaf, pickled};

/// The array of a file; of an array of objects, what is pickled in it.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, start) = match rest.first()? {
        1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), 4_usize),
        _ => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, 6),
    };
    let end = start.checked_add(length)?;
    let header = str::from_utf8(rest.get(start..end)?).ok()?;
    let data = rest.get(end..)?;
    let kind = header.split_once("'descr': '").and_then(|(_, rest)| rest.split_once('\''));
    let kind = kind.map_or("", |(kind, _)| kind);
    if kind == "|O" {
        return pickled::read(data);
    }
    Some(vec![array("", kind, Cow::Borrowed(data))])
}

/// An array of a type such as `<f4`; the bytes are put into little endian.
pub(super) fn array<'a>(name: &str, descr: &str, data: Cow<'a, [u8]>) -> Leaf<'a> {
    let order = descr.bytes().next().unwrap_or(b'|');
    let kind = DType::numpy(descr.trim_start_matches(['<', '>', '|', '=']));
    if order != b'>' || kind.width() == 1 {
        return Leaf::array(name, kind, data);
    }
    let swapped: Vec<u8> =
        data.chunks(kind.width()).flat_map(|number| number.iter().rev().copied()).collect();
    Leaf::array(name, kind, swapped.into())
}
