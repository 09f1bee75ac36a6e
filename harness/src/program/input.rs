//! The program's standard input: the file that a script redirects to the harness, as in `wrap -- lmp < in.lammps`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the other end of a pipe may take to write its first byte, in milliseconds.
const MOMENT: u16 = 200;

/// The input of one attempt. Each opens the file anew: what an attempt has read, the next one must read again. The harness
/// itself never reads, so the place of its own descriptor is where the program begins, after what the script has read.
pub(crate) fn of_attempt() -> io::Result<Stdio> {
    let Ok(mut own) = own() else { return Ok(Stdio::null()) };
    if !own.metadata()?.is_file() {
        return Ok(Stdio::null());
    }
    let begin = own.stream_position()?;
    let mut again = File::open("/proc/self/fd/0")?;
    again.seek(SeekFrom::Start(begin))?;
    Ok(again.into())
}

/// Whether something comes through a pipe. Only one attempt could read it.
pub(crate) fn is_piped() -> bool {
    let kind = own().and_then(|own| own.metadata()).map(|own| own.file_type());
    kind.is_ok_and(|kind| kind.is_fifo()) && has_content(io::stdin().as_fd())
}

fn own() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

fn has_content(pipe: BorrowedFd<'_>) -> bool {
    let mut set = [PollFd::new(pipe, PollFlags::POLLIN)];
    poll(&mut set, PollTimeout::from(MOMENT)).ok();
    set.iter().filter_map(PollFd::revents).any(|seen| seen.contains(PollFlags::POLLIN))
}
