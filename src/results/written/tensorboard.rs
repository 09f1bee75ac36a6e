//! TensorBoard's event files: records with checksums, each an `Event`. Scalars of TF1 (`simple_value`) and of TF2
//! (tensors of one number) are read; everything else is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use nemo_core::open;

use super::crc::masked_castagnoli;
use super::find::WrittenFile;
use super::protobuf::{ProtobufField, ProtobufFields, cut_field, varint};
use super::{LeftOut, MetricSource, Take, WrittenValue};

/// Larger records are images or graphs, and hold no scalar as a rule.
const LONGEST_RECORD: u64 = 1 << 20;
/// How many bytes of a larger record are read to tell what it is.
const BEGINNING: u64 = 256;

/// Calls a function with each scalar of a file.
pub(super) fn each(path: &Path, take: Take<'_>) -> io::Result<LeftOut> {
    each_scalar(&mut BufReader::with_capacity(256 * 1024, open::to_read(path)?), take)
}

/// The same for any input. A torn last record is no damage: it is being written, or its writer was killed.
pub fn each_scalar(input: &mut impl Read, take: Take<'_>) -> io::Result<LeftOut> {
    let (mut data, mut damaged, mut too_large, mut offset) = (Vec::new(), 0, 0, 0_u64);
    while let Some(head) = exactly::<12>(input)? {
        let (length, sum) = (number(&head[..8]), number(&head[8..]));
        if u64::from(masked_castagnoli(&head[..8])) != sum {
            // Where the next record begins is not known.
            return Ok(vec![format!("is damaged: nothing can be read from byte {offset} on")]);
        }
        // A length that no file can have, though its checksum is right.
        let Some((end, rest)) = next_record(offset, length) else { break };
        offset = end;
        data.clear();
        if length > LONGEST_RECORD {
            (&mut *input).take(BEGINNING).read_to_end(&mut data)?;
            let left = rest.saturating_sub(BEGINNING);
            if io::copy(&mut input.take(left), &mut io::sink())? < left {
                break;
            }
            too_large += usize::from(may_hold_scalars(&data));
            continue;
        }
        if (&mut *input).take(length).read_to_end(&mut data)? as u64 != length {
            break;
        }
        let Some(sum) = exactly::<4>(input)? else { break };
        if masked_castagnoli(&data) == u32::from_le_bytes(sum) {
            event_scalars(&data, take)?;
        } else {
            damaged += 1;
        }
    }
    let damaged = super::damaged(damaged, "record");
    Ok(damaged.into_iter().chain(super::too_large(too_large, "1 MiB")).collect())
}

/// Where the next record begins, and how many bytes come before it behind the head.
fn next_record(offset: u64, length: u64) -> Option<(u64, u64)> {
    let rest = length.checked_add(4)?;
    Some((offset.checked_add(12)?.checked_add(rest)?, rest))
}

/// The next `N` bytes; none at the end, or where fewer are left.
fn exactly<const N: usize>(input: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a record of which this is the beginning is a summary of several values: an image, a histogram or a graph of
/// this size is alone in its record, and where TF1 merges summaries scalars may be beside it.
fn may_hold_scalars(beginning: &[u8]) -> bool {
    let Some((5, length, summary)) = cut_field(beginning) else { return false };
    match cut_field(summary) {
        Some((1, of_value, value)) if ProtobufFields(summary).next().is_none() => {
            let head = (summary.len() - value.len()) as u64;
            head.checked_add(of_value) != Some(length)
        }
        _ => true,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Calls a function with each scalar of an event, the inside of a record.
pub fn event_scalars(data: &[u8], take: Take<'_>) -> io::Result<()> {
    let (mut time, mut step) = (None, 0);
    for (field, value) in ProtobufFields(data) {
        match (field, value) {
            (1, ProtobufField::Fixed64(bytes)) => time = Some(f64::from_le_bytes(bytes)),
            (2, ProtobufField::Varint(number)) => step = number,
            _ => {}
        }
    }
    let time = time.filter(|time| time.is_finite() && *time > 0.0);
    // A step that is negative is none.
    let step = i64::try_from(step).is_ok().then_some(step);
    for summary in ProtobufFields(data).filter(|it| it.0 == 5).filter_map(|it| it.1.bytes()) {
        for value in ProtobufFields(summary).filter(|it| it.0 == 1).filter_map(|it| it.1.bytes()) {
            if let Some((metric, number)) = scalar(value) {
                let value = number.is_finite().then_some(number);
                take(WrittenValue { metric, step, time, value })?;
            }
        }
    }
    Ok(())
}

/// `Summary.Value`: a tag, and a number.
fn scalar(value: &[u8]) -> Option<(String, f64)> {
    let (mut tag, mut number) = (None, None);
    for (field, value) in ProtobufFields(value) {
        match (field, value) {
            (1, text) => tag = text.text(),
            (2, ProtobufField::Fixed32(bytes)) => {
                number = Some(shortest(f32::from_le_bytes(bytes)));
            }
            (8, tensor) => number = tensor.bytes().and_then(tensor_scalar),
            _ => {}
        }
    }
    Some((tag.filter(|tag| !tag.is_empty())?.to_owned(), number?))
}

/// `TensorProto` of one number without dimensions.
fn tensor_scalar(tensor: &[u8]) -> Option<f64> {
    let (mut kind, mut content, mut typed) = (0, &[][..], None);
    for (field, value) in ProtobufFields(tensor) {
        match (field, value) {
            (1, ProtobufField::Varint(number)) => kind = number,
            (2, shape) if ProtobufFields(shape.bytes()?).any(|(field, _)| field == 2) => {
                return None;
            }
            (4, bytes) => content = bytes.bytes()?,
            (5..=7 | 10 | 11 | 13, value) => typed = Some((field, value)),
            _ => {}
        }
    }
    match (kind, content) {
        (1, [a, b, c, d]) => Some(shortest(f32::from_le_bytes([*a, *b, *c, *d]))),
        (2, bytes) if bytes.len() == 8 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        (3, bytes) if bytes.len() == 4 => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        (9, bytes) if bytes.len() == 8 => Some(whole(i64::from_le_bytes(bytes.try_into().ok()?))),
        (14, [a, b]) => Some(bfloat(u16::from_le_bytes([*a, *b]))),
        (19, [a, b]) => Some(half(u16::from_le_bytes([*a, *b]))),
        (_, []) => typed_scalar(kind, typed?),
        _ => None,
    }
}

/// The first number of a typed list, which may be packed.
fn typed_scalar(kind: u64, (field, value): (u64, ProtobufField<'_>)) -> Option<f64> {
    let first = |bytes: &[u8]| varint(&mut &*bytes);
    match (field, value) {
        (5, ProtobufField::Fixed32(bytes)) => Some(shortest(f32::from_le_bytes(bytes))),
        (5, ProtobufField::Bytes(bytes)) => {
            Some(shortest(f32::from_le_bytes(*bytes.first_chunk()?)))
        }
        (6, ProtobufField::Fixed64(bytes)) => Some(f64::from_le_bytes(bytes)),
        (6, ProtobufField::Bytes(bytes)) => Some(f64::from_le_bytes(*bytes.first_chunk()?)),
        (7 | 10 | 11, ProtobufField::Varint(number)) => Some(whole(number.cast_signed())),
        (7 | 10 | 11, ProtobufField::Bytes(bytes)) => Some(whole(first(bytes)?.cast_signed())),
        (13, value) => {
            let bits = match value {
                ProtobufField::Varint(bits) => bits,
                ProtobufField::Bytes(bytes) => first(bytes)?,
                ProtobufField::Fixed32(_) | ProtobufField::Fixed64(_) => return None,
            };
            let bits = u16::try_from(bits).ok()?;
            Some(if kind == 14 { bfloat(bits) } else { half(bits) })
        }
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn whole(number: i64) -> f64 {
    number as f64
}

/// The number that a person would have written: 0.1, not 0.10000000149011612.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn bfloat(bits: u16) -> f64 {
    shortest(f32::from_bits(u32::from(bits) << 16))
}

/// A number of 16 bits, as IEEE 754 has it.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

/// Under which name the values of a file stand, where others have the same tags.
pub(super) struct TagPrefix {
    folder: String,
    shared: BTreeSet<String>,
}

impl TagPrefix {
    /// The folder that tells a metric from that of another writer.
    pub(super) fn of(&self, metric: &str) -> Option<&str> {
        self.shared.contains(metric).then_some(&self.folder)
    }
}

/// Several writers may use the same tag in the same attempt, as Keras does for training and validation: then the folder
/// is part of the metric's name.
pub(super) fn prefixes(files: &[WrittenFile]) -> BTreeMap<PathBuf, TagPrefix> {
    let of_events = || files.iter().filter(|file| file.source == MetricSource::Tensorboard);
    let folders: BTreeSet<&Path> = of_events().filter_map(|file| file.path.parent()).collect();
    let mut prefixes = BTreeMap::new();
    if folders.len() < 2 {
        return prefixes;
    }
    let mut tags: Vec<(&WrittenFile, BTreeSet<String>, (f64, f64))> = Vec::new();
    for file in of_events() {
        let (mut own, mut times) = (BTreeSet::new(), (f64::INFINITY, 0.0_f64));
        // What can't be read is told when the values are.
        let read = each(&file.path, &mut |value| {
            let time = value.time.unwrap_or_default();
            times = (times.0.min(time), times.1.max(time));
            own.insert(value.metric);
            Ok(())
        });
        drop(read);
        tags.push((file, own, times));
    }
    for (file, own, times) in &tags {
        let beside = tags.iter().filter(|(other, _, at)| {
            other.path.parent() != file.path.parent() && at.0 <= times.1 && times.0 <= at.1
        });
        let shared: BTreeSet<String> =
            beside.flat_map(|(_, other, _)| own.intersection(other).cloned()).collect();
        let folder = file.path.parent().and_then(Path::file_name);
        let folder = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        prefixes.insert(file.path.clone(), TagPrefix { folder, shared });
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_no_file_has_ends_the_file() {
        for length in [u64::MAX, u64::MAX - 3, u64::MAX - 16] {
            let mut head = length.to_le_bytes().to_vec();
            head.extend(masked_castagnoli(&length.to_le_bytes()).to_le_bytes());
            assert_eq!(each_scalar(&mut &head[..], &mut |_| Ok(())).unwrap(), LeftOut::new());
        }
    }
}
