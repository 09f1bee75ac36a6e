//! The members of a zip file, as NumPy and PyTorch write them. Pure.

use std::borrow::Cow;

use miniz_oxide::inflate;

/// One file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) name: String,
    /// How it is packed: 0 is not at all, 8 is deflate.
    pub(super) method: u16,
    /// As it lies in the archive.
    pub(super) data: &'a [u8],
    /// Its length once it is unpacked.
    pub(super) length: u64,
}

/// No more than this is unpacked of one archive.
pub(super) const LARGEST: u64 = 2 << 30;

impl<'a> Member<'a> {
    /// What it holds; none where it can't be unpacked.
    pub(super) fn unpacked(&self) -> Option<Cow<'a, [u8]>> {
        match self.method {
            0 => Some(Cow::Borrowed(self.data)),
            8 if self.length <= LARGEST => {
                let limit = usize::try_from(self.length).ok()?;
                let data = inflate::decompress_to_vec_with_limit(self.data, limit).ok()?;
                Some(Cow::Owned(data))
            }
            _ => None,
        }
    }
}

/// Reads the directory at the end.
pub(super) fn members(bytes: &[u8]) -> Option<Vec<Member<'_>>> {
    if !bytes.starts_with(b"PK\x03\x04") {
        return None;
    }
    // The end record is 22 bytes and a comment that may be long.
    let tail = bytes.len().saturating_sub(22 + 65_535);
    let end = tail + bytes[tail..].windows(4).rposition(|window| window == b"PK\x05\x06")?;
    bytes.get(end..end + 22)?;
    let (mut count, mut at) =
        (u64::from(u16_at(bytes, end + 10)?), u64::from(u32_at(bytes, end + 16)?));
    if let Some(locator) = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(b"PK\x06\x07"))
    {
        let record = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
        (count, at) =
            (u64_at(bytes, record.checked_add(32)?)?, u64_at(bytes, record.checked_add(48)?)?);
    }
    let mut at = usize::try_from(at).ok()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let (member, next) = member(bytes, at)?;
        members.push(member);
        at = next;
    }
    Some(members)
}

/// The member that the directory's entry at this place tells of, and where the next entry is.
fn member(bytes: &[u8], at: usize) -> Option<(Member<'_>, usize)> {
    if bytes.get(at..at.checked_add(4)?)? != b"PK\x01\x02" {
        return None;
    }
    let lengths = [28, 30, 32].map(|field| u16_at(bytes, at.checked_add(field)?).map(usize::from));
    let [name_length, extra_length, comment] = [lengths[0]?, lengths[1]?, lengths[2]?];
    let name_end = at.checked_add(46 + name_length)?;
    let name = String::from_utf8_lossy(bytes.get(at + 46..name_end)?).into_owned();
    let extra = bytes.get(name_end..name_end + extra_length)?;
    let (whole, packed) = (u32_at(bytes, at + 24)?, u32_at(bytes, at + 20)?);
    let offset = u32_at(bytes, at + 42)?;
    let [whole, packed, offset] = long([whole, packed, offset], extra)?;
    let start = usize::try_from(offset).ok()?;
    let header = [26, 28].map(|field| Some(usize::from(u16_at(bytes, start.checked_add(field)?)?)));
    let data = start.checked_add(30 + header[0]? + header[1]?)?;
    let length = usize::try_from(packed).ok()?;
    let data = bytes.get(data..data.checked_add(length)?)?;
    let member = Member { name, method: u16_at(bytes, at + 10)?, data, length: whole };
    Some((member, name_end + extra_length + comment))
}

/// Sizes and offsets beyond 4 GiB stand in an extra field (zip64), in this order, each only where it is needed.
fn long(fields: [u32; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    let mut longs: &[u8] = &[];
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let body = extra.get(4..4 + length)?;
        if id == 1 {
            longs = body;
        }
        extra = &extra[4 + length..];
    }
    let mut values = [0; 3];
    for (value, field) in values.iter_mut().zip(fields) {
        *value = u64::from(field);
        if field == u32::MAX {
            *value = u64_at(longs, 0)?;
            longs = &longs[8..];
        }
    }
    Some(values)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `zipfile.ZipFile("x.zip", "w")` with `writestr("a", "one")` and `writestr("b/c", "two")`, by hand.
    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut directory = Vec::new();
        for (name, data) in [("a", "one"), ("b/c", "two")] {
            let offset = u32::try_from(bytes.len()).unwrap();
            let lengths = [data.len(), data.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes());
            let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
            bytes.extend(b"PK\x03\x04");
            bytes.extend([0; 14]);
            bytes.extend(lengths.concat());
            bytes.extend(name_length);
            bytes.extend([0; 2]);
            bytes.extend(name.as_bytes());
            bytes.extend(data.as_bytes());
            directory.extend(b"PK\x01\x02");
            directory.extend([0; 16]);
            directory.extend(lengths.concat());
            directory.extend(name_length);
            directory.extend([0; 12]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let at = u32::try_from(bytes.len()).unwrap();
        let size = u32::try_from(directory.len()).unwrap();
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0, 0, 0, 0, 2, 0, 2, 0]);
        bytes.extend(size.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    }

    #[test]
    fn members_are_found_by_the_directory() {
        let archive = archive();
        let found: Vec<(String, &[u8])> =
            members(&archive).unwrap().into_iter().map(|own| (own.name, own.data)).collect();
        assert_eq!(found, [("a".to_owned(), &b"one"[..]), ("b/c".to_owned(), b"two")]);
    }

    #[test]
    fn a_torn_archive_is_none() {
        let archive = archive();
        for end in 0..archive.len() - 1 {
            assert_eq!(members(&archive[..end]), None, "{end}");
        }
    }
}
