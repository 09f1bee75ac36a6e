//! What the harness measures of its program, and that it harms nobody.

use std::io::Read;

use nemo_core::rundir::Usage;

use crate::support::Task;

/// A child of a thread that could not be started was once waited for by that thread, though the event loop had reaped it:
/// the harness ended.
#[test]
fn a_node_without_nvidia_smi_is_measured_all_the_same() {
    let mut task = Task::python("time.sleep(3.5)\nsys.exit(0)");
    task.env("PATH", "/usr/bin:/bin");
    let mut running = task.start();
    let mut errors = running.child.stderr.take().unwrap();
    assert_eq!(running.finish(), 0);
    let mut text = String::new();
    errors.read_to_string(&mut text).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    let usage = Usage::read(&task.dir().usage(0, 0)).unwrap();
    assert!(usage.is_over && usage.memory_bytes > Some(1_000_000), "{usage:?}");
    assert!(usage.cpu_seconds > 0.0 && usage.memory_peak_bytes >= usage.memory_bytes, "{usage:?}");
    assert!(usage.gpus.is_empty(), "{usage:?}");
}
