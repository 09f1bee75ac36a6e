//! What known formats of checkpoints hold, array by array and value by value: NumPy, safetensors, PyTorch's files and other
//! pickles, Zarr's metadata and JSON. Nothing is run, and no bytes are too strange. Pure.

mod dtype;
mod json;
mod numpy;
mod pickle;
mod pickled;
mod safetensors;
#[cfg(test)]
mod tests;
mod torch;
mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) use dtype::DType;

/// What a leaf is, so that a weight is told from a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A tensor or a list of numbers.
    Array,
    /// One number.
    Scalar,
    /// A text, a word such as `true`, or nothing.
    Text,
    /// Bytes of which nothing is known.
    Opaque,
}

/// One array, or another part that is compared as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf<'a> {
    /// Empty where the file is one array.
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) kind: DType,
    pub(super) data: Cow<'a, [u8]>,
}

impl<'a> Leaf<'a> {
    fn array(name: impl Into<String>, kind: DType, data: Cow<'a, [u8]>) -> Self {
        Self { name: name.into(), form: Form::Array, kind, data }
    }

    fn numbers(name: impl Into<String>, numbers: &[f64]) -> Self {
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self::array(name, DType::F64, data.into())
    }

    fn scalar(name: impl Into<String>, number: f64) -> Self {
        Self { form: Form::Scalar, ..Self::numbers(name, &[number]) }
    }

    fn text(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        let data = Cow::Owned(text.into());
        Self { name: name.into(), form: Form::Text, kind: DType::Opaque, data }
    }

    fn opaque(name: impl Into<String>, data: Cow<'a, [u8]>) -> Self {
        Self { name: name.into(), form: Form::Opaque, kind: DType::Opaque, data }
    }

    /// Bytes in a pickle: text where they are some.
    fn bytes(name: impl Into<String>, data: Cow<'a, [u8]>) -> Self {
        let form = if str::from_utf8(&data).is_ok() { Form::Text } else { Form::Opaque };
        Self { form, ..Self::opaque(name, data) }
    }

    fn below(self, name: &str) -> Self {
        let joined = match (name.is_empty(), self.name.is_empty()) {
            (true, _) => self.name,
            (_, true) => name.to_owned(),
            _ => format!("{name}/{}", self.name),
        };
        Self { name: joined, ..self }
    }

    fn into_owned(self) -> Leaf<'static> {
        let data = Cow::Owned(self.data.into_owned());
        Leaf { name: self.name, form: self.form, kind: self.kind, data }
    }
}

/// The arrays of a file of a known format, each under a name of its own.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    zipped(bytes).or_else(|| plain(bytes)).map(distinct)
}

/// The names of all that a file of a known format holds.
#[must_use]
pub fn names(bytes: &[u8]) -> Option<Vec<String>> {
    Some(read(bytes)?.into_iter().map(|leaf| leaf.name).collect())
}

/// What is no archive.
fn plain(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    numpy::read(bytes)
        .or_else(|| torch::legacy(bytes))
        .or_else(|| pickled::read(bytes))
        .or_else(|| safetensors::read(bytes))
        .or_else(|| json::read(bytes))
}

/// An `.npz`, what `torch.save` writes, or any other archive, such as Keras'.
fn zipped(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    let members = zip::members(bytes)?;
    if let Some(leaves) = torch::zipped(&members) {
        return Some(leaves);
    }
    let mut room = zip::LARGEST;
    let leaves = members.into_iter().flat_map(|member| {
        let name = member.name.trim_end_matches(".npy").to_owned();
        let left = if member.method == 0 { Some(room) } else { room.checked_sub(member.length) };
        room = left.unwrap_or(room);
        match left.and_then(|_| member.unpacked()) {
            None => vec![Leaf::opaque(name, Cow::Borrowed(member.data))],
            Some(Cow::Borrowed(data)) => within(&name, data),
            Some(Cow::Owned(data)) => {
                within(&name, &data).into_iter().map(Leaf::into_owned).collect()
            }
        }
    });
    Some(leaves.collect())
}

/// What a member of an archive holds.
fn within<'a>(name: &str, data: &'a [u8]) -> Vec<Leaf<'a>> {
    match plain(data) {
        Some(leaves) => leaves.into_iter().map(|leaf| leaf.below(name)).collect(),
        None => vec![Leaf::bytes(name, Cow::Borrowed(data))],
    }
}

/// A name that is there twice, as keys `1` and `"1"` of a dict are, is numbered.
fn distinct(mut leaves: Vec<Leaf<'_>>) -> Vec<Leaf<'_>> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for leaf in &mut leaves {
        let name = std::mem::take(&mut leaf.name);
        let mut times = seen.get(&name).copied().unwrap_or(0) + 1;
        let numbered =
            |times: usize| if times > 1 { format!("{name}#{times}") } else { name.clone() };
        // The number may be part of another name.
        while times > 1 && seen.contains_key(&numbered(times)) {
            times += 1;
        }
        leaf.name = numbered(times);
        seen.insert(name, times);
        seen.entry(leaf.name.clone()).or_insert(1);
    }
    leaves
}
