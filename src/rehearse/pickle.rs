//! The names of the tensors in PyTorch's `data.pkl`: only as much of a pickle is followed as that takes, and nothing is
//! ever run. Pure.

use std::collections::HashMap;

use super::leaves::DType;

/// One storage: the member `data/<key>` of the archive, and the tensor that lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) kind: DType,
}

/// Every storage that the pickle names; what can't be followed ends the list.
pub(super) fn storages(bytes: &[u8]) -> Vec<Storage> {
    let mut machine = Machine { rest: bytes, ..Machine::default() };
    while machine.step().is_some() {}
    let mut found = Vec::new();
    for value in &machine.stack {
        gather(value, "", &mut found);
    }
    found
}

#[derive(Clone, Debug)]
enum PickleValue {
    Other,
    Text(String),
    Global(String),
    Storage(String, DType),
    /// A dict by its keys, a list or tuple by indices, a call by its arguments without names.
    Group {
        depth: usize,
        items: Vec<(String, PickleValue)>,
    },
}

/// Deeper nesting is nobody's checkpoint.
const DEEPEST: usize = 64;

#[derive(Debug, Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<PickleValue>,
    marks: Vec<usize>,
    memo: HashMap<u32, PickleValue>,
}

impl<'a> Machine<'a> {
    /// Follows one instruction; none at the end, and where it can't.
    fn step(&mut self) -> Option<()> {
        let code = self.take(1)?[0];
        match code {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(PickleValue::Global(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.text()?, self.text()?);
                self.stack.push(PickleValue::Global(format!("{module}.{name}")));
            }
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => drop(
                self.memo.insert(u32::try_from(self.memo.len()).ok()?, self.stack.last()?.clone()),
            ),
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.stack.push(PickleValue::Other),
            b'K' => self.plain(1)?,
            b'M' => self.plain(2)?,
            b'J' => self.plain(4)?,
            b'G' => self.plain(8)?,
            0x8a | b'C' => {
                let length = self.length(1)?;
                self.plain(length)?;
            }
            b'B' => {
                let length = self.length(4)?;
                self.plain(length)?;
            }
            b'X' | b'T' => self.string(4)?,
            0x8c | b'U' => self.string(1)?,
            b'0' => drop(self.stack.pop()?),
            b'2' => self.stack.push(self.stack.last()?.clone()),
            b'Q' => self.persistent()?,
            _ => self.group(code)?,
        }
        Some(())
    }

    /// Instructions that put values together.
    fn group(&mut self, code: u8) -> Option<()> {
        match code {
            b')' | b'}' | b']' | 0x8f => self.stack.push(list(Vec::new())?),
            b't' => {
                let items = self.pop_mark()?;
                self.stack.push(list(items)?);
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                let items = self.stack.split_off(start);
                self.stack.push(list(items)?);
            }
            b's' => {
                let start = self.stack.len().checked_sub(2)?;
                let pair = self.stack.split_off(start);
                self.set_items(pair)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)?;
            }
            b'a' => {
                let item = self.stack.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            // A call or a state: what it is made of lies below the same name.
            b'R' | 0x81 | b'b' => {
                let items = vec![self.stack.pop()?, self.stack.pop()?];
                let nameless = items.into_iter().rev().map(|item| (String::new(), item)).collect();
                self.stack.push(group(nameless)?);
            }
            _ => return None,
        }
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn line(&mut self) -> Option<String> {
        let length = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(line)
    }

    fn length(&mut self, width: usize) -> Option<usize> {
        Some(
            self.take(width)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
        )
    }

    fn plain(&mut self, length: usize) -> Option<()> {
        self.take(length)?;
        self.stack.push(PickleValue::Other);
        Some(())
    }

    fn string(&mut self, width: usize) -> Option<()> {
        let length = self.length(width)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.stack.push(PickleValue::Text(text));
        Some(())
    }

    fn text(&mut self) -> Option<String> {
        match self.stack.pop()? {
            PickleValue::Text(text) => Some(text),
            _ => None,
        }
    }

    fn remember(&mut self, width: usize) -> Option<()> {
        let place = u32::try_from(self.length(width)?).ok()?;
        self.memo.insert(place, self.stack.last()?.clone());
        Some(())
    }

    fn recall(&mut self, width: usize) -> Option<()> {
        let place = u32::try_from(self.length(width)?).ok()?;
        self.stack.push(self.memo.get(&place)?.clone());
        Some(())
    }

    fn pop_mark(&mut self) -> Option<Vec<PickleValue>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len())?;
        Some(self.stack.split_off(mark))
    }

    fn set_items(&mut self, items: Vec<PickleValue>) -> Option<()> {
        let mut named = Vec::new();
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let name = if let PickleValue::Text(text) = key { text } else { "?".to_owned() };
            named.push((name, value));
        }
        self.extend(named)
    }

    fn append(&mut self, items: Vec<PickleValue>) -> Option<()> {
        self.extend(
            (0..).zip(items).map(|(index, item): (usize, _)| (index.to_string(), item)).collect(),
        )
    }

    fn extend(&mut self, new: Vec<(String, PickleValue)>) -> Option<()> {
        let PickleValue::Group { mut items, .. } = self.stack.pop()? else { return None };
        items.extend(new);
        self.stack.push(group(items)?);
        Some(())
    }

    /// `("storage", torch.FloatStorage, key, place, numbers)`.
    fn persistent(&mut self) -> Option<()> {
        let PickleValue::Group { items, .. } = self.stack.pop()? else { return None };
        let value = match (items.get(1), items.get(2)) {
            (Some((_, PickleValue::Global(class))), Some((_, PickleValue::Text(key)))) => {
                PickleValue::Storage(key.clone(), kind(class))
            }
            _ => PickleValue::Other,
        };
        self.stack.push(value);
        Some(())
    }
}

fn list(items: Vec<PickleValue>) -> Option<PickleValue> {
    group((0..).zip(items).map(|(index, item): (usize, _)| (index.to_string(), item)).collect())
}

fn group(items: Vec<(String, PickleValue)>) -> Option<PickleValue> {
    let depth = items.iter().map(depth_of).max().unwrap_or(0) + 1;
    (depth <= DEEPEST).then_some(PickleValue::Group { depth, items })
}

fn depth_of((_, item): &(String, PickleValue)) -> usize {
    match item {
        PickleValue::Group { depth, .. } => *depth,
        PickleValue::Other
        | PickleValue::Text(_)
        | PickleValue::Global(_)
        | PickleValue::Storage(..) => 0,
    }
}

fn kind(class: &str) -> DType {
    match class.rsplit('.').next().unwrap_or_default() {
        "DoubleStorage" => DType::F64,
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::Bf16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" | "BoolStorage" => DType::U8,
        _ => DType::Opaque,
    }
}

/// A tensor is a call whose first argument is its storage: the indices of arguments are no part of its name.
fn gather(value: &PickleValue, name: &str, found: &mut Vec<Storage>) {
    match value {
        PickleValue::Storage(key, kind) if found.iter().all(|own| own.key != *key) => {
            let name = if name.is_empty() { format!("data/{key}") } else { name.to_owned() };
            found.push(Storage { key: key.clone(), name, kind: *kind });
        }
        PickleValue::Group { items, .. } => {
            for (part, value) in items {
                let is_storage = matches!(value, PickleValue::Storage(..));
                let is_plain = part.is_empty() || is_storage || is_arguments(items);
                let name = match (is_plain, name.is_empty()) {
                    (true, _) => name.to_owned(),
                    (false, true) => part.clone(),
                    (false, false) => format!("{name}.{part}"),
                };
                gather(value, &name, found);
            }
        }
        PickleValue::Other
        | PickleValue::Text(_)
        | PickleValue::Global(_)
        | PickleValue::Storage(..) => {}
    }
}

/// The arguments of a call that makes a tensor.
fn is_arguments(siblings: &[(String, PickleValue)]) -> bool {
    matches!(siblings.first(), Some((name, PickleValue::Global(_))) if name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `torch.save({"net": {"w": …}, "opt": [{"exp_avg": …}]})` makes of its tensors, in protocol 2.
    fn sample() -> Vec<u8> {
        let tensor = |key: &str, class: &str| {
            let rebuild = "ctorch._utils\n_rebuild_tensor_v2\n";
            let text = |text: &str| {
                let length = u32::try_from(text.len()).unwrap().to_le_bytes();
                [b"X", &length[..], text.as_bytes()].concat()
            };
            let storage = [
                b"(".to_vec(),
                text("storage"),
                format!("ctorch\n{class}\n").into_bytes(),
                text(key),
                text("cpu"),
                b"K\x04tQ".to_vec(),
            ];
            [
                rebuild.as_bytes(),
                b"((",
                &storage.concat()[1..],
                b"K\0K\x04\x85K\x01\x85\x89N",
                b"tR",
            ]
            .concat()
        };
        let named = |name: &str, value: &[u8]| {
            [b"X", &u32::try_from(name.len()).unwrap().to_le_bytes()[..], name.as_bytes(), value]
                .concat()
        };
        let net = [b"}", &named("w", &tensor("0", "FloatStorage"))[..], b"s"].concat();
        let state = [b"}", &named("exp_avg", &tensor("1", "DoubleStorage"))[..], b"s"].concat();
        let list = [b"]", &state[..], b"a"].concat();
        [b"\x80\x02}q\0(", &named("net", &net)[..], &named("opt", &list), b"u."].concat()
    }

    #[test]
    fn tensors_are_found_by_their_names() {
        let found = storages(&sample());
        let expected = [("0", "net.w", DType::F32), ("1", "opt.0.exp_avg", DType::F64)];
        let found: Vec<(&str, &str, DType)> =
            found.iter().map(|own| (own.key.as_str(), own.name.as_str(), own.kind)).collect();
        assert_eq!(found, expected);
    }

    proptest::proptest! {
        #[test]
        fn no_pickle_is_too_strange(bytes: Vec<u8>) {
            storages(&bytes);
        }
    }
}
