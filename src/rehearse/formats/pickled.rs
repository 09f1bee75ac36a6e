//! The arrays and values in a pickle, under the names that its dicts give them. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::pickle::{self, Id, Pickle, PickleValue, PickledCall};
use super::{Form, Leaf, numpy, torch};

/// Deeper nesting is nobody's checkpoint.
const DEEPEST: usize = 64;
/// More values than this are nobody's either.
const MOST: usize = 1 << 20;

/// A whole file that is one pickle.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'static>>> {
    if bytes.first() != Some(&0x80) {
        return None; // older than protocol 2: nothing tells such a file from a text
    }
    let (pickle, rest) = pickle::read(bytes)?;
    let leaves = leaves(&pickle, &|_| None)?;
    rest.is_empty().then(|| leaves.into_iter().map(Leaf::into_owned).collect())
}

/// The bytes of a storage, by its key.
pub(super) type Storages<'a, 'd> = &'a dyn Fn(&str) -> Option<&'d [u8]>;

/// Every array and value, in order; none where there are too many, since what is left out would count as equal.
pub(super) fn leaves<'d>(pickle: &Pickle, storages: Storages<'_, 'd>) -> Option<Vec<Leaf<'d>>> {
    let (found, seen) = (Vec::new(), BTreeSet::new());
    let mut walk = Walk { pickle, storages, found, seen, is_cut: false };
    walk.value(pickle.root, "", 0);
    (!walk.is_cut).then_some(walk.found)
}

struct Walk<'a, 'd> {
    pickle: &'a Pickle,
    storages: Storages<'a, 'd>,
    found: Vec<Leaf<'d>>,
    /// A value that is there twice is named where it stands first.
    seen: BTreeSet<Id>,
    /// Something was left out.
    is_cut: bool,
}

impl Walk<'_, '_> {
    fn value(&mut self, id: Id, name: &str, depth: usize) {
        let pickle = self.pickle;
        self.is_cut |= depth > DEEPEST || self.found.len() > MOST;
        if self.is_cut {
            return;
        }
        match pickle.value(id) {
            PickleValue::Items(_) | PickleValue::Dict(_) | PickleValue::PickledCall(_)
                if !self.seen.insert(id) => {}
            PickleValue::Items(items) => self.items(items, name, depth),
            PickleValue::Dict(pairs) => self.pairs(pairs, name, depth),
            PickleValue::PickledCall(call) => self.call(call, name, depth),
            PickleValue::Persistent(description) => {
                self.found.extend(torch::storage(pickle, *description, name, self.storages));
            }
            plain => self.found.push(scalar(plain, name)),
        }
    }

    fn pairs(&mut self, pairs: &[(Id, Id)], name: &str, depth: usize) {
        for (number, (key, value)) in pairs.iter().enumerate() {
            let key = match self.pickle.value(*key) {
                PickleValue::Text(text) => text.clone(),
                PickleValue::Int(number) => number.to_string(),
                _ => format!("[{number}]"),
            };
            self.value(*value, &below(name, &key), depth + 1);
        }
    }

    /// A list of numbers is one array.
    fn items(&mut self, items: &[Id], name: &str, depth: usize) {
        let numbers: Option<Vec<f64>> =
            items.iter().map(|id| number(self.pickle.value(*id))).collect();
        match numbers {
            Some(numbers) if numbers.len() > 1 => self.found.push(Leaf::numbers(name, &numbers)),
            _ => {
                for (index, item) in items.iter().enumerate() {
                    self.value(*item, &below(name, &index.to_string()), depth + 1);
                }
            }
        }
    }

    fn call(&mut self, call: &PickledCall, name: &str, depth: usize) {
        let pickle = self.pickle;
        let function = pickle.text(call.function).unwrap_or_default();
        let arguments = pickle.items(call.arguments);
        if let Some(leaf) = torch::tensor(pickle, function, arguments, name, self.storages)
            .or_else(|| array(pickle, function, arguments, call, name))
        {
            self.found.push(leaf);
            return;
        }
        match (function.rsplit('.').next().unwrap_or_default(), arguments) {
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                self.value(*data, name, depth + 1);
            }
            // What a dict's class was given besides its keys says nothing of what it holds.
            ("OrderedDict" | "defaultdict", _) => self.pairs(&call.pairs, name, depth),
            (_, [only]) => self.value(*only, name, depth + 1),
            _ => self.items(arguments, name, depth),
        }
        if !function.ends_with(".OrderedDict") {
            self.pairs(&call.pairs, name, depth);
            self.items(&call.items, name, depth);
            if let Some(state) = call.state {
                self.value(state, name, depth + 1);
            }
        }
    }
}

fn below(name: &str, part: &str) -> String {
    if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") }
}

#[expect(clippy::cast_precision_loss, reason = "a difference of large integers is shown rounded")]
fn number(value: &PickleValue) -> Option<f64> {
    match value {
        PickleValue::Int(number) => Some(*number as f64),
        PickleValue::Float(number) => Some(*number),
        _ => None,
    }
}

fn scalar<'d>(value: &PickleValue, name: &str) -> Leaf<'d> {
    match value {
        PickleValue::Int(_) | PickleValue::Float(_) => {
            Leaf::scalar(name, number(value).unwrap_or_default())
        }
        PickleValue::Text(text) | PickleValue::Global(text) => Leaf::text(name, text.as_bytes()),
        PickleValue::Bytes(bytes) => Leaf::bytes(name, Cow::Owned(bytes.clone())),
        PickleValue::Long(bytes) => Leaf::opaque(name, Cow::Owned(bytes.clone())),
        PickleValue::Bool(word) => Leaf::text(name, word.to_string()),
        _ => Leaf::text(name, "null"),
    }
}

/// An array or a number of NumPy's.
fn array<'d>(
    pickle: &Pickle,
    function: &str,
    arguments: &[Id],
    call: &PickledCall,
    name: &str,
) -> Option<Leaf<'d>> {
    let short = function.rsplit('.').next()?;
    if !function.starts_with("numpy.") {
        let is_latin = short == "encode" && function.starts_with("_codecs.");
        return is_latin.then(|| latin(pickle, arguments, name)).flatten();
    }
    let (data, kind, is_scalar) = match (short, arguments) {
        ("_reconstruct", _) => {
            let state = pickle.items(call.state?);
            (*state.get(4)?, *state.get(2)?, false)
        }
        ("scalar", [kind, data, ..]) => (*data, *kind, true),
        ("_frombuffer", [data, kind, ..]) => (*data, *kind, false),
        _ => return None,
    };
    let data = bytes(pickle, data)?;
    let leaf = numpy::array(name, &descr(pickle, kind)?, Cow::Owned(data));
    Some(if is_scalar { Leaf { form: Form::Scalar, ..leaf } } else { leaf })
}

/// Bytes; protocol 2 writes them as a text with one letter each.
fn bytes(pickle: &Pickle, id: Id) -> Option<Vec<u8>> {
    match pickle.value(id) {
        PickleValue::Bytes(bytes) => Some(bytes.clone()),
        PickleValue::Text(text) => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
        PickleValue::PickledCall(call) => {
            let text = pickle.items(call.arguments).first()?;
            matches!(pickle.value(*text), PickleValue::Text(_)).then(|| bytes(pickle, *text))?
        }
        _ => None,
    }
}

fn latin<'d>(pickle: &Pickle, arguments: &[Id], name: &str) -> Option<Leaf<'d>> {
    Some(Leaf::bytes(name, Cow::Owned(bytes(pickle, *arguments.first()?)?)))
}

/// `numpy.dtype("f8", …)` with its state, which tells the order of bytes.
fn descr(pickle: &Pickle, id: Id) -> Option<String> {
    let PickleValue::PickledCall(call) = pickle.value(id) else { return None };
    let kind = pickle.text(*pickle.items(call.arguments).first()?)?;
    let order = call.state.and_then(|state| pickle.text(*pickle.items(state).get(1)?));
    Some(format!("{}{kind}", order.unwrap_or("|")))
}
