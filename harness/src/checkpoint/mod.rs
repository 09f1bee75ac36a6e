//! Checkpoints: from what a program saved to what is never lost, and back.

pub(crate) mod commit;
#[cfg(test)]
mod fake;
mod look;
pub(crate) mod manifest;
pub(crate) mod resume;
pub(crate) mod saver;
pub(crate) mod store;
pub(crate) mod tree;
pub(crate) mod watch;
