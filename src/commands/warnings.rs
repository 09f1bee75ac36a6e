//! What a user should know before an experiment is submitted, though nothing is wrong with its file.

use nemo_core::duration;
use nemo_core::placeholder::{TaskValue, names};
use nemo_core::rundir::{CommandSpec, NO_SIGNAL};

use super::{App, prepare};
use crate::experiment::{Executor, Experiment, SlurmExecutor, Task};
use crate::humanize::listed;
use crate::report::say;
use crate::slurm::{Cluster, ignored_defaults};

/// Says it on stderr.
pub(super) fn say_all(app: &App, experiment: &Experiment, cluster: Option<&Cluster>) {
    say_unread(experiment);
    if !prepare::is_on_slurm(experiment) {
        return;
    }
    let names = app.variables.iter().filter_map(|(name, _)| name.to_str());
    let defaults = ignored_defaults(names).map(|warning| format!("warning: {warning}"));
    let short = cluster.map(|cluster| short_times(experiment, cluster)).unwrap_or_default();
    for warning in defaults.into_iter().chain(short) {
        say(&warning);
    }
}

/// The same, of what the file alone tells.
pub(super) fn say_unread(experiment: &Experiment) {
    let warning = |task| unread_metric(task).or_else(|| unread_best(experiment, task));
    let unspendable = super::budget::unspendable(experiment);
    let short = short_segments(experiment);
    let tasks = || experiment.tasks.iter();
    let unsaved = tasks().filter_map(unsaved_target).chain(tasks().filter_map(hidden_exit_code));
    for warning in tasks().filter_map(warning).chain(unsaved).chain(unspendable).chain(short) {
        say(&warning);
    }
}

/// Programs that only pass on what another one prints, and exit with 0 whatever became of it.
const COPIERS: [&str; 3] = ["tee", "ts", "logger"];

/// Programs that only say something. One that crashed before their `&&` does not let them run.
const SAYERS: [&str; 3] = ["echo", "printf", "date"];

/// A task that would be completed though its program crashed: a pipe's exit code is that of its last program.
fn hidden_exit_code(task: &Task) -> Option<String> {
    let CommandSpec::Shell(text) = &task.run else { return None };
    let text = text.replace("\\\n", " ");
    if ["pipefail", "PIPESTATUS"].iter().any(|own| text.contains(own)) {
        return None;
    }
    let last = text.trim_end().trim_end_matches(';').rsplit(['\n', ';']).next()?;
    let last = last.rsplit("&&").find(|part| !only_says(part))?;
    let (before, behind) = last.rsplit_once('|')?;
    let copier = behind.trim_start_matches('&').split_whitespace().next()?;
    let hides = COPIERS.contains(&copier) && !before.ends_with('|');
    hides.then(|| {
        format!(
            "warning: `{name}` ends as `{copier}` does, which exits with 0: a crash of its program counts as completed. Leave `| {copier}` \
             out (`nemo-slurm logs` shows what it printed), or write `run = [\"bash\", \"-o\", \"pipefail\", \"-c\", \"…\"]`",
            name = task.name
        )
    })
}

/// Whether a part of a line starts nothing that may crash. It must open all that it closes: `(python3 a.py && echo ok) | tee b`
/// says more.
fn only_says(part: &str) -> bool {
    let count = |mark: char| part.matches(mark).count();
    let is_whole = count('(') == count(')') && count('"') % 2 == 0 && count('\'') % 2 == 0;
    is_whole && part.split_whitespace().next().is_some_and(|program| SAYERS.contains(&program))
}

/// A task that looks for its checkpoint where it saves none. With a wildcard, another name may be meant.
fn unsaved_target(task: &Task) -> Option<String> {
    let (from, target) = (&task.checkpoint.from, task.checkpoint.restore_to.as_ref()?);
    let plain =
        |text: &str| text.strip_prefix("./").unwrap_or(text).trim_end_matches('/').to_owned();
    let may_mean = |own: &String| own.contains(['*', '?', '[']) || plain(own) == plain(target);
    if from.is_empty() || target.ends_with('/') || from.iter().any(may_mean) {
        return None;
    }
    Some(format!(
        "warning: `{name}` looks for its checkpoint at `{target}` (`restore_to`), but `from` names only {from}: if the program \
        saves to `{target}`, that is never committed. Write the same path twice",
        name = task.name,
        from = listed(from.iter().map(String::as_str)),
    ))
}

/// A task without patterns whose best trial others ask for: what only TensorBoard's files and the like say does not count.
fn unread_best(experiment: &Experiment, task: &Task) -> Option<String> {
    let metric = task.metric.as_ref().filter(|metric| !task.metrics.contains_key(*metric))?;
    if task.profile.is_some() || task.n_trials == 1 {
        return None;
    }
    let asks =
        |other: &&Task| texts(experiment, other).into_iter().any(|it| asks_for_best(it, task));
    let other = experiment.tasks.iter().find(asks)?;
    Some(format!(
        "warning: `{other}` asks for the best trial of `{name}` by `{metric}`, but no pattern in `[task.{name}.metrics]` reads it: \
        the program must report it by message (what only its own files say does not count)",
        other = other.name,
        name = task.name,
    ))
}

/// What of a task may name values of other tasks.
fn texts<'a>(experiment: &'a Experiment, task: &'a Task) -> Vec<&'a str> {
    let mut texts: Vec<&str> = task.run.texts();
    if let Some(executor) = experiment.executors.get(&task.executor) {
        texts.extend(executor.surroundings().env.values().map(String::as_str));
    }
    texts
}

fn asks_for_best(text: &str, task: &Task) -> bool {
    names(text).any(|name| {
        TaskValue::of(name, |it| it == task.name).is_some_and(|(_, value)| value.is_of_best())
    })
}

/// A task whose trials are ranked by a metric that none of its patterns reads. A message of its program may report it.
fn unread_metric(task: &Task) -> Option<String> {
    let metric = task.metric.as_ref().filter(|metric| !task.metrics.contains_key(*metric))?;
    if task.metrics.is_empty() || task.profile.is_some() {
        return None;
    }
    let known: Vec<String> = task.metrics.keys().map(|name| format!("`{name}`")).collect();
    Some(format!(
        "warning: the trials of `{name}` are ranked by `{metric}`, but `[task.{name}.metrics]` reads only {known}",
        name = task.name,
        known = known.join(", ")
    ))
}

/// Slurm may ask so many seconds earlier than it was told.
const SLURM_EARLIER: u64 = 60;

/// Tasks that are asked to save when most of a segment lies before them still, or at once.
fn short_segments(experiment: &Experiment) -> Vec<String> {
    experiment.tasks.iter().filter_map(|task| short_segment(experiment, task)).collect()
}

fn short_segment(experiment: &Experiment, task: &Task) -> Option<String> {
    let (time, key, earlier) = match experiment.executors.get(&task.executor)? {
        Executor::Slurm(slurm) => {
            let (time, key) = shortest_segment(slurm)?;
            (time, key, SLURM_EARLIER)
        }
        Executor::Local(local) => (local.time?, "time", 0),
    };
    let (lead, name) = (task.checkpoint.lead, &task.name);
    let left = time.saturating_sub(lead);
    let is_short = left <= earlier || left < time / 4;
    let is_asked = task.checkpoint.signal != NO_SIGNAL || task.checkpoint.command.is_some();
    (is_asked && is_short).then(|| {
        let in_vain = match left.saturating_sub(earlier) {
            _ if earlier == 0 => String::new(),
            0 => "; Slurm may ask up to 60 s earlier, which leaves none".to_owned(),
            rest => format!("; Slurm may ask up to 60 s earlier, which leaves {rest} s"),
        };
        format!(
            "warning: `{name}` is asked to save {lead} s before the end of a segment of {time} s: that leaves {left} s to \
             work{in_vain}. Make `{key}` of executor `{}` longer, or `checkpoint.lead` of `{name}` shorter",
            task.executor
        )
    })
}

/// The shortest time that Slurm may give a job, and the key that says so: down to `time-min` it may cut `time`, to start the
/// job earlier.
fn shortest_segment(slurm: &SlurmExecutor) -> Option<(u64, &'static str)> {
    let least = slurm.sbatch.get("time-min").and_then(|text| duration::from_sbatch(text));
    let keys = [(least, "sbatch.time-min"), (slurm.time, "time")];
    keys.into_iter().filter_map(|(time, key)| Some((time?, key))).min()
}

/// Tasks that would be asked to save as soon as they start: their partition ends a job that asks for no time too early.
fn short_times(experiment: &Experiment, cluster: &Cluster) -> Vec<String> {
    let one = |task: &Task| {
        let Some(Executor::Slurm(slurm)) = experiment.executors.get(&task.executor) else {
            return None;
        };
        let lead = task.checkpoint.lead;
        let is_short =
            |time: Option<u64>| slurm.time.is_none() && time.is_some_and(|time| time <= lead);
        let mut meant = cluster.partitions_for(slurm.partition.as_deref());
        let partition = meant.find(|partition| is_short(partition.default_time))?;
        let time = partition.default_time.unwrap_or_default();
        Some(format!(
            "warning: partition `{}` ends jobs without a `time` after {time} s, and `{}` is asked to save {lead} s before that: set `time` in executor `{}`",
            partition.name, task.name, task.executor
        ))
    };
    experiment.tasks.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::LocalExecutor;
    use crate::plan::{sample_experiment, sample_task};

    #[test]
    fn a_lead_that_leaves_little_of_a_segment_is_warned_of() {
        let check = |executor: Executor, lead, expected: Option<&str>| {
            let mut train = sample_task("train", 1, 0, &[]);
            train.checkpoint.lead = lead;
            let mut experiment = sample_experiment(vec![train]);
            experiment.executors.values_mut().for_each(|it| *it = executor.clone());
            let warning = short_segments(&experiment).join(" ");
            assert_eq!(!warning.is_empty(), expected.is_some(), "{warning}");
            assert!(warning.contains(expected.unwrap_or_default()), "{warning}");
        };
        let slurm = |time| Executor::Slurm(SlurmExecutor { time, ..SlurmExecutor::default() });
        let local = |time| Executor::Local(LocalExecutor { time, ..LocalExecutor::default() });
        let minute =
            "asked to save 55 s before the end of a segment of 60 s: that leaves 5 s to work";
        check(slurm(Some(60)), 55, Some(minute));
        check(slurm(Some(60)), 55, Some("Slurm may ask up to 60 s earlier, which leaves none"));
        check(local(Some(60)), 55, Some(minute));
        check(
            slurm(Some(1000)),
            800,
            Some("leaves 200 s to work; Slurm may ask up to 60 s earlier, which leaves 140 s"),
        );
        check(slurm(Some(3600)), 60, None);
        check(local(Some(60)), 30, None);
        check(slurm(None), 60, None);
        let sbatch = [("time-min".to_owned(), "5".to_owned())].into();
        let cut = SlurmExecutor { time: Some(7200), sbatch, ..SlurmExecutor::default() };
        let of_least = "a segment of 300 s: that leaves 60 s to work; Slurm may ask up to 60 s earlier, which leaves none. \
            Make `sbatch.time-min` of executor";
        check(Executor::Slurm(cut), 240, Some(of_least));
    }

    #[test]
    fn a_best_by_what_no_pattern_reads_is_warned_of() {
        let check = |run: &str, pattern: Option<&str>, expected| {
            let mut train = sample_task("train", 3, 0, &[]);
            train.metric = Some("loss".to_owned());
            train.metrics =
                pattern.map(|it| (it.to_owned(), "loss=(.*)".to_owned())).into_iter().collect();
            let mut export = sample_task("export", 1, 0, &[]);
            export.run = CommandSpec::Shell(run.to_owned());
            let experiment = sample_experiment(vec![train, export]);
            let warning = unread_best(&experiment, &experiment.tasks[0]);
            assert_eq!(warning.is_some(), expected, "{run}: {warning:?}");
        };
        check("x {train.best.checkpoint}", None, true);
        check("x {train.best.result.lr}", None, true);
        check("x {train.best.dir}", Some("loss"), false);
        check("x {train.dirs}", None, false);
    }
}
