//! What kind of error a text tells of, by its words. The only list of them: `nemo-slurm` tells by it why trials failed, and
//! the harness what to do after a failure.

use serde::Serialize;

/// What kind of error it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the definition")]
pub enum ErrorClass {
    OutOfMemory,
    GpuOutOfMemory,
    MissingModule,
    BadConfiguration,
    TimeLimit,
    NodeFailure,
    Hung,
    Nan,
    Crash,
    Unknown,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OutOfMemory,
        Self::GpuOutOfMemory,
        Self::MissingModule,
        Self::BadConfiguration,
        Self::TimeLimit,
        Self::NodeFailure,
        Self::Hung,
        Self::Nan,
        Self::Crash,
        Self::Unknown,
    ];

    /// Whether such a trial would only fail again, whatever it is given: the program, its files or the GPU must change.
    #[must_use]
    pub fn would_fail_again(self) -> bool {
        matches!(self, Self::MissingModule | Self::BadConfiguration | Self::GpuOutOfMemory)
    }

    /// As it is spelt in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::GpuOutOfMemory => "gpu_out_of_memory",
            Self::MissingModule => "missing_module",
            Self::BadConfiguration => "bad_configuration",
            Self::TimeLimit => "time_limit",
            Self::NodeFailure => "node_failure",
            Self::Hung => "hung",
            Self::Nan => "nan",
            Self::Crash => "crash",
            Self::Unknown => "unknown",
        }
    }
}

/// Python's errors before a program can work.
const PYTHON_STARTS: [(&str, ErrorClass); 5] = [
    ("ModuleNotFoundError", ErrorClass::MissingModule),
    ("ImportError", ErrorClass::MissingModule),
    ("SyntaxError", ErrorClass::BadConfiguration),
    ("IndentationError", ErrorClass::BadConfiguration),
    ("TabError", ErrorClass::BadConfiguration),
];

/// The first that fits counts. All in small letters.
const WORDS: &[(ErrorClass, &[&str])] = &[
    // Before the words of memory, which may also be allocated.
    (ErrorClass::BadConfiguration, &["unable to create step", "unable to allocate resources"]),
    (
        ErrorClass::GpuOutOfMemory,
        &[
            "cuda out of memory",
            "hip out of memory",
            "mps backend out of memory",
            "xpu out of memory",
            "cuda error: out of memory",
            "cuda_error_out_of_memory",
            "cudaerrormemoryallocation",
            "cublas_status_alloc_failed",
            "cudnn_status_alloc_failed",
            "torch.outofmemoryerror",
            "cuda.outofmemoryerror",
            "resource_exhausted: out of memory while trying to allocate",
            "hiperroroutofmemory",
            "cuda.memory.outofmemoryerror",
            "on device ordinal",
            "cuda failure 2:",
            "cuda failure 2 'out of memory'",
            "cuda failure 'out of memory'",
            "out of gpu memory",
            // What bitsandbytes says.
            "error out of memory at line ",
            "(gpu_",
            "no available memory for the cache blocks",
            "unable to allocate cuda",
            "unable to allocate rocm",
        ],
    ),
    (
        ErrorClass::OutOfMemory,
        &[
            "memoryerror",
            "unable to allocate",
            "bad_alloc",
            "bad alloc",
            "cannot allocate memory",
            "can't allocate memory",
            "not enough memory",
            "memory allocation of ",
            "outofmemory",
            "out of memory",
            "oom when allocating",
            "oom_kill",
            "oom-kill",
            "killed process",
            "resource_exhausted",
            "resourceexhaustederror",
            "insufficient virtual memory",
            "cannot allocate vector",
            "virtual memory exhausted",
        ],
    ),
    (ErrorClass::TimeLimit, &["due to time limit"]),
    (ErrorClass::NodeFailure, &["due to node failure", "stale file handle"]),
    (
        ErrorClass::MissingModule,
        &[
            "no module named",
            "error while loading shared libraries",
            "cannot open shared object file",
            "the following module(s) are unknown",
            "unable to locate a modulefile",
            "lmod has detected the following error: these module(s)",
            "environmentnamenotfound",
            "environmentlocationnotfound",
            "packagesnotfounderror",
            "cannot find module",
            "could not find or load main class",
            "classnotfoundexception",
            "noclassdeffounderror",
            "there is no package called",
            "version `glibc",
            "version `cxxabi",
            "can't locate ",
            "not found in current path",
            "is required but does not seem to be installed",
            "cannot load such file",
            "no solution found when resolving dependencies",
        ],
    ),
    (
        ErrorClass::Hung,
        &["watchdog caught collective operation timeout", "timed out after", "timeouterror"],
    ),
    (
        ErrorClass::Nan,
        &[
            "floatingpointerror",
            "nan in ",
            "nan or inf",
            "nan or -inf",
            "is nan",
            "contains nan",
            "nan values",
            "nan loss",
            "nan encountered",
            "(nan)",
            "non-finite",
            "not finite",
            "nan detected",
            "became nan",
            "got nan",
            "loss: nan",
            "loss=nan",
            "nan losses",
            "nan value",
            "nan or infinity",
            "nans",
            "float nan",
            "`inf`, `nan`",
            // The first value of a tensor.
            "[nan",
        ],
    ),
    (
        ErrorClass::BadConfiguration,
        &[
            "unrecognized arguments",
            "the following arguments are required",
            // What Python's parser says. `: error: ` alone is also said by Slurm, of any program that ends badly.
            ": error: argument ",
            ": error: ambiguous option",
            ": error: one of the arguments ",
            "no such option",
            "unrecognized option",
            "unknown command line flag",
            "could not consume arg",
            "missing option",
            "missing argument",
            "invalid value for",
            "unexpected argument",
            "required arguments were not provided",
            "can't open file",
            "no such file or directory",
            "filenotfounderror",
            "command not found",
            "required file not found",
            "permission denied",
            "is a directory",
            "exec format error",
            "bad interpreter",
            "unbound variable",
            "parameter not set",
            "syntax error",
            "commandnotfounderror",
            "conda init",
            "is not a valid model identifier",
            "misconfigurationexception",
            "validation error",
            "validationerror",
            "configattributeerror",
            "configkeyerror",
            "configcompositionexception",
            "missingmandatoryvalue",
            "missingconfigexception",
            "could not override",
            "scannererror",
            "tomldecodeerror",
            "invalid hyperparameters",
            "yaml.parser.parsererror",
            "api_key not configured",
            "torch not compiled with cuda enabled",
            "not enough slots available",
            "was unable to launch the specified application",
            "was unable to find the specified executable",
            // What the harness says of a placeholder.
            "}` has no value",
        ],
    ),
];

/// What allocates the memory of GPUs. `cudaMallocHost` does not.
const GPU_ALLOCATORS: [&str; 6] = [
    "cudamalloc",
    "cudamallocasync",
    "cudamallocmanaged",
    "hipmalloc",
    "hipmallocasync",
    "hipmallocmanaged",
];

/// What is said of a server that does not answer.
const NO_ANSWER: [&str; 4] = [
    "connection timed out",
    "[errno 110]",
    "socket timed out",
    "unable to contact slurm controller",
];

/// The class of the first text that has one.
#[must_use]
pub fn of_texts(texts: &[String]) -> Option<ErrorClass> {
    texts
        .iter()
        .find_map(|text| if is_killed(text) { Some(ErrorClass::OutOfMemory) } else { of(text) })
}

/// The class of a text.
#[must_use]
pub fn of(text: &str) -> Option<ErrorClass> {
    // Programs break their lines at the width of a terminal, and align what they say.
    let lower = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let fits = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let tells = |class, words: &[&str]| match class {
        ErrorClass::Nan => words.iter().any(|word| has_whole(&lower, word)),
        _ => fits(words),
    };
    let starts = |class| PYTHON_STARTS.iter().any(|(name, of)| *of == class && text.contains(name));
    let found = WORDS.iter().find(|(class, words)| tells(*class, words) || starts(*class));
    let found = found.map(|(class, _)| *class);
    // What `sh` says of a command.
    let is_refused = lower.ends_with(": not found") || is_of_compiler(&lower);
    let class = found.or_else(|| is_refused.then_some(ErrorClass::BadConfiguration))?;
    Some(match class {
        ErrorClass::OutOfMemory if names_gpu(&lower) => ErrorClass::GpuOutOfMemory,
        // Neither a program that hangs nor one that would fail again.
        ErrorClass::Hung | ErrorClass::BadConfiguration if fits(&NO_ANSWER) => ErrorClass::Crash,
        class => class,
    })
}

/// TensorFlow names the device whose memory was too little, others the function that allocates it.
fn names_gpu(lower: &str) -> bool {
    lower.contains("device:gpu:") || GPU_ALLOCATORS.iter().any(|name| has_whole(lower, name))
}

/// `mesh.c:3:5: error: …`
fn is_of_compiler(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once(": error: ").is_some_and(|(place, _)| {
        let mut parts = place.rsplitn(3, ':');
        parts.by_ref().take(2).all(is_number) && parts.next().is_some()
    })
}

/// Whether a text has these words and the last of them ends there: `is nan`, but not `is nanopore`.
fn has_whole(text: &str, words: &str) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut places = text.match_indices(words);
    places.any(|(at, words)| {
        !(words.ends_with(is_of_word) && text[at + words.len()..].starts_with(is_of_word))
    })
}

/// Whether a line is one of Python's errors before a program can work.
#[must_use]
pub fn is_python_start(line: &str) -> bool {
    let name = line.split_once(':').map(|(name, _)| name);
    PYTHON_STARTS.iter().any(|(start, _)| name == Some(*start))
}

/// A shell says so of a program that a SIGKILL ended. Where nobody else sends one, that is the kernel, for memory.
fn is_killed(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_of_shell = text.contains(": line ") && words.any(|word| word == "Killed");
    let lower = text.to_lowercase();
    let by_name = [
        "killed by signal: killed",
        "signal 9 (sigkill)",
        "signal 9 (killed)",
        "signal: 9",
        "terminated with signal sigkill",
        "died with <signals.sigkill",
        "return code = -9",
    ];
    text == "Killed"
        || by_name.iter().any(|name| lower.contains(name))
        || is_of_shell
        || (text.starts_with("srun: error: ") && text.ends_with(": Killed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_the_class() {
        let check = |text: &str, expected| assert_eq!(of(text), expected, "{text}");
        check(
            "XlaRuntimeError: RESOURCE_EXHAUSTED: OOM on /job:w/device:GPU:0",
            Some(ErrorClass::GpuOutOfMemory),
        );
        check("InvalidArgumentError: no kernel for device:GPU:0", None);
        check("hipErrorOutOfMemory", Some(ErrorClass::GpuOutOfMemory));
        check("TimeoutError: [Errno 110] Connection timed out", Some(ErrorClass::Crash));
        check(
            "srun: error: Unable to allocate resources: Unable to contact slurm controller (connect failure)",
            Some(ErrorClass::Crash),
        );
        check("TimeoutError: Timed out after 1801 seconds", Some(ErrorClass::Hung));
        check(
            "FATAL Flags parsing error: Unknown command line flag 'lrr'",
            Some(ErrorClass::BadConfiguration),
        );
        check(
            "./train: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./train)",
            Some(ErrorClass::MissingModule),
        );
        check("cudaMalloc failed: out of memory (2)", Some(ErrorClass::GpuOutOfMemory));
        check("hipMallocAsync failed: out of memory", Some(ErrorClass::GpuOutOfMemory));
        check("cudaMallocHost failed: out of memory", Some(ErrorClass::OutOfMemory));
        check("train.py: error: unrecognized arguments: -w", Some(ErrorClass::BadConfiguration));
        check(
            "train.py: error: argument --lr: invalid float value: 'x'",
            Some(ErrorClass::BadConfiguration),
        );
        check("mesh.c:3:5: error: 'n' undeclared", Some(ErrorClass::BadConfiguration));
        check("srun: error: n1: task 0: Segmentation fault", None);
        check("srun: error: n1: task 0: Exited with exit code 3", None);
        check("a.out: mesh: error: cell 17 negative", None);
        check("ValueError: image 17 has 2 channels", None);
        check("ValueError: this nanopore read has no signal", None);
        check("this nanopore read is nan.", Some(ErrorClass::Nan));
        check("Loss is nan, stopping training", Some(ErrorClass::Nan));
    }

    /// No word is hidden by one of a class before it.
    #[test]
    fn every_word_tells_its_own_class() {
        for (class, words) in WORDS {
            for word in *words {
                assert_eq!(of(&format!("x {word} x")), Some(*class), "{word}");
            }
        }
    }
}
