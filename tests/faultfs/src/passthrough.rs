//! Every operation, handed on to the backing folder unless a fault comes between.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};

use crate::faults::{Fault, Faults};
use crate::inodes::{Inodes, ROOT};

/// An open file or a folder's listing.
enum Handle {
    File(Arc<File>),
    Folder(Arc<Vec<(u64, FileType, std::ffi::OsString)>>),
}

/// The file system.
pub struct Disk {
    backing: PathBuf,
    top: u64,
    ttl: Duration,
    faults: Faults,
    inodes: Inodes,
    handles: Mutex<HashMap<u64, Handle>>,
    next: AtomicU64,
}

type Result<T> = std::result::Result<T, Errno>;

impl Disk {
    pub fn new(backing: PathBuf, faults: Option<PathBuf>, ttl: Duration) -> Self {
        let top = std::fs::metadata(&backing).map_or(0, |data| data.ino());
        let (faults, inodes) = (Faults::new(faults), Inodes::new());
        Self { backing, top, ttl, faults, inodes, handles: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn path(&self, inode: INodeNo) -> Result<PathBuf> {
        self.inodes.path(inode.0).ok_or(Errno::ESTALE)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn full(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.backing.clone() } else { self.backing.join(path) }
    }

    /// Does `work`, unless a fault of `operation` on `path` comes before it, or its answer is lost.
    fn with_fault<T>(&self, operation: &str, path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.faults.of(operation, path) {
            None => work(),
            Some(Fault::Fail(errno)) => Err(errno),
            Some(Fault::LoseAnswer(errno)) => work().and(Err(errno)),
        }
    }

    fn attributes(&self, data: &Metadata) -> FileAttr {
        let inode = if data.ino() == self.top { ROOT } else { data.ino() };
        FileAttr {
            ino: INodeNo(inode),
            size: data.size(),
            blocks: data.blocks(),
            atime: time(data.atime(), data.atime_nsec()),
            mtime: time(data.mtime(), data.mtime_nsec()),
            ctime: time(data.ctime(), data.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind: kind(data.file_type()),
            perm: (data.permissions().mode() & 0o7777) as u16,
            nlink: data.nlink() as u32,
            uid: data.uid(),
            gid: data.gid(),
            rdev: data.rdev() as u32,
            blksize: 4096,
            flags: 0,
        }
    }

    fn known(&self, path: PathBuf) -> Result<FileAttr> {
        let data = std::fs::symlink_metadata(self.full(&path))?;
        let attributes = self.attributes(&data);
        // Another mount may have removed the file that had this number before: its names must not stay with the new one.
        let is_only = data.is_dir() || data.nlink() == 1;
        self.inodes.add(attributes.ino.0, path, is_only);
        Ok(attributes)
    }

    /// What is made belongs to whoever asked for it.
    fn give(&self, path: &Path, request: &Request) -> Result<()> {
        Ok(std::os::unix::fs::lchown(self.full(path), Some(request.uid()), Some(request.gid()))?)
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        match self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(Errno::EBADF),
        }
    }

    fn open_file(&self, path: &Path, flags: i32, mode: u32) -> Result<File> {
        let access = flags & libc::O_ACCMODE;
        let mut options = OpenOptions::new();
        options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY).mode(mode);
        // The kernel gives each write its place: an append here would move it.
        let flags = flags & !(libc::O_ACCMODE | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW);
        if mode != 0 {
            options.create_new(true).write(true);
        }
        Ok(options.custom_flags(flags & (libc::O_TRUNC | libc::O_NONBLOCK)).open(self.full(path))?)
    }

    fn list(&self, path: &Path) -> Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let mut all = vec![(ROOT, FileType::Directory, ".".into()), (ROOT, FileType::Directory, "..".into())];
        for entry in std::fs::read_dir(self.full(path))? {
            let entry = entry?;
            use std::os::unix::fs::DirEntryExt;
            all.push((entry.ino(), kind(entry.file_type()?), entry.file_name()));
        }
        Ok(all)
    }

    fn set(&self, path: &Path, change: &Change, handle: Option<FileHandle>) -> Result<FileAttr> {
        let full = self.full(path);
        if let Some(mode) = change.mode {
            std::fs::set_permissions(&full, PermissionsExt::from_mode(mode))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            std::os::unix::fs::lchown(&full, change.uid, change.gid)?;
        }
        if let Some(size) = change.size {
            match handle.map(|handle| self.file(handle)) {
                Some(file) => file?.set_len(size)?,
                None => OpenOptions::new().write(true).open(&full)?.set_len(size)?,
            }
        }
        if change.mtime.is_some() || change.atime.is_some() {
            let times = [spec(change.atime), spec(change.mtime)];
            let name = CString::new(full.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
            // SAFETY: a path that ends with NUL and two times.
            let done = unsafe { libc::utimensat(libc::AT_FDCWD, name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
            if done != 0 {
                return Err(io::Error::last_os_error().into());
            }
        }
        self.known(path.to_owned())
    }

    fn rename_in_backing(&self, from: &Path, to: &Path, flags: u32) -> Result<()> {
        let name = |path: &Path| CString::new(self.full(path).as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
        let (old, new) = (name(from)?, name(to)?);
        // SAFETY: two paths that end with NUL.
        let done = unsafe { libc::renameat2(libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), flags) };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        self.inodes.rename(from, to);
        Ok(())
    }
}

/// What `setattr` changes.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn spec(time: Option<TimeOrNow>) -> libc::timespec {
    match time {
        None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some(TimeOrNow::Now) => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            libc::timespec { tv_sec: since.as_secs() as i64, tv_nsec: i64::from(since.subsec_nanos()) }
        }
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds.max(0) as u32)
}

fn kind(kind: std::fs::FileType) -> FileType {
    match kind {
        kind if kind.is_dir() => FileType::Directory,
        kind if kind.is_symlink() => FileType::Symlink,
        kind if kind.is_fifo() => FileType::NamedPipe,
        kind if kind.is_socket() => FileType::Socket,
        kind if kind.is_char_device() => FileType::CharDevice,
        kind if kind.is_block_device() => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// Sends `$result` by `$reply`: a value by `$send`, or the error.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:ident => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(errno) => $reply.error(errno),
        }
    };
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.child(parent, name).and_then(|path| self.with_fault("lookup", &path, || self.known(path.clone())));
        match found {
            Ok(attributes) => reply.entry(&self.ttl, &attributes, Generation(0)),
            // An absent name is remembered like a present one.
            Err(errno) if i32::from(errno) == libc::ENOENT && !self.ttl.is_zero() => {
                if let Ok(data) = std::fs::metadata(&self.backing) {
                    let nobody = FileAttr { ino: INodeNo(0), ..self.attributes(&data) };
                    reply.entry(&self.ttl, &nobody, Generation(0));
                } else {
                    reply.error(errno);
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let attributes = self.path(inode).and_then(|path| {
            self.with_fault("getattr", &path, || match handle.map(|handle| self.file(handle)) {
                Some(Ok(file)) => Ok(self.attributes(&file.metadata()?)),
                _ => Ok(self.attributes(&std::fs::symlink_metadata(self.full(&path))?)),
            })
        });
        answer!(reply, attributes, attributes => reply.attr(&self.ttl, &attributes));
    }

    fn setattr(
        &self, _: &Request, inode: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
        atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, _: Option<SystemTime>, handle: Option<FileHandle>,
        _: Option<SystemTime>, _: Option<SystemTime>, _: Option<SystemTime>, _: Option<BsdFileFlags>, reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        let done = self.path(inode).and_then(|path| self.with_fault("setattr", &path, || self.set(&path, &change, handle)));
        answer!(reply, done, attributes => reply.attr(&self.ttl, &attributes));
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        let target = self.path(inode).and_then(|path| Ok(std::fs::read_link(self.full(&path))?));
        answer!(reply, target, target => reply.data(target.as_os_str().as_bytes()));
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, device: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| {
            self.with_fault("create", &path, || {
                let full = CString::new(self.full(&path).as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
                // SAFETY: a path that ends with NUL.
                if unsafe { libc::mknod(full.as_ptr(), mode & !umask, device.into()) } != 0 {
                    return Err(io::Error::last_os_error().into());
                }
                self.give(&path, request)?;
                self.known(path.clone())
            })
        });
        answer!(reply, made, attributes => reply.entry(&self.ttl, &attributes, Generation(0)));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| {
            self.with_fault("mkdir", &path, || {
                std::fs::create_dir(self.full(&path))?;
                std::fs::set_permissions(self.full(&path), PermissionsExt::from_mode(mode & !umask & 0o7777))?;
                self.give(&path, request)?;
                self.known(path.clone())
            })
        });
        answer!(reply, made, attributes => reply.entry(&self.ttl, &attributes, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.child(parent, name).and_then(|path| {
            self.with_fault("unlink", &path, || {
                std::fs::remove_file(self.full(&path))?;
                self.inodes.remove(&path);
                Ok(())
            })
        });
        answer!(reply, done, _done => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.child(parent, name).and_then(|path| {
            self.with_fault("rmdir", &path, || {
                std::fs::remove_dir(self.full(&path))?;
                self.inodes.remove(&path);
                Ok(())
            })
        });
        answer!(reply, done, _done => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| {
            self.with_fault("symlink", &path, || {
                std::os::unix::fs::symlink(target, self.full(&path))?;
                self.give(&path, request)?;
                self.known(path.clone())
            })
        });
        answer!(reply, made, attributes => reply.entry(&self.ttl, &attributes, Generation(0)));
    }

    fn rename(
        &self, _: &Request, parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name: &OsStr, flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let both = self.child(parent, name).and_then(|from| Ok((from, self.child(new_parent, new_name)?)));
        let done = both.and_then(|(from, to)| {
            // A rule names either end.
            let ends = PathBuf::from(format!("{} -> {}", from.display(), to.display()));
            self.with_fault("rename", &ends, || self.rename_in_backing(&from, &to, flags.bits()))
        });
        answer!(reply, done, _done => reply.ok());
    }

    fn link(&self, _: &Request, inode: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let both = self.path(inode).and_then(|from| Ok((from, self.child(new_parent, new_name)?)));
        let made = both.and_then(|(from, to)| {
            self.with_fault("link", &to, || {
                std::fs::hard_link(self.full(&from), self.full(&to))?;
                self.known(to.clone())
            })
        });
        answer!(reply, made, attributes => reply.entry(&self.ttl, &attributes, Generation(0)));
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.path(inode).and_then(|path| self.with_fault("open", &path, || self.open_file(&path, flags.0, 0)));
        answer!(reply, opened, file => {
            let handle = self.keep(Handle::File(Arc::new(file)));
            reply.opened(handle, FopenFlags::empty());
        });
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let made = self.child(parent, name).and_then(|path| {
            self.with_fault("create", &path, || {
                let file = self.open_file(&path, flags, mode & !umask & 0o7777 | 0o100_000)?;
                self.give(&path, request)?;
                Ok((file, self.known(path.clone())?))
            })
        });
        answer!(reply, made, made => {
            let handle = self.keep(Handle::File(Arc::new(made.0)));
            reply.created(&self.ttl, &made.1, Generation(0), handle, FopenFlags::empty());
        });
    }

    fn read(
        &self, _: &Request, inode: INodeNo, handle: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.path(inode).unwrap_or_default();
        let data = self.with_fault("read", &path, || {
            let file = self.file(handle)?;
            let mut data = vec![0; size as usize];
            let mut filled = 0;
            while filled < data.len() {
                match file.read_at(&mut data[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            data.truncate(filled);
            Ok(data)
        });
        answer!(reply, data, data => reply.data(&data));
    }

    fn write(
        &self, _: &Request, inode: INodeNo, handle: FileHandle, offset: u64, data: &[u8], _: WriteFlags, _: OpenFlags,
        _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        let path = self.path(inode).unwrap_or_default();
        let done = self.with_fault("write", &path, || {
            self.file(handle)?.write_all_at(data, offset)?;
            Ok(data.len() as u32)
        });
        answer!(reply, done, size => reply.written(size));
    }

    fn flush(&self, _: &Request, inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let done = self.with_fault("close", &self.path(inode).unwrap_or_default(), || Ok(()));
        answer!(reply, done, _done => reply.ok());
    }

    fn release(
        &self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty,
    ) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.path(inode).unwrap_or_default();
        let done = self.with_fault("fsync", &path, || Ok(self.file(handle)?.sync_data()?));
        answer!(reply, done, _done => reply.ok());
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listed = self.path(inode).and_then(|path| self.with_fault("readdir", &path, || self.list(&path)));
        answer!(reply, listed, names => {
            let handle = self.keep(Handle::Folder(Arc::new(names)));
            reply.opened(handle, FopenFlags::empty());
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = match self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0) {
            Some(Handle::Folder(names)) => Arc::clone(names),
            _ => return reply.error(Errno::EBADF),
        };
        for (place, (inode, kind, name)) in names.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*inode), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.path(inode).unwrap_or_default();
        let done = self.with_fault("fsyncdir", &path, || Ok(File::open(self.full(&path))?.sync_all()?));
        answer!(reply, done, _done => reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = File::open(&self.backing).and_then(|folder| {
            // SAFETY: all zeros is a valid value, and it is filled before it is read.
            let mut data: libc::statvfs = unsafe { std::mem::zeroed() };
            // SAFETY: an open file and a place for the answer.
            if unsafe { libc::fstatvfs(folder.as_raw_fd(), &raw mut data) } == 0 {
                Ok(data)
            } else {
                Err(io::Error::last_os_error())
            }
        });
        match found {
            Ok(data) => reply.statfs(
                data.f_blocks,
                data.f_bfree,
                data.f_bavail,
                data.f_files,
                data.f_ffree,
                data.f_bsize as u32,
                255,
                data.f_frsize as u32,
            ),
            Err(error) => reply.error(error.into()),
        }
    }
}
