//! TensorBoard's event files: of any bytes the scalars that are whole, and of a file that is torn the first of them.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use nemo_slurm::results::{WrittenValue, each_scalar, event_scalars};

fn scalars(file: &[u8]) -> Vec<WrittenValue> {
    let mut found = Vec::new();
    each_scalar(&mut &*file, &mut |value| take(&mut found, value)).unwrap();
    found
}

fn take(found: &mut Vec<WrittenValue>, value: WrittenValue) -> io::Result<()> {
    assert!(!value.metric.is_empty() && value.value.is_none_or(f64::is_finite), "{value:?}");
    found.push(value);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    assert!(scalars(bytes).starts_with(&scalars(&bytes[..bytes.len() / 2])));
    // No change of a record gets past its checksum: also as the inside of one.
    event_scalars(bytes, &mut |value| take(&mut Vec::new(), value)).unwrap();
});
