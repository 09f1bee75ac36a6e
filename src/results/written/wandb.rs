//! W&B's offline files, `run-….wandb`: a log as LevelDB has it (blocks of 32 KiB, records in fragments with checksums),
//! each record a message of which only the history is read.

use std::io::{self, BufReader, Read};
use std::path::Path;

use nemo_core::open;
use serde_json::Value;

use super::crc::ieee;
use super::protobuf::{Field, Fields};
use super::{FileDamage, Take, WrittenValue};
use crate::humanize::count;

const BLOCK: usize = 32 * 1024;
/// `:W&B`, a number and a version.
const FILE_HEAD: usize = 7;
/// A checksum, a length and a kind.
const HEAD: usize = 7;
/// Longer records are no history.
const LONGEST_RECORD: usize = 4 << 20;
/// Names that W&B gives itself, as `_runtime`.
const OWN: char = '_';

/// Calls a function with each value of the history.
pub(super) fn each(path: &Path, take: Take<'_>) -> io::Result<FileDamage> {
    each_record(&mut BufReader::with_capacity(BLOCK, open::to_read(path)?), take)
}

/// The same for any input. What is torn at the end is being written.
pub fn each_record(input: &mut impl Read, take: Take<'_>) -> io::Result<FileDamage> {
    let (mut block, mut record) = (Vec::with_capacity(BLOCK), Vec::new());
    let (mut damaged, mut is_first, mut is_inside) = (0, true, false);
    // Zeros where a record should begin: a hole, or the end of a file that was made longer before it was written.
    let mut is_hollow = false;
    loop {
        block.clear();
        (&mut *input).take(BLOCK as u64).read_to_end(&mut block)?;
        if is_first && !block.starts_with(b":W&B") {
            let is_torn = block.len() < FILE_HEAD;
            return Ok((!is_torn).then(|| "it does not begin as a file of W&B".to_owned()));
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
                history(&record, take)?;
            }
        }
        if block.len() < BLOCK {
            break;
        }
    }
    Ok((damaged > 0).then(|| count(damaged, "part") + " left out"))
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

/// `Record.history`: names with values as JSON, and a step.
fn history(record: &[u8], take: Take<'_>) -> io::Result<()> {
    for history in Fields(record).filter(|it| it.0 == 2).filter_map(|it| it.1.bytes()) {
        let mut values: Vec<(String, Value)> = Vec::new();
        let mut step = None;
        for (field, value) in Fields(history) {
            match (field, value.bytes()) {
                (1, Some(item)) => values.extend(history_item(item)),
                (2, Some(message)) => {
                    step = Some(0);
                    for (field, value) in Fields(message) {
                        if let (1, Field::Varint(number)) = (field, value) {
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
    Ok(())
}

fn history_item(item: &[u8]) -> Option<(String, Value)> {
    let (mut names, mut value) = (Vec::new(), None);
    for (field, content) in Fields(item) {
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
