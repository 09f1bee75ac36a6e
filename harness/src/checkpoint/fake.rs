//! A file system in memory for tests: it can crash before any operation, and fail in it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use super::commit::CommitRequest;
use super::hashing::{Digest, SizedFile};
use super::store::{FileKind, FileStat, Store};

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Data that was not synced; the names stay.
    Data,
    /// Names that were not synced; the data stays.
    Names,
    Both,
}

/// Adds to the table of `scripts/faults`: so often the fault was injected, and these promises held.
pub(crate) fn report(fault: &str, injected: u32, promises: &str) {
    use std::io::Write;
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let Some(path) = std::env::var_os("NEMO_FAULTS") else { return };
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    let fault = fault.replace(' ', "_");
    let line = format!("fault={fault} injected={injected} promises={promises}\n");
    file.write_all(line.as_bytes()).unwrap();
}

#[derive(Clone, Debug)]
enum FakeNode {
    File { data: Vec<u8>, durable: Option<Vec<u8>>, changed: i64 },
    Dir { names: BTreeMap<Vec<u8>, usize>, durable: BTreeMap<Vec<u8>, usize> },
}

/// The file system.
#[derive(Clone, Debug)]
pub(crate) struct FakeStore {
    nodes: Vec<FakeNode>,
    /// Operations so far.
    pub(crate) ops: Cell<u32>,
    /// The operation at which everything stops, and all after it.
    pub(crate) crash_at: Option<u32>,
    /// The operation that fails, and how.
    pub(crate) fail_at: Option<(u32, i32)>,
    /// The files whose data can't be read.
    pub(crate) unreadable: Option<fn(&Path) -> bool>,
}

impl Default for FakeStore {
    fn default() -> Self {
        let root = FakeNode::Dir { names: BTreeMap::new(), durable: BTreeMap::new() };
        Self {
            nodes: vec![root],
            ops: Cell::new(0),
            crash_at: None,
            fail_at: None,
            unreadable: None,
        }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl FakeStore {
    fn operation(&self) -> io::Result<()> {
        let number = self.ops.get() + 1;
        self.ops.set(number);
        if self.crash_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("crashed"));
        }
        match self.fail_at {
            Some((at, code)) if at == number => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let FakeNode::Dir { names, .. } = &self.nodes[at] else { return Err(missing()) };
            at = *names.get(name.as_encoded_bytes()).ok_or_else(missing)?;
        }
        Ok(at)
    }

    fn names(&mut self, folder: &Path) -> io::Result<&mut BTreeMap<Vec<u8>, usize>> {
        let at = self.find(folder)?;
        match &mut self.nodes[at] {
            FakeNode::Dir { names, .. } => Ok(names),
            FakeNode::File { .. } => Err(missing()),
        }
    }

    fn link(&mut self, path: &Path, node: usize) -> io::Result<()> {
        let name = path.file_name().unwrap().as_encoded_bytes().to_vec();
        self.names(path.parent().unwrap())?.insert(name, node);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap().as_encoded_bytes();
        self.names(path.parent().unwrap())?.remove(name).map(|_| ()).ok_or_else(missing)
    }

    /// Writes as the program does: nothing is synced.
    pub(crate) fn put(&mut self, path: &str, data: &[u8]) {
        let path = Path::new(path);
        let mut folder = std::path::PathBuf::from("/");
        for part in path.parent().unwrap().components().skip(1) {
            folder.push(part);
            if self.find(&folder).is_err() {
                let empty = || BTreeMap::new();
                self.nodes.push(FakeNode::Dir { names: empty(), durable: empty() });
                self.link(&folder, self.nodes.len() - 1).unwrap();
            }
        }
        let changed = i64::from(self.ops.get());
        if let Ok(at) = self.find(path) {
            self.nodes[at] =
                FakeNode::File { data: data.to_vec(), durable: None, changed: changed + 1 };
            return;
        }
        self.nodes.push(FakeNode::File { data: data.to_vec(), durable: None, changed });
        self.link(path, self.nodes.len() - 1).unwrap();
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.unlink(Path::new(path)).unwrap();
    }

    /// Everything up to now survives.
    pub(crate) fn settle(&mut self) {
        for node in &mut self.nodes {
            match node {
                FakeNode::File { data, durable, .. } => *durable = Some(data.clone()),
                FakeNode::Dir { names, durable } => durable.clone_from(names),
            }
        }
    }

    /// The machine comes up again.
    pub(crate) fn crash(&mut self, crash: Crash) {
        (self.crash_at, self.fail_at) = (None, None);
        for node in &mut self.nodes {
            match node {
                FakeNode::File { data, durable, .. } if crash != Crash::Names => {
                    let half = data.len() / 2;
                    *data = durable.clone().unwrap_or_else(|| data[..half].to_vec());
                }
                FakeNode::Dir { names, durable } if crash != Crash::Data => {
                    names.clone_from(durable);
                }
                FakeNode::File { .. } | FakeNode::Dir { .. } => {}
            }
        }
        self.settle();
    }
}

impl Store for FakeStore {
    fn list(&self, folder: &Path) -> io::Result<Vec<Vec<u8>>> {
        match &self.nodes[self.find(folder)?] {
            FakeNode::Dir { names, .. } => Ok(names.keys().cloned().collect()),
            FakeNode::File { .. } => Err(missing()),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(match &self.nodes[self.find(path)?] {
            FakeNode::Dir { .. } => FileStat { kind: FileKind::Dir, size: 0, modified: (0, 0) },
            FakeNode::File { data, changed, .. } => {
                FileStat { kind: FileKind::File, size: data.len() as u64, modified: (*changed, 0) }
            }
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match &self.nodes[self.find(path)?] {
            FakeNode::File { data, .. } => Ok(data.clone()),
            FakeNode::Dir { .. } => Err(missing()),
        }
    }

    fn digests(&self, files: &[SizedFile]) -> io::Result<Vec<Digest>> {
        let digest = |(path, _): &SizedFile| {
            self.operation()?;
            if self.unreadable.is_some_and(|matches| matches(path)) {
                return Err(io::Error::from_raw_os_error(nix::libc::ESTALE));
            }
            let data = self.read(path)?;
            Ok(Digest { hash: blake3::hash(&data), size: data.len() as u64 })
        };
        files.iter().map(digest).collect()
    }

    fn sync_files(&mut self, files: &[SizedFile]) -> io::Result<()> {
        files.iter().try_for_each(|(path, _)| self.sync_file(path))
    }

    fn settle(&mut self, files: &[SizedFile]) -> io::Result<Vec<Digest>> {
        self.sync_files(files)?;
        self.digests(files)
    }

    fn read_link(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(missing())
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        self.nodes.push(FakeNode::Dir { names: BTreeMap::new(), durable: BTreeMap::new() });
        self.link(path, self.nodes.len() - 1)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.operation()?;
        self.put(path.to_str().unwrap(), bytes);
        Ok(())
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let at = self.find(path)?;
        if let FakeNode::File { data, durable, .. } = &mut self.nodes[at] {
            *durable = Some(data.clone());
        }
        Ok(())
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let at = self.find(path)?;
        if let FakeNode::Dir { names, durable } = &mut self.nodes[at] {
            durable.clone_from(names);
        }
        Ok(())
    }

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        let node = self.find(from)?;
        if self.find(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.link(to, node)?;
        self.unlink(from)
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        self.unlink(path)
    }
}

/// A save of that name in the store's one trial, `/t`, to be committed as this step.
pub(super) fn request(name: &str, step: u64) -> CommitRequest {
    CommitRequest {
        from: Path::new("/t/staging/0").join(name),
        entry: name.as_bytes().to_vec(),
        step,
        reported: None,
        counted_from: None,
        checkpoints: "/t/checkpoints".into(),
        attempt: 0,
        lease: "a".to_owned(),
        nonce: "n".to_owned(),
        metrics: None,
        tree: None,
        boot_id: "boot".to_owned(),
        is_hurried: false,
    }
}
