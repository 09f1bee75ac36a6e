//! Real outputs of programs that failed, and what is made of them.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::status::{sample_attempt, sample_trial};

/// The file in `tests/data/errors` (its README says which were captured), the class, the message (its beginning), and how
/// many lines the traceback has.
#[rustfmt::skip]
const OUTPUTS: &[(&str, &str, &str, usize)] = &[
    ("accelerate-launch", "missing_module", "ModuleNotFoundError: No module named 'bitsandbytes'", 4),
    ("bash-command-not-found", "bad_configuration", "bash: line 1: trian: command not found", 0),
    ("bash-faulthandler", "crash", "Fatal Python error: Segmentation fault", 6),
    ("bash-killed", "out_of_memory", "job5.sh: line 1: 13382 Killed                  python3 -c \"import os,signal; os.kill(os.getpid(),9)\"", 0),
    ("bash-no-file", "bad_configuration", "bash: ./nosuch.sh: No such file or directory", 0),
    ("bash-no-loader", "bad_configuration", "bash: line 1: ./train: cannot execute: required file not found", 0),
    ("bash-permission", "bad_configuration", "bash: line 1: ./t1.json: Permission denied", 0),
    ("bash-script-not-found", "bad_configuration", "job.sh: line 4: pyhton3: command not found", 0),
    ("bash-segfault", "crash", "job4.sh: line 1: 13378 Segmentation fault      ./seg", 0),
    ("bash-syntax", "bad_configuration", "job3.sh: line 3: syntax error: unexpected end of file", 0),
    ("bash-unbound", "bad_configuration", "job2.sh: line 2: DATA_DIR: unbound variable", 0),
    ("c-assert", "crash", "as: a.c:2: main: Assertion `n>3' failed.", 0),
    ("c-double-free", "crash", "free(): double free detected in tcache 2", 0),
    ("c-malloc", "out_of_memory", "malloc: Cannot allocate memory", 0),
    ("conda-not-found", "bad_configuration", "job.sh: line 2: conda: command not found", 0),
    ("cpp-bad-alloc", "out_of_memory", "std::bad_alloc: std::bad_alloc", 0),
    ("cpp-exception", "crash", "std::runtime_error: mesh is empty", 0),
    ("cpp-vector-assertion", "crash", "/usr/include/c++/12/bits/stl_vector.h:1123: std::vector<_Tp, _Alloc>::reference std::vector<_Tp, _Alloc>::operator[](size_type)", 0),
    ("dash-not-found", "bad_configuration", "dash: 1: trian: not found", 0),
    ("dd-full-disk", "crash", "dd: error writing '/dev/full': No space left on device", 0),
    ("fortran-bounds", "crash", "Fortran runtime error: Index '5' of dimension 1 of array 'a' above upper bound of 3", 0),
    ("fortran-missing-file", "bad_configuration", "Fortran runtime error: Cannot open file 'mesh.dat': No such file or directory", 0),
    ("go-deadlock", "crash", "fatal error: all goroutines are asleep - deadlock!", 5),
    ("go-log-fatal", "bad_configuration", "2026/12/01 15:21:07 open mesh: open mesh.dat: no such file or directory", 0),
    ("go-nil-map", "crash", "panic: assignment to entry in nil map", 7),
    ("hydra-override", "bad_configuration", "Could not override 'model.widht'.", 0),
    ("java", "crash", "java.lang.IllegalStateException: no data", 3),
    ("jax-memory", "out_of_memory", "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 17592186044416 bytes.", 29),
    ("jax-nan", "nan", "FloatingPointError: invalid value (nan) encountered in log", 10),
    ("jax-shapes", "crash", "TypeError: dot_general requires contracting dimensions to have the same shape, got (4,) and (5,).", 11),
    ("lightning-no-gpu", "bad_configuration", "lightning.fabric.utilities.exceptions.MisconfigurationException: No supported gpu backend found!", 15),
    ("lmod", "missing_module", "Lmod has detected the following error: The following module(s) are unknown: \"cuda/12.9\"", 0),
    ("loguru", "crash", "ValueError: shard 3 is empty", 15),
    ("lua-error", "crash", "lua5.4: err.lua:1: no mesh", 6),
    ("module-not-found", "bad_configuration", "job.sh: line 2: module: command not found", 0),
    ("mpi-abort", "crash", "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD Errorcode: 3", 0),
    ("mpi-exit-status", "crash", "mesh cell 17 has a negative volume", 0),
    ("mpi-no-executable", "bad_configuration", "prterun was unable to launch the specified application as it could not access an executable: Executable: ./tri", 0),
    ("mpi-python", "crash", "ValueError: shard 1 is empty", 15),
    ("mpi-rank", "crash", "[vm:00000] *** MPI_ERR_RANK: invalid rank", 0),
    ("mpi-segfault", "crash", "[vm:13691] Signal: Segmentation fault (11)", 0),
    ("mpi-slots", "bad_configuration", "There are not enough slots available in the system to satisfy the 8 slots that were requested by the applicati", 0),
    ("mpich-abort", "crash", "Abort(1) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 1) - process 1", 0),
    ("mpich-segfault", "crash", "[n1:2039 :0:2039] Caught signal 11 (Segmentation fault: address not mapped to object at address (nil))", 0),
    ("node", "crash", "TypeError: Cannot read properties of undefined (reading 'lr')", 9),
    ("numpy-floating-point", "nan", "FloatingPointError: invalid value encountered in scalar divide", 5),
    ("numpy-memory", "out_of_memory", "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.16 TiB for an array with shape (400000, 400000", 5),
    ("numpy-missing-file", "bad_configuration", "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.npy'", 7),
    ("numpy-nan", "nan", "ValueError: array must not contain infs or NaNs", 6),
    ("numpy-reshape", "crash", "ValueError: cannot reshape array of size 3 into shape (2,2)", 4),
    ("numpy-shapes", "crash", "ValueError: matmul: Input operand 1 has a mismatch in its core dimension 0, with gufunc signature (n?,k),(k,m?", 5),
    ("perl-confess", "crash", "no such gene at confess.pl line 1.", 2),
    ("perl-missing-module", "missing_module", "Can't locate Bio/Foo.pm in @INC (you may need to install the Bio::Foo module)", 0),
    ("php-exception", "crash", "PHP Fatal error: Uncaught RuntimeException: no mesh in /home/ada/run/err.php:1", 0),
    ("pydantic", "bad_configuration", "pydantic_core._pydantic_core.ValidationError: 1 validation error for C", 10),
    ("python-argparse", "bad_configuration", "t6.py: error: unrecognized arguments: --lrr 1", 0),
    ("python-chained-cause", "crash", "RuntimeError: step 12 failed", 16),
    ("python-chained-context", "crash", "ValueError: could not convert string to float: 'fast'", 15),
    ("python-click", "bad_configuration", "Error: Invalid value for '--lr': 'fast' is not a valid float.", 0),
    ("python-exception-group", "crash", "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions): ValueError: shard 1 is empty", 28),
    ("python-exit-message", "crash", "lr must be below 1, not 3.0", 0),
    ("python-faulthandler", "crash", "Fatal Python error: Segmentation fault", 5),
    ("python-full-disk", "crash", "OSError: [Errno 28] No space left on device", 5),
    ("python-full-tmpfs", "crash", "OSError: [Errno 28] No space left on device", 6),
    ("python-import-error", "missing_module", "ImportError: cannot import name 'no_such_name' from 'numpy' (/opt/venv/lib/python3.11/site-packages/numpy/__in", 4),
    ("python-json", "crash", "json.decoder.JSONDecodeError: Expecting value: line 1 column 8 (char 7)", 15),
    ("python-late-missing-file", "bad_configuration", "FileNotFoundError: [Errno 2] No such file or directory: 'data/part-0.bin'", 5),
    ("python-memory", "out_of_memory", "MemoryError", 5),
    ("python-missing-file", "bad_configuration", "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.bin'", 4),
    ("python-missing-module", "missing_module", "ModuleNotFoundError: No module named 'flash_attn'", 4),
    ("python-nan-assert", "nan", "AssertionError: loss is nan at step 120", 6),
    ("python-nan-integer", "nan", "ValueError: cannot convert float NaN to integer", 5),
    ("python-nanopore", "crash", "ValueError: this nanopore read has no signal", 4),
    ("python-nested-groups", "crash", "ExceptionGroup: outer (2 sub-exceptions): TypeError: bad type", 14),
    ("python-no-script", "bad_configuration", "/opt/venv/bin/python: can't open file '/home/ada/run/nosuch.py': [Errno 2] No such file or directory", 0),
    ("python-notes", "crash", "RuntimeError: loading 3 failed", 15),
    ("python-pool", "crash", "ZeroDivisionError: division by zero", 25),
    ("python-recursion", "crash", "RecursionError: maximum recursion depth exceeded", 14),
    ("python-spawned-process", "crash", "ValueError: rank 1 has no shard", 10),
    ("python-subprocess-killed", "out_of_memory", "subprocess.CalledProcessError: Command '['/opt/venv/bin/python', '-c', 'import os; os.kill(os.getpid(), 9)']' died", 6),
    ("python-syntax", "bad_configuration", "SyntaxError: invalid syntax", 4),
    ("python-threads", "crash", "RuntimeError: loader thread died: index 7 out of range", 9),
    ("r-memory", "out_of_memory", "Error: cannot allocate vector of size 7450.6 Gb", 0),
    ("r-stop", "crash", "Error in f(3) : negative variance in gene 7", 0),
    ("rich-traceback", "crash", "ValueError: no data", 19),
    ("ruby-cause", "crash", "err.rb:2:in `rescue in <main>': outer failed (RuntimeError)", 4),
    ("ruby-missing-gem", "missing_module", "<internal:/usr/lib/ruby/vendor_ruby/rubygems/core_ext/kernel_require.rb>:85:in `require': cannot load such file -- nosuch/gem", 3),
    ("rust-error", "bad_configuration", "Error: Os { code: 2, kind: NotFound, message: \"No such file or directory\" }", 0),
    ("rust-memory", "out_of_memory", "memory allocation of 35184372088832 bytes failed", 0),
    ("rust-panic-backtrace", "crash", "panicked at p.rs:1:97: index out of bounds: the len is 0 but the index is 5", 14),
    ("rust-panic", "crash", "panicked at p.rs:1:97: index out of bounds: the len is 0 but the index is 5", 3),
    ("rust-poisoned", "crash", "panicked at threadpanic2.rs:1:148: shard 3 is torn", 8),
    ("rust-stack-overflow", "crash", "fatal runtime error: stack overflow, aborting", 0),
    ("rust-thread-panic", "crash", "panicked at threadpanic.rs:1:82: worker lost shard 3", 8),
    ("rust-unwrap-missing-file", "bad_configuration", "panicked at unwrap.rs:1:63: called `Result::unwrap()` on an `Err` value: Os { code: 2, kind: NotFound, message", 12),
    ("shared-library", "missing_module", "./usesmesh: error while loading shared libraries: libmesh.so.1: cannot open shared object file: No such file o", 0),
    ("tcl-modules", "missing_module", "ERROR: Unable to locate a modulefile for 'cuda/12.9'", 0),
    ("tensorflow-memory", "out_of_memory", "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error: OOM when allocating ten", 20),
    ("tensorflow-nan", "nan", "tensorflow.python.framework.errors_impl.InvalidArgumentError: Graph execution error: loss : Tensor had NaN val", 18),
    ("torch-anomaly", "nan", "RuntimeError: Function 'SqrtBackward0' returned nan values in its 0th output.", 11),
    ("torch-checkpoint-missing", "bad_configuration", "FileNotFoundError: [Errno 2] No such file or directory: 'checkpoints/last.pt'", 13),
    ("torch-checkpoint-torn", "crash", "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory. This is an int", 10),
    ("torch-dataloader-killed", "out_of_memory", "RuntimeError: DataLoader worker (pid(s) 17601) exited unexpectedly", 51),
    ("torch-dataloader", "crash", "ValueError: image 17 has 2 channels", 29),
    ("torch-full-disk", "crash", "c10::Error: [enforce fail at inline_container.cc:325] . unexpected pos 320 vs 248", 0),
    ("torch-host-memory", "out_of_memory", "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tr", 5),
    ("torch-no-cuda", "crash", "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a", 16),
    ("torch-shapes", "crash", "RuntimeError: addmm: mat1 and mat2 shapes cannot be multiplied (32x128 and 64x10)", 22),
    ("torch-spawn", "crash", "KeyError: 'optimizer'", 21),
    ("torch-state-dict", "crash", "RuntimeError: Error(s) in loading state_dict for Net: size mismatch for head.weight: copying a param with shap", 8),
    ("torchrun-bad-argument", "bad_configuration", "torchrun: error: unrecognized arguments: --nproc-per-node", 0),
    ("torchrun-killed-1-13", "out_of_memory", "Signal 9 (SIGKILL) received by PID 30561", 0),
    ("torchrun-killed", "out_of_memory", "Signal 9 (SIGKILL) received by PID 22548", 0),
    ("torchrun-missing-module", "missing_module", "ModuleNotFoundError: No module named 'flash_attn'", 4),
    ("torchrun-recorded", "nan", "FloatingPointError: loss is nan at step 40", 9),
    ("torchrun-worker-1-13", "crash", "ValueError: shard 1 is empty", 4),
    ("torchrun-worker", "crash", "ValueError: shard 1 is empty", 4),
    ("transformers-arguments", "bad_configuration", "targs.py: error: ambiguous option: --lr could match --lr_scheduler_type, --lr_scheduler_kwargs", 0),
    ("transformers-label", "crash", "IndexError: Target 7 is out of bounds.", 37),
    ("transformers-missing-folder", "bad_configuration", "OSError: Incorrect path_or_model_id: '/models/llama'. Please provide either the path to a local folder or the", 21),
    ("transformers-missing-model", "bad_configuration", "OSError: Incorrect path_or_model_id: './gtp2'. Please provide either the path to a local folder or the repo_id", 24),
    ("typer-option", "bad_configuration", "No such option: --lrr", 0),
    ("ulimit-python", "out_of_memory", "MemoryError", 3),
    ("written-anyhow", "bad_configuration", "Error: failed to load config: No such file or directory (os error 2)", 0),
    ("written-anyhow-causes", "bad_configuration", "Error: failed to begin: failed to load mesh.toml: No such file or directory (os error 2)", 0),
    ("written-bitsandbytes", "gpu_out_of_memory", "Error out of memory at line 380 in file /src/csrc/ops.cu", 0),
    ("written-conda-activate", "bad_configuration", "CondaError: Run 'conda init' before 'conda activate'", 0),
    ("written-conda-environment", "missing_module", "EnvironmentNameNotFound: Could not find conda environment: vision", 0),
    ("written-cpp-torch-cuda", "crash", "c10::Error: CUDA error: an illegal memory access was encountered", 0),
    ("written-deepspeed-killed", "out_of_memory", "[2026-11-29 10:02:14,301] [ERROR] [launch.py:321:sigkill_handler] ['/opt/venv/bin/python', '-u', 'train.py', '--lo", 0),
    ("written-ggml-gpu-memory", "gpu_out_of_memory", "ggml: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory", 0),
    ("written-go", "crash", "panic: runtime error: index out of range [5] with length 3", 5),
    ("written-gromacs", "crash", "Fatal error: There is no domain decomposition for 8 ranks that is compatible with the given", 0),
    ("written-handled", "crash", "job.sh: line 9: 4711 Segmentation fault      (core dumped) python train.py", 0),
    ("written-handled-connection", "crash", "ERROR: 3 of 8 shards are missing", 0),
    ("written-handled-memory", "crash", "giving up: validation accuracy is below 0.3", 0),
    ("written-hip-memory", "gpu_out_of_memory", "hipMalloc failed: out of memory (2)", 0),
    ("written-julia-bounds", "crash", "ERROR: LoadError: BoundsError: attempt to access 3-element Vector{Int64} at index [5]", 9),
    ("written-julia-package", "missing_module", "ERROR: LoadError: ArgumentError: Package Flux not found in current path.", 12),
    ("written-keras-gpu-memory", "gpu_out_of_memory", "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Exception encountered when calling layer 'conv2d_3' (type Conv2D). {{function_node", 8),
    ("written-kernel-memory", "out_of_memory", "[81234.112] Memory cgroup out of memory: Killed process 4712 (python) total-vm:41231232kB, anon-rss:33554432kB", 0),
    ("written-lammps", "crash", "ERROR on proc 0: Lost atoms: original 32000 current 31987", 0),
    ("written-lightning-cli", "bad_configuration", "error: Parser key \"trainer.max_epochs\": Does not validate against any of the Union subtypes", 0),
    ("written-lightning-monitor", "bad_configuration", "lightning.fabric.utilities.exceptions.MisconfigurationException: `ModelCheckpoint(monitor='val_los')` could no", 6),
    ("written-lmod-versions", "missing_module", "Lmod has detected the following error: These module(s) or extension(s) exist but cannot be loaded as requested:", 0),
    ("written-matlab", "crash", "Error using * Incorrect dimensions for matrix multiplication.", 5),
    ("written-mpi-abort-4", "crash", "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD with errorcode 3.", 0),
    ("written-mpi-abort-4-own", "crash", "mesh cell 17 has a negative volume", 0),
    ("written-mpi-primary-job", "crash", "mesh cell 17 has a negative volume", 0),
    ("written-nccl-gpu-memory", "gpu_out_of_memory", "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:2006, unh", 7),
    ("written-nccl-watchdog", "hung", "[rank3]:[E1129 10:12:14.101 ProcessGroupNCCL.cpp:616] [Rank 3] Watchdog caught collective operation timeout: W", 0),
    ("written-onnx-gpu-memory", "gpu_out_of_memory", "onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exce", 4),
    ("written-plain", "crash", "giving up: 3 of 8 shards are missing", 0),
    ("written-r", "crash", "Error in solve.default(A) : Lapack routine dgesv: system is exactly singular: U[2,2] = 0", 0),
    ("written-ray", "gpu_out_of_memory", "RuntimeError: CUDA out of memory. Tried to allocate 4.00 GiB", 4),
    ("written-rust-panic-1-65", "crash", "panicked at 'assertion failed: `(left == right)` left: `3`, right: `4`: cells differ', src/main.rs:12:5", 4),
    ("written-slurm-memory", "out_of_memory", "srun: error: n1: task 0: Out Of Memory", 0),
    ("written-slurm-node", "node_failure", "slurmstepd: error: *** STEP 4711.0 ON n1 CANCELLED AT 2026-11-29T10:02:14 DUE TO NODE FAILURE, SEE SLURMCTLD L", 0),
    ("written-slurm-partition", "bad_configuration", "srun: error: Unable to allocate resources: Invalid partition name specified", 0),
    ("written-slurm-time", "time_limit", "slurmstepd: error: *** JOB 4711 ON n1 CANCELLED AT 2026-11-29T10:02:14 DUE TO TIME LIMIT ***", 0),
    ("written-srun-argparse", "bad_configuration", "train.py: error: unrecognized arguments: --widht 3", 0),
    ("written-srun-exit", "crash", "KeyError: 'lr'", 4),
    ("written-srun-segfault", "crash", "srun: error: n1: task 0: Segmentation fault", 0),
    ("written-tensorflow-gpu-memory", "gpu_out_of_memory", "tensorflow.python.framework.errors_impl.ResourceExhaustedError: {{function_node __wrapped__Conv2D_device_/job:", 6),
    ("written-torch-cuda-assert", "crash", "RuntimeError: CUDA error: device-side assert triggered", 6),
    ("written-torch-cuda-memory", "gpu_out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.39 Gi", 8),
    ("written-torch-nan-distribution", "nan", "ValueError: Expected parameter loc (Tensor of shape (2, 3)) of distribution Normal(loc: torch.Size([2, 3]), sc", 11),
    ("written-torch-nan-probabilities", "nan", "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0", 4),
    ("written-uv", "missing_module", "No solution found when resolving dependencies: Because torch was not found in the cache", 0),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/errors")
}

/// What was run and the versions, where the file says so, and what was printed.
fn output(name: &str) -> (Vec<String>, Vec<u8>) {
    let text = std::fs::read(folder().join(format!("{name}.txt"))).unwrap();
    let (mut head, mut rest) = (Vec::new(), text.as_slice());
    while let Some(line) = rest.strip_prefix(b"#! ") {
        let end = line.iter().position(|byte| *byte == b'\n').unwrap();
        head.push(String::from_utf8(line[..end].to_vec()).unwrap());
        rest = &line[end + 1..];
    }
    (head, rest.to_vec())
}

/// A row of the table in `docs/errors.md`.
fn row(name: &str, class: &str, message: &str) -> String {
    let (head, _) = output(name);
    let run = match &head[..] {
        [command, versions] => format!("`{command}` ({versions})"),
        _ if name.starts_with("written-") => "as documented".to_owned(),
        _ => String::new(),
    };
    let message = message.replace('|', "\\|").replace('`', "'");
    format!("| {name} | {run} | `{class}` | `{message}` |")
}

#[test]
fn the_documentation_tells_the_class_and_message_of_each() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<String> =
        OUTPUTS.iter().map(|(name, class, message, _)| row(name, class, message)).collect();
    let told: Vec<&str> = page.lines().filter(|line| line.contains(" | `")).collect();
    assert_eq!(told, rows, "{}", rows.join("\n"));
}

#[test]
fn what_lets_no_program_begin_is_a_crash_once_it_has_worked() {
    let text = "FileNotFoundError: [Errno 2] No such file or directory: 'data/part-3.bin'\n";
    let class = |step, resumed| {
        let mut trial = failed(Cause::Failed, Some(1));
        trial.step = step;
        trial.attempts[0].resume_step = resumed;
        trial.attempts[0].checkpoint_step = resumed;
        error_of(&trial, parse(text.as_bytes(), false)).class
    };
    assert_eq!(class(None, None), ErrorClass::BadConfiguration);
    assert_eq!(class(Some(6), None), ErrorClass::Crash);
    assert_eq!(class(Some(6), Some(6)), ErrorClass::BadConfiguration, "nothing since the resume");
    assert_eq!(class(Some(8), Some(6)), ErrorClass::Crash);
}

#[test]
fn that_slurm_ended_an_earlier_run_is_no_error() {
    let reason = "the trial could not begin on n1";
    let mut trial = failed(Cause::StartFailed, None);
    trial.reason = Some(reason.to_owned());
    for why in ["JOB REQUEUE", "PREEMPTION"] {
        let said = format!(
            "slurmstepd-n1: error: *** JOB 2 ON n1 CANCELLED AT 2026-12-01T00:37:00 DUE TO {why} ***\n"
        );
        assert!(parse(said.as_bytes(), false).weight() < Some(Weight::Consequence), "{why}");
    }
    assert_eq!(error_of(&trial, parse(b"", false)).message, reason);
}

#[test]
fn what_srun_refuses_is_no_failure_of_a_node() {
    let class = |reason: &str| {
        let mut trial = failed(Cause::StartFailed, None);
        trial.reason = Some(reason.to_owned());
        error_of(&trial, parse(b"", false)).class
    };
    let refused = "srun: error: Unable to create step for job 7: Requested node configuration is not available";
    assert_eq!(class(refused), ErrorClass::BadConfiguration);
    assert_eq!(class("the node has no room"), ErrorClass::NodeFailure);
}

/// The last line of the error output is what is shown: its words count where nothing better was found.
#[test]
fn a_last_line_tells_a_class() {
    let class =
        |text: &str| error_of(&failed(Cause::Failed, Some(1)), parse(text.as_bytes(), false)).class;
    assert_eq!(class("Loss is nan, stopping training\n"), ErrorClass::Nan);
    assert_eq!(class("giving up\n"), ErrorClass::Crash);
    assert_eq!(class("=   KILLED BY SIGNAL: 9 (Killed)\n=====\n"), ErrorClass::OutOfMemory);
}

fn failed(cause: Cause, exit_code: Option<i32>) -> TrialStatus {
    let mut trial = sample_trial(0, State::Failed);
    trial.attempts.push(AttemptStatus { cause: Some(cause), exit_code, ..sample_attempt(0) });
    trial
}

#[test]
fn real_outputs_have_their_class_and_message() {
    for (name, class, message, n_lines) in OUTPUTS {
        let error = error_of(&failed(Cause::Failed, Some(1)), parse(&output(name).1, false));
        assert_eq!(error.class.as_str(), *class, "{name}: {error:#?}");
        assert!(error.message.starts_with(message), "{name}: {error:#?}");
        let traceback = error.traceback.as_ref().map_or(0, |text| text.lines().count());
        assert_eq!(traceback, *n_lines, "{name}: {error:#?}");
        assert_eq!(error.node.as_deref(), Some("n1"), "{name}");
        assert!(!error.lines.is_empty() && error.lines.len() <= 20, "{name}: {error:#?}");
    }
}

#[test]
fn every_captured_output_is_in_the_table() {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let texts = names.filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let names: Vec<String> =
        texts.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), OUTPUTS.len());
    for name in names {
        assert!(OUTPUTS.iter().any(|(known, ..)| *known == name), "{name}");
    }
}

#[test]
fn a_chain_is_one_text() {
    let text = std::fs::read_to_string(folder().join("python-chained-cause.txt")).unwrap();
    let error = error_of(&failed(Cause::Failed, Some(1)), parse(text.as_bytes(), false));
    assert_eq!(error.traceback.as_deref(), Some(text.trim_end()));
    assert_eq!(error.place().as_deref(), Some("train.py:8"));
}

fn message(text: &str) -> String {
    error_of(&failed(Cause::Failed, Some(1)), parse(text.as_bytes(), false)).message
}

/// What looks like later frames of a stack, or like the first line of a box, is no error by itself.
#[test]
fn what_a_program_prints_at_its_end_is_not_the_cause() {
    let error =
        "Traceback (most recent call last):\n  File \"t.py\", line 1, in f\nValueError: no data\n";
    for last in [
        "Saving state:\n\twriting 3 files...\n",
        "Closing:\n\tshard 3: in use\n",
        "Summary\n    stopped at line 7 of the input\n",
        "  × shard 3 was skipped\n",
        "× shard 3 was skipped\n× shard 4 was skipped\n",
    ] {
        assert_eq!(message(&format!("{error}{last}")), "ValueError: no data", "{last}");
    }
    let octave = "error: out of bound 3\nerror: called from\n    train at line 7 column 3\n";
    assert_eq!(message(&format!("{octave}bye\n")), "error: out of bound 3");
}

#[test]
fn an_error_after_which_the_program_went_on_is_not_the_cause() {
    let lines = |n, line: &str| format!("{line}\n").repeat(n);
    let memory = "Traceback (most recent call last):\n  File \"t.py\", line 1, in f\nMemoryError\n";
    let went_on = |n| message(&format!("{memory}{}giving up\n", lines(n, "step loss 2.1")));
    assert_eq!((went_on(48), went_on(49)), ("MemoryError".to_owned(), "giving up".to_owned()));
    let twice = format!("{memory}{}", lines(60, "step loss 2.1"));
    assert_eq!(message(&format!("{twice}step\n{twice}giving up\n")), "giving up");

    let of_rank = lines(1, memory.trim_end()).replace('\n', "\n[rank3]: ");
    let others = lines(200, "[rank0]: step loss 2.1");
    assert_eq!(message(&format!("[rank3]: {of_rank}step\n{others}")), "MemoryError");
    let epilogue = "Traceback (most recent call last):\n  File \"run.py\", line 1, in main\nChildFailedError: \n=====\nFailures:\n";
    let ranks = lines(64, "[1]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 28426)");
    assert_eq!(message(&format!("{memory}{epilogue}{ranks}")), "MemoryError");
    let ignored = "Exception ignored in: <function f>\nTraceback (most recent call last):\n  File \"t.py\", line 1, in f\nOSError: closed";
    assert_eq!(message(&format!("{memory}{}", lines(40, ignored))), "MemoryError");
}

#[test]
fn the_programs_own_words_tell_more_than_a_launchers_report() {
    let exited = "srun: error: n1: task 3: Exited with exit code 1";
    assert_eq!(message(&format!("giving up\n{exited}\n")), "giving up");
    assert_eq!(message(&format!("{exited}\n")), exited);
    let cancelled = "slurmstepd: error: *** STEP 1.0 ON n1 CANCELLED AT 2026-11-29T10:02:14 ***";
    let others = format!("srun: Job step aborted: Waiting up to 32 seconds.\n{cancelled}\n");
    assert_eq!(message(&format!("giving up\n{exited}\n{others}")), "giving up");
    assert_eq!(message(&format!("{exited}\n{others}")), exited);
    assert_eq!(message(&format!("step 3\n{cancelled}\n")), cancelled);
    let rule = "-".repeat(74);
    let warning = format!("{rule}\nWARNING: There was an error in an Open MPI fabric.\n{rule}\n");
    let below = "[n1:00000] *** An error occurred in MPI_Init";
    let init = format!("step 3\n{rule}\nIt looks like MPI_INIT failed\n{rule}\n{below}\n");
    assert_eq!(message(&init), "It looks like MPI_INIT failed");
    let other = format!("{rule}\nMPI found no fast network\n{rule}\ngiving up\n");
    assert_eq!(message(&other), "giving up");
    let cut = format!("{rule}\n{rule}\nMPI_ABORT was invoked on rank 1\n{rule}\n");
    assert_eq!(message(&format!("{warning}giving up\n{rule}\n")), "giving up");
    assert_eq!(message(&cut), "MPI_ABORT was invoked on rank 1");
    assert_eq!(message("max error: 0.001\nlast: 3\n"), "last: 3");
}

/// Slurm tells so of any program: only its own words could show that it was used wrongly.
#[test]
fn what_srun_says_of_the_end_of_a_task_is_a_crash() {
    let lines = [
        "srun: error: n1: task 0: Exited with exit code 3",
        "srun: error: n1: task 0: Aborted (core dumped)",
        "srun: error: n1: tasks 0-3: Bus error",
        "slurmstepd: error: *** STEP 1.0 ON n1 CANCELLED AT 2026-11-29T10:02:14 ***",
        "a.out: mesh: error: cell 17 negative",
    ];
    for line in lines {
        let error = error_of(&failed(Cause::Failed, Some(1)), parse(line.as_bytes(), false));
        assert_eq!((error.class, &*error.message), (ErrorClass::Crash, line));
    }
}

/// A signal that ends a process which has told why tells nothing more; one of another process, before, does.
#[test]
fn a_report_of_the_signal_does_not_hide_what_the_process_said() {
    let fatal = "Fatal Python error: Bus error\n\nCurrent thread 0x7f (most recent call first):\n  File \"t.py\", line 3 in f\n";
    let reports = [
        "job.sh: line 1: 1323 Bus error               (core dumped) python3 t.py",
        "srun: error: n1: task 0: Bus error (core dumped)",
        "  traceback : Signal 7 (SIGBUS) received by PID 1323",
    ];
    for report in reports {
        assert_eq!(message(&format!("{fatal}{report}\n")), "Fatal Python error: Bus error");
    }
    let killed = "job.sh: line 1: 1323 Killed                  python3 t.py";
    assert_eq!(message(&format!("{fatal}{killed}\n")), killed);
    let thrown = "terminate called after throwing an instance of 'c10::Error'\n  what():  mesh\n";
    let slurm = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.";
    assert_eq!(message(&format!("{thrown}{slurm}\n")), slurm);
}

#[test]
fn what_ended_the_attempt_counts_first() {
    let check = |cause, code, text: &str, expected: ErrorClass| {
        let error = error_of(&failed(cause, code), parse(text.as_bytes(), false));
        assert_eq!(error.class, expected, "{cause:?}: {error:#?}");
        error.message
    };
    let interrupted =
        "Traceback (most recent call last):\n  File \"t.py\", line 1, in f\nKeyboardInterrupt\n";
    let nothing = "nobody told why";
    assert_eq!(check(Cause::Hung, None, interrupted, ErrorClass::Hung), nothing);
    assert_eq!(check(Cause::TimeLimit, None, "step 3\n", ErrorClass::TimeLimit), nothing);
    check(Cause::OutOfMemory, Some(137), "step 3\n", ErrorClass::OutOfMemory);
    check(
        Cause::OutOfMemory,
        Some(1),
        "RuntimeError: CUDA out of memory.\n",
        ErrorClass::GpuOutOfMemory,
    );
    check(Cause::NodeFailure, None, "", ErrorClass::NodeFailure);
    check(Cause::StartFailed, Some(127), "", ErrorClass::NodeFailure);
    check(Cause::Failed, Some(3), "", ErrorClass::Crash);
    check(Cause::Preempted, None, "step 3\n", ErrorClass::Unknown);
}

/// What the harness says before the program starts: another attempt finds the same.
#[test]
fn a_value_that_no_task_left_is_a_wrong_configuration() {
    let mut trial = failed(Cause::Failed, None);
    let reason = "`{prepare.result.lr}` has no value: the result of trial 0 of `prepare` has no `lr`, but `rate`";
    trial.reason = Some(reason.to_owned());
    let error = error_of(&trial, parse(b"", false));
    assert_eq!((error.class, &*error.message), (ErrorClass::BadConfiguration, reason));
}

/// Locally, on Slurm, and by a rank of several: nothing ran, and a retry as before would run nothing either.
#[test]
fn a_command_that_is_not_there_is_a_wrong_configuration() {
    let check = |reason: &str, exit_code, expected| {
        let mut trial = failed(Cause::Failed, exit_code);
        trial.reason = Some(reason.to_owned());
        let error = error_of(&trial, parse(b"", false));
        assert_eq!((error.class, &*error.message), (expected, reason));
    };
    for reason in [
        "`./nope.sh` does not exist",
        "rank 1 on n2: `./nope.sh` does not exist",
        "`nope` was not found in PATH; to run the one in the folder, write `./nope`",
        "`./x.sh` is not executable; `chmod +x ./x.sh` makes it so",
        "the interpreter `/bin/nope` of `/w/x.sh` does not exist",
        "the folder `/w`, where the program must run, is not there",
    ] {
        check(reason, None, ErrorClass::BadConfiguration);
    }
    let ran = "the program exited with code 1 after 3 s; `x` does not exist";
    check(ran, Some(1), ErrorClass::Crash);
}

#[test]
fn the_output_is_shown_without_what_steers_a_terminal() {
    let text = "\u{1b}[31mred\u{1b}[0m\u{1b}]0;x\u{7}\r 10 %\r 20 %\nnemo-harness: 2026-11-28T19:31:02Z warn no room\n\n";
    assert_eq!(parse(text.as_bytes(), false).lines, [" 20 %"]);
    let many = (0..100).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n");
    let lines = parse(many.as_bytes(), true).lines;
    assert_eq!((lines.len(), &*lines[19]), (20, "line 99"));
    assert_eq!(parse(b"part\nwhole\n", true).lines, ["whole"]);
}

#[test]
fn the_node_is_that_of_the_rank_that_failed() {
    let check = |reason: &str, expected| {
        let mut trial = failed(Cause::Failed, Some(1));
        trial.attempts[0].reason = Some(reason.to_owned());
        let error = error_of(&trial, parse(b"ValueError: x\n", false));
        assert_eq!(error.node.as_deref(), Some(expected), "{reason}");
    };
    check("rank 3 on n2 exited with code 1 after 4 s (ranks 0-2: code 1)", "n2");
    check(
        "another attempt would fail the same way: rank 12 on gpu-01 exited with code 1",
        "gpu-01",
    );
    check("rank 3 on n4: could not be started", "n4");
    check("the program exited with code 1; last line of its error output: `frank 3 on n9 x`", "n1");
}

#[test]
fn equal_errors_differ_only_in_numbers() {
    let kind = |text: &str| {
        error_of(&failed(Cause::Failed, Some(1)), parse(text.as_bytes(), false)).kind()
    };
    let nan = |step| kind(&format!("ValueError: loss is nan at step {step} (0x7f{step})\n"));
    assert_eq!(nan(12), nan(130));
    assert_ne!(nan(12), kind("ValueError: loss is inf at step 12 (0x7f12)\n"));
}

proptest! {
    /// Whatever a program prints, and wherever its end is cut.
    #[test]
    fn nothing_makes_it_panic(
        pieces in proptest::collection::vec((0..OUTPUTS.len(), 0..400usize, 0..400usize), 1..4),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut text = Vec::new();
        for (file, start, length) in pieces {
            let whole = std::fs::read(folder().join(format!("{}.txt", OUTPUTS[file].0))).unwrap();
            text.extend(whole.into_iter().skip(start).take(length));
            text.extend(&noise);
        }
        let error = error_of(&failed(Cause::Failed, Some(1)), parse(&text, true));
        let steers = error.message.contains(char::from(27));
        prop_assert!(!steers);
    }
}
