//! How the processes of a trial that has several are started: the `srun` command, and `torchrun` before the program.
//! Pure.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use nemo_core::rundir::LaunchSpec;

use crate::rank::ExecOptions;

/// Processes on each node that Slurm starts: one where `torchrun` starts the workers itself.
pub(crate) fn tasks_per_node(launch: &LaunchSpec) -> u32 {
    if launch.torchrun { 1 } else { launch.tasks_per_node.unwrap_or(1) }
}

/// How many workers each `torchrun` starts, where there is one.
pub(crate) fn workers(launch: &LaunchSpec) -> Option<u32> {
    launch.torchrun.then(|| launch.workers_per_node.unwrap_or(1))
}

/// How many processes Slurm starts.
pub(crate) fn ranks(launch: &LaunchSpec) -> u32 {
    launch.nodes.saturating_mul(tasks_per_node(launch))
}

/// The command that starts a shim for each rank.
///
/// Whatever the environment holds, `srun`'s input goes to all, their output comes back, and a shim that died takes
/// the others with it: the shims themselves always end with 0. `cpus` is given anew: since 22.05 a step does not
/// take it from its job.
pub(crate) fn srun(
    launch: &LaunchSpec,
    cpus: Option<&str>,
    harness: &Path,
    options: &ExecOptions,
) -> Vec<OsString> {
    let tasks = tasks_per_node(launch);
    let mut words = vec![
        "srun".to_owned(),
        format!("--nodes={}", launch.nodes),
        format!("--ntasks={}", ranks(launch)),
        format!("--ntasks-per-node={tasks}"),
        "--input=all".to_owned(),
        "--output=all".to_owned(),
        "--error=all".to_owned(),
        "--export=ALL".to_owned(),
        "--kill-on-bad-exit=1".to_owned(),
        "--wait=0".to_owned(),
    ];
    words.extend(cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    let words = words.into_iter().map(OsString::from);
    words.chain([harness.into()]).chain(options.arguments()).collect()
}

/// The program under `torchrun`, whose options come by the environment. One that is such a launcher already stays.
///
/// `words` are the command's own: `argv` may be a shell around them. Where they begin with a Python interpreter, it
/// runs its own `torchrun`: it is there if PyTorch is.
pub(crate) fn under_torchrun(argv: Vec<OsString>, words: &[OsString]) -> Vec<OsString> {
    if is_launcher(words) {
        return argv;
    }
    let python = words.first().filter(|first| is_python(first));
    let mut launcher = match python {
        Some(python) => vec![python.clone(), "-m".into(), "torch.distributed.run".into()],
        None => vec!["torchrun".into()],
    };
    launcher.push("--no_python".into());
    launcher.extend(argv);
    launcher
}

/// Whether the words start a job step: what runs in it is not below the process that they start.
pub(crate) fn is_srun<S: AsRef<OsStr>>(argv: &[S]) -> bool {
    let first = argv.first().map(|word| Path::new(word.as_ref()));
    first.and_then(Path::file_name) == Some("srun".as_ref())
}

/// Whether the words start PyTorch's launcher, so that its own options come first.
pub(crate) fn is_launcher<S: AsRef<OsStr>>(argv: &[S]) -> bool {
    started(argv).is_some_and(|name| name == "torchrun" || name.starts_with("torch.distributed."))
}

/// The launchers that take a signal for the end of everything, by the names of their programs and modules. Accelerate's runs
/// PyTorch's in its own process.
const AGENTS: [&str; 3] = ["accelerate", "accelerate-launch", "deepspeed"];
const AGENT_MODULES: [&str; 2] = ["accelerate.commands.", "deepspeed.launcher."];

/// Whether the words start a launcher that would end its workers at a signal.
pub(crate) fn ends_workers<S: AsRef<OsStr>>(argv: &[S]) -> bool {
    let is_agent = |name: &str| {
        AGENTS.contains(&name) || AGENT_MODULES.iter().any(|module| name.starts_with(module))
    };
    is_launcher(argv) || started(argv).is_some_and(|name| is_agent(&name))
}

/// What the words start: a program or a script by its name, or a module of Python.
fn started<S: AsRef<OsStr>>(argv: &[S]) -> Option<String> {
    let word = |at: usize| argv.get(at).map(|word| word.as_ref().to_string_lossy());
    let name = |at: usize| word(at).map(|word| word.rsplit('/').next().unwrap_or("").to_owned());
    if !is_python(argv.first()?.as_ref()) {
        return name(0);
    }
    // An interpreter with a script, or with options and a module.
    let mut at = 1;
    while word(at).is_some_and(|word| word.starts_with('-')) {
        if word(at).as_deref() == Some("-m") {
            return word(at + 1).map(Cow::into_owned);
        }
        at += 1;
    }
    name(at)
}

/// Whether a word is a Python interpreter.
pub(crate) fn is_python(word: &OsStr) -> bool {
    let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
    let version = name.strip_prefix("python");
    version.is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// The port where a job's ranks first meet: another one for each job and attempt, below those that systems give out.
pub(crate) fn port(job: u64, attempt: u32, nth: u16) -> u16 {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 10_000;
    let place = job.wrapping_mul(7).wrapping_add(u64::from(attempt)).wrapping_add(nth.into());
    u16::try_from(FIRST + place % COUNT).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemo_core::rundir::TrialDir;

    fn spec(nodes: u32, tasks: Option<u32>, torchrun: bool) -> LaunchSpec {
        LaunchSpec {
            nodes,
            tasks_per_node: tasks,
            torchrun,
            workers_per_node: Some(8),
            gpus_per_task: false,
        }
    }

    fn shown(words: &[OsString]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[track_caller]
    fn check_srun(launch: &LaunchSpec, cpus: Option<&str>, expected: &str) {
        let options = ExecOptions {
            dir: TrialDir("/t".into()),
            attempt: 2,
            workdir: "/w".into(),
            port: 20_001,
            lines: false,
            devices: false,
            workers: workers(launch),
            program: vec!["p".into()],
        };
        let words = shown(&srun(launch, cpus, Path::new("/bin/nemo-harness"), &options));
        let same =
            "--input=all --output=all --error=all --export=ALL --kill-on-bad-exit=1 --wait=0";
        let shim = "/bin/nemo-harness exec --trial-dir /t --attempt 2 --workdir /w --port 20001";
        let (step, rest) = expected.split_once(" … ").unwrap();
        assert_eq!(words, format!("srun {step} {same} {rest}").replace("SHIM", shim));
    }

    #[test]
    fn srun_starts_a_shim_for_each_rank() {
        check_srun(
            &spec(2, None, false),
            None,
            "--nodes=2 --ntasks=2 --ntasks-per-node=1 … SHIM -- p",
        );
        check_srun(
            &spec(3, Some(4), false),
            Some("6"),
            "--nodes=3 --ntasks=12 --ntasks-per-node=4 … --cpus-per-task=6 SHIM -- p",
        );
        check_srun(
            &spec(2, Some(4), true),
            None,
            "--nodes=2 --ntasks=2 --ntasks-per-node=1 … SHIM --workers 8 -- p",
        );
    }

    #[track_caller]
    fn check_torchrun(program: &str, expected: &str) {
        let argv: Vec<OsString> = program.split(' ').map(OsString::from).collect();
        let words = argv.clone();
        assert_eq!(shown(&under_torchrun(argv, &words)), expected);
    }

    #[test]
    fn torchrun_is_put_before_the_program() {
        let module = "-m torch.distributed.run --no_python";
        check_torchrun("python train.py -m x", &format!("python {module} python train.py -m x"));
        let own = "/env/bin/python3.11 -u -m train";
        check_torchrun(own, &format!("/env/bin/python3.11 {module} {own}"));
        check_torchrun("./train", "torchrun --no_python ./train");
        check_torchrun("python-config x", "torchrun --no_python python-config x");
        for launcher in [
            "torchrun train.py",
            "/env/bin/torchrun --nproc-per-node 2 train.py",
            "python -m torch.distributed.run train.py",
            "python3 -u -m torch.distributed.launch train.py",
            "python /env/bin/torchrun train.py",
        ] {
            check_torchrun(launcher, launcher);
        }
    }

    #[test]
    fn launchers_that_end_their_workers_are_known_by_what_was_started() {
        let ends = |text: &str| ends_workers(&text.split(' ').collect::<Vec<_>>());
        for text in [
            "torchrun train.py",
            "/env/bin/python3.11 /env/bin/accelerate launch train.py",
            "python -m accelerate.commands.launch train.py",
            "/env/bin/python /env/bin/deepspeed --num_gpus 4 train.py",
            "python -u -m deepspeed.launcher.launch --world_info=x train.py",
        ] {
            assert!(ends(text), "{text}");
        }
        for text in ["python train.py deepspeed", "python -m train", "bash deepspeed.sh", "srun x"]
        {
            assert!(!ends(text), "{text}");
        }
    }

    #[test]
    fn jobs_and_attempts_meet_at_different_ports() {
        assert_ne!(port(7, 0, 0), port(8, 0, 0));
        assert_ne!(port(7, 0, 0), port(7, 1, 0));
        assert!((20_000..30_000).contains(&port(u64::MAX, u32::MAX, u16::MAX)));
    }
}
