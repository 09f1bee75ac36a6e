//! Files of checkpoints: arrays and pickles of any kind are read or not, and what is read has names of its own.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use nemo_slurm::rehearse::formats;

fuzz_target!(|bytes: &[u8]| {
    let names = formats::names(bytes).unwrap_or_default();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
});
