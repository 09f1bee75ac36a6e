//! W&B's offline files, `run-….wandb`: a log as LevelDB has it (blocks of 32 KiB, records in fragments with checksums),
//! each record a message of which only the history is read.

use std::io::{self, BufReader, Read};
use std::path::Path;

use nemo_core::open;
use serde_json::Value;

use super::crc::ieee;
use super::protobuf::{ProtobufField, ProtobufFields, cut_field};
use super::{LeftOut, Take, WrittenValue};

const BLOCK: usize = 32 * 1024;
/// `:W&B`, a number and a version.
const FILE_HEAD: usize = 7;
/// The field of a record that holds the history.
const HISTORY: u64 = 2;
/// A checksum, a length and a kind.
const HEAD: usize = 7;
/// Longer records are no history as a rule.
const LONGEST_RECORD: usize = 4 << 20;
const FOREIGN: &str = "is damaged: it does not begin as a file of W&B";
/// Names that W&B gives itself, as `_runtime`.
const OWN: char = '_';

/// Calls a function with each value of the history.
pub(super) fn each(path: &Path, take: Take<'_>) -> io::Result<LeftOut> {
    each_record(&mut BufReader::with_capacity(BLOCK, open::to_read(path)?), take)
}

/// The same for any input. What is torn at the end is being written.
pub fn each_record(input: &mut impl Read, take: Take<'_>) -> io::Result<LeftOut> {
    let mut reader = RecordReader::new(take);
    let mut block = Vec::with_capacity(BLOCK);
    read_block(input, &mut block)?;
    if !block.starts_with(b":W&B") {
        let is_torn = block.len() < FILE_HEAD;
        return Ok(if is_torn { Vec::new() } else { vec![FOREIGN.to_owned()] });
    }
    reader.add_block(block.get(FILE_HEAD..).unwrap_or_default(), is_whole(&block))?;
    while is_whole(&block) {
        read_block(input, &mut block)?;
        reader.add_block(&block, is_whole(&block))?;
    }
    Ok(reader.left_out())
}

fn read_block(input: &mut impl Read, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    input.take(BLOCK as u64).read_to_end(block)?;
    Ok(())
}

/// Only the last block of a file is shorter.
fn is_whole(block: &[u8]) -> bool {
    block.len() == BLOCK
}

/// Which part of a record a fragment is, in LevelDB's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FragmentKind {
    Full,
    First,
    Middle,
    Last,
}

impl FragmentKind {
    fn begins_record(self) -> bool {
        matches!(self, Self::Full | Self::First)
    }

    fn ends_record(self) -> bool {
        matches!(self, Self::Full | Self::Last)
    }
}

impl TryFrom<u8> for FragmentKind {
    /// The number that is no kind.
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        match number {
            1 => Ok(Self::Full),
            2 => Ok(Self::First),
            3 => Ok(Self::Middle),
            4 => Ok(Self::Last),
            _ => Err(number),
        }
    }
}

/// A fragment as a block has it, right or damaged.
#[derive(Clone, Copy, Debug)]
struct Fragment<'a> {
    checksum: u32,
    kind: u8,
    data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Cuts the next fragment off a block. None at its end: what is shorter than a head fills the block up.
    fn cut(rest: &mut &'a [u8], is_whole: bool) -> Option<Self> {
        let head: &[u8; HEAD] = rest.first_chunk()?;
        let [a, b, c, d, low, high, kind] = *head;
        let length = usize::from(u16::from_le_bytes([low, high]));
        let body = &rest[HEAD..];
        if body.len() < length {
            // In a whole block this is damage, at the end of the file a fragment that is being written.
            *rest = &[];
            return is_whole.then_some(Self { checksum: !0, kind, data: &[] });
        }
        let (data, left) = body.split_at(length);
        *rest = left;
        Some(Self { checksum: u32::from_le_bytes([a, b, c, d]), kind, data })
    }

    /// Zeros where a fragment should begin: a hole, or the end of a file that was made longer before it was written.
    fn is_zeros(&self) -> bool {
        self.kind == 0 && self.checksum == 0 && self.data.is_empty()
    }

    /// Its kind, if nothing of it is damaged.
    fn checked_kind(&self) -> Option<FragmentKind> {
        let is_right = ieee(self.kind, self.data) == self.checksum;
        FragmentKind::try_from(self.kind).ok().filter(|_| is_right)
    }
}

/// Puts records together from the fragments of a file, and counts what is left out.
struct RecordReader<'a> {
    take: Take<'a>,
    /// The record that is being put together: its beginning if it is longer than a history is.
    record: Vec<u8>,
    /// Whether the record has begun and not ended.
    is_inside: bool,
    /// Whether the last block ended in zeros.
    is_hollow: bool,
    damaged: usize,
    too_large: usize,
    /// Values that are no JSON.
    unread: usize,
}

impl<'a> RecordReader<'a> {
    fn new(take: Take<'a>) -> Self {
        Self {
            take,
            record: Vec::new(),
            is_inside: false,
            is_hollow: false,
            damaged: 0,
            too_large: 0,
            unread: 0,
        }
    }

    /// Adds the fragments of a block, up to the first that is damaged: its length can't be relied on.
    fn add_block(&mut self, mut rest: &[u8], is_whole: bool) -> io::Result<()> {
        while let Some(fragment) = Fragment::cut(&mut rest, is_whole) {
            if fragment.is_zeros() {
                self.is_inside = false;
                self.is_hollow = true;
                self.damaged += usize::from(rest.iter().any(|byte| *byte != 0));
                return Ok(());
            }
            // Where anything follows the zeros, they were a hole.
            self.damaged += usize::from(std::mem::take(&mut self.is_hollow));
            let Some(kind) = fragment.checked_kind() else {
                self.is_inside = false;
                self.damaged += 1;
                return Ok(());
            };
            self.add_fragment(kind, fragment.data)?;
        }
        Ok(())
    }

    fn add_fragment(&mut self, kind: FragmentKind, data: &[u8]) -> io::Result<()> {
        // One that begins inside of another record, or goes on with none, has lost a part.
        self.damaged += usize::from(kind.begins_record() == self.is_inside);
        if kind.begins_record() {
            self.record.clear();
            self.is_inside = true;
        }
        if !self.is_inside {
            return Ok(());
        }
        if self.record.len() <= LONGEST_RECORD {
            self.record.extend_from_slice(data);
        }
        if kind.ends_record() {
            self.is_inside = false;
            self.unread += history_values(&self.record, self.take)?;
            self.too_large += usize::from(is_cut_history(&self.record));
        }
        Ok(())
    }

    fn left_out(&self) -> LeftOut {
        let damaged = super::damaged(self.damaged, "part");
        let too_large = super::too_large(self.too_large, "4 MiB");
        [damaged, too_large, no_json(self.unread)].into_iter().flatten().collect()
    }
}

fn no_json(values: usize) -> Option<String> {
    match values {
        0 => None,
        1 => Some("has 1 value that is no JSON: left out".to_owned()),
        n => Some(format!("has {n} values that are no JSON: left out")),
    }
}

/// Whether a record was too long to be kept whole, and is a history all the same.
fn is_cut_history(record: &[u8]) -> bool {
    record.len() > LONGEST_RECORD && cut_field(record).is_some_and(|(field, ..)| field == HISTORY)
}

/// `Record.history`: names with values as JSON, and a step. Returns how many values are no JSON.
pub fn history_values(record: &[u8], take: Take<'_>) -> io::Result<usize> {
    let mut unread = 0;
    for history in ProtobufFields(record).filter(|it| it.0 == HISTORY).filter_map(|it| it.1.bytes())
    {
        let mut values: Vec<(String, Value)> = Vec::new();
        let mut step = None;
        for (field, value) in ProtobufFields(history) {
            match (field, value.bytes()) {
                (1, Some(item)) => match history_item(item) {
                    Some(value) => values.push(value),
                    None => unread += 1,
                },
                (2, Some(message)) => {
                    step = Some(0);
                    for (field, value) in ProtobufFields(message) {
                        if let (1, ProtobufField::Varint(number)) = (field, value) {
                            step = Some(number);
                        }
                    }
                }
                _ => {}
            }
        }
        let own = |wanted: &str| values.iter().find(|(name, _)| name == wanted).map(|it| &it.1);
        let step = step.or(own("_step").and_then(Value::as_u64));
        let time = own("_timestamp").and_then(Value::as_f64);
        for (metric, value) in &values {
            let is_number = value.is_number() || value.is_null();
            if is_number && !metric.starts_with(OWN) {
                let value = value.as_f64();
                take(WrittenValue { metric: metric.clone(), step, time, value })?;
            }
        }
    }
    Ok(unread)
}

fn history_item(item: &[u8]) -> Option<(String, Value)> {
    let (mut names, mut value) = (Vec::new(), None);
    for (field, content) in ProtobufFields(item) {
        match field {
            1 | 2 => names.extend(content.text().filter(|name| !name.is_empty())),
            16 => value = content.text(),
            _ => {}
        }
    }
    let value = match value? {
        // As Python writes what JSON does not have.
        "NaN" | "Infinity" | "-Infinity" | "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"" => {
            Value::Null
        }
        text => serde_json::from_str(text).ok()?,
    };
    Some((names.join("."), value))
}
