//! safetensors: a length, a JSON header, and the arrays one after the other. Pure.

use std::borrow::Cow;

use serde_json::Value;

use super::{DType, Leaf};

pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let end = length.checked_add(8)?;
    let header: Value = serde_json::from_slice(bytes.get(8..end)?).ok()?;
    let data = bytes.get(end..)?;
    header.as_object()?.iter().map(|(name, own)| tensor(name, own, data)).collect()
}

fn tensor<'a>(name: &str, header: &Value, data: &'a [u8]) -> Option<Leaf<'a>> {
    if name == "__metadata__" {
        return Some(Leaf::text(name, header.to_string()));
    }
    let kind = match header["dtype"].as_str()? {
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
    let start = usize::try_from(header["data_offsets"][0].as_u64()?).ok()?;
    let end = usize::try_from(header["data_offsets"][1].as_u64()?).ok()?;
    Some(Leaf::array(name, kind, Cow::Borrowed(data.get(start..end)?)))
}
