//! The program as its users run it: on a scripted Slurm for faults, on this machine, and on a real Slurm.
#![expect(clippy::disallowed_methods, reason = "tests start programs and read the clock")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod cancel;
mod choices;
mod claims;
mod clock;
mod cluster;
mod control;
mod counting;
mod crash;
mod damage;
mod day;
mod docs;
mod environment;
mod errors;
mod failed_starts;
mod fake;
mod files;
mod goodput;
mod limits;
mod list;
mod local;
mod mutants;
mod odd_answers;
mod output;
#[path = "../../harness/tests/it/promises.rs"]
mod promises;
mod rehearse;
mod shared_disk;
mod slurm;
mod slurm_asked;
mod slurm_faults;
mod slurm_nodes;
mod slurm_taken_out;
mod slurm_word;
mod support;
mod trace;
mod training;
