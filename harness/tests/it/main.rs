//! The built program on real processes: each test runs a trial and reads what it left.
#![expect(clippy::disallowed_methods, reason = "the tests stand outside")]

mod checkpoints;
mod programs;
mod scheduler;
mod stopping;
mod support;
