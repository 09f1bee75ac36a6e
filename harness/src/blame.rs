//! What the last line of a program's error output tells of why it failed. Pure.

/// What is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Another attempt might do better.
    Unknown,
    /// The command, the code or what is installed: every attempt would end the same.
    Configuration,
    /// There was too little memory, of the machine or of its GPU.
    Memory,
}

/// Python's errors before any work can begin.
const CONFIGURATION: [&str; 5] =
    ["ModuleNotFoundError:", "ImportError:", "SyntaxError:", "IndentationError:", "TabError:"];

/// Judges an exit. `worked`: the program gave a sign of work before, so that it is configured well enough.
pub(crate) fn judge(code: Option<i32>, last_line: &str, worked: bool) -> Blame {
    let is_python = CONFIGURATION.iter().any(|start| last_line.starts_with(start));
    let is_usage = code == Some(2)
        && (last_line.contains(": error: ") || last_line.contains("can't open file"));
    if !worked && ((code == Some(1) && is_python) || is_usage) {
        return Blame::Configuration;
    }
    let is_memory = last_line.starts_with("MemoryError")
        || last_line.contains("OutOfMemoryError")
        || last_line.contains("CUDA out of memory")
        || last_line.contains("HIP out of memory");
    if code.is_some() && is_memory { Blame::Memory } else { Blame::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: i32, line: &str, worked: bool, expected: Blame) {
        assert_eq!(judge(Some(code), line, worked), expected, "{line}");
    }

    #[test]
    fn the_last_line_is_judged() {
        check(1, "ModuleNotFoundError: No module named 'torhc'", false, Blame::Configuration);
        check(1, "ImportError: libcudart.so.11.0: cannot open", false, Blame::Configuration);
        check(1, "ModuleNotFoundError: No module named 'late'", true, Blame::Unknown);
        check(2, "train.py: error: unrecognized arguments: --lrr", false, Blame::Configuration);
        check(2, "python: can't open file '/x/tain.py': [Errno 2]", false, Blame::Configuration);
        check(1, "RuntimeError: CUDA out of memory. Tried to allocate", true, Blame::Memory);
        check(1, "torch.OutOfMemoryError: CUDA out of memory", true, Blame::Memory);
        check(1, "MemoryError", false, Blame::Memory);
        check(1, "ValueError: ModuleNotFoundError: no", false, Blame::Unknown);
        check(1, "", false, Blame::Unknown);
    }
}
