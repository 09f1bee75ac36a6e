//! What `squeue` prints: no panic, and a row or an unread line for every line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_slurm::slurm::parse::queue;

fuzz_target!(|output: &[u8]| {
    let parsed = queue::parse(output);
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    assert!(parsed.rows.len() + parsed.unread.len() <= lines);
});
