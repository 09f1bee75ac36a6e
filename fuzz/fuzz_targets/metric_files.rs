//! Lightning's tables and Transformers' states: any text is read or told, and of a table that is torn the first lines are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_slurm::results::{WrittenValue, each_cell, each_entry};

fn cells(file: &[u8]) -> Vec<WrittenValue> {
    let mut found = Vec::new();
    let mut take = |value: WrittenValue| {
        assert!(value.value.is_none_or(f64::is_finite), "{value:?}");
        found.push(value);
        Ok(())
    };
    each_cell(&mut &*file, &mut take).unwrap();
    found
}

fuzz_target!(|bytes: &[u8]| {
    assert!(cells(bytes).starts_with(&cells(&bytes[..bytes.len() / 2])));
    each_entry(bytes, &mut |_| Ok(())).unwrap();
});
