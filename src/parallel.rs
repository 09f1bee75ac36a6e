//! Several things at once where this machine allows threads, one after the other where it does not: at the user's limit
//! of processes there are none.

use std::sync::mpsc::channel;
use std::thread::{Builder, ScopedJoinHandle, scope};

/// Does `aside` on a thread of its own while `here` is done on this one; afterwards where there is no thread.
pub(crate) fn join<A: Send, H>(aside: impl Fn() -> A + Sync, here: impl FnOnce() -> H) -> (A, H) {
    scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, &aside).ok();
        let done = here();
        (thread.and_then(joined).unwrap_or_else(&aside), done)
    })
}

/// Does `aside` on a thread of its own, and `here` on this one as soon as `aside` says that it only waits now: programs
/// that it started do not have to share a processor with `here` while they start.
pub(crate) fn join_waiting<A: Send, H>(
    aside: impl Fn(&dyn Fn()) -> A + Sync,
    here: impl FnOnce() -> H,
) -> (A, H) {
    scope(|scope| {
        let (sender, waits) = channel();
        let work = &aside;
        let run = move || work(&|| sender.send(()).unwrap_or_default());
        let thread = Builder::new().spawn_scoped(scope, run).ok();
        // It also goes on when the thread has ended, or never began.
        waits.recv().unwrap_or_default();
        let done = here();
        (thread.and_then(joined).unwrap_or_else(|| aside(&|| ())), done)
    })
}

/// Does the same for each part, each on a thread of its own but the last one, which is done on this one. The results are
/// in the order of the parts.
pub(crate) fn map_chunks<'p, T: Sync + 'p, R: Send>(
    parts: impl Iterator<Item = &'p [T]>,
    work: impl Fn(&'p [T]) -> R + Sync,
) -> Vec<R> {
    let work = &work;
    scope(|scope| {
        let thread = |part| Builder::new().spawn_scoped(scope, move || work(part)).ok();
        let mut parts: Vec<_> = parts.collect();
        let last = parts.pop();
        let under_way: Vec<_> = parts.into_iter().map(|part| (part, thread(part))).collect();
        let here = last.map(work);
        let ends = under_way.into_iter();
        let done = ends.map(|(part, end)| end.and_then(joined).unwrap_or_else(|| work(part)));
        done.chain(here).collect()
    })
}

/// What a thread came to; nothing if it panicked, which ours do not: then its work is done again here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Option<T> {
    thread.join().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_in_order() {
        assert_eq!(join(|| 1, || 2), (1, 2));
        let (sender, order) = channel();
        let aside = |waits: &dyn Fn()| {
            sender.clone().send(1).unwrap();
            waits();
            2
        };
        assert_eq!(join_waiting(aside, || order.recv().unwrap()), (2, 1));
        assert_eq!(join_waiting(|_| 1, || 2), (1, 2), "one that never waits holds nothing up");
        let numbers: Vec<u32> = (0..10).collect();
        let sums = map_chunks(numbers.chunks(3), |part| part.iter().sum::<u32>());
        assert_eq!(sums, [3, 12, 21, 9]);
    }
}
