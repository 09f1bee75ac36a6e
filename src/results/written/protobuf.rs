//! The wire format of protocol buffers, as far as it is needed: fields one after the other. Anything else ends the walk.

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ProtobufField<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message, with their numbers.
#[derive(Clone, Debug)]
pub(super) struct ProtobufFields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for ProtobufFields<'a> {
    type Item = (u64, ProtobufField<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = varint(&mut self.0)?;
        let field = match key & 7 {
            0 => ProtobufField::Varint(varint(&mut self.0)?),
            1 => ProtobufField::Fixed64(array(&mut self.0)?),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                ProtobufField::Bytes(bytes)
            }
            5 => ProtobufField::Fixed32(array(&mut self.0)?),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl<'a> ProtobufField<'a> {
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// The field of bytes that the end of a message's beginning cuts: its number, its length, and as much of it as is there.
pub(super) fn cut_field(beginning: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut fields = ProtobufFields(beginning);
    let mut rest = beginning;
    while fields.next().is_some() {
        rest = fields.0;
    }
    let key = varint(&mut rest).filter(|key| key & 7 == 2)?;
    Some((key >> 3, varint(&mut rest)?, rest))
}

/// Several numbers in one field.
pub(super) fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place).ok()? * 7)?;
        if byte & 0x80 == 0 {
            *input = &input[place + 1..];
            return Some(value);
        }
    }
    None
}

fn array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*array)
}
