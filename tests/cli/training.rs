//! A training small enough to know what must come out of it, as a program: this test binary, run with `TRAINING_STEPS`.
//!
//! It saves every few steps and when it is asked to, and refuses a checkpoint that is not exactly what it wrote.
#![expect(unsafe_code, reason = "a signal's handler can't be set without")]

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(_: nix::libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// The command that runs it, as `run` of an experiment's task.
pub(crate) fn command() -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "[{:?}, \"--exact\", \"training::as_a_program\", \"--nocapture\"]",
        program.display().to_string()
    )
}

/// The losses of all steps.
pub(crate) fn losses(seed: u64, steps: u64) -> Vec<u64> {
    let step = |loss: &mut u64, _| {
        *loss = after(*loss);
        Some(*loss)
    };
    (0..steps).scan(seed, step).collect()
}

fn after(loss: u64) -> u64 {
    loss * 31 % 1_000_003
}

#[test]
fn as_a_program() {
    let Ok(steps) = std::env::var("TRAINING_STEPS") else { return };
    std::process::exit(train(steps.parse().unwrap()));
}

fn number(name: &str) -> u64 {
    std::env::var(name).unwrap().parse().unwrap()
}

/// Trains, and returns the exit code.
fn train(steps: u64) -> i32 {
    let action = SigAction::new(SigHandler::Handler(ask), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        // SAFETY: the handler only sets an atomic flag.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
    let (save_every, pace) = (number("TRAINING_SAVE_EVERY"), number("TRAINING_PACE_MS"));
    let folder = std::env::var("NEMO_CHECKPOINT_DIR").unwrap();
    let resume_from = std::env::var("NEMO_RESUME_FROM").unwrap();
    let (mut step, mut loss) = (0, number("NEMO_PARAM_SEED_VALUE"));
    if !resume_from.is_empty() {
        match load(Path::new(&resume_from)) {
            Some(found) => (step, loss) = found,
            None => return 93,
        }
    }
    while step < steps {
        (step, loss) = (step + 1, after(loss));
        // One write: a line is whole or not there.
        let line = format!("step {step} loss: {loss}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(pace));
        let asked = ASKED.load(Ordering::Relaxed);
        if asked || step % save_every == 0 {
            save(Path::new(&folder), step, loss);
        }
        if asked {
            return 75;
        }
    }
    0
}

fn weights(step: u64, loss: u64) -> Vec<u8> {
    losses(loss + step, 2000).iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

fn save(folder: &Path, step: u64, loss: u64) {
    let temporary = folder.join(format!(".tmp-{step}"));
    std::fs::create_dir_all(&temporary).unwrap();
    std::fs::write(temporary.join("state"), format!("{step} {loss}")).unwrap();
    std::fs::write(temporary.join("weights"), weights(step, loss)).unwrap();
    std::fs::rename(&temporary, folder.join(format!("step-{step}"))).unwrap();
}

/// The step and the loss that were saved; nothing where a part of it is not as it was written.
fn load(folder: &Path) -> Option<(u64, u64)> {
    let state = std::fs::read_to_string(folder.join("state")).ok()?;
    let (step, loss) = state.split_once(' ')?;
    let (step, loss) = (step.parse().ok()?, loss.parse().ok()?);
    (std::fs::read(folder.join("weights")).ok()? == weights(step, loss)).then_some((step, loss))
}
