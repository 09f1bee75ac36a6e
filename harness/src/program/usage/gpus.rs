//! What `nvidia-smi` tells of GPUs. It may hang on a node with a broken driver, and then is killed.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::meter::GpuChoice;
use crate::os::clock::Clock;
use crate::os::proc_fs;
use crate::program::{guard, processes};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody has so many GPUs in a node that they need more.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
const MEBIBYTE: f64 = 1_048_576.0;

/// The process id of `nvidia-smi` while it runs, else 0.
static HELPER: AtomicU32 = AtomicU32::new(0);

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GpuSample {
    pub(super) id: String,
    pub(super) percent: f64,
    pub(super) memory_bytes: u64,
    pub(super) memory_total_bytes: u64,
}

pub(super) fn command(choice: &GpuChoice) -> Vec<String> {
    let mut argv = vec![
        "nvidia-smi".to_owned(),
        "--query-gpu=uuid,utilization.gpu,memory.used,memory.total".to_owned(),
        "--format=csv,noheader,nounits".to_owned(),
    ];
    if let GpuChoice::Only(ids) = choice {
        argv.push(format!("--id={ids}"));
    }
    argv
}

/// Asks, and waits for the answer; nothing if there is none. The event loop reaps the process, as it does all.
pub(super) fn ask(argv: &[String]) -> Option<Vec<GpuSample>> {
    let (pipe, other) = std::io::pipe().ok()?;
    // A program that can't be started must not fail in `spawn`: it would wait for its child, which the event loop may
    // have reaped, and panic. The shell can always be started, and says so by its exit code.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$@\"", "sh"]).args(argv).env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::null()).stdout(other).stderr(Stdio::null());
    processes::die_with_parent(&mut command);
    guard::stop_if_orphaned();
    let child = command.spawn();
    drop(command);
    let pid = child.ok()?.id();
    HELPER.store(pid, Ordering::Relaxed);
    let text = read_within(pipe, PATIENCE);
    if text.is_none() {
        // Its pid is still its own: it holds the pipe open, or its group does.
        killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).ok();
    }
    wait_for_end(pid);
    HELPER.store(0, Ordering::Relaxed);
    parse(&text?)
}

/// `nvidia-smi` while it runs: it is none of the program's processes.
pub(crate) fn helper() -> Option<u32> {
    Some(HELPER.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
}

/// It has closed its output, or was killed: it ends at once, unless the driver holds it.
fn wait_for_end(pid: u32) {
    let is_alive = || proc_fs::stat(pid).is_ok_and(|stat| !stat.is_zombie);
    for _ in 0..50 {
        if !is_alive() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
}

/// All that comes until the end; nothing if that takes too long.
fn read_within(mut pipe: std::io::PipeReader, patience: Duration) -> Option<String> {
    let (clock, mut text, mut buffer) = (Clock::start(), Vec::new(), [0; 4096]);
    loop {
        let left = patience.checked_sub(clock.now())?;
        let timeout = PollTimeout::try_from(left.as_millis().max(1)).ok()?;
        let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout).unwrap_or(0) == 0 {
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return String::from_utf8(text).ok(),
            Ok(length) if text.len() < MAX_OUTPUT_BYTES => {
                text.extend_from_slice(&buffer[..length]);
            }
            Ok(_) | Err(_) => return None,
        }
    }
}

/// A line for each GPU. A number that is not there (`[N/A]`) is 0, as with parts of a GPU.
fn parse(text: &str) -> Option<Vec<GpuSample>> {
    let one = |line: &str| {
        let mut fields = line.split(',').map(str::trim);
        let id = fields.next().filter(|id| !id.is_empty() && !id.contains(' '))?.to_owned();
        let mut number = || Some(fields.next()?.parse::<f64>().unwrap_or(0.0).max(0.0));
        let (percent, used, total) = (number()?, number()?, number()?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
        let bytes = |mebibytes: f64| (mebibytes * MEBIBYTE) as u64;
        Some(GpuSample {
            id,
            percent: percent.min(100.0),
            memory_bytes: bytes(used),
            memory_total_bytes: bytes(total),
        })
    };
    let samples: Vec<GpuSample> = text.lines().filter_map(one).collect();
    (!samples.is_empty()).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_gpu() {
        let text = "GPU-aa, 87, 40536, 81920\nGPU-bb, [N/A], 1, 81920\n";
        let samples = parse(text).unwrap();
        assert_eq!((samples[0].percent, samples[0].memory_bytes), (87.0, 40536 << 20));
        assert_eq!((samples[1].id.as_str(), samples[1].percent), ("GPU-bb", 0.0));
        for odd in
            ["", "No devices were found\n", "GPU-aa, 3\n", "NVIDIA-SMI has failed, 1, 2, 3\n"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_or_hangs_gives_no_answer() {
        assert_eq!(ask(&["/no/nvidia-smi".to_owned()]), None);
        let (pipe, other) = std::io::pipe().unwrap();
        assert_eq!(read_within(pipe, Duration::from_millis(20)), None);
        drop(other);
        let told = ask(&["echo".to_owned(), "GPU-aa, 5, 1, 2".to_owned()]).unwrap();
        assert_eq!((told[0].id.as_str(), told[0].memory_bytes), ("GPU-aa", 1 << 20));
    }
}
