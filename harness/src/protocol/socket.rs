//! The datagram socket. It is in a folder that only the user may enter, and the kernel identifies each sender.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{PassCred, RcvBuf};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrLike, UnixAddr, bind,
    recvmsg, sendto, setsockopt, socket,
};

/// The longest message.
const MAX_DATAGRAM_BYTES: usize = 64 * 1024;
/// How many bytes may wait to be read.
const WAITING: usize = 1024 * 1024;
/// How many senders can subscribe.
const SUBSCRIBERS: usize = 256;
/// A path longer than this does not fit into an address.
const LONGEST_PATH: usize = 100;

/// How the names of a harness's folders begin, by its mark.
pub(crate) fn prefix(mark: &str) -> String {
    format!("nemo-{mark}-")
}

/// One attempt's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    folder: PathBuf,
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Subscriber {
    address: UnixAddr,
    /// The version of the state that it was sent last.
    notified_version: u64,
}

/// A message and its sender.
#[derive(Debug)]
pub(crate) struct ReceivedDatagram {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: Option<UnixAddr>,
}

impl Socket {
    /// Makes the socket in a new folder, whose name begins with whose it is: [`prefix`]. Where the user's own temporary folder has too long a name, or is of a kind
    /// that can't hold a socket, it is made in `/tmp`.
    pub(crate) fn open(temporary: &Path, mark: &str, nonce: &str) -> io::Result<Self> {
        let name = prefix(mark) + nonce;
        let fits = temporary.as_os_str().len() + name.len() + "/socket".len() < LONGEST_PATH;
        let own = fits.then(|| Self::open_in(temporary.join(&name)));
        match own {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(_)) | None => Self::open_in(Path::new("/tmp").join(name)),
        }
    }

    fn open_in(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&descriptor, PassCred, &true)?;
        setsockopt(&descriptor, RcvBuf, &WAITING)?;
        let opened = Self {
            descriptor,
            folder,
            subscribers: Vec::new(),
            buffer: vec![0; MAX_DATAGRAM_BYTES],
        };
        bind(opened.descriptor.as_raw_fd(), &UnixAddr::new(&opened.path())?)?;
        Ok(opened)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// What to poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The next message, if one waits. Messages of other users are dropped.
    pub(crate) fn receive(&mut self) -> Option<ReceivedDatagram> {
        loop {
            let mut credentials = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let descriptor = self.descriptor.as_raw_fd();
            let received =
                match recvmsg::<UnixAddr>(descriptor, &mut slices, Some(&mut credentials), flags) {
                    Ok(received) => received,
                    Err(Errno::EINTR) => continue,
                    Err(_) => return None,
                };
            let mut controls = received.cmsgs().into_iter().flatten();
            let user = controls.find_map(|control| match control {
                ControlMessageOwned::ScmCredentials(sender) => Some(sender.uid()),
                _ => None,
            });
            let (length, from) = (received.bytes, received.address);
            let is_cut = received.flags.contains(MsgFlags::MSG_TRUNC);
            if user == Some(nix::unistd::geteuid().as_raw()) && !is_cut {
                // An address without a name has only its family, two bytes.
                let named = from.filter(|from| from.len() > 2);
                return Some(ReceivedDatagram {
                    bytes: self.buffer[..length].to_vec(),
                    from: named,
                });
            }
        }
    }

    /// Answers a sender, and forgets it if it is gone.
    pub(crate) fn answer(&mut self, to: UnixAddr, text: &str) -> bool {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match sendto(self.descriptor.as_raw_fd(), text.as_bytes(), &to, flags) {
            Ok(_) => true,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => false,
            Err(_) => {
                self.subscribers.retain(|subscriber| subscriber.address != to);
                false
            }
        }
    }

    /// Subscribes a sender to the state. It gets the present state first.
    pub(crate) fn subscribe(&mut self, address: UnixAddr) {
        self.subscribers.retain(|subscriber| subscriber.address != address);
        if self.subscribers.len() >= SUBSCRIBERS {
            self.subscribers.remove(0);
        }
        self.subscribers.push(Subscriber { address, notified_version: 0 });
    }

    /// Sends the state to all subscribers that don't have it yet. Returns how many have it now.
    pub(crate) fn publish(&mut self, version: u64, text: &str) -> usize {
        let behind: Vec<UnixAddr> = self
            .subscribers
            .iter()
            .filter(|subscriber| subscriber.notified_version < version)
            .map(|subscriber| subscriber.address)
            .collect();
        for address in behind {
            if self.answer(address, text)
                && let Some(told) =
                    self.subscribers.iter_mut().find(|subscriber| subscriber.address == address)
            {
                told.notified_version = version;
            }
        }
        self.subscribers.iter().filter(|subscriber| subscriber.notified_version == version).count()
    }

    /// Whether a subscriber does not have the state yet.
    pub(crate) fn is_behind(&self, version: u64) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.notified_version < version)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok(); // what stays is an empty folder of a private name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    fn opened() -> (tempfile::TempDir, Socket) {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::open(folder.path(), "m", "n").unwrap();
        (folder, socket)
    }

    #[test]
    fn only_the_user_may_enter_and_nothing_stays() {
        let (folder, socket) = opened();
        let parent = socket.path().parent().unwrap().to_owned();
        assert!(parent.starts_with(folder.path()));
        assert_eq!(fs::metadata(&parent).unwrap().permissions().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!parent.exists());
    }

    #[test]
    fn a_long_path_is_avoided() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        let mark = std::process::id().to_string();
        let socket = Socket::open(&long, &mark, "long").unwrap();
        assert!(socket.path().starts_with("/tmp"));
    }

    #[test]
    fn subscribers_are_told_until_they_are_gone() {
        let (folder, mut socket) = opened();
        let path = folder.path().join("client");
        let client = UnixDatagram::bind(&path).unwrap();
        client.send_to(b"ASK=1", socket.path()).unwrap();
        let received = socket.receive().unwrap();
        assert_eq!(received.bytes, b"ASK=1");
        socket.subscribe(received.from.unwrap());
        assert!(socket.is_behind(1));
        assert_eq!(socket.publish(1, "STATE=1\n"), 1);
        assert_eq!(socket.publish(1, "STATE=1\n"), 1);
        let mut buffer = [0; 64];
        assert_eq!(client.recv(&mut buffer).unwrap(), 8);
        drop(client);
        assert_eq!(socket.publish(2, "STATE=2\n"), 0);
        assert!(!socket.is_behind(2));
    }

    #[test]
    fn a_sender_without_an_address_is_heard() {
        let (_folder, mut socket) = opened();
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"READY=1", socket.path()).unwrap();
        client.send_to(&vec![b'x'; MAX_DATAGRAM_BYTES + 1], socket.path()).ok();
        client.send_to(b"STEP=1", socket.path()).unwrap();
        let received: Vec<Vec<u8>> =
            std::iter::from_fn(|| socket.receive()).map(|received| received.bytes).collect();
        assert_eq!(received, [b"READY=1".to_vec(), b"STEP=1".to_vec()]);
        assert!(socket.receive().is_none());
    }
}
