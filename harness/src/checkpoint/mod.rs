//! Checkpoints: from what a program saved to what is never lost, and back.

mod background;
pub(crate) mod candidate;
pub(crate) mod collect;
pub(crate) mod commit;
mod content;
mod copy;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
mod hashing;
pub(crate) mod inotify;
mod inspect;
pub(crate) mod manifest;
pub(crate) mod numbers;
pub(crate) mod prune;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod saver;
mod scan;
pub(crate) mod search;
pub(crate) mod staging;
pub(crate) mod store;
mod take;
pub(crate) mod taken;
pub(crate) mod tree;
pub(crate) mod worker;
