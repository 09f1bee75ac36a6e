//! The edges to the operating system: clocks, signals, `/proc`, other programs, and the log.

pub(crate) mod clock;
pub(crate) mod disposition;
pub(crate) mod log;
pub(crate) mod patience;
pub(crate) mod proc_fs;
pub(crate) mod serial_queue;
pub(crate) mod signals;
pub(crate) mod subprocess;
