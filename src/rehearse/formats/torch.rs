//! What `torch.save` writes, as a zip file or in the older way: the tensors of a pickle, whose numbers lie beside it. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pickle::{self, Id, Pickle, PickleValue};
use super::pickled::{self, Storages};
use super::zip::Member;
use super::{DType, Leaf};

/// The first number of an older file.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The archive that newer versions write; none of other archives.
pub(super) fn zipped<'d>(members: &[Member<'d>]) -> Option<Vec<Leaf<'d>>> {
    let pickled = members.iter().find(|member| member.name.ends_with("/data.pkl"))?;
    let folder = pickled.name.strip_suffix("data.pkl")?;
    let key = |member: &Member<'d>| {
        let below = member.name.strip_prefix(folder)?;
        Some(below.strip_prefix("data/")?.to_owned())
    };
    let storages: BTreeMap<String, &'d [u8]> =
        members.iter().filter_map(|member| Some((key(member)?, member.data))).collect();
    let named = pickle::read(pickled.data)
        .and_then(|(pickle, _)| pickled::leaves(&pickle, &|key| storages.get(key).copied()));
    // What else is in the archive tells of the archive.
    named.or_else(|| {
        let mut leaves = vec![Leaf::bytes("data.pkl", Cow::Borrowed(pickled.data))];
        let unnamed = storages.into_iter();
        leaves.extend(unnamed.map(|(key, data)| {
            Leaf::array(format!("data/{key}"), DType::Opaque, Cow::Borrowed(data))
        }));
        Some(leaves)
    })
}

/// Before version 1.6: a number, two more pickles, the pickle itself, the keys of its storages, and those.
pub(super) fn legacy(bytes: &[u8]) -> Option<Vec<Leaf<'_>>> {
    let rest = bytes.strip_prefix(b"\x80\x02\x8a\x0a")?.strip_prefix(&MAGIC)?;
    let rest = rest.strip_prefix(b".")?;
    let (_, rest) = pickle::read(rest)?;
    let (_, rest) = pickle::read(rest)?;
    let (pickle, rest) = pickle::read(rest)?;
    let (keys, mut rest) = pickle::read(rest)?;
    let widths = widths(&pickle);
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for key in keys.items(keys.root) {
        let key = keys.text(*key)?;
        let numbers = usize::try_from(u64::from_le_bytes(rest.get(..8)?.try_into().ok()?)).ok()?;
        let length = numbers.checked_mul(widths.get(key).copied().unwrap_or(1))?;
        storages.insert(key, rest.get(8..length.checked_add(8)?)?);
        rest = rest.get(8 + length..)?;
    }
    pickled::leaves(&pickle, &|key| storages.get(key).copied())
}

/// Bytes of a number, by the key of its storage.
fn widths(pickle: &Pickle) -> BTreeMap<&str, usize> {
    let storages = pickle.values.iter().filter_map(|value| match value {
        PickleValue::Persistent(description) => parse(pickle, *description),
        _ => None,
    });
    storages.map(|(key, class)| (key, element_size(class))).collect()
}

fn element_size(class: &str) -> usize {
    let complex = usize::from(class.contains("Complex")) + 1;
    DType::torch(class).width() * complex
}

/// `("storage", torch.FloatStorage, key, place, numbers)`: key and class.
fn parse(pickle: &Pickle, description: Id) -> Option<(&str, &str)> {
    let [_, class, key, ..] = pickle.items(description) else { return None };
    Some((pickle.text(*key)?, pickle.text(*class)?))
}

/// A storage that stands for itself.
pub(super) fn storage<'d>(
    pickle: &Pickle,
    description: Id,
    name: &str,
    storages: Storages<'_, 'd>,
) -> Option<Leaf<'d>> {
    let (key, class) = parse(pickle, description)?;
    let name = if name.is_empty() { format!("data/{key}") } else { name.to_owned() };
    let data = storages(key).unwrap_or_default();
    Some(Leaf::array(name, DType::torch(class), Cow::Borrowed(data)))
}

/// A call that makes a tensor: the part of its storage that it shows.
pub(super) fn tensor<'d>(
    pickle: &Pickle,
    function: &str,
    arguments: &[Id],
    name: &str,
    storages: Storages<'_, 'd>,
) -> Option<Leaf<'d>> {
    let short = function.strip_prefix("torch._utils.")?;
    let [stored, offset, sizes, strides, rest @ ..] = arguments else { return None };
    if !matches!(short, "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") {
        return None;
    }
    let PickleValue::Persistent(description) = pickle.value(*stored) else { return None };
    let (key, class) = parse(pickle, *description)?;
    // The third version's storage is of bytes: its type is an argument.
    let class = rest.get(2).and_then(|kind| pickle.text(*kind)).unwrap_or(class);
    let whole = storages(key).unwrap_or_default();
    let shown = shown(pickle, *offset, *sizes, *strides, element_size(class));
    let data = shown.and_then(|(from, to)| whole.get(from..to)).unwrap_or(whole);
    Some(Leaf::array(name, DType::torch(class), Cow::Borrowed(data)))
}

/// From the first to the last number of a tensor, in bytes of its storage.
fn shown(
    pickle: &Pickle,
    offset: Id,
    sizes: Id,
    strides: Id,
    width: usize,
) -> Option<(usize, usize)> {
    let dimension = |id: &Id| usize::try_from(pickle.int(*id)?).ok();
    let sizes: Vec<usize> = pickle.items(sizes).iter().map(dimension).collect::<Option<_>>()?;
    let strides: Vec<usize> = pickle.items(strides).iter().map(dimension).collect::<Option<_>>()?;
    let from = dimension(&offset)?.checked_mul(width)?;
    if sizes.contains(&0) {
        return Some((from, from));
    }
    let mut last = 0_usize;
    for (size, stride) in sizes.iter().zip(strides) {
        last = last.checked_add((size - 1).checked_mul(stride)?)?;
    }
    Some((from, from.checked_add(last.checked_add(1)?.checked_mul(width)?)?))
}
