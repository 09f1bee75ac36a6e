//! The messages of shims to the harness: lines of text that Slurm collects from all of them.
//!
//! Slurm forwards the output of a task in pieces of at most 1,024 bytes, and mixes the pieces of several tasks. So each
//! line is shorter than that and starts with its rank.

use std::collections::BTreeMap;

use nemo_core::percent;

use crate::attempt::start_error::StartError;

/// The prefix of our lines. Other lines come from a prolog, for example.
const MARK: &str = "nemo1";
/// The longest line with its line break. Slurm's limit is 1,024.
const LONGEST_LINE: usize = 1000;
/// The longest message.
const MAX_FRAME_BYTES: usize = 256 * 1024;

/// A message of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RankMessage {
    /// Its program runs, in this step of the job and on this node.
    Started { step: String, node: String },
    /// The GPUs that its program sees, joined by commas.
    Devices(String),
    /// Its program could not be started on this node.
    Failed { node: String, error: StartError },
    /// Whether a process caught the signal of a save request.
    Heard(bool),
    /// A line of the program's output.
    Line(Vec<u8>),
    /// A datagram of the program and the number of its sender, or 0 if it can't be answered.
    Datagram { from: u32, bytes: Vec<u8> },
    /// Its program ended with this exit code.
    Exited(i32),
    /// Its program was killed by this signal.
    Killed(i32),
}

impl RankMessage {
    fn parts(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Started { step, node } => ("started", format!("{step} {node}").into_bytes()),
            Self::Devices(devices) => ("devices", devices.clone().into_bytes()),
            Self::Failed { node, error: StartError::Permanent(why) } => {
                ("failed", format!("{node} {why}").into_bytes())
            }
            Self::Failed { node, error: StartError::Node(why) } => {
                ("unready", format!("{node} {why}").into_bytes())
            }
            Self::Heard(heard) => ("heard", u8::from(*heard).to_string().into_bytes()),
            Self::Line(line) => ("line", line.clone()),
            Self::Datagram { from, bytes } => {
                ("datagram", [from.to_string().as_bytes(), b" ", bytes].concat())
            }
            Self::Exited(code) => ("exited", code.to_string().into_bytes()),
            Self::Killed(signal) => ("killed", signal.to_string().into_bytes()),
        }
    }

    fn read(kind: &str, payload: Vec<u8>) -> Option<Self> {
        let text = || String::from_utf8_lossy(&payload).into_owned();
        Some(match kind {
            "started" => {
                let (step, node) = pair(&text())?;
                Self::Started { step, node }
            }
            "devices" => Self::Devices(text()),
            "failed" => {
                let (node, why) = pair(&text())?;
                Self::Failed { node, error: StartError::Permanent(why) }
            }
            "unready" => {
                let (node, why) = pair(&text())?;
                Self::Failed { node, error: StartError::Node(why) }
            }
            "heard" => Self::Heard(payload == b"1"),
            "line" => Self::Line(payload),
            "datagram" => {
                let end = payload.iter().position(|&byte| byte == b' ')?;
                let from = std::str::from_utf8(&payload[..end]).ok()?.parse().ok()?;
                Self::Datagram { from, bytes: payload[end + 1..].to_vec() }
            }
            "exited" => Self::Exited(text().parse().ok()?),
            "killed" => Self::Killed(text().parse().ok()?),
            _ => return None,
        })
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (first, second) = text.split_once(' ')?;
    Some((first.to_owned(), second.to_owned()))
}

/// The lines that carry a message.
pub(crate) fn encode(rank: u32, message: &RankMessage) -> String {
    let (kind, mut payload) = message.parts();
    payload.truncate(MAX_FRAME_BYTES);
    let head = format!("{MARK} {rank} {kind} ");
    // A byte needs at most three characters, and the mark of a continued line needs two.
    let room = (LONGEST_LINE - head.len() - 3) / 3;
    let mut text = String::new();
    let mut pieces = payload.chunks(room).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let more = if pieces.peek().is_some() { '+' } else { '.' };
        text.push_str(&head);
        text.push(more);
        escape(piece, &mut text);
        text.push('\n');
        if more == '.' {
            return text;
        }
    }
}

/// Encodes bytes for one line.
fn escape(bytes: &[u8], text: &mut String) {
    percent::encode(bytes, |byte| matches!(byte, b' '..=b'~') && byte != b'%', text);
}

/// The command that carries an answer to a sender of one rank.
pub(crate) fn answer(rank: u32, to: u32, bytes: &[u8]) -> String {
    let mut text = format!("answer {rank} {to} ");
    escape(bytes, &mut text);
    text
}

/// Parses the text after `answer `.
pub(crate) fn read_answer(text: &str) -> Option<(u32, u32, Vec<u8>)> {
    let mut words = text.splitn(3, ' ');
    let (rank, to, bytes) = (words.next()?, words.next()?, words.next()?);
    Some((rank.parse().ok()?, to.parse().ok()?, percent::decode(bytes)?))
}

/// Reassembles the messages of all ranks.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    begun: BTreeMap<u32, Vec<u8>>,
}

/// A decoded line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameLine {
    /// The last line of a message, which is complete now.
    Message(u32, RankMessage),
    /// A part of a message, or a message of a newer shim.
    Nothing,
    /// A line of another program.
    Foreign,
}

impl Decoder {
    /// Decodes one line without its line break.
    pub(crate) fn take(&mut self, line: &str) -> FrameLine {
        let Some((rank, kind, more, payload)) = split(line) else { return FrameLine::Foreign };
        let begun = self.begun.entry(rank).or_default();
        if begun.len() <= MAX_FRAME_BYTES {
            begun.extend(payload);
        }
        if more {
            return FrameLine::Nothing;
        }
        let payload = self.begun.remove(&rank).unwrap_or_default();
        RankMessage::read(kind, payload)
            .map_or(FrameLine::Nothing, |message| FrameLine::Message(rank, message))
    }
}

fn split(line: &str) -> Option<(u32, &str, bool, Vec<u8>)> {
    let mut words = line.strip_prefix(MARK)?.strip_prefix(' ')?.splitn(3, ' ');
    let (rank, kind, rest) = (words.next()?, words.next()?, words.next()?);
    let (more, payload) = match rest.split_at_checked(1)? {
        ("+", payload) => (true, payload),
        (".", payload) => (false, payload),
        _ => return None,
    };
    Some((rank.parse().ok()?, kind, more, percent::decode(payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(decoder: &mut Decoder, text: &str) -> Vec<(u32, RankMessage)> {
        let message = |line: &str| match decoder.take(line) {
            FrameLine::Message(rank, message) => Some((rank, message)),
            FrameLine::Nothing | FrameLine::Foreign => None,
        };
        text.lines().filter_map(message).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>, rank: u32) {
            let message = RankMessage::Line(bytes);
            let text = encode(rank, &message);
            prop_assert!(text.lines().all(|line| line.len() < LONGEST_LINE));
            prop_assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(&mut Decoder::default(), &text), [(rank, message)]);
        }

        #[test]
        fn answers_and_datagrams_survive(bytes: Vec<u8>, rank: u32, number: u32) {
            let order = answer(rank, number, &bytes);
            prop_assert!(!order.contains('\n'));
            let rest = order.strip_prefix("answer ").unwrap();
            prop_assert_eq!(read_answer(rest), Some((rank, number, bytes.clone())));
            let message = RankMessage::Datagram { from: number, bytes };
            let text = encode(rank, &message);
            prop_assert_eq!(decode(&mut Decoder::default(), &text), [(rank, message)]);
        }

        #[test]
        fn ranks_may_be_mixed_line_by_line(lengths in prop::collection::vec(0_usize..5000, 2..5)) {
            let messages: Vec<RankMessage> =
                lengths.iter().map(|&length| RankMessage::Line(vec![b'%'; length])).collect();
            let texts: Vec<String> =
                messages.iter().zip(0..).map(|(message, rank)| encode(rank, message)).collect();
            let mut lines: Vec<_> = texts.iter().map(|text| text.lines()).collect();
            let (mut decoder, mut found) = (Decoder::default(), BTreeMap::new());
            while lines.iter_mut().any(|lines| {
                lines.next().is_some_and(|line| {
                    found.extend(decode(&mut decoder, line));
                    true
                })
            }) {}
            for lines in lines {
                for line in lines {
                    found.extend(decode(&mut decoder, line));
                }
            }
            prop_assert_eq!(found.into_values().collect::<Vec<_>>(), messages);
        }

        #[test]
        fn no_text_is_a_danger(text: String) {
            decode(&mut Decoder::default(), &text);
            decode(&mut Decoder::default(), &format!("nemo1 {text}"));
        }
    }

    #[test]
    fn every_message_survives() {
        let failed = |error| RankMessage::Failed { node: "n1".into(), error };
        for message in [
            RankMessage::Started { step: "12.3".into(), node: "n 1".into() },
            failed(StartError::Permanent("`x` was not found\nin PATH: é".into())),
            failed(StartError::Node("`x`: Text file busy".into())),
            RankMessage::Devices("0,1".into()),
            RankMessage::Heard(true),
            RankMessage::Heard(false),
            RankMessage::Line(Vec::new()),
            RankMessage::Exited(-1),
            RankMessage::Killed(9),
        ] {
            let found = decode(&mut Decoder::default(), &encode(7, &message));
            assert_eq!(found, [(7, message)]);
        }
    }

    #[test]
    fn what_others_print_is_theirs() {
        let mut decoder = Decoder::default();
        for line in ["", "loss: 3", "nemo1", "nemo1 x line .", "nemo1 0 line", "nemo1 0 line .%G0"]
        {
            assert_eq!(decoder.take(line), FrameLine::Foreign, "{line}");
        }
        assert_eq!(decoder.take("nemo1 0 later .x"), FrameLine::Nothing);
    }
}
