//! Relays messages of programs on other nodes: each sender has a socket on this node, which talks to the harness's
//! socket in its place.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// How many senders can be answered. Messages of others are only read.
const SENDERS: usize = 256;
/// The longest answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A message with its rank and sender. Sender 0 can't be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) rank: u32,
    pub(crate) from: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The sockets.
#[derive(Debug)]
pub(crate) struct Relay {
    harness: PathBuf,
    senders: BTreeMap<(u32, u32), UnixDatagram>,
}

impl Relay {
    pub(crate) fn new(harness: PathBuf) -> Self {
        Self { harness, senders: BTreeMap::new() }
    }

    /// What to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.senders.values().map(AsFd::as_fd)
    }

    /// Sends a message to the harness. Like any message, it may be lost.
    pub(crate) fn deliver(&mut self, message: &Relayed) {
        drop(self.try_deliver(message));
    }

    fn try_deliver(&mut self, message: &Relayed) -> io::Result<usize> {
        let sender = (message.rank, message.from);
        if message.from == 0
            || (self.senders.len() >= SENDERS && !self.senders.contains_key(&sender))
        {
            let unnamed = UnixDatagram::unbound()?;
            unnamed.set_nonblocking(true)?;
            return unnamed.send_to(&message.bytes, &self.harness);
        }
        if !self.senders.contains_key(&sender) {
            // Anybody may write to such a name, so the socket accepts only messages of the harness's socket.
            let name =
                format!("nemo-{}-{}-{}", nemo_core::claim::nonce()?, message.rank, message.from);
            let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            socket.connect(&self.harness)?;
            socket.set_nonblocking(true)?;
            self.senders.insert(sender, socket);
        }
        self.senders.get(&sender).map_or(Ok(0), |socket| socket.send(&message.bytes))
    }

    /// The harness's answers: rank, sender, text.
    pub(crate) fn answers(&self) -> Vec<(u32, u32, Vec<u8>)> {
        let mut answers = Vec::new();
        let mut buffer = vec![0; MAX_ANSWER_BYTES];
        for (&(rank, from), socket) in &self.senders {
            while let Ok(length) = socket.recv(&mut buffer) {
                answers.push((rank, from, buffer[..length].to_vec()));
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_elsewhere_are_heard_and_answered_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let harness = UnixDatagram::bind(&path).unwrap();
        let mut relay = Relay::new(path);
        let mut buffer = [0; 64];
        for (rank, from, text) in [(0, 1, "A=1"), (3, 1, "B=2"), (3, 0, "C=3"), (0, 1, "D=4")] {
            relay.deliver(&Relayed { rank, from, bytes: text.into() });
            let (length, address) = harness.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], text.as_bytes());
            assert_eq!(address.is_unnamed(), from == 0);
            if from != 0 {
                harness.send_to_addr(format!("to {rank} {text}").as_bytes(), &address).unwrap();
            }
        }
        let shown: Vec<_> = relay
            .answers()
            .into_iter()
            .map(|(rank, to, bytes)| (rank, to, String::from_utf8(bytes).unwrap()))
            .collect();
        let expected = [(0, "to 0 A=1"), (0, "to 0 D=4"), (3, "to 3 B=2")];
        assert_eq!(shown, expected.map(|(rank, text)| (rank, 1, text.to_owned())));
        assert_eq!(relay.descriptors().count(), 2);
    }

    #[test]
    fn only_the_harness_may_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let harness = UnixDatagram::bind(&path).unwrap();
        let mut relay = Relay::new(path);
        relay.deliver(&Relayed { rank: 0, from: 1, bytes: b"ASK=1".to_vec() });
        let (_, address) = harness.recv_from(&mut [0; 64]).unwrap();
        let stranger = UnixDatagram::unbound().unwrap();
        assert!(stranger.send_to_addr(b"STOP=1", &address).is_err());
        assert!(relay.answers().is_empty());
    }
}
