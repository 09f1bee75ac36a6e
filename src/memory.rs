//! Memory for a great many values at once.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// What is smaller gains nothing.
const LARGE: usize = 4 << 20;
/// The smallest page of any machine.
const PAGE: usize = 4096;

/// An empty vector with room for so many values, in large pages where the kernel has them: a million rows of 144 bytes
/// cost as much time to be given page by page as to be read.
pub(crate) fn with_room<T>(values: usize) -> Vec<T> {
    let mut vector: Vec<T> = Vec::with_capacity(values);
    let room = vector.spare_capacity_mut();
    let skipped = room.as_ptr().cast::<u8>().align_offset(PAGE);
    let length = size_of_val(room).saturating_sub(skipped);
    if length >= LARGE
        && let Some(start) = NonNull::new(room.as_mut_ptr().cast::<u8>().wrapping_add(skipped))
    {
        advise(start.cast(), length);
    }
    vector
}

#[expect(unsafe_code, reason = "nix can't know whose memory it is")]
fn advise(start: NonNull<c_void>, length: usize) {
    // SAFETY: the range is within the vector's own room, and this advice changes no content.
    // A kernel without large pages refuses, and small ones do as well.
    let _refused = unsafe { madvise(start, length, MmapAdvise::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_there_and_empty() {
        for values in [0, 1, 1_000_000] {
            let mut vector = with_room::<[u8; 144]>(values);
            assert!(vector.is_empty() && vector.capacity() >= values);
            vector.push([1; 144]);
            vector.shrink_to_fit();
            assert_eq!(vector, [[1; 144]]);
        }
    }
}
