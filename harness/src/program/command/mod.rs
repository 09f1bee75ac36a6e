//! Fills a command's placeholders: a list's by their values, a shell text's by references to variables.

mod shell;

use std::ffi::OsString;

use nemo_core::placeholder::{BuiltIn, TemplatePart, scan};
use nemo_core::rundir::CommandSpec;
use serde_json::Value;

use crate::job::trial::Trial;
use crate::rank::srun;

pub(crate) use shell::is_ours as is_own_shell;

/// A command, ready to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProgramCommand {
    pub(crate) argv: Vec<OsString>,
    /// The values that a shell text refers to.
    pub(crate) env: Vec<(String, String)>,
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlaceholderValue {
    One(String),
    /// The folder of each trial of a task.
    Many(Vec<String>),
}

/// What the names stand for that change from attempt to attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttemptNames {
    pub(crate) checkpoint_dir: String,
    pub(crate) resume_from: String,
}

/// Which shells there are for texts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shells {
    /// bash is there.
    pub(crate) bash: bool,
    /// The environment holds functions of bash (`module`), which other shells drop.
    pub(crate) functions: bool,
}

impl Shells {
    /// What runs the text of `run`: `sh`, or bash as far like it as it can be.
    fn for_text(self) -> &'static [&'static str] {
        if self.bash && self.functions { &["bash", "+B", "-O", "xpg_echo"] } else { &["sh"] }
    }

    /// What runs `setup`.
    fn for_setup(self) -> &'static str {
        if self.bash { "bash" } else { "sh" }
    }
}

/// Builds the argument list, the setup lines around it.
pub(crate) fn build(
    trial: &Trial,
    attempt: &AttemptNames,
    shells: Shells,
) -> Result<ProgramCommand, String> {
    let meaning = |name: &str| meaning(trial, attempt, name);
    let mut command = match &trial.spec.command {
        CommandSpec::Exec(list) => {
            ProgramCommand { argv: fill_list(list, &meaning)?, env: Vec::new() }
        }
        CommandSpec::Shell(text) => shell::fill(text, shells, &meaning)?,
    };
    if command.argv.first().is_none_or(|program| program.is_empty()) {
        return Err("the command is empty".to_owned());
    }
    if trial.spec.launch.as_ref().is_some_and(|launch| launch.torchrun) {
        let words = match &trial.spec.command {
            CommandSpec::Exec(_) => command.argv.clone(),
            CommandSpec::Shell(text) => text.split_whitespace().map(OsString::from).collect(),
        };
        command.argv = srun::under_torchrun(command.argv, &words);
    }
    if !trial.spec.setup.is_empty() {
        let script = format!("set -e\n{}\nexec \"$@\"", trial.spec.setup.join("\n"));
        let words = [shells.for_setup(), "-c", &script, "nemo-setup"];
        let mut argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        argv.append(&mut command.argv);
        command.argv = argv;
    }
    Ok(command)
}

type Lookup<'a> = dyn Fn(&str) -> Result<PlaceholderValue, String> + 'a;

/// An element that is only `{task.dirs}` becomes an argument a folder.
fn fill_list(list: &[String], meaning: &Lookup<'_>) -> Result<Vec<OsString>, String> {
    let mut argv = Vec::new();
    for element in list {
        let pieces = scan(element);
        if let [TemplatePart::Name(name)] = pieces[..]
            && let PlaceholderValue::Many(values) = meaning(name)?
        {
            argv.extend(values.into_iter().map(OsString::from));
            continue;
        }
        let mut filled = String::new();
        for piece in pieces {
            match piece {
                TemplatePart::Text(text) => filled.push_str(text),
                TemplatePart::Name(name) => match meaning(name)? {
                    PlaceholderValue::One(value) => filled.push_str(&value),
                    PlaceholderValue::Many(values) => filled.push_str(&values.join(" ")),
                },
            }
        }
        argv.push(filled.into());
    }
    Ok(argv)
}

/// A trial's own parameters come first: who names one `seed` means that one.
fn meaning(trial: &Trial, attempt: &AttemptNames, name: &str) -> Result<PlaceholderValue, String> {
    if let Some(value) = parameter(trial, name) {
        return no_nul(name, PlaceholderValue::One(plain(value)));
    }
    let one = |value: String| PlaceholderValue::One(value);
    let Some(built_in) = BuiltIn::of(name) else {
        let found = folders(trial, name)
            .ok_or_else(|| format!("the command's placeholder `{{{name}}}` has no value"))?;
        return no_nul(name, found);
    };
    let found = match built_in {
        BuiltIn::Dir => one(trial.dir.path().display().to_string()),
        BuiltIn::Trial => one(trial.index.to_string()),
        BuiltIn::Seed => one(trial.seed().to_string()),
        BuiltIn::Task => one(trial.spec.task.clone()),
        BuiltIn::Experiment => one(trial.spec.experiment.clone()),
        BuiltIn::CheckpointDir => one(attempt.checkpoint_dir.clone()),
        BuiltIn::ResumeFrom => one(attempt.resume_from.clone()),
    };
    no_nul(name, found)
}

fn no_nul(name: &str, meaning: PlaceholderValue) -> Result<PlaceholderValue, String> {
    match &meaning {
        PlaceholderValue::One(value) if value.contains('\0') => {
            Err(format!("the value of `{name}` holds a NUL byte, which no program can be given"))
        }
        PlaceholderValue::One(_) | PlaceholderValue::Many(_) => Ok(meaning),
    }
}

/// A parameter by its name, or one of a nested table by the names on the way, joined by dots.
fn parameter<'a>(trial: &'a Trial, name: &str) -> Option<&'a Value> {
    if let Some(value) = trial.params.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let first = trial.params.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// `{task.dir}` and `{task.dirs}`.
fn folders(trial: &Trial, name: &str) -> Option<PlaceholderValue> {
    let (task, kind) = name.rsplit_once('.')?;
    let input = trial.spec.inputs.get(task)?;
    let folder = |index: u32| {
        let dir = nemo_core::rundir::TaskDir(input.dir.clone());
        dir.trial(index).path().display().to_string()
    };
    match kind {
        "dir" => Some(PlaceholderValue::One(folder(if input.per_trial { trial.index } else { 0 }))),
        "dirs" => Some(PlaceholderValue::Many((0..input.trials).map(folder).collect())),
        _ => None,
    }
}

/// A string without its quotes; all else as JSON writes it.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::trial::tests::trial;
    use serde_json::json;

    #[track_caller]
    fn check(list: &[&str], expected: &[&str]) {
        let mut trial = trial(
            json!({"lr": 0.1, "name": "a b", "net": {"width": 3}, "on": true, "l": [1, "x"]}),
        );
        trial.spec.command = CommandSpec::Exec(list.iter().map(ToString::to_string).collect());
        let command = build(&trial, &AttemptNames::default(), Shells::default()).unwrap();
        assert_eq!(command.argv, expected.iter().map(OsString::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_list_gets_plain_values() {
        check(&["p", "--lr={lr}", "{name}", "{net.width}"], &["p", "--lr=0.1", "a b", "3"]);
        check(&["p", "{on}", "{l}", "{net}"], &["p", "true", "[1,\"x\"]", "{\"width\":3}"]);
        check(&["p", "{{lr}}", "{trial}/{seed}/{task}"], &["p", "{lr}", "2/44/train"]);
        check(&["p", "{prep.dir}"], &["p", "/x/prep/trials/0"]);
        check(&["p", "{each.dir}"], &["p", "/x/each/trials/2"]);
        check(&["p", "{prep.dirs}"], &["p", "/x/prep/trials/0", "/x/prep/trials/1"]);
        check(&["p", "d={prep.dirs}"], &["p", "d=/x/prep/trials/0 /x/prep/trials/1"]);
        check(&["p", "{resume_from}"], &["p", ""]);
    }

    #[test]
    fn setup_lines_wrap_the_command() {
        let mut trial = trial(json!({}));
        trial.spec.command = CommandSpec::Exec(vec!["p".into(), "$x".into()]);
        trial.spec.setup = vec!["module load cuda".into()];
        let command = build(&trial, &AttemptNames::default(), Shells::default()).unwrap();
        let script = "set -e\nmodule load cuda\nexec \"$@\"";
        let expected = ["sh", "-c", script, "nemo-setup", "p", "$x"].map(OsString::from);
        assert_eq!(command.argv, expected);
    }

    #[test]
    fn a_name_without_a_value_is_told() {
        let mut trial = trial(json!({}));
        trial.spec.command = CommandSpec::Exec(vec!["{nope}".into()]);
        let error = build(&trial, &AttemptNames::default(), Shells::default()).unwrap_err();
        assert!(error.contains("{nope}"), "{error}");
    }
}
