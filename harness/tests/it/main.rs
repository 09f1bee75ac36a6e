//! The built program on real processes: each test runs a trial and reads what it left.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the tests stand outside, and may panic"
)]

mod asked;
mod checkpointer;
mod checkpoints;
mod environment;
mod faults;
mod kills;
mod limits;
mod log;
mod messages;
mod own_folder;
mod profiles;
mod programs;
mod promises;
mod python;
mod ranks;
mod requeue_faults;
mod resume;
mod scheduler;
mod shared_disk;
mod stopping;
mod support;
mod tier;
mod tools;
mod trackers;
mod usage;
mod wrap;
