//! The command line of `nemo-harness wrap`. Pure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use nemo_core::duration;
use nemo_core::lead;
use nemo_core::own_paths;
use nemo_core::patterns::Patterns;
use nemo_core::rundir::{NO_SIGNAL, Profile, SAVE_SIGNALS, save_signal};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

/// What `wrap` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrapOptions {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) profile: Option<Profile>,
    pub(crate) signal: Option<String>,
    /// Seconds.
    pub(crate) lead: u64,
    pub(crate) is_lead_given: bool,
    pub(crate) crashes: u32,
    pub(crate) from: Vec<String>,
    pub(crate) restore_to: Option<String>,
    /// What takes the checkpoints of the program, and what runs in its place to go on, as texts for `sh`.
    pub(crate) save_command: Option<String>,
    pub(crate) resume_command: Option<String>,
    pub(crate) metrics: BTreeMap<String, String>,
    /// Print the lines that a script needs here, and run nothing.
    pub(crate) directives: bool,
    pub(crate) program: Vec<OsString>,
}

/// How long before the end a program is asked to save, in seconds.
const LEAD: u64 = 120;

impl WrapOptions {
    fn defaults() -> Self {
        Self {
            dir: None,
            profile: None,
            signal: None,
            lead: LEAD,
            is_lead_given: false,
            crashes: 0,
            from: Vec::new(),
            restore_to: None,
            save_command: None,
            resume_command: None,
            metrics: BTreeMap::new(),
            directives: false,
            program: Vec::new(),
        }
    }

    /// Reads what follows `wrap`.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut own = Self::defaults();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            if name == "--" {
                own.program = words.by_ref().cloned().collect();
                if let Some(odd) = own.program.iter().find(|word| word.to_str().is_none()) {
                    return Err(format!("`{}` is not UTF-8", odd.to_string_lossy()));
                }
                break;
            }
            if name == "--directives" {
                own.directives = true;
                continue;
            }
            let (name, mut attached) = with_value(word).unwrap_or((name, None));
            let mut value = || {
                if let Some(value) = attached.take() {
                    return Ok(value);
                }
                let value = words.next().ok_or_else(|| format!("`{name}` needs a value"))?;
                value.to_str().map(str::to_owned).ok_or_else(|| format!("`{name}`: no UTF-8"))
            };
            match name.as_str() {
                "--dir" => own.dir = Some(dir(value()?)?),
                "--profile" => own.profile = Some(profile(&value()?)?),
                "--signal" => own.signal = Some(signal(&value()?)?),
                "--lead" => (own.lead, own.is_lead_given) = (seconds(&value()?)?, true),
                "--crashes" => own.crashes = number(&name, &value()?)?,
                "--from" => own.from.push(pattern(value()?)?),
                "--restore-to" => own.restore_to = Some(restore_to(value()?)?),
                "--save-command" => own.save_command = Some(value()?),
                "--resume-command" => own.resume_command = Some(value()?),
                "--metric" => own.metrics.extend([metric(&value()?)?]),
                _ if name.starts_with('-') => {
                    return Err(format!(
                        "`wrap` has no option `{name}`; the program comes after `--`"
                    ));
                }
                _ => return Err(format!("write `--` before the program: `wrap … -- {name} …`")),
            }
        }
        Patterns::new(&own.metrics)?;
        if own.program.is_empty() && !own.directives {
            return Err("`wrap` needs a program: `nemo-harness wrap -- python train.py`".to_owned());
        }
        Ok(own)
    }

    /// The lead in a job of this limit, in seconds. A short job leaves half of itself to the program. So does one that would
    /// be asked to save from its start, whatever was given.
    pub(super) fn lead_within(&self, limit: Option<u64>) -> u64 {
        match limit {
            Some(limit) if !self.is_lead_given || self.lead >= limit => {
                lead::within(self.lead, Some(limit))
            }
            Some(_) | None => self.lead,
        }
    }
}

/// The parts of `--dir=x`, which is `--dir x`.
fn with_value(word: &OsStr) -> Option<(String, Option<String>)> {
    let (name, value) = word.to_str()?.split_once('=')?;
    name.starts_with("--").then(|| (name.to_owned(), Some(value.to_owned())))
}

/// A folder whose name differs for each job, as it was meant to. The text is a shell's word: nothing replaces it later.
fn dir(text: String) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("`--dir` is empty: the variable in it may not be set".to_owned());
    }
    require_replaced("--dir", &text)?;
    let is_pattern = |rest: &str| {
        let mut next = rest.chars();
        next.next().is_some_and(|c| "jJAa".contains(c))
            && !next.next().is_some_and(char::is_alphanumeric)
    };
    if text.split('%').skip(1).any(is_pattern) {
        return Err(format!(
            "`--dir {text}`: `%` means nothing here; write a variable, as `\"$SLURM_JOB_ID\"`"
        ));
    }
    Ok(PathBuf::from(text))
}

/// Nothing replaces a variable later: no path would ever be meant.
fn require_replaced(name: &str, text: &str) -> Result<(), String> {
    if own_paths::left_to_a_shell(text) == Some("~") {
        return Err(format!(
            "`{name} {text}`: no shell has replaced `~`; write `$HOME` in its place"
        ));
    }
    let is_name = |c: char| c.is_ascii_alphabetic() || "_{(".contains(c);
    let mut left = text.split('$').skip(1).filter(|rest| rest.starts_with(is_name)).peekable();
    if left.peek().is_none() {
        return Ok(());
    }
    let hint = if left.all(is_variable) {
        "write it in double quotes"
    } else {
        "write it in double quotes. In `submit --wrap`, only `$NAME` and `${NAME}` are replaced"
    };
    Err(format!("`{name} {text}`: no shell has replaced the variable; {hint}"))
}

/// Whether what follows a `$` is `NAME` or `{NAME}`.
fn is_variable(rest: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match rest.strip_prefix('{') {
        Some(rest) => rest.trim_start_matches(is_part).starts_with('}'),
        None => rest.starts_with(is_part),
    }
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::deserialize(StrDeserializer::<ValueError>::new(name)).map_err(|_| {
        format!(
            "`--profile {name}`: there are lightning, transformers, torchrun, submitit and condor"
        )
    })
}

fn signal(name: &str) -> Result<String, String> {
    if name == NO_SIGNAL {
        return Ok(name.to_owned());
    }
    let names = SAVE_SIGNALS.join(", ");
    let found =
        save_signal(name).ok_or_else(|| format!("`--signal {name}`: there are {names}, none"))?;
    Ok(found.to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = duration::option_in_seconds(text).map(|it| it.as_secs());
    seconds.map_err(|error| format!("`--lead`: {error}"))
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{name}` takes a number, not `{text}`"))
}

fn pattern(text: String) -> Result<String, String> {
    require_replaced("--from", &text)?;
    own_paths::check(&text).map_err(|why| format!("`--from {text}`: {why}"))?;
    Ok(text)
}

fn restore_to(text: String) -> Result<String, String> {
    require_replaced("--restore-to", &text)?;
    Ok(text)
}

fn metric(text: &str) -> Result<(String, String), String> {
    let (name, regex) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write `--metric NAME=REGEX`, as in `--metric 'loss=loss: (\\S+)'`")?;
    Ok((name.to_owned(), regex.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WrapOptions, String> {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        WrapOptions::parse(&words)
    }

    #[test]
    fn what_comes_after_the_dashes_is_the_programs() {
        let own = parse("--profile lightning --dir runs/a --lead 2m -- python --dir x").unwrap();
        assert_eq!(own.program, ["python", "--dir", "x"]);
        let expected = (Some(Profile::Lightning), Some(PathBuf::from("runs/a")), 120);
        assert_eq!((own.profile, own.dir, own.lead), expected);
        let own = parse("--dir=runs/a=b --metric=loss=x:(.) --lead=2m -- x --dir=y").unwrap();
        assert_eq!((own.dir, own.lead), (Some(PathBuf::from("runs/a=b")), 120));
        assert_eq!((own.metrics["loss"].as_str(), own.program.len()), ("x:(.)", 2));
        assert!(parse("--directives").unwrap().directives);
        for lead in ["--lead 00:02:00", "--lead 120", "--lead 2min"] {
            assert_eq!(parse(&format!("{lead} -- x")).unwrap().lead, 120, "{lead}");
        }
    }

    #[test]
    fn a_short_job_leaves_half_of_itself() {
        let lead = |text, limit| parse(text).unwrap().lead_within(limit);
        assert_eq!(lead("-- x", None), 120);
        assert_eq!(lead("-- x", Some(3600)), 120);
        assert_eq!((lead("-- x", Some(120)), lead("-- x", Some(180))), (60, 90));
        assert_eq!(lead("--lead 2m -- x", Some(180)), 120, "it was asked for, and it can be");
        assert_eq!(lead("--lead 2m -- x", Some(120)), 60);
    }

    #[test]
    fn a_mistake_is_named_with_what_to_write() {
        for (text, expected) in [
            ("python x.py", "write `--` before the program"),
            ("--profile torch -- x", "there are lightning"),
            ("--signal KILL -- x", "none"),
            ("--dri a -- x", "no option `--dri`"),
            ("--metric loss -- x", "write `--metric NAME=REGEX`"),
            ("--metric loss=x -- x", "needs a group"),
            ("--from out/** -- x", "folders only"),
            ("--lead soon -- x", "`--lead`: \"soon\" is not a duration"),
            ("--dir", "needs a value"),
            ("--dir  -- x", "`--dir` is empty"),
            ("--dir runs/$SLURM_JOB_ID -- x", "no shell has replaced the variable"),
            ("--dir runs/${USER}/a -- x", "no shell has replaced the variable"),
            ("--from out/$SLURM_ARRAY_TASK_ID/c*.pt -- x", "no shell has replaced the variable"),
            ("--dir ~/runs/a -- x", "no shell has replaced `~`"),
            ("--restore-to ${HOME}/c.pt -- x", "the variable; write it in double quotes"),
            ("--from ${X:-a}/c.pt -- x", "only `$NAME` and `${NAME}` are replaced"),
            ("--dir runs/%A_%a -- x", "`%` means nothing here"),
            ("--dir a", "needs a program"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
