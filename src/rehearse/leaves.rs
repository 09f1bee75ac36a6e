//! What known formats of checkpoints hold, array by array: NumPy, safetensors, PyTorch's zip files, JSON. Pure.

use std::borrow::Cow;

use serde_json::Value;

use super::{pickle, zip};

/// How the numbers of an array are stored, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Opaque,
}

impl DType {
    /// Bytes of one number.
    pub(super) fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Opaque => 1,
        }
    }

    /// One number from exactly its bytes; none where they are no number.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a difference of so large integers is shown rounded"
    )]
    pub(super) fn number(self, bytes: &[u8]) -> Option<f64> {
        Some(match self {
            Self::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
            Self::F32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bf16 => f64::from(f32::from_le_bytes([0, 0, *bytes.first()?, *bytes.get(1)?])),
            Self::F16 => half(u16::from_le_bytes(bytes.try_into().ok()?)),
            Self::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
            Self::I32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
            Self::I16 => f64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
            Self::I8 => f64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
            Self::U8 => f64::from(*bytes.first()?),
            Self::Opaque => return None,
        })
    }
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

/// One array, or another part that is compared as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf<'a> {
    /// Empty where the file is one array.
    pub(super) name: String,
    pub(super) kind: DType,
    pub(super) data: Cow<'a, [u8]>,
}

impl<'a> Leaf<'a> {
    fn new(name: impl Into<String>, kind: DType, data: &'a [u8]) -> Self {
        Self { name: name.into(), kind, data: Cow::Borrowed(data) }
    }
}

/// The arrays of a file of a known format.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    npy(bytes)
        .map(|leaf| vec![leaf])
        .or_else(|| zipped(bytes))
        .or_else(|| safetensors(bytes))
        .or_else(|| json(bytes))
}

/// NumPy's format, versions 1 to 3.
fn npy(bytes: &[u8]) -> Option<Leaf<'_>> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, start) = match rest.first()? {
        1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), 4),
        _ => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, 6),
    };
    let header = str::from_utf8(rest.get(start..start + length)?).ok()?;
    let kind = header.split_once("'descr': '").and_then(|(_, rest)| rest.split_once('\''));
    let kind = match kind.map_or("", |(kind, _)| kind) {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" | "<u8" => DType::I64,
        "<i4" | "<u4" => DType::I32,
        "<i2" | "<u2" => DType::I16,
        "|i1" => DType::I8,
        "|u1" | "|b1" => DType::U8,
        _ => DType::Opaque,
    };
    Some(Leaf::new("", kind, rest.get(start + length..)?))
}

/// An `.npz`, or what `torch.save` writes.
fn zipped<'a>(bytes: &'a [u8]) -> Option<Vec<Leaf<'a>>> {
    let members = zip::members(bytes)?;
    let pickled = members.iter().find(|member| member.name.ends_with("/data.pkl"));
    let storages = pickled.map(|member| pickle::storages(member.data)).unwrap_or_default();
    let leaf = |member: &zip::Member<'a>| {
        if member.is_compressed {
            return Leaf::new(member.name.clone(), DType::Opaque, member.data);
        }
        let key = member.name.rsplit_once("/data/").map(|(_, key)| key);
        if let Some(storage) = key.and_then(|key| storages.iter().find(|own| own.key == key)) {
            return Leaf::new(storage.name.clone(), storage.kind, member.data);
        }
        match npy(member.data) {
            Some(array) => Leaf { name: member.name.trim_end_matches(".npy").to_owned(), ..array },
            None => Leaf::new(member.name.clone(), DType::Opaque, member.data),
        }
    };
    Some(members.iter().map(leaf).collect())
}

/// A length, a JSON header, and the arrays one after the other.
fn safetensors(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let end = length.checked_add(8)?;
    let header: Value = serde_json::from_slice(bytes.get(8..end)?).ok()?;
    let data = &bytes[end..];
    let leaf = |(name, tensor): (&String, &Value)| {
        let offset = |i: usize| usize::try_from(tensor["data_offsets"][i].as_u64()?).ok();
        let kind = match tensor["dtype"].as_str()? {
            "F64" => DType::F64,
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::Bf16,
            "I64" | "U64" => DType::I64,
            "I32" | "U32" => DType::I32,
            "I16" | "U16" => DType::I16,
            "I8" => DType::I8,
            "U8" | "BOOL" => DType::U8,
            _ => DType::Opaque,
        };
        Some(Leaf::new(name.clone(), kind, data.get(offset(0)?..offset(1)?)?))
    };
    header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__").map(leaf).collect()
}

/// Each number or text of a JSON file, and each list of numbers as one array.
fn json(bytes: &[u8]) -> Option<Vec<Leaf<'static>>> {
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if !b"{[".contains(is_json) {
        return None;
    }
    let mut leaves = Vec::new();
    gather(&serde_json::from_slice(bytes).ok()?, String::new(), &mut leaves);
    Some(leaves)
}

fn gather(value: &Value, name: String, leaves: &mut Vec<Leaf<'static>>) {
    let mut numbers = Vec::new();
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                gather(value, name, leaves);
            }
        }
        Value::Array(items) if !collect(items, &mut numbers) => {
            for (index, value) in items.iter().enumerate() {
                gather(value, format!("{name}[{index}]"), leaves);
            }
        }
        Value::Array(_) => leaves.push(Leaf { name, kind: DType::F64, data: numbers.into() }),
        Value::Number(_) if collect(std::slice::from_ref(value), &mut numbers) => {
            leaves.push(Leaf { name, kind: DType::F64, data: numbers.into() });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let data = value.to_string().into_bytes().into();
            leaves.push(Leaf { name, kind: DType::Opaque, data });
        }
    }
}

/// The numbers of nested lists, if they hold nothing else.
fn collect(items: &[Value], numbers: &mut Vec<u8>) -> bool {
    items.iter().all(|item| match item {
        Value::Array(items) => collect(items, numbers),
        item => item.as_f64().is_some_and(|number| {
            numbers.extend(number.to_le_bytes());
            true
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn npy_file(descr: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &[(&str, &[f64])]) {
        let leaves = read(bytes).unwrap();
        let found: Vec<(&str, Vec<f64>)> = leaves
            .iter()
            .map(|leaf| {
                let numbers = leaf.data.chunks_exact(leaf.kind.width());
                (leaf.name.as_str(), numbers.filter_map(|bytes| leaf.kind.number(bytes)).collect())
            })
            .collect();
        let expected: Vec<(&str, Vec<f64>)> =
            expected.iter().map(|(name, values)| (*name, values.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn numpy_arrays() {
        let data = [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
        check(&npy_file("<f4", &data), &[("", &[1.5, -2.0])]);
        check(&npy_file("<f2", &[0x00, 0x3c, 0x01, 0x00]), &[("", &[1.0, 2f64.powi(-24)])]);
    }

    #[test]
    fn safetensors_files() {
        let header = br#"{"__metadata__":{"a":"b"},"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"s":{"dtype":"I64","shape":[],"data_offsets":[2,10]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header, &[0x80, 0x3f], &7i64.to_le_bytes()].concat();
        check(&file, &[("w", &[1.0]), ("s", &[7.0])]);
    }

    #[test]
    fn json_files() {
        check(
            br#"{"step": 3, "net": {"w": [[1, 2], [3]]}, "mixed": [1, "a"]}"#,
            &[
                ("step", &[3.0]),
                ("net.w", &[1.0, 2.0, 3.0]),
                ("mixed[0]", &[1.0]),
                ("mixed[1]", &[]),
            ],
        );
    }

    #[test]
    fn anything_else_is_no_known_format() {
        for bytes in [&b""[..], b"hello", b"{torn", b"\x93NUMPY", b"PK\x03\x04", &[255; 40]] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(start in 0usize..4, bytes: Vec<u8>) {
            let starts: [&[u8]; 4] = [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{"];
            read(&[starts[start], &bytes].concat());
        }
    }
}
