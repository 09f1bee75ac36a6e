//! Python's pickles, as values: every instruction is followed, and nothing is ever run. Pure.

use std::collections::HashMap;

/// A value, by its place in [`Pickle::values`].
pub(super) type Id = usize;

/// What was pickled. A call is kept as a call: nobody knows here what it would make.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    /// Beyond 64 bits, little endian.
    Long(Vec<u8>),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A class or function, as `module.name`.
    Global(String),
    /// A list, a tuple or a set.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    PickledCall(PickledCall),
    /// What lies outside of the pickle, by its description.
    Persistent(Id),
}

/// A call, and what was put into its result afterwards.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PickledCall {
    pub(super) function: Id,
    pub(super) arguments: Id,
    pub(super) state: Option<Id>,
    pub(super) pairs: Vec<(Id, Id)>,
    pub(super) items: Vec<Id>,
}

/// One pickle of a stream.
#[derive(Clone, Debug)]
pub(super) struct Pickle {
    pub(super) values: Vec<PickleValue>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn value(&self, id: Id) -> &PickleValue {
        self.values.get(id).unwrap_or(&PickleValue::None)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            PickleValue::Text(text) | PickleValue::Global(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            PickleValue::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.value(id) {
            PickleValue::Items(items) => items,
            _ => &[],
        }
    }
}

/// More values than this would need far more memory than their file has bytes.
const MOST_VALUES: usize = 1 << 22;

/// Reads one pickle, and what comes after it; none of one with very many values.
pub(super) fn read(bytes: &[u8]) -> Option<(Pickle, &[u8])> {
    let mut machine = Machine { rest: bytes, ..Machine::default() };
    while machine.step()? {
        if machine.values.len() > MOST_VALUES {
            return None;
        }
    }
    let root = machine.stack.pop()?;
    Some((Pickle { values: machine.values, root }, machine.rest))
}

#[derive(Debug, Default)]
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<PickleValue>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Follows one instruction; false at the end, none where it can't.
    fn step(&mut self) -> Option<bool> {
        let code = self.take(1)?[0];
        match code {
            b'.' => return Some(false),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            0x98 => {} // a buffer that is only read
            b'N' => self.push(PickleValue::None),
            0x88 | 0x89 => self.push(PickleValue::Bool(code == 0x88)),
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => self.signed(4)?,
            b'I' | b'L' => self.int_line()?,
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => {
                let number = f64::from_be_bytes(self.take(8)?.try_into().ok()?);
                self.push(PickleValue::Float(number));
            }
            b'F' => {
                let number = self.line()?.parse().ok()?;
                self.push(PickleValue::Float(number));
            }
            _ => return self.words(code),
        }
        Some(true)
    }

    /// Texts, bytes and classes.
    fn words(&mut self, code: u8) -> Option<bool> {
        match code {
            b'X' | b'T' => self.string(4)?,
            0x8c | b'U' => self.string(1)?,
            0x8d => self.string(8)?,
            b'V' | b'S' => {
                let line = self.line()?;
                let text = line.trim_matches(['\'', '"']).to_owned();
                self.push(PickleValue::Text(if code == b'V' { line } else { text }));
            }
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            0x8e | 0x96 => self.bytes(8)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(PickleValue::Global(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.stack.pop()?, self.stack.pop()?);
                let text = |id: Id| match self.values.get(id) {
                    Some(PickleValue::Text(text)) => Some(text.clone()),
                    _ => None,
                };
                let global = format!("{}.{}", text(module)?, text(name)?);
                self.push(PickleValue::Global(global));
            }
            _ => return self.memory(code),
        }
        Some(true)
    }

    /// The stack and the memo.
    fn memory(&mut self, code: u8) -> Option<bool> {
        match code {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.stack.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(*self.stack.last()?),
            b'q' | b'r' | b'p' | 0x94 => {
                let place = match code {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    b'p' => self.line()?.parse().ok()?,
                    _ => self.memo.len() as u64,
                };
                self.memo.insert(place, *self.stack.last()?);
            }
            b'h' | b'j' | b'g' => {
                let place = match code {
                    b'h' => self.number(1)?,
                    b'j' => self.number(4)?,
                    _ => self.line()?.parse().ok()?,
                };
                self.stack.push(*self.memo.get(&place)?);
            }
            b'Q' | b'P' => {
                if code == b'P' {
                    let line = self.line()?;
                    self.push(PickleValue::Text(line));
                }
                let description = self.stack.pop()?;
                self.push(PickleValue::Persistent(description));
            }
            _ => return self.group(code),
        }
        Some(true)
    }

    /// What puts values together.
    fn group(&mut self, code: u8) -> Option<bool> {
        match code {
            b')' | b']' | 0x8f => self.push(PickleValue::Items(Vec::new())),
            b'}' => self.push(PickleValue::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(PickleValue::Items(items));
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(PickleValue::Dict(pairs(&items)));
            }
            0x85..=0x87 => {
                let items = self.pop(usize::from(code - 0x84))?;
                self.push(PickleValue::Items(items));
            }
            b's' => {
                let items = self.pop(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            b'a' => {
                let items = self.pop(1)?;
                self.append(&items)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            _ => return self.call(code),
        }
        Some(true)
    }

    /// Calls, and the states that are given to what they made.
    fn call(&mut self, code: u8) -> Option<bool> {
        match code {
            b'R' | 0x81 => {
                let (arguments, function) = (self.stack.pop()?, self.stack.pop()?);
                self.push_call(function, arguments);
            }
            0x92 => {
                let items = self.pop(3)?;
                let [function, arguments, named] = items[..] else { return None };
                self.values.push(PickleValue::Items(vec![arguments, named]));
                self.push_call(function, self.values.len() - 1);
            }
            b'i' | b'o' => {
                let mut items = Vec::new();
                if code == b'i' {
                    let name = format!("{}.{}", self.line()?, self.line()?);
                    self.values.push(PickleValue::Global(name));
                    items.push(self.values.len() - 1);
                }
                items.extend(self.pop_mark()?);
                let (function, arguments) = items.split_first()?;
                let (function, arguments) = (*function, arguments.to_vec());
                self.values.push(PickleValue::Items(arguments));
                self.push_call(function, self.values.len() - 1);
            }
            b'b' => {
                let state = self.stack.pop()?;
                self.target()?.state = Some(state);
            }
            _ => return None,
        }
        Some(true)
    }

    fn push_call(&mut self, function: Id, arguments: Id) {
        let (state, pairs, items) = (None, Vec::new(), Vec::new());
        self.push(PickleValue::PickledCall(PickledCall {
            function,
            arguments,
            state,
            pairs,
            items,
        }));
    }

    /// The value on top as a call: a state can be given to any other value too, and is then its own.
    fn target(&mut self) -> Option<&mut PickledCall> {
        let top = *self.stack.last()?;
        if !matches!(self.values.get(top)?, PickleValue::PickledCall(_)) {
            let call = PickledCall {
                function: top,
                arguments: top,
                state: None,
                pairs: vec![],
                items: vec![],
            };
            self.stack.pop();
            self.push(PickleValue::PickledCall(call));
        }
        match self.values.get_mut(*self.stack.last()?)? {
            PickleValue::PickledCall(call) => Some(call),
            _ => None,
        }
    }

    fn push(&mut self, value: PickleValue) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    fn pop(&mut self, n: usize) -> Option<Vec<Id>> {
        Some(self.stack.split_off(self.stack.len().checked_sub(n)?))
    }

    fn pop_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len())?;
        Some(self.stack.split_off(mark))
    }

    fn set_items(&mut self, items: &[Id]) -> Option<()> {
        let new = pairs(items);
        let top = *self.stack.last()?;
        match self.values.get_mut(top)? {
            PickleValue::Dict(pairs) => pairs.extend(new),
            _ => self.target()?.pairs.extend(new),
        }
        Some(())
    }

    fn append(&mut self, new: &[Id]) -> Option<()> {
        let top = *self.stack.last()?;
        match self.values.get_mut(top)? {
            PickleValue::Items(items) => items.extend(new),
            _ => self.target()?.items.extend(new),
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

    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.take(width)?.iter().rev();
        Some(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn length(&mut self, width: usize) -> Option<usize> {
        usize::try_from(self.number(width)?).ok()
    }

    fn int(&mut self, width: usize) -> Option<()> {
        let number = self.number(width)?;
        self.push(PickleValue::Int(i64::try_from(number).ok()?));
        Some(())
    }

    fn signed(&mut self, width: usize) -> Option<()> {
        let bytes = self.take(width)?.to_vec();
        self.push(integer(&bytes));
        Some(())
    }

    fn long(&mut self, width: usize) -> Option<()> {
        let length = self.length(width)?;
        self.signed(length)
    }

    fn int_line(&mut self) -> Option<()> {
        let line = self.line()?;
        self.push(match line.trim_end_matches('L') {
            "00" => PickleValue::Bool(false),
            "01" => PickleValue::Bool(true),
            digits => digits
                .parse()
                .map_or_else(|_| PickleValue::Text(digits.to_owned()), PickleValue::Int),
        });
        Some(())
    }

    fn string(&mut self, width: usize) -> Option<()> {
        let length = self.length(width)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(PickleValue::Text(text));
        Some(())
    }

    fn bytes(&mut self, width: usize) -> Option<()> {
        let length = self.length(width)?;
        let bytes = self.take(length)?.to_vec();
        self.push(PickleValue::Bytes(bytes));
        Some(())
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Two's complement, little endian.
fn integer(bytes: &[u8]) -> PickleValue {
    if bytes.len() > 8 {
        return PickleValue::Long(bytes.to_vec());
    }
    let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut whole = [if is_negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    PickleValue::Int(i64::from_le_bytes(whole))
}
