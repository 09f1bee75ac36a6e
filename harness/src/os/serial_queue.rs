//! Runs operations that may hang in a thread, one after the other: a shared disk that hangs must not delay a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::eventfd::EventFd;

/// How many bytes may wait to be written.
const MOST: usize = 8 << 20;
/// The cost of an operation in addition to its bytes.
const EACH: usize = 256;
const STACK: usize = 256 * 1024;

type QueuedWork = Box<dyn FnOnce() + Send>;

/// A thread and its queue.
#[derive(Clone, Debug)]
pub(crate) struct SerialQueue {
    /// None if no thread could be started. Then every operation runs at once.
    work: Option<Sender<(usize, QueuedWork)>>,
    waiting: Arc<AtomicUsize>,
    wake: Option<Arc<EventFd>>,
}

/// The answer of an operation that the thread may not have done yet.
#[derive(Debug)]
pub(crate) struct PendingAnswer<T>(Receiver<T>);

impl<T> PendingAnswer<T> {
    /// The answer, once it is there.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Waits for the answer up to the limit.
    pub(crate) fn wait(&self, limit: Duration) -> Option<T> {
        self.0.recv_timeout(limit).ok()
    }
}

impl SerialQueue {
    /// Starts the thread. It ends with the last clone of the queue. `wake` is written after each answer.
    pub(crate) fn start(name: &str, wake: Option<&Arc<EventFd>>) -> Self {
        let (work, to_do) = channel::<(usize, QueuedWork)>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            for (cost, work) in to_do {
                work();
                count.fetch_sub(cost, Ordering::Release);
            }
        });
        Self { work: started.is_ok().then_some(work), waiting, wake: wake.map(Arc::clone) }
    }

    /// One without a thread.
    #[cfg(test)]
    pub(crate) fn at_once() -> Self {
        Self { work: None, waiting: Arc::default(), wake: None }
    }

    /// Whether so much waits that only essential operations should be added.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > MOST
    }

    /// Adds an operation that holds `bytes` of memory.
    pub(crate) fn add(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let cost = bytes + EACH;
        let Some(sender) = &self.work else { return work() };
        self.waiting.fetch_add(cost, Ordering::Relaxed);
        sender.send((cost, Box::new(work))).ok(); // the thread lives as long as a sender
    }

    /// Adds an operation and returns its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> PendingAnswer<T> {
        let (sender, answer) = channel();
        let wake = self.wake.clone();
        self.add(0, move || {
            sender.send(work()).ok(); // the caller may not wait any more
            if let Some(wake) = wake {
                wake.write(1).ok();
            }
        });
        PendingAnswer(answer)
    }

    /// Waits up to the limit for all operations that were added before. Returns whether they are done.
    pub(crate) fn drain(&self, limit: Duration) -> bool {
        self.ask(|| ()).wait(limit).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_holds_up_nobody_and_the_order_stays() {
        let queue = SerialQueue::start("test", None);
        let (go, hangs) = channel::<()>();
        let (done, order) = channel();
        let later = done.clone();
        queue.add(MOST, move || {
            hangs.recv().unwrap();
            done.send(1).unwrap();
        });
        assert!(queue.is_full());
        queue.add(0, move || later.send(2).unwrap());
        let asked = queue.ask(|| 3);
        assert_eq!((asked.take(), asked.wait(Duration::from_millis(1))), (None, None));
        assert!(!queue.drain(Duration::ZERO));
        go.send(()).unwrap();
        assert_eq!(asked.wait(Duration::from_mins(1)), Some(3));
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert!(queue.drain(Duration::from_mins(1)) && !queue.is_full());
    }

    #[test]
    fn without_a_thread_all_is_done_at_once() {
        let queue = SerialQueue::at_once();
        assert_eq!(queue.ask(|| 3).take(), Some(3));
        assert!(queue.drain(Duration::ZERO));
    }
}
