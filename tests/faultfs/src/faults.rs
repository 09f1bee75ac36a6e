//! Which operations go wrong: rules of a file, one a line, the first that matches counts.
//!
//! `OPERATION PATH FAULT [TIMES]`: OPERATION is a name such as `write`, `fsync`, `rename`, `link`, `read`, `open`, `readdir`,
//! `lookup`, `getattr`, or `*`. PATH is a part of the path below the mount, or `*`. FAULT is `EIO`, `ESTALE`, `ENOSPC`,
//! `EDQUOT` or `EROFS` (nothing is done), `lose:ESTALE` (it is done, and this error is answered), `delay:SECONDS`. TIMES is how
//! often the rule applies; without it always. Lines that begin with `#` are none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use fuser::Errno;

/// What happens to one operation.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing is done, and this is answered.
    Fail(Errno),
    /// It is done, and this is answered.
    LoseAnswer(Errno),
}

#[derive(Clone, Debug)]
struct Rule {
    text: String,
    operation: String,
    path: String,
    fault: Option<Fault>,
    delay: Duration,
    times: Option<u64>,
}

#[derive(Default)]
struct Known {
    changed: Option<SystemTime>,
    rules: Vec<Rule>,
    /// How often each rule has applied, by its text: it goes on counting when the file is read again.
    applied: HashMap<String, u64>,
}

/// The rules of a file.
pub struct Faults {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

impl Faults {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, known: Mutex::default() }
    }

    /// What happens to `operation` on `path`. A delay is slept through here.
    pub fn of(&self, operation: &str, path: &Path) -> Option<Fault> {
        let rule = self.matching(operation, path)?;
        std::thread::sleep(rule.delay);
        rule.fault
    }

    fn matching(&self, operation: &str, path: &Path) -> Option<Rule> {
        let file = self.file.as_ref()?;
        let changed = std::fs::metadata(file).and_then(|data| data.modified()).ok();
        let mut known = self.known.lock().ok()?;
        if changed != known.changed {
            known.changed = changed;
            known.rules = std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(rule).collect();
        }
        let path = path.to_string_lossy();
        let Known { rules, applied, .. } = &mut *known;
        let rule = rules.iter().find(|rule| {
            let used = applied.get(&rule.text).copied().unwrap_or(0);
            (rule.operation == "*" || rule.operation == operation)
                && (rule.path == "*" || path.contains(&rule.path))
                && rule.times.is_none_or(|times| used < times)
        })?;
        *applied.entry(rule.text.clone()).or_default() += 1;
        Some(rule.clone())
    }
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let (operation, path, fault) = (words.next()?, words.next()?, words.next()?);
    if operation.starts_with('#') {
        return None;
    }
    let (fault, delay) = match fault.split_once(':') {
        Some(("delay", seconds)) => (None, Duration::from_secs_f64(seconds.parse().ok()?)),
        Some(("lose", name)) => (Some(Fault::LoseAnswer(errno(name)?)), Duration::ZERO),
        _ => (Some(Fault::Fail(errno(fault)?)), Duration::ZERO),
    };
    let times = words.next().and_then(|word| word.parse().ok());
    Some(Rule { text: line.to_owned(), operation: operation.into(), path: path.into(), fault, delay, times })
}

fn errno(name: &str) -> Option<Errno> {
    Some(match name {
        "EIO" => Errno::EIO,
        "ESTALE" => Errno::ESTALE,
        "ENOSPC" => Errno::ENOSPC,
        "EDQUOT" => Errno::EDQUOT,
        "EROFS" => Errno::EROFS,
        "ENOENT" => Errno::ENOENT,
        _ => return None,
    })
}
