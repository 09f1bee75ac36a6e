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
    let (mut block, mut record) = (Vec::with_capacity(BLOCK), Vec::new());
    let (mut damaged, mut too_large, mut unread) = (0, 0, 0);
    let (mut is_first, mut is_inside) = (true, false);
    // Zeros where a record should begin: a hole, or the end of a file that was made longer before it was written.
    let mut is_hollow = false;
    loop {
        block.clear();
        (&mut *input).take(BLOCK as u64).read_to_end(&mut block)?;
        if is_first && !block.starts_with(b":W&B") {
            let is_torn = block.len() < FILE_HEAD;
            return Ok(if is_torn { Vec::new() } else { vec![FOREIGN.to_owned()] });
        }
        let mut rest =
            if is_first { block.get(FILE_HEAD..).unwrap_or_default() } else { &block[..] };
        is_first = false;
        // What is shorter than a head fills the block up.
        while let Some((head, data)) = fragment(&mut rest, block.len() == BLOCK) {
            let (sum, kind) = head;
            if kind == 0 && sum == 0 && data.is_empty() {
                damaged += usize::from(rest.iter().any(|byte| *byte != 0));
                (is_inside, is_hollow, rest) = (false, true, &[]);
                continue;
            }
            if std::mem::take(&mut is_hollow) {
                damaged += 1;
            }
            if ieee(kind, data) != sum || !(1..=4).contains(&kind) {
                damaged += 1;
                (is_inside, rest) = (false, &[]);
                continue;
            }
            // Whole, first, middle, last. One that begins inside of another, or goes on with none, has lost a part.
            let begins = matches!(kind, 1 | 2);
            damaged += usize::from(begins == is_inside);
            if begins {
                record.clear();
                is_inside = true;
            }
            if is_inside && record.len() <= LONGEST_RECORD {
                record.extend_from_slice(data);
            }
            if matches!(kind, 1 | 4) && is_inside {
                is_inside = false;
                unread += history_values(&record, take)?;
                too_large += usize::from(is_cut_history(&record));
            }
        }
        if block.len() < BLOCK {
            break;
        }
    }
    let left_out = [super::damaged(damaged, "part"), super::too_large(too_large, "4 MiB")];
    Ok(left_out.into_iter().flatten().chain(no_json(unread)).collect())
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

/// The checksum and the kind of the next fragment of a block, and its data.
fn fragment<'a>(rest: &mut &'a [u8], is_whole: bool) -> Option<((u32, u8), &'a [u8])> {
    let head: &[u8; HEAD] = rest.first_chunk()?;
    let [a, b, c, d, low, high, kind] = *head;
    let length = usize::from(u16::from_le_bytes([low, high]));
    let body = &rest[HEAD..];
    if body.len() < length {
        // In a whole block this is damage, at the end of the file a fragment that is being written.
        *rest = &[];
        return is_whole.then_some(((!0, kind), &[]));
    }
    let (data, left) = body.split_at(length);
    *rest = left;
    Some(((u32::from_le_bytes([a, b, c, d]), kind), data))
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
