//! What trainers do by their own conventions: the one place where profiles differ. Pure.

use crate::rundir::Profile;

/// The signal that asks for a checkpoint, where the task names none.
#[must_use]
pub fn signal(profile: Option<Profile>) -> &'static str {
    match profile {
        // Lightning's handler for Slurm listens to USR1; torchrun's agent dies of it, but its workers are asked.
        None | Some(Profile::Lightning | Profile::Torchrun) => "USR1",
        // `Trainer` saves on TERM (`enable_jit_checkpoint`), and HTCondor begins an eviction with it.
        Some(Profile::Transformers | Profile::Condor) => "TERM",
        Some(Profile::Submitit) => "USR2",
    }
}

/// Whether a name where the program saves is a checkpoint, not a log or a finished model beside it.
#[must_use]
pub fn is_checkpoint(profile: Option<Profile>, name: &str) -> bool {
    match profile {
        None | Some(Profile::Torchrun | Profile::Submitit | Profile::Condor) => true,
        Some(Profile::Lightning) => name.strip_suffix(".ckpt").is_some(),
        Some(Profile::Transformers) => transformers_step(name).is_some(),
    }
}

/// The largest step. Steps are counted on from it without an overflow.
pub const LAST_STEP: u64 = i64::MAX.cast_unsigned();

/// A number above [`LAST_STEP`]; never truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "its number is larger than any step, {LAST_STEP}")
    }
}

/// The completed steps that a checkpoint's name tells, or the beginning of its file, which is `head`.
///
/// Without a profile: the last number of the name, a file's extension apart (`step-60.h5` is 60).
pub fn step(
    profile: Option<Profile>,
    name: &str,
    is_file: bool,
    head: &[u8],
) -> Result<Option<u64>, TooLarge> {
    let digits = match profile {
        None | Some(Profile::Torchrun | Profile::Submitit | Profile::Condor) => {
            last_number(if is_file { stem(name) } else { name })
        }
        Some(Profile::Lightning) => number_after(name, "step="),
        Some(Profile::Transformers) => transformers_step(name),
    };
    match digits {
        Some(digits) => number(digits).map(Some),
        None if profile == Some(Profile::Lightning) => Ok(lightning_step(head)),
        None => Ok(None),
    }
}

/// What digits say; leading zeros are nothing.
fn number(digits: &str) -> Result<u64, TooLarge> {
    digits.parse().ok().filter(|&step| step <= LAST_STEP).ok_or(TooLarge)
}

/// Whether the names in a folder show that the program has written it to its end. Where this is never so, only a
/// rename, or the program's end in good order, tells that a folder is complete.
#[must_use]
pub fn is_written(profile: Option<Profile>, names: &[String]) -> bool {
    match profile {
        None
        | Some(Profile::Lightning | Profile::Torchrun | Profile::Submitit | Profile::Condor) => {
            false
        }
        // The first is written last; the second is there while `enable_jit_checkpoint` saves.
        Some(Profile::Transformers) => {
            names.iter().any(|name| name == "trainer_state.json")
                && !names.iter().any(|name| name == "checkpoint-is-incomplete.txt")
        }
    }
}

/// Whether a process may be asked to save; `has` tells whether it was started with a variable.
///
/// `torchrun`'s agent takes a signal for the end of everything: it has its workers killed after 30 s, or dies of it.
#[must_use]
pub fn is_asked(profile: Option<Profile>, has: impl FnOnce(&str) -> bool) -> bool {
    match profile {
        None
        | Some(Profile::Lightning | Profile::Transformers | Profile::Submitit | Profile::Condor) => {
            true
        }
        Some(Profile::Torchrun) => has("TORCHELASTIC_RUN_ID"),
    }
}

/// Whether the program trains on after it has saved as asked, and must be told to end.
#[must_use]
pub fn trains_on(profile: Option<Profile>) -> bool {
    match profile {
        Some(Profile::Lightning) => true,
        None
        | Some(Profile::Transformers | Profile::Torchrun | Profile::Submitit | Profile::Condor) => {
            false
        }
    }
}

/// A file's name without its extension.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension)) if extension.contains(|c: char| !c.is_ascii_digit()) => stem,
        _ => name,
    }
}

fn last_number(text: &str) -> Option<&str> {
    let text = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit());
    Some(&text[before.len()..]).filter(|digits| !digits.is_empty())
}

fn number_after<'a>(name: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = name.rsplit_once(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|digits| !digits.is_empty())
}

/// `checkpoint-500`, and nothing but that.
fn transformers_step(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("checkpoint-")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// `global_step` of a Lightning checkpoint, for names that don't tell it (`last.ckpt`, `hpc_ckpt_2.ckpt`): a dictionary
/// that `torch.save` pickles into an archive, without compression and with this key at its beginning.
fn lightning_step(head: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"global_step";
    let at = head.windows(KEY.len()).position(|part| part == KEY)?;
    let after = head.get(at + KEY.len()..)?;
    // The pickler may remember the key (BINPUT and LONG_BINPUT with a number, or MEMOIZE) before its value.
    let value = match after.first()? {
        b'q' => after.get(2..)?,
        b'r' => after.get(5..)?,
        0x94 => after.get(1..)?,
        _ => after,
    };
    match *value {
        [b'K', a, ..] => Some(a.into()),
        [b'M', a, b, ..] => Some(u16::from_le_bytes([a, b]).into()),
        [b'J', a, b, c, d, ..] => i32::from_le_bytes([a, b, c, d]).try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Profile::{Condor, Lightning, Submitit, Torchrun, Transformers};

    #[track_caller]
    fn check(profile: Option<Profile>, name: &str, expected: Option<u64>) {
        let is_file = name.contains('.') && !name.starts_with('v');
        assert_eq!(step(profile, name, is_file, b""), Ok(expected), "{name}");
    }

    #[test]
    fn the_step_is_the_last_number_of_a_name() {
        for profile in [None, Some(Torchrun), Some(Submitit), Some(Condor)] {
            check(profile, "step-60", Some(60));
            check(profile, "checkpoint-500", Some(500));
            check(profile, "epoch=3-step=1200.ckpt", Some(1200));
            check(profile, "step-60.h5", Some(60));
            check(profile, "ckpt.0060", Some(60));
            check(profile, "v1.5", Some(5));
            check(profile, "étape7é", Some(7));
            check(profile, "é7", Some(7));
            check(profile, "latest.pt", None);
            check(profile, "step-000060", Some(60));
            check(profile, "step-9223372036854775807", Some(LAST_STEP));
            for name in ["step-9223372036854775808", "step-99999999999999999999999"] {
                assert_eq!(step(profile, name, false, b""), Err(TooLarge), "{name}");
            }
        }
    }

    #[test]
    fn lightning_names_tell_a_step_only_where_they_say_so() {
        check(Some(Lightning), "epoch=3-step=120.ckpt", Some(120));
        check(Some(Lightning), "epoch=3-step=120-v1.ckpt", Some(120));
        check(Some(Lightning), "step=00000120-val_loss=0.87.ckpt", Some(120));
        check(Some(Lightning), "epoch=1-val_loss=0.87.ckpt", None);
        check(Some(Lightning), "hpc_ckpt_2.ckpt", None);
        check(Some(Lightning), "last.ckpt", None);
        check(Some(Lightning), "step=x.ckpt", None);
    }

    #[test]
    fn a_lightning_checkpoint_tells_its_step_within() {
        let cases: [(&[u8], Option<u64>); 8] = [
            (b"PK..X\x0b\0\0\0global_stepq\x04K\x78X\x19", Some(120)),
            (b"X\x0b\0\0\0global_stepr\x04\x01\0\0M\xe8\x03X", Some(1000)),
            (b"\x8c\x0bglobal_step\x94J\x40\x42\x0f\0\x8c", Some(1_000_000)),
            (b"global_stepK\x07", Some(7)),
            (b"global_stepJ\xff\xff\xff\xff", None),
            (b"global_stepq\x04X", None),
            (b"global_stepM\x01", None),
            (b"", None),
        ];
        for (head, expected) in cases {
            assert_eq!(step(Some(Lightning), "last.ckpt", true, head), Ok(expected), "{head:?}");
        }
        assert_eq!(step(Some(Lightning), "step=5.ckpt", true, b"global_stepK\x07"), Ok(Some(5)));
    }

    #[test]
    fn only_a_trainers_own_names_are_checkpoints() {
        for name in ["runs", "checkpoint-", "checkpoint-5-merged", "model.safetensors"] {
            assert!(!is_checkpoint(Some(Transformers), name), "{name}");
        }
        assert!(is_checkpoint(Some(Transformers), "checkpoint-500"));
        check(Some(Transformers), "checkpoint-500", Some(500));
        assert!(!is_checkpoint(Some(Lightning), "lightning_logs"));
        assert!(is_checkpoint(Some(Lightning), "last.ckpt"));
        assert!(is_checkpoint(None, "anything"));
    }

    #[test]
    fn a_folder_of_transformers_is_written_once_its_state_is_there() {
        let state = "trainer_state.json";
        let is_written = |profile, names: [&str; 2]| is_written(profile, &names.map(str::to_owned));
        assert!(!is_written(Some(Transformers), ["model.safetensors", "optimizer.pt"]));
        assert!(is_written(Some(Transformers), ["model.safetensors", state]));
        assert!(!is_written(Some(Transformers), ["checkpoint-is-incomplete.txt", state]));
        assert!(!is_written(None, ["model.safetensors", state]));
    }

    #[test]
    fn of_torchrun_only_the_workers_are_asked() {
        assert!(!is_asked(Some(Torchrun), |_| false));
        assert!(is_asked(Some(Torchrun), |name| name == "TORCHELASTIC_RUN_ID"));
        assert!(is_asked(None, |_| false));
    }

    #[test]
    fn every_profile_has_its_signal() {
        let signals = [None, Some(Lightning), Some(Torchrun), Some(Transformers), Some(Condor)];
        assert_eq!(signals.map(signal), ["USR1", "USR1", "USR1", "TERM", "TERM"]);
        assert_eq!(signal(Some(Submitit)), "USR2");
    }
}
