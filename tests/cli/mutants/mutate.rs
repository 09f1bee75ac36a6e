//! Damage to bytes: what a disk, a crash, a person or a strange version of Slurm can do to them.

use crate::choices::Choices;

/// What is done to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Damage {
    BitFlipped,
    ByteReplaced,
    DigitReplaced,
    PieceCutOut,
    PieceDoubled,
    PieceZeroed,
    PieceOfElsewhere,
    GarbageInserted,
    FieldsSwapped,
    FieldEmptied,
    Truncated,
    LineDropped,
    LineDoubled,
    LinesSwapped,
    Emptied,
}

use Damage::*;

impl Damage {
    pub(super) const ALL: [Self; 15] = [
        BitFlipped,
        ByteReplaced,
        DigitReplaced,
        PieceCutOut,
        PieceDoubled,
        PieceZeroed,
        PieceOfElsewhere,
        GarbageInserted,
        FieldsSwapped,
        FieldEmptied,
        Truncated,
        LineDropped,
        LineDoubled,
        LinesSwapped,
        Emptied,
    ];

    /// Whether whole lines are gone, or are elsewhere: each that is left is as it was written.
    pub(super) fn leaves_lines_whole(self) -> bool {
        matches!(self, Truncated | LineDropped | LineDoubled | LinesSwapped | Emptied)
    }

    /// The bytes after it.
    pub(super) fn done_to(self, bytes: &[u8], choices: &mut Choices) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let at = choices.index(bytes.len());
        let end = (at + 1 + choices.index(60)).min(bytes.len());
        match self {
            _ if bytes.is_empty() => {}
            BitFlipped => bytes[at] ^= 1 << choices.index(8),
            ByteReplaced => bytes[at] = u8::try_from(choices.index(256)).unwrap(),
            DigitReplaced => digit_replaced(&mut bytes, at, choices),
            PieceCutOut => drop(bytes.drain(at..end)),
            PieceDoubled => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            PieceZeroed => bytes[at..end].fill(0),
            PieceOfElsewhere => {
                let from = choices.index(bytes.len());
                let piece = bytes[from..(from + end - at).min(bytes.len())].to_vec();
                drop(bytes.splice(at..end, piece));
            }
            GarbageInserted => drop(bytes.splice(at..at, choices.of(&GARBAGE).bytes())),
            FieldsSwapped => bytes = fields(&bytes, choices, |line, a, b| line.swap(a, b)),
            FieldEmptied => bytes = fields(&bytes, choices, |line, a, _| line[a] = b""),
            Truncated => bytes.truncate(at),
            LineDropped | LineDoubled | LinesSwapped => bytes = self.done_to_lines(&bytes, choices),
            Emptied => bytes.clear(),
        }
        bytes
    }

    fn done_to_lines(self, bytes: &[u8], choices: &mut Choices) -> Vec<u8> {
        let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let (a, b) = (choices.index(lines.len()), choices.index(lines.len()));
        match self {
            LineDropped => drop(lines.remove(a)),
            LineDoubled => lines.insert(b, lines[a]),
            _ => lines.swap(a, b),
        }
        lines.concat()
    }
}

const GARBAGE: [&str; 12] = [
    "\0",
    "\n",
    "\u{1f}",
    "\u{feff}",
    "}",
    "\"",
    ",,",
    "18446744073709551616",
    "-1",
    "slurm_load_jobs error: Unable to contact slurm controller\n",
    "JOBID PARTITION NAME USER ST TIME NODES\n",
    "[0-4294967295]",
];

/// Another digit, in the first number from a place on: the likeliest lie.
fn digit_replaced(bytes: &mut [u8], from: usize, choices: &mut Choices) {
    if let Some(digit) = bytes[from..].iter_mut().find(|byte| byte.is_ascii_digit()) {
        *digit = b'0' + u8::try_from(choices.index(10)).unwrap();
    }
}

/// A line whose fields, as Slurm or JSON separates them, are changed.
fn fields(
    bytes: &[u8],
    choices: &mut Choices,
    change: impl Fn(&mut [&[u8]], usize, usize),
) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> =
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = choices.index(lines.len());
    let separator = [0x1f, b',', b' '].into_iter().find(|byte| lines[line].contains(byte));
    let separator = separator.unwrap_or(b':');
    let whole = lines[line].clone();
    let mut parts: Vec<&[u8]> = whole.split(|byte| *byte == separator).collect();
    let (a, b) = (choices.index(parts.len()), choices.index(parts.len()));
    change(&mut parts, a, b);
    lines[line] = parts.join(&separator);
    lines.concat()
}
