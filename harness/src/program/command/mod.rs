//! Fills a command's placeholders: a list's by their values, a shell text's by references to variables.

mod shell;
mod traps;

use std::ffi::OsString;

use nemo_core::placeholder::{BuiltIn, TaskValue, TemplatePart, scan};
use nemo_core::rundir::CommandSpec;
use serde_json::Value;

use crate::job::context::JobContext;
use crate::job::inputs::TaskValues;
use crate::job::trial::Trial;
use crate::rank::srun;

pub(crate) use shell::own_text;
pub(crate) use traps::{catches, names_outside_comments};

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
    /// What was read from the tasks before this one.
    pub(crate) values: TaskValues,
}

/// Which shells can run the text of `run` or `setup`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shells {
    /// bash is there.
    pub(crate) bash: bool,
    /// The environment holds functions of bash (`module`), which other shells drop.
    pub(crate) functions: bool,
}

impl Shells {
    /// Those of a job.
    pub(crate) fn of(context: &JobContext) -> Self {
        let bash = std::env::split_paths(&context.path).any(|path| path.join("bash").exists());
        Self { bash, functions: context.has_functions }
    }

    /// What runs the text of `run`: `sh`, or bash as far like it as it can be.
    fn for_text(self) -> &'static [&'static str] {
        if self.bash && self.functions { &["bash", "+B", "-O", "xpg_echo"] } else { &["sh"] }
    }

    /// What runs `setup`.
    fn for_setup(self) -> &'static str {
        if self.bash { "bash" } else { "sh" }
    }
}

/// Builds the argument list of the program, the setup lines around it. Where there is a checkpoint, `checkpoint.resume` replaces
/// `run`.
pub(crate) fn build(
    trial: &Trial,
    attempt: &AttemptNames,
    shells: Shells,
) -> Result<ProgramCommand, String> {
    let resume = trial.spec.checkpoint.resume.as_ref();
    let resume = resume.filter(|_| !attempt.resume_from.is_empty());
    let spec = resume.unwrap_or(&trial.spec.command);
    let mut command = fill(trial, spec, attempt, shells)?;
    if trial.spec.launch.as_ref().is_some_and(|launch| launch.torchrun) {
        let words = match spec {
            CommandSpec::Exec(_) => command.argv.clone(),
            CommandSpec::Shell(text) => text.split_whitespace().map(OsString::from).collect(),
        };
        command.argv = srun::under_torchrun(command.argv, &words);
    }
    with_setup(trial, command, attempt, shells)
}

/// The same for `checkpoint.command`.
pub(crate) fn build_checkpoint(
    trial: &Trial,
    attempt: &AttemptNames,
    shells: Shells,
) -> Result<ProgramCommand, String> {
    let spec = trial.spec.checkpoint.command.as_ref().ok_or("there is no checkpoint.command")?;
    with_setup(trial, fill(trial, spec, attempt, shells)?, attempt, shells)
}

/// Fills the placeholders of a command.
fn fill(
    trial: &Trial,
    spec: &CommandSpec,
    attempt: &AttemptNames,
    shells: Shells,
) -> Result<ProgramCommand, String> {
    let meaning = |name: &str| meaning(trial, attempt, name);
    let command = match spec {
        CommandSpec::Exec(list) => {
            ProgramCommand { argv: fill_list(list, &meaning)?, env: Vec::new() }
        }
        CommandSpec::Shell(text) => shell::fill(text, shells, &meaning)?,
    };
    if command.argv.first().is_none_or(|program| program.is_empty()) {
        return Err("the command is empty".to_owned());
    }
    Ok(command)
}

/// Another program with the setup lines of the trial's around it.
pub(crate) fn under_setup(
    trial: &Trial,
    attempt: &AttemptNames,
    shells: Shells,
    argv: Vec<OsString>,
) -> Result<ProgramCommand, String> {
    with_setup(trial, ProgramCommand { argv, env: Vec::new() }, attempt, shells)
}

fn with_setup(
    trial: &Trial,
    mut command: ProgramCommand,
    attempt: &AttemptNames,
    shells: Shells,
) -> Result<ProgramCommand, String> {
    if trial.spec.setup.is_empty() {
        return Ok(command);
    }
    let meaning = |name: &str| meaning(trial, attempt, name);
    let setup = shell::fill_setup(&trial.spec.setup, &mut command.env, &meaning)?;
    let script = format!("set -e\n{setup}\nexec \"$@\"");
    let words = [shells.for_setup(), "-c", &script, "nemo-setup"];
    let mut argv: Vec<OsString> = words.iter().map(OsString::from).collect();
    argv.append(&mut command.argv);
    command.argv = argv;
    Ok(command)
}

/// Fills the placeholders of a path; each value as `spelled` spells it.
pub(crate) fn path(
    trial: &Trial,
    text: &str,
    spelled: fn(&str) -> String,
) -> Result<String, String> {
    let attempt = AttemptNames::default();
    let meaning = |name: &str| match meaning(trial, &attempt, name)? {
        PlaceholderValue::One(value) => Ok(PlaceholderValue::One(spelled(&value))),
        PlaceholderValue::Many(_) => Err(format!("`{{{name}}}` is several folders")),
    };
    let filled = fill_list(&[text.to_owned()], &meaning)?;
    Ok(filled.into_iter().map(|word| word.to_string_lossy().into_owned()).collect())
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
    if let Some(value) = attempt.values.get(name) {
        return no_nul(name, PlaceholderValue::One(value.clone()));
    }
    let Some(built_in) = BuiltIn::of(name) else {
        let found = folders(trial, name)
            .ok_or_else(|| format!("the placeholder `{{{name}}}` has no value"))?;
        return no_nul(name, found);
    };
    let found = match built_in {
        BuiltIn::Dir => PlaceholderValue::One(trial.dir.path().display().to_string()),
        BuiltIn::Trial => PlaceholderValue::One(trial.index.to_string()),
        BuiltIn::Seed => PlaceholderValue::One(trial.seed().to_string()),
        BuiltIn::Task => PlaceholderValue::One(trial.spec.task.clone()),
        BuiltIn::Experiment => PlaceholderValue::One(trial.spec.experiment.clone()),
        BuiltIn::CheckpointDir => PlaceholderValue::One(attempt.checkpoint_dir.clone()),
        BuiltIn::ResumeFrom => PlaceholderValue::One(attempt.resume_from.clone()),
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
    let (task, wanted) = TaskValue::of(name, |task| trial.spec.inputs.contains_key(task))?;
    let input = trial.spec.inputs.get(task)?;
    let folder = |index: u32| {
        let dir = nemo_core::rundir::TaskDir(input.dir.clone());
        dir.trial(index).path().display().to_string()
    };
    match wanted {
        TaskValue::Dir => {
            Some(PlaceholderValue::One(folder(if input.per_trial { trial.index } else { 0 })))
        }
        TaskValue::Dirs => Some(PlaceholderValue::Many((0..input.trials).map(folder).collect())),
        // These were read before.
        TaskValue::Result(_)
        | TaskValue::BestDir
        | TaskValue::BestCheckpoint
        | TaskValue::BestResult(_) => None,
    }
}

/// A variable of `env`, its placeholders filled.
pub(crate) fn fill_variable(
    trial: &Trial,
    attempt: &AttemptNames,
    text: &str,
) -> Result<String, String> {
    let one = |name: &str| match meaning(trial, attempt, name)? {
        PlaceholderValue::One(value) => Ok(value),
        PlaceholderValue::Many(_) => Err(format!("`{{{name}}}` is several folders")),
    };
    let mut filled = String::new();
    for piece in scan(text) {
        match piece {
            TemplatePart::Text(text) => filled.push_str(text),
            TemplatePart::Name(name) => filled.push_str(&one(name)?),
        }
    }
    Ok(filled.replace('\0', ""))
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
    fn setup_gets_values_as_data_beside_those_of_the_command() {
        let mut trial = trial(json!({"v": "$(id)"}));
        trial.spec.command = CommandSpec::Shell("echo {v}".into());
        trial.spec.setup = vec!["A='{v}'".into(), "B={trial} C={{v}}".into()];
        let command = build(&trial, &AttemptNames::default(), Shells::default()).unwrap();
        let setup = "set -e\nA=''\"${NEMO_ARG_2}\"''\nB=\"${NEMO_ARG_3}\" C={v}\nexec \"$@\"";
        assert_eq!(command.argv[2].to_str(), Some(setup));
        let values: Vec<&str> = command.env.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["$(id)", "$(id)", "2"]);
        trial.spec.setup = vec!["ls {prep.dirs}".into()];
        let refused = build(&trial, &AttemptNames::default(), Shells::default()).unwrap_err();
        assert!(refused.contains("{prep.dirs}"), "{refused}");
    }

    #[test]
    fn a_variable_is_filled_as_an_item_of_a_list() {
        let trial = trial(json!({"lr": 0.1}));
        let values = TaskValues::from([("prep.result.n".to_owned(), "7".to_owned())]);
        let names = AttemptNames { values, ..AttemptNames::default() };
        let fill = |text| fill_variable(&trial, &names, text);
        assert_eq!(fill("{prep.result.n}/{each.dir}/{lr}"), Ok("7//x/each/trials/2/0.1".into()));
        assert_eq!(
            fill("{{prep.dir}} ${HOME} {\"a\": 1}"),
            Ok("{prep.dir} ${HOME} {\"a\": 1}".into())
        );
        assert!(fill("{nope}").unwrap_err().contains("{nope}"));
        assert!(fill("{prep.dirs}").unwrap_err().contains("several folders"));
    }

    #[test]
    fn a_name_without_a_value_is_told() {
        let mut trial = trial(json!({}));
        trial.spec.command = CommandSpec::Exec(vec!["{nope}".into()]);
        let error = build(&trial, &AttemptNames::default(), Shells::default()).unwrap_err();
        assert!(error.contains("{nope}"), "{error}");
    }
}
