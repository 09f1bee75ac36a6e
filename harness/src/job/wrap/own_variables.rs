//! What the environment of `wrap` says that is not so, put right before anything reads it: `sbatch` hands on the variables of the
//! job that submits, a shell those of the trial that it runs in, and a tool may take some out before it starts `wrap` in a step of
//! its job, as Snakemake's plugin does.
#![expect(clippy::disallowed_methods, reason = "an edge: becomes the same program once more")]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nemo_core::environment::{is_of_other_program, is_untrue_rank};
use nemo_core::show_job::Fields;

use crate::os::log::log_info;
use crate::os::proc_fs;
use crate::slurm;

/// The array of a task, and the task's index.
const ARRAY: &str = "SLURM_ARRAY_JOB_ID";
const INDEX: &str = "SLURM_ARRAY_TASK_ID";
/// What Slurm tells a task of the others.
const BOUNDS: [&str; 4] = [
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_ARRAY_TASK_COUNT",
];

/// What Slurm tells a task of its step. The batch script is in none.
const STEP: [&str; 7] = [
    "SLURM_STEP_ID",
    "SLURM_STEPID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_LAUNCHER_PORT",
];

/// How many times Slurm has restarted the job. It is set in every run but the first.
const RESTARTS: &str = "SLURM_RESTART_COUNT";

type Variables = BTreeMap<String, String>;

/// What is to be changed, and what the log says of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct VariableChanges {
    /// None is left out.
    variables: Vec<(&'static str, Option<String>)>,
    /// Those of other processes, which are left out.
    foreign: Vec<String>,
    told: Vec<String>,
}

/// Becomes this program once more with the right variables, where some are not: the program and its guard need them too.
/// `shown` is what Slurm shows of the job, if this is one.
pub(super) fn put_right(shown: &str) -> io::Result<()> {
    let all = env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    let changes = VariableChanges::of(&all.collect(), shown, is_in_batch_script());
    if changes == VariableChanges::default() {
        return Ok(());
    }
    for line in &changes.told {
        log_info(line);
    }
    let mut again = Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1));
    for (name, value) in &changes.variables {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    for name in &changes.foreign {
        again.env_remove(name);
    }
    Err(again.exec())
}

/// Whether the batch script started this, and no step: the daemon that started either says so in its title.
fn is_in_batch_script() -> bool {
    let ancestors = proc_fs::ancestors(std::process::id()).into_iter();
    let titles = ancestors.filter_map(|pid| proc_fs::arguments(pid).into_iter().next());
    let steps = titles.filter_map(|title| step_of(&title.to_string_lossy()).map(str::to_owned));
    steps.into_iter().next().is_some_and(|step| step == "batch")
}

/// The step in `slurmstepd: [4711.batch]`.
fn step_of(title: &str) -> Option<&str> {
    let name = title.trim().strip_prefix("slurmstepd: [")?.strip_suffix(']')?;
    Some(name.split_once('.')?.1)
}

impl VariableChanges {
    /// `is_batch`: the batch script started this, as far as can be told.
    fn of(all: &Variables, shown: &str, is_batch: bool) -> Self {
        let mut changes = Self::default();
        changes.correct_array(all, shown);
        let is_in_step = set(all, STEP[0]).is_some() && !is_batch;
        changes.correct_restarts(all, shown, is_in_step);
        if is_batch {
            changes.leave_out_step(all);
        }
        changes.leave_out_foreign(all);
        changes
    }

    /// Whose task this is. Without the right answer another job would be requeued or cancelled.
    ///
    /// The index stays where the job has none of its own: the script that submitted this one may have meant to hand it on.
    fn correct_array(&mut self, all: &Variables, shown: &str) {
        let Some(fields) = Fields::new(shown) else { return };
        let (own, found) = (fields.get("ArrayJobId"), set(all, ARRAY));
        if own == found {
            return;
        }
        if let Some(found) = found {
            self.told.push(format!("`{ARRAY}={found}` is another job's: Slurm says so"));
        }
        self.variables.push((ARRAY, own.map(str::to_owned)));
        let bounds = BOUNDS.into_iter().filter(|name| all.contains_key(*name));
        self.variables.extend(bounds.map(|name| (name, None)));
        if let (Some(_), Some(index)) = (own, fields.get("ArrayTaskId")) {
            self.variables.push((INDEX, Some(index.to_owned())));
        }
    }

    /// Which run of the job this is. With too low a number, what Slurm says of this run would be taken for news of a later one:
    /// a time limit or a cancel would be called a requeue. With one too high, the later ones would be taken for older.
    fn correct_restarts(&mut self, all: &Variables, shown: &str, is_in_step: bool) {
        let Some(job) = slurm::parse(shown).filter(|job| job.is_run(job.restarts)) else { return };
        let found = set(all, RESTARTS).and_then(|count| count.parse::<u32>().ok());
        match found {
            Some(found) if found > job.restarts => self.told.push(format!(
                "`{RESTARTS}={found}` is another job's: Slurm has restarted this one {} times",
                job.restarts
            )),
            None if is_in_step && job.restarts > 0 => {}
            // A run that was requeued meanwhile is an earlier one than Slurm shows.
            Some(_) | None => return,
        }
        let own = (job.restarts > 0).then(|| job.restarts.to_string());
        self.variables.push((RESTARTS, own));
    }

    /// Who submits from within a step hands its number on. The batch script would be taken for a task of that step.
    fn leave_out_step(&mut self, all: &Variables) {
        let Some(step) = set(all, STEP[0]) else { return };
        self.told.push(format!("`{}={step}` is another job's: this is no step", STEP[0]));
        let known = STEP.into_iter().filter(|name| all.contains_key(*name));
        self.variables.extend(known.map(|name| (name, None)));
    }

    /// Another process's rank would silence the program, since only the first of several saves and reports.
    fn leave_out_foreign(&mut self, all: &Variables) {
        // Slurm itself numbers the tasks of a step, and the batch script is task 0.
        let is_first = set(all, "SLURM_PROCID").is_none_or(|task| task == "0");
        let is_untrue = |name: &str, value: &str| is_first && is_untrue_rank(name, value);
        let ranks = all.iter().filter(|(name, value)| is_untrue(name, value));
        let ranks: Vec<_> = ranks.map(|(name, value)| format!("`{name}={value}`")).collect();
        if !ranks.is_empty() {
            self.told.push(format!(
                "left out of the program's environment: {}, since this is the only process that `wrap` starts",
                ranks.join(", ")
            ));
        }
        let foreign =
            all.iter().filter(|(name, value)| is_untrue(name, value) || is_of_other_program(name));
        self.foreign.extend(foreign.map(|(name, _)| name.clone()));
    }
}

fn set<'a>(all: &'a Variables, name: &str) -> Option<&'a str> {
    all.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of these variables, and whether the log says something.
    fn after(variables: &[(&str, &str)], shown: &str, is_batch: bool) -> (String, bool) {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut all: Variables = variables.iter().map(text).collect();
        let changes = VariableChanges::of(&all, shown, is_batch);
        for (name, value) in changes.variables {
            all.remove(name);
            all.extend(value.map(|value| (name.to_owned(), value)));
        }
        all.retain(|name, _| !changes.foreign.contains(name));
        assert_eq!(
            VariableChanges::of(&all, shown, is_batch),
            VariableChanges::default(),
            "once is enough"
        );
        let left: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (left.join(" "), !changes.told.is_empty())
    }

    fn shown(array: &str, state: &str, restarts: u32) -> String {
        format!(
            "JobId=7 {array}JobName=x UserId=u(1) JobState={state} Restarts={restarts} NumNodes=1"
        )
    }

    #[track_caller]
    fn check(variables: &[(&str, &str)], shown: &str, left: &str, is_told: bool) {
        assert_eq!(after(variables, shown, false), (left.to_owned(), is_told));
    }

    #[test]
    fn the_batch_script_is_no_step() {
        let inherited = [("SLURM_STEP_ID", "3"), ("SLURM_STEP_NUM_TASKS", "8"), ("A", "b")];
        for restarts in [0, 2] {
            let shown = shown("", "RUNNING", restarts);
            assert_eq!(after(&inherited, &shown, true), ("A=b".to_owned(), true));
        }
        assert!(!after(&[("A", "b")], "", true).1);
        assert_eq!(step_of("slurmstepd: [4711.batch]"), Some("batch"));
        assert_eq!(step_of("slurmstepd: [4711.0]"), Some("0"));
        assert_eq!(step_of("slurmstepd: [4711.extern] "), Some("extern"));
        assert_eq!(step_of("bash"), None);
    }

    #[test]
    fn the_array_is_the_one_that_slurm_names() {
        let foreign = [(ARRAY, "5"), (INDEX, "3"), (BOUNDS[0], "3"), (BOUNDS[1], "4")];
        check(&foreign, &shown("", "RUNNING", 0), "SLURM_ARRAY_TASK_ID=3", true);
        let task = shown("ArrayJobId=6 ArrayTaskId=1 ", "RUNNING", 0);
        let own = "SLURM_ARRAY_JOB_ID=6 SLURM_ARRAY_TASK_ID=1";
        check(&[(ARRAY, "6"), (INDEX, "1")], &task, own, false);
        check(&foreign, &task, own, true);
        check(&[], &task, own, false);
        // A script may count on from the index of its task.
        let counted = [(ARRAY, "6"), (INDEX, "1001")];
        check(&counted, &task, "SLURM_ARRAY_JOB_ID=6 SLURM_ARRAY_TASK_ID=1001", false);
        let no_answer = "slurm_load_jobs error: Unable to contact slurm controller";
        check(&foreign[..2], no_answer, "SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3", false);
    }

    #[test]
    fn a_job_was_not_restarted_more_often_than_slurm_says() {
        let count = |count| [(RESTARTS, count)];
        check(&count("5"), &shown("", "RUNNING", 0), "", true);
        check(&count("5"), &shown("", "RUNNING", 2), "SLURM_RESTART_COUNT=2", true);
        check(&count("2"), &shown("", "RUNNING", 2), "SLURM_RESTART_COUNT=2", false);
        check(&count("2"), &shown("", "RUNNING", 3), "SLURM_RESTART_COUNT=2", false);
        check(&count("5"), &shown("", "COMPLETING", 2), "SLURM_RESTART_COUNT=5", false);
        check(&count("5"), "", "SLURM_RESTART_COUNT=5", false);
    }

    #[test]
    fn only_a_step_that_is_under_way_may_have_lost_its_restarts() {
        let step = [("SLURM_STEP_ID", "0")];
        let both = "SLURM_RESTART_COUNT=2 SLURM_STEP_ID=0";
        check(&step, &shown("", "RUNNING", 2), both, false);
        check(&step, &shown("", "RUNNING", 0), "SLURM_STEP_ID=0", false);
        check(&step, &shown("", "COMPLETING", 2), "SLURM_STEP_ID=0", false);
        check(&[], &shown("", "RUNNING", 2), "", false);
    }

    #[test]
    fn the_only_process_is_told_no_other_rank() {
        let ranks = [("LOCAL_RANK", "1"), ("MASTER_PORT", "9"), ("RANK", "3"), ("WORLD_SIZE", "4")];
        check(&ranks, "", "MASTER_PORT=9 WORLD_SIZE=4", true);
        check(&[("RANK", "0"), ("WORLD_SIZE", "1")], "", "RANK=0 WORLD_SIZE=1", false);
        let task = [("RANK", "3"), ("SLURM_PROCID", "3")];
        check(&task, "", "RANK=3 SLURM_PROCID=3", false);
        check(&[("RANK", "3"), ("SLURM_PROCID", "0")], "", "SLURM_PROCID=0", true);
    }

    #[test]
    fn nothing_of_another_trial_is_left() {
        let trial = [("NEMO_PARAM_LR", "1"), ("NEMO_LOG", "debug"), ("WATCHDOG_USEC", "9")];
        check(&trial, "", "NEMO_LOG=debug", false);
    }
}
