//! Classifies a failure by the last line of the program's error output. Pure.

use nemo_core::error_class::{self, ErrorClass};

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// Unknown: another attempt might succeed.
    Unknown,
    /// An error in the command, the code or the installation. Every attempt would end in the same way.
    Configuration,
    /// The machine or its GPU had too little memory.
    Memory,
    /// A shell could not start a program, for a reason that may pass or depends on the machine.
    Machine,
}

/// What a shell prints when it can't start a program on this machine or now, and exits with 126 or 127.
const MACHINE: [&str; 6] = [
    "Text file busy",
    "Stale file handle",
    "Input/output error",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Transport endpoint is not connected",
];

/// Classifies an exit. `worked`: the program showed that it works, so its configuration is valid.
pub(crate) fn judge(code: Option<i32>, last_line: &str, worked: bool) -> FailureClass {
    let is_python = error_class::is_python_start(last_line);
    // Slurm says it of any program that ends badly.
    let is_slurms = ["srun: ", "slurmstepd: "].iter().any(|start| last_line.starts_with(start));
    let is_error = last_line.contains(": error: ") && !is_slurms;
    let is_usage = code == Some(2) && (is_error || last_line.contains("can't open file"));
    if !worked && ((code == Some(1) && is_python) || is_usage) {
        return FailureClass::Configuration;
    }
    if matches!(code, Some(126 | 127)) && MACHINE.iter().any(|word| last_line.contains(word)) {
        return FailureClass::Machine;
    }
    let is_memory = matches!(
        error_class::of(last_line),
        Some(ErrorClass::OutOfMemory | ErrorClass::GpuOutOfMemory)
    );
    if code.is_some() && is_memory { FailureClass::Memory } else { FailureClass::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: i32, line: &str, worked: bool, expected: FailureClass) {
        assert_eq!(judge(Some(code), line, worked), expected, "{line}");
    }

    #[test]
    fn the_last_line_is_judged() {
        check(
            1,
            "ModuleNotFoundError: No module named 'torhc'",
            false,
            FailureClass::Configuration,
        );
        check(1, "ImportError: libcudart.so.11.0: cannot open", false, FailureClass::Configuration);
        check(1, "ModuleNotFoundError: No module named 'late'", true, FailureClass::Unknown);
        check(
            2,
            "train.py: error: unrecognized arguments: --lrr",
            false,
            FailureClass::Configuration,
        );
        check(
            2,
            "python: can't open file '/x/tain.py': [Errno 2]",
            false,
            FailureClass::Configuration,
        );
        check(2, "srun: error: n1: task 1: Terminated", false, FailureClass::Unknown);
        check(
            2,
            "slurmstepd: error: *** STEP 1.0 ON n1 CANCELLED AT 2026-11-29T10:02:14 ***",
            false,
            FailureClass::Unknown,
        );
        check(1, "RuntimeError: CUDA out of memory. Tried to allocate", true, FailureClass::Memory);
        check(1, "torch.OutOfMemoryError: CUDA out of memory", true, FailureClass::Memory);
        check(1, "MemoryError", false, FailureClass::Memory);
        check(1, "std::bad_alloc", false, FailureClass::Memory);
        check(
            1,
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.",
            true,
            FailureClass::Memory,
        );
        check(
            1,
            "srun: error: Unable to allocate resources: Invalid partition name specified",
            false,
            FailureClass::Unknown,
        );
        check(1, "ValueError: ModuleNotFoundError: no", false, FailureClass::Unknown);
        check(1, "", false, FailureClass::Unknown);
        check(126, "sh: 1: ./train: Text file busy", false, FailureClass::Machine);
        check(126, "bash: ./train: Permission denied", false, FailureClass::Unknown);
        check(1, "OSError: Input/output error", false, FailureClass::Unknown);
    }
}
