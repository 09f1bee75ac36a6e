//! Which GPUs of this machine the trials of the local executor may use.
#![expect(
    clippy::disallowed_methods,
    reason = "an edge: it asks the driver's program, on the real clock"
)]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nemo_core::environment::Variable;

/// The variable that says which GPUs a program sees.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// How long the driver's program may take.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// The GPUs that a shell with these variables may use, as `CUDA_VISIBLE_DEVICES` names them: those that it says, else all of the
/// machine.
#[must_use]
pub fn visible(variables: &[Variable]) -> Vec<String> {
    let said = variables.iter().find(|(name, _)| name == VISIBLE);
    match said.and_then(|(_, value)| value.to_str()) {
        Some(list) => named(list),
        None => (0..listed().unwrap_or_else(devices)).map(|gpu| gpu.to_string()).collect(),
    }
}

/// The GPUs of a list. What comes behind one that is none is not seen either, and one that is named twice is one.
fn named(list: &str) -> Vec<String> {
    let all = list.split(',').map(str::trim);
    let mut own: Vec<String> = Vec::new();
    for gpu in all.take_while(|gpu| !gpu.is_empty() && !gpu.starts_with('-')) {
        if !own.iter().any(|other| other == gpu) {
            own.push(gpu.to_owned());
        }
    }
    own
}

/// How many `nvidia-smi` lists; none if it is not here, or does not answer.
fn listed() -> Option<usize> {
    let mut asked = Command::new("nvidia-smi");
    asked.arg("-L").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = asked.spawn().ok()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if began.elapsed() > PATIENCE => {
                drop(child.kill());
                return None;
            }
            None => std::thread::sleep(LOOK),
        }
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then(|| text.lines().filter(|line| line.starts_with("GPU ")).count())
}

/// How many devices the driver has made.
fn devices() -> usize {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_device(name)).count()
}

fn is_device(name: &str) -> bool {
    let digits = name.strip_prefix("nvidia");
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_at_what_is_no_gpu() {
        assert_eq!(named("2,3"), ["2", "3"]);
        assert_eq!(named(" GPU-ab , MIG-1 "), ["GPU-ab", "MIG-1"]);
        assert_eq!(named("1,-1,2"), ["1"]);
        assert_eq!(named("3,1,3"), ["3", "1"]);
        assert!(named("").is_empty() && named("-1").is_empty());
        let shell = [(VISIBLE.into(), "4,5".into())];
        assert_eq!(visible(&shell), ["4", "5"]);
    }

    #[test]
    fn devices_are_told_from_what_controls_them() {
        assert!(is_device("nvidia0") && is_device("nvidia12"));
        assert!(!is_device("nvidiactl") && !is_device("nvidia") && !is_device("nvidia-uvm"));
    }
}
