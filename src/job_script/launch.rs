//! How a script starts its program: how many processes of it, by `srun` with options, or once. Pure.

use super::directives::{Directive, long_name};
use super::program::{Program, ScriptNote, error};
use super::{ScriptError, base_name};
use crate::humanize::count;

/// Options of `srun` that take no value as the next word.
const FLAGS: [&str; 16] = [
    "contiguous",
    "disable-status",
    "exact",
    "exclusive",
    "kill-on-bad-exit",
    "label",
    "multi-prog",
    "no-kill",
    "overcommit",
    "overlap",
    "preserve-env",
    "pty",
    "quiet",
    "spread-job",
    "unbuffered",
    "verbose",
];

/// Short options that mean something else to `srun` than to `sbatch`, or nothing to that.
const SHORT: [(char, &str); 7] = [
    ('E', "preserve-env"),
    ('K', "kill-on-bad-exit"),
    ('l', "label"),
    ('r', "relative"),
    ('T', "threads"),
    ('u', "unbuffered"),
    ('X', "disable-status"),
];

/// Options without which the same processes start.
const LEFT_OUT: [&str; 27] = [
    "accel-bind",
    "cpu-bind",
    "cpu_bind",
    "disable-status",
    "distribution",
    "error",
    "exact",
    "exclusive",
    "export",
    "gpu-bind",
    "hint",
    "job-name",
    "kill-on-bad-exit",
    "label",
    "mem-bind",
    "mpi",
    "no-kill",
    "output",
    "overlap",
    "preserve-env",
    "propagate",
    "quiet",
    "threads-per-core",
    "time",
    "unbuffered",
    "verbose",
    "wait",
];

/// They start the other processes by themselves.
const MPI_LAUNCHERS: [&str; 7] =
    ["horovodrun", "mpiexec", "mpiexec.hydra", "mpirun", "orterun", "prterun", "prun"];

pub(super) const INSTEAD: &str = "start it by `srun` with `--nodes`, `--ntasks` and `--cpus-per-task` alone; or submit the script as it is: \
     `nemo-slurm submit FILE`";

/// How many processes there are, as far as the script says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    pub(super) nodes: Option<u32>,
    pub(super) tasks: Option<u32>,
    pub(super) tasks_per_node: Option<u32>,
    pub(super) cpus_per_task: Option<u32>,
}

/// The keys of an executor that start the same processes, and the program's own words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptLaunch<'a> {
    pub(super) keys: Vec<String>,
    pub(super) words: &'a [String],
    pub(super) notes: Vec<ScriptNote>,
}

impl Processes {
    /// Takes what a directive or an option says of it. False if that is something else.
    pub(super) fn take(&mut self, name: &str, value: &str) -> bool {
        let Some(number) = value.parse::<u32>().ok().filter(|number| *number > 0) else {
            return false;
        };
        match name {
            "nodes" => self.nodes = Some(number),
            "ntasks" => self.tasks = Some(number),
            "ntasks-per-node" | "tasks-per-node" => self.tasks_per_node = Some(number),
            "cpus-per-task" => self.cpus_per_task = Some(number),
            _ => return false,
        }
        true
    }

    /// How the program is started.
    pub(super) fn launch(mut self, program: &Program) -> Result<ScriptLaunch<'_>, ScriptError> {
        let words = program.words.as_slice();
        if words.first().is_none_or(|word| base_name(word) != "srun") {
            return self.once(program);
        }
        if words.iter().any(|word| word == ":") {
            let why = "`srun` starts several programs here, and an experiment starts one";
            return Err(error(program.line, why.to_owned(), INSTEAD));
        }
        let (options, words) = srun_options(program);
        let mut left_out = Vec::new();
        for own in &options {
            self.take_from_srun(own, &mut left_out)?;
        }
        let mut notes = Vec::new();
        if !left_out.is_empty() {
            let left_out = left_out.join(" ");
            let text = format!(
                "`{left_out}` is left out: nemo-slurm starts the processes by an `srun` of its own"
            );
            notes.push(ScriptNote { line: program.line, text });
        }
        let (keys, rounded) = self.keys();
        notes.extend(rounded.map(|text| ScriptNote { line: program.line, text }));
        Ok(ScriptLaunch { keys, words, notes })
    }

    fn take_from_srun(
        &mut self,
        own: &Directive,
        left_out: &mut Vec<String>,
    ) -> Result<(), ScriptError> {
        // What Slurm tells of the job is what its directives say.
        let is_of_job = own.value.contains("SLURM_");
        match own.name.as_str() {
            "ntasks" if self.take(&own.name, &own.value) => self.tasks_per_node = None,
            "nodes" | "ntasks" | "ntasks-per-node" | "cpus-per-task" if is_of_job => {}
            name if self.take(name, &own.value) => {}
            // Other values set variables, or hide them.
            "export" if own.value != "ALL" => return Err(no_counterpart(own)),
            name if LEFT_OUT.contains(&name) => left_out.push(shown(own)),
            _ => return Err(no_counterpart(own)),
        }
        Ok(())
    }

    /// The keys, and a word on processes that are more than the script's. `--ntasks` alone is so many tasks on one node.
    fn keys(self) -> (Vec<String>, Option<String>) {
        let of_all = self.tasks.zip(self.tasks_per_node).map(|(all, most)| all.div_ceil(most));
        let nodes = self.nodes.or(of_all).unwrap_or(1);
        let per_node = self.tasks.map(|tasks| tasks.div_ceil(nodes));
        let per_node = self.tasks_per_node.or(per_node).unwrap_or(1);
        let started = nodes.saturating_mul(per_node);
        let rounded = self.tasks.filter(|tasks| *tasks != started).map(|tasks| {
            format!(
                "{tasks} processes become {started}: each of {nodes} nodes has as many, {per_node}"
            )
        });
        let key = |name: &str, number: u32| format!("{name} = {number}");
        let cpus = self.cpus_per_task.map(|cpus| key("cpus_per_task", cpus));
        let nodes = (nodes > 1).then(|| key("nodes", nodes));
        let per_node = (per_node > 1).then(|| key("tasks_per_node", per_node));
        (cpus.into_iter().chain(nodes).chain(per_node).collect(), rounded)
    }

    /// A program that the script starts once, whatever the number of tasks.
    fn once(self, program: &Program) -> Result<ScriptLaunch<'_>, ScriptError> {
        let nodes = self.nodes.unwrap_or(1);
        let tasks = self.tasks.or(self.tasks_per_node.map(|own| own.saturating_mul(nodes)));
        let tasks = tasks.unwrap_or(1);
        let name = program.words.first().map(|word| base_name(word)).unwrap_or_default();
        if nodes > 1 || tasks > 1 && MPI_LAUNCHERS.contains(&name) {
            let why = format!(
                "the script starts `{name}` once for {} on {}, and an experiment starts its program in each task",
                count(tasks as usize, "task"),
                count(nodes as usize, "node")
            );
            return Err(error(program.line, why, INSTEAD));
        }
        let cpus = self.cpus_per_task.map_or(tasks, |cpus| cpus.saturating_mul(tasks));
        let is_said = self.cpus_per_task.is_some() || tasks > 1;
        let keys = is_said.then(|| format!("cpus_per_task = {cpus}")).into_iter().collect();
        let text = format!(
            "the script starts this once: the processors of its {tasks} tasks are `cpus_per_task`"
        );
        let note = (tasks > 1).then_some(ScriptNote { line: program.line, text });
        Ok(ScriptLaunch { keys, words: &program.words, notes: note.into_iter().collect() })
    }
}

fn no_counterpart(own: &Directive) -> ScriptError {
    let why = format!("`srun {}` has no counterpart in an experiment", shown(own));
    error(own.line, why, INSTEAD)
}

/// The options of `srun`, and what it starts.
fn srun_options(program: &Program) -> (Vec<Directive>, &[String]) {
    let mut own = Vec::new();
    let mut words = program.words.get(1..).unwrap_or_default();
    while let Some((word, rest)) = words.split_first().filter(|(word, _)| word.starts_with('-')) {
        words = rest;
        if word == "--" {
            break;
        }
        let (name, mut value) = name_and_value(word);
        if value.is_none() && !FLAGS.contains(&name.as_str()) {
            value = words.first().cloned();
            words = words.get(1..).unwrap_or_default();
        }
        let value = value.unwrap_or_default().replace(['"', '\''], "");
        own.push(Directive { line: program.line, name, value });
    }
    (own, words)
}

fn name_and_value(word: &str) -> (String, Option<String>) {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
        return (name.to_owned(), value.map(str::to_owned));
    }
    let mut rest = word.trim_start_matches('-').chars();
    let letter = rest.next().unwrap_or_default();
    let name = SHORT.iter().find(|(own, _)| *own == letter);
    let name = name.map_or_else(|| long_name(letter), |(_, name)| (*name).to_owned());
    let value = rest.as_str();
    (name, (!value.is_empty()).then(|| value.to_owned()))
}

fn shown(own: &Directive) -> String {
    if own.value.is_empty() {
        format!("--{}", own.name)
    } else {
        format!("--{}={}", own.name, own.value)
    }
}
