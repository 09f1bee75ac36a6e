//! What a retry changes of tasks that were submitted before: keys of their executor, of `restart` and of `checkpoint`. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::overrides::Override;
use super::problem_report::listed;
use super::{Executor, Experiment, Loaded, Problems, ResolvedConfig, Task, load};

/// Changed keys with their values as they were given. A key begins with `executor`, `restart` or `checkpoint`, without the
/// name of the executor or task.
pub type ChangedKeys = BTreeMap<String, String>;

/// A key that a retry changes, and of which tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryChange {
    only: OnlyOf,
    key: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OnlyOf {
    Everything,
    Executor(String),
    Task(String),
}

/// Why a key can't be changed by a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChangeError {
    message: String,
    /// What to type instead.
    pub hint: String,
}

/// The tables of a task that a retry may change.
const OF_TASK: [&str; 2] = ["restart", "checkpoint"];
/// Keys of an executor that say where all of the experiment is: what was submitted before depends on them.
const FIXED: [&[&str]; 6] = [
    &["kind"],
    &["parallel"],
    &["gpus_per_trial"],
    &["secrets"],
    &["export"],
    &["sbatch", "clusters"],
];

impl RetryChange {
    /// Reads a change, with a key as in the file (`executor.gpu.mem`, `task.train.restart.crashes`) or without the names
    /// (`executor.mem`, `restart.crashes`), which is then of all tasks that are retried.
    pub fn new(given: &Override, experiment: &Experiment) -> Result<Self, ChangeError> {
        let path: Vec<&str> = given.path().iter().map(String::as_str).collect();
        let (only, key) = match path.as_slice() {
            ["executor", name, key @ ..]
                if !key.is_empty() && experiment.executors.contains_key(*name) =>
            {
                (OnlyOf::Executor((*name).to_owned()), [&["executor"], key].concat())
            }
            ["executor", _, ..] => (OnlyOf::Everything, path.clone()),
            ["task", name, key @ ..] if is_of_task(key) => {
                known_task(name, experiment)?;
                (OnlyOf::Task((*name).to_owned()), key.to_vec())
            }
            key if is_of_task(key) => (OnlyOf::Everything, key.to_vec()),
            ["params", ..] | ["task", _, "params", ..] => return Err(is_a_parameter(given)),
            _ => return Err(is_another_key(given)),
        };
        if let ["executor", of_executor @ ..] = key.as_slice()
            && FIXED.iter().any(|fixed| of_executor.starts_with(fixed))
        {
            return Err(is_another_key(given));
        }
        Ok(Self { only, key: dotted(&key), value: given.value().to_owned() })
    }

    /// Whether it changes this task.
    #[must_use]
    pub fn covers(&self, task: &Task) -> bool {
        match &self.only {
            OnlyOf::Everything => true,
            OnlyOf::Executor(name) => task.executor == *name,
            OnlyOf::Task(name) => task.name == *name,
        }
    }

    /// Adds it to what was changed before.
    pub fn add_to(&self, keys: &mut ChangedKeys) {
        keys.insert(self.key.clone(), self.value.clone());
    }
}

fn is_of_task(key: &[&str]) -> bool {
    key.len() > 1 && OF_TASK.contains(&key[0])
}

fn known_task(name: &str, experiment: &Experiment) -> Result<(), ChangeError> {
    let tasks = || experiment.tasks.iter().map(|task| task.name.as_str());
    if tasks().any(|task| task == name) {
        return Ok(());
    }
    let message = format!("there is no task `{name}`");
    Err(ChangeError { message, hint: format!("the tasks are {}", listed(tasks())) })
}

fn is_a_parameter(given: &Override) -> ChangeError {
    let key = given.key();
    ChangeError {
        message: format!("`{key}` is a parameter: another value of it is another trial"),
        hint: format!("submit the file again with `--set {key}=…`"),
    }
}

fn is_another_key(given: &Override) -> ChangeError {
    ChangeError {
        message: format!("a retry can't change `{}`", given.key()),
        hint: "it can change the resources and the environment of the executor, `restart` and `checkpoint`, \
               for example --set executor.mem=64G"
            .to_owned(),
    }
}

/// A dotted key as TOML reads it back.
fn dotted(path: &[&str]) -> String {
    let is_bare = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    let quoted = |part: &&str| {
        if is_bare(part) { (*part).to_owned() } else { Json::from(*part).to_string() }
    };
    path.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// The experiment as it is for trials of a task whose keys were changed: only its executor, `restart` and `checkpoint` are
/// others. What is wrong with a value is said as it would be of the file.
pub fn changed(
    experiment: &Experiment,
    config: &ResolvedConfig,
    task: &str,
    keys: &ChangedKeys,
) -> Result<Experiment, Problems> {
    let mut all = experiment.clone();
    let Some(own) = all.tasks.iter_mut().find(|own| own.name == task) else { return Ok(all) };
    let Some(loaded) = loaded(own, experiment, config, keys)? else { return Ok(all) };
    let mut loaded = loaded.experiment;
    let executor = loaded.executors.remove(&own.executor);
    all.executors.extend(executor.map(|executor| (own.executor.clone(), executor)));
    if let Some(changed) = loaded.tasks.into_iter().find(|changed| changed.name == task) {
        (own.restart, own.checkpoint) = (changed.restart, changed.checkpoint);
    }
    Ok(all)
}

/// The configuration as it is for trials of a task whose keys were changed. The source of a changed key is `retry`.
pub fn changed_config(
    experiment: &Experiment,
    config: &ResolvedConfig,
    task: &str,
    keys: &ChangedKeys,
) -> Result<ResolvedConfig, Problems> {
    let mut all = config.clone();
    let Some(own) = experiment.tasks.iter().find(|own| own.name == task) else { return Ok(all) };
    let Some(loaded) = loaded(own, experiment, config, keys)? else { return Ok(all) };
    let tables = OF_TASK.map(|table| vec!["task", own.name.as_str(), table]);
    for table in tables.iter().chain([&vec!["executor", own.executor.as_str()]]) {
        all.take_over(table, &loaded.config, RETRY);
    }
    Ok(all)
}

/// Where a key is from that a retry changed.
const RETRY: &str = "retry";

/// What can be changed of a task, read again with the changed keys; nothing where there are none.
fn loaded(
    own: &Task,
    experiment: &Experiment,
    config: &ResolvedConfig,
    keys: &ChangedKeys,
) -> Result<Option<Loaded>, Problems> {
    if keys.is_empty() {
        return Ok(None);
    }
    let text = toml::to_string(&as_file(own, experiment, config)).unwrap_or_default();
    let overrides: Vec<Override> =
        keys.iter().filter_map(|(key, value)| in_file(own, key, value)).collect();
    load(&text, Path::new("experiment.toml"), &overrides, None).map(Some)
}

/// A file with nothing but what a retry can change of one task, and what placeholders of its executor may name.
fn as_file(task: &Task, experiment: &Experiment, config: &ResolvedConfig) -> Json {
    let kind = match experiment.executors.get(&task.executor) {
        Some(Executor::Slurm(_)) => "slurm",
        Some(Executor::Local(_)) | None => "local",
    };
    let executor = config.given(&["executor", &task.executor]);
    let executor = executor.unwrap_or_else(|| json!({ "kind": kind }));
    let elsewhere = if task.executor == "local" { "slurm" } else { "local" };
    let with = |name: &str, executor: &str, keys: &[&str]| {
        let mut own = Map::from_iter([
            ("run".to_owned(), "true".into()),
            ("executor".to_owned(), executor.into()),
        ]);
        for &key in keys.iter().chain(&["params", "search", "after"]) {
            own.extend(config.given(&["task", name, key]).map(|value| (key.to_owned(), value)));
        }
        (name.to_owned(), Json::from(own))
    };
    let others = experiment.tasks.iter().filter(|other| other.name != task.name);
    let mut tasks: Map<String, Json> =
        others.map(|other| with(&other.name, elsewhere, &[])).collect();
    let keys = [OF_TASK.as_slice(), &["profile", "launch", "workers_per_node"]].concat();
    tasks.extend([with(&task.name, &task.executor, &keys)]);
    json!({ "name": "retry", "executor": { &task.executor: executor }, "task": tasks })
}

/// A changed key with the names that it has in the file.
fn in_file(task: &Task, key: &str, value: &str) -> Option<Override> {
    let change: Override = format!("{key}={value}").parse().ok()?;
    let [first, rest @ ..] = change.path() else { return None };
    let names = match first.as_str() {
        "executor" => vec!["executor".to_owned(), task.executor.clone()],
        _ => vec!["task".to_owned(), task.name.clone(), first.clone()],
    };
    let path = [&names, rest].concat();
    Some(change.moved_to(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = \"a\"\n[executor.gpu]\nkind = \"slurm\"\nmem = \"8G\"\ntime = \"40s\"\n\
        sbatch.constraint = \"a100\"\n[executor.cpu]\nkind = \"slurm\"\n\
        [task.train]\nrun = \"true {lr}\"\nexecutor = \"gpu\"\nparams.lr = [0.1, 0.2]\nrestart.crashes = 1\n\
        [task.after]\nrun = \"true\"\nexecutor = \"cpu\"\nafter = [\"train\"]\n";

    fn loaded() -> Loaded {
        load(TEXT, Path::new("exp.toml"), &[], None).unwrap()
    }

    fn change(text: &str) -> Result<RetryChange, ChangeError> {
        RetryChange::new(&text.parse().unwrap(), &loaded().experiment)
    }

    #[track_caller]
    fn check(text: &str, key: &str, tasks: &[&str]) {
        let change = change(text).unwrap();
        let experiment = loaded().experiment;
        let covered = experiment.tasks.iter().filter(|task| change.covers(task));
        let covered: Vec<&str> = covered.map(|task| task.name.as_str()).collect();
        assert_eq!((change.key.as_str(), covered.as_slice()), (key, tasks), "{text}");
    }

    #[test]
    fn keys_are_spelled_as_in_the_file_or_without_names() {
        check("executor.mem=64G", "executor.mem", &["train", "after"]);
        check("executor.gpu.mem=64G", "executor.mem", &["train"]);
        check("executor.cpu.sbatch.nice=5", "executor.sbatch.nice", &["after"]);
        check("executor.env.\"A B\"=1", "executor.env.\"A B\"", &["train", "after"]);
        check("restart.crashes=3", "restart.crashes", &["train", "after"]);
        check(
            "task.train.checkpoint.keep.trial_latest=2",
            "checkpoint.keep.trial_latest",
            &["train"],
        );
    }

    #[test]
    fn parameters_and_what_holds_for_all_are_refused() {
        let message = |text: &str| change(text).unwrap_err().to_string();
        assert!(message("task.train.params.lr=1").contains("is another trial"));
        assert!(message("task.none.restart.crashes=1").contains("no task `none`"));
        for text in [
            "name=b",
            "executor=cpu",
            "restart=3",
            "executor.kind=local",
            "executor.gpu.kind=local",
            "executor.sbatch.clusters=b",
            "task.train.run=false",
        ] {
            assert!(message(text).contains("can't change"), "{text}");
        }
    }

    /// What the executor's texts name is known of the task, though a retry changes neither.
    #[test]
    fn placeholders_of_the_executor_are_no_mistake() {
        let text = TEXT.replace("mem =", "env.LR = \"{lr}\"\nsetup = \"echo {task}\"\nmem =");
        let text =
            text.replace("[executor.cpu]\n", "[executor.cpu]\nenv.A = \"{train.best.dir}\"\n");
        let text = text.replace("params.lr", "search.metric = \"m\"\nparams.lr");
        let Loaded { experiment, config, .. } = load(&text, Path::new("x"), &[], None).unwrap();
        for task in ["train", "after"] {
            let keys = ChangedKeys::from([("executor.mem".to_owned(), "64G".to_owned())]);
            let changed = changed(&experiment, &config, task, &keys).unwrap();
            let own = changed.tasks.iter().find(|own| own.name == task).unwrap();
            let Executor::Slurm(slurm) = &changed.executors[&own.executor] else { panic!() };
            assert_eq!(slurm.mem.as_deref(), Some("64G"), "{task}");
            assert_eq!(own.n_trials, if task == "train" { 2 } else { 1 });
        }
    }

    #[test]
    fn only_the_changed_task_is_another() {
        let Loaded { experiment, config, .. } = loaded();
        let keys = |pairs: &[(&str, &str)]| -> ChangedKeys {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let set = keys(&[
            ("executor.mem", "64G"),
            ("executor.time", "4h"),
            ("executor.sbatch.exclude", "n[1-2]"),
            ("restart.crashes", "3"),
        ]);
        let now = changed(&experiment, &config, "train", &set).unwrap();
        let Executor::Slurm(gpu) = &now.executors["gpu"] else { panic!("{now:?}") };
        assert_eq!((gpu.mem.as_deref(), gpu.time), (Some("64G"), Some(4 * 3600)));
        assert_eq!(gpu.sbatch["constraint"], "a100", "what was there stays");
        assert_eq!(gpu.sbatch["exclude"], "n[1-2]");
        assert_eq!(now.executors["cpu"], experiment.executors["cpu"]);
        let (train, before) = (&now.tasks[0], &experiment.tasks[0]);
        assert_eq!((train.restart.crashes, train.n_trials), (3, before.n_trials));
        assert_eq!((before.checkpoint.lead, train.checkpoint.lead), (20, 60), "a default follows");
        assert_eq!(now.tasks[1], experiment.tasks[1]);
        let now = changed_config(&experiment, &config, "train", &set).unwrap();
        let differs = |key: &str| {
            let value = |all: &ResolvedConfig| {
                let entries = all.entries().into_iter();
                entries.filter(|it| it.0 == key).map(|it| it.1.clone()).next()
            };
            (value(&now) != value(&config)).then(|| (value(&now), now.origin[key].clone()))
        };
        let retried = |value: Json| Some((Some(value), "retry".to_owned()));
        assert_eq!(differs("executor.gpu.mem"), retried(json!("64G")));
        assert_eq!(differs("executor.gpu.sbatch.exclude"), retried(json!("n[1-2]")));
        assert_eq!(differs("task.train.restart.crashes"), retried(json!(3)));
        let lead = Some((Some(json!("60s")), "default".to_owned()));
        assert_eq!(differs("task.train.checkpoint.lead"), lead, "a default follows");
        let keys_of = |all: &ResolvedConfig| -> Vec<String> {
            let names = all.entries().into_iter().map(|(key, _)| key);
            names.filter(|key| differs(key).is_none()).collect()
        };
        assert_eq!(keys_of(&now), keys_of(&config), "all other keys stay, in their order");
        let table = keys(&[("executor.sbatch", "{ nice = 5 }")]);
        let now = changed_config(&experiment, &config, "train", &table).unwrap();
        assert_eq!(now.config["executor"]["gpu"]["sbatch"], json!({ "nice": 5 }));
        assert_eq!(now.origin.get("executor.gpu.sbatch.constraint"), None);
        let wrong = changed(&experiment, &config, "train", &keys(&[("executor.mem", "lots")]));
        let text = wrong.unwrap_err().to_string();
        assert!(text.contains("--set executor.mem=lots"), "{text}");
        let unknown = changed(&experiment, &config, "train", &keys(&[("executor.memory", "8G")]));
        assert!(unknown.unwrap_err().to_string().contains("mem"));
    }
}
