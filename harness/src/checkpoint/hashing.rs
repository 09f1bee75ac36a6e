//! Makes files durable and hashes them, at the same time: the disk writes what the processors hash.
//!
//! A large file is hashed in pieces by several threads. BLAKE3 is a tree, so that the result is the hash of the file.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use blake3::hazmat::{self, HasherExt, Mode};
use nemo_core::open;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::background;

/// The size of a chunk that one thread hashes. It is a power of two, so that a chunk is a whole subtree.
const PIECE: u64 = 64 << 20;
const BUFFER: usize = 256 * 1024;
const STACK: usize = 256 * 1024;
/// More threads make no disk faster.
const HASHERS: usize = 8;
/// How many files are synced at once. Small ones wait for the disk's latency, not for its speed.
const SYNCERS: usize = 4;

/// The hash and size of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) hash: blake3::Hash,
    pub(crate) size: u64,
}

/// A file and its length.
pub(crate) type SizedFile = (PathBuf, u64);
/// A subtree's chaining value, or a whole file's hash.
type ChainingValue = [u8; 32];

/// How the files are hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashOptions<'a> {
    /// Use few threads of low priority, since a program is training.
    pub(crate) gentle: bool,
    /// Stops the work with an error when it is set.
    pub(crate) stop: &'a AtomicBool,
}

/// Hashes files.
pub(crate) fn digests(files: &[SizedFile], pace: HashOptions<'_>) -> io::Result<Vec<Digest>> {
    run(files, pace, PIECE, FileOperation::Hash)
}

/// Makes files durable.
pub(crate) fn sync(files: &[SizedFile], pace: HashOptions<'_>) -> io::Result<()> {
    run(files, pace, PIECE, FileOperation::Sync).map(drop)
}

/// Makes files durable, and hashes them.
pub(crate) fn settle(files: &[SizedFile], pace: HashOptions<'_>) -> io::Result<Vec<Digest>> {
    run(files, pace, PIECE, FileOperation::Settle)
}

/// A part of a file that one thread hashes.
#[derive(Clone, Copy, Debug)]
struct FileChunk {
    file: usize,
    at: u64,
    length: u64,
}

/// What the hashing threads share.
struct HashRun<'a> {
    files: &'a [SizedFile],
    pieces: Vec<FileChunk>,
    next_piece: AtomicUsize,
    next_sync: AtomicUsize,
    /// The first error. It stops the other threads.
    failure: OnceLock<io::Error>,
    pace: HashOptions<'a>,
}

/// The operation on the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileOperation {
    Sync,
    Hash,
    /// Both.
    Settle,
}

/// Runs the operation. Returns no digests for [`FileOperation::Sync`].
fn run(
    files: &[SizedFile],
    pace: HashOptions<'_>,
    piece: u64,
    task: FileOperation,
) -> io::Result<Vec<Digest>> {
    let work = HashRun {
        files,
        pieces: if task == FileOperation::Sync { Vec::new() } else { pieces(files, piece) },
        next_piece: AtomicUsize::new(0),
        next_sync: AtomicUsize::new(0),
        failure: OnceLock::new(),
        pace,
    };
    let (hashers, syncers) = if pace.gentle { (1, 1) } else { (processors(), SYNCERS) };
    let hashers = hashers.min(work.pieces.len());
    let syncers = if task == FileOperation::Hash { 0 } else { syncers.min(files.len()) };
    let mut values = vec![[0; 32]; work.pieces.len()];
    std::thread::scope(|scope| {
        let helped = (0..syncers).filter_map(|_| work.spawn(scope, HashRun::sync)).count();
        let hashers: Vec<_> =
            (0..hashers).filter_map(|_| work.spawn(scope, HashRun::hash)).collect();
        // If no thread can be started, this one does the work.
        if helped < syncers {
            work.sync().unwrap_or_else(|error| work.fail(error));
        }
        let mut found = Vec::new();
        if hashers.is_empty() {
            found = work.hash().unwrap_or_else(|error| work.fail(error));
        }
        found.extend(hashers.into_iter().flat_map(|thread| match thread.join() {
            Ok(found) => found,
            Err(_) => work.fail(io::Error::other("a thread that hashes was lost")),
        }));
        for (at, value) in found {
            values[at] = value;
        }
    });
    let HashRun { pieces, failure, .. } = work;
    failure.into_inner().map_or_else(|| Ok(whole(files, &pieces, &values)), Err)
}

fn pieces(files: &[SizedFile], size: u64) -> Vec<FileChunk> {
    let mut pieces = Vec::new();
    for (file, &(_, length)) in files.iter().enumerate() {
        let mut at = 0;
        // An empty file has one chunk too.
        while at < length || at == 0 {
            pieces.push(FileChunk { file, at, length: size.min(length - at) });
            at += size;
        }
    }
    pieces
}

/// The number of processors that this process may use, up to the limit.
fn processors() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let count = (0..CpuSet::count()).filter(|&at| allowed.is_set(at).unwrap_or(false)).count();
    count.clamp(1, HASHERS)
}

/// Puts the pieces of each file together.
fn whole(files: &[SizedFile], pieces: &[FileChunk], values: &[ChainingValue]) -> Vec<Digest> {
    let mut digests = Vec::new();
    let mut rest = values;
    let parts = pieces.chunk_by(|a, b| a.file == b.file);
    for (parts, &(_, size)) in parts.zip(files) {
        let (own, others) = rest.split_at(parts.len());
        rest = others;
        digests.push(Digest { hash: root(own), size });
    }
    digests
}

fn root(values: &[ChainingValue]) -> blake3::Hash {
    if let [whole] = values {
        return blake3::Hash::from_bytes(*whole);
    }
    let (left, right) = halves(values);
    hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    if let [leaf] = values {
        return *leaf;
    }
    let (left, right) = halves(values);
    hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The left side of a BLAKE3 tree is the largest power of two that leaves something to the right.
fn halves(values: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    values.split_at(values.len().next_power_of_two() / 2)
}

impl HashRun<'_> {
    fn spawn<'scope, T>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        then: fn(&Self) -> io::Result<T>,
    ) -> Option<ScopedJoinHandle<'scope, T>>
    where
        T: Send + Default + 'scope,
    {
        let spawned = Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
            if self.pace.gentle {
                background::give_way();
            }
            then(self).unwrap_or_else(|error| self.fail(error))
        });
        spawned.ok()
    }

    fn fail<T: Default>(&self, error: io::Error) -> T {
        drop(self.failure.set(error)); // of several the first is told
        T::default()
    }

    fn sync(&self) -> io::Result<()> {
        while let Some((path, _)) = self.files.get(self.next_sync.fetch_add(1, Ordering::Relaxed)) {
            self.go_on()?;
            open::to_read(path)
                .and_then(|file| file.sync_all())
                .map_err(|error| of(path, &error))?;
        }
        Ok(())
    }

    fn hash(&self) -> io::Result<Vec<(usize, ChainingValue)>> {
        let mut buffer = vec![0; BUFFER];
        let mut values = Vec::new();
        loop {
            let at = self.next_piece.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(at) else { return Ok(values) };
            let (path, _) = &self.files[piece.file];
            let value = self.hash_piece(*piece, &mut buffer).map_err(|error| of(path, &error))?;
            values.push((at, value));
        }
    }

    fn hash_piece(&self, piece: FileChunk, buffer: &mut [u8]) -> io::Result<ChainingValue> {
        let (path, size) = &self.files[piece.file];
        let file = open::to_read(path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(piece.at);
        let mut done = 0;
        while done < piece.length {
            self.go_on()?;
            let left = usize::try_from(piece.length - done).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            match file.read_at(&mut buffer[..wanted], piece.at + done) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                    done += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_whole = piece.length == *size;
        Ok(if is_whole { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
    }

    fn go_on(&self) -> io::Result<()> {
        if self.pace.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        match self.failure.get() {
            Some(_) => Err(io::Error::other("another file failed")),
            None => Ok(()),
        }
    }
}

/// The error with the file's name; its kind stays.
fn of(path: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    static RUN: AtomicBool = AtomicBool::new(false);

    fn files(folder: &std::path::Path, sizes: &[usize]) -> Vec<SizedFile> {
        let made = |(at, &size): (usize, &usize)| {
            let path = folder.join(at.to_string());
            let bytes: Vec<u8> = (0..size).map(|n| (n * 31 + at).to_le_bytes()[0]).collect();
            std::fs::write(&path, bytes).unwrap();
            (path, size as u64)
        };
        sizes.iter().enumerate().map(made).collect()
    }

    #[test]
    fn pieces_make_the_same_hash_as_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let sizes: Vec<usize> =
            (0..40).map(|n| n * 1111).chain([4096, 8192, 16384, 1, 0]).collect();
        let files = files(folder.path(), &sizes);
        for gentle in [true, false] {
            for task in [FileOperation::Settle, FileOperation::Hash] {
                let pace = HashOptions { gentle, stop: &RUN };
                let digests = run(&files, pace, 4096, task).unwrap();
                for ((path, size), digest) in files.iter().zip(&digests) {
                    let bytes = std::fs::read(path).unwrap();
                    assert_eq!((digest.hash, digest.size), (blake3::hash(&bytes), *size));
                }
                assert_eq!(digests.len(), files.len());
            }
        }
        assert!(super::settle(&[], HashOptions { gentle: false, stop: &RUN }).unwrap().is_empty());
    }

    #[test]
    fn an_error_names_its_file_and_a_stop_stops() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path(), &[10, 20]);
        let stopped = digests(&files, HashOptions { gentle: false, stop: &AtomicBool::new(true) });
        assert!(stopped.unwrap_err().to_string().contains("stopped"));
        files[0].1 = 11;
        let short = digests(&files[..1], HashOptions { gentle: false, stop: &RUN }).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        files[1].0 = folder.path().join("none");
        let error = settle(&files[1..], HashOptions { gentle: false, stop: &RUN }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("none"), "{error}");
    }
}
