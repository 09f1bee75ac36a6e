//! A job script as an experiment's file: directives become keys of an executor, the lines before the program its setup, an
//! array a parameter. What has no counterpart is named in a comment. Pure.

use std::fmt::Write as _;

use nemo_core::placeholder::escape;

use super::directives::{Directive, directives, heterogeneous, of_others};
use super::launch::{INSTEAD, Processes};
use super::program::{Program, ScriptNote, error, program, setup_lines};
use super::signal::SignalRequest;
use super::{JobScript, ScriptError, base_name};
use crate::experiment::why_no_sbatch_option;
use crate::script::shell_word;
use crate::slurm::IndexSet;
use nemo_core::duration;

/// An experiment's file, and what could not be turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Its text.
    pub toml: String,
    /// What is left out of it, or means something else.
    pub notes: Vec<ScriptNote>,
}

/// The parameter that stands for the index in the array.
const INDEX: &str = "array_task_id";
/// The most trials of an array that are listed.
const MOST: u64 = 10_000;

/// The parts of the file.
#[derive(Debug, Default)]
struct ScriptDraft {
    name: Option<String>,
    executor: Vec<String>,
    options: Vec<String>,
    signal: Option<&'static str>,
    lead: Option<u64>,
    after: Vec<String>,
    indices: Option<(Vec<u32>, Option<u32>)>,
    processes: Processes,
    notes: Vec<ScriptNote>,
}

/// Turns a script. `file` is its name, for people, and `path` how the experiment finds it.
pub fn turned(script: &JobScript<'_>, file: &str, path: &str) -> Result<Turned, ScriptError> {
    let program = if script.is_for_a_shell() {
        program(script)?
    } else {
        // It can't be read here, and runs as it is.
        let words = script.interpreter.split_whitespace().chain([path]);
        Program::of_words(words.map(shell_word).collect())
    };
    if let Some(line) = heterogeneous(script.text) {
        let why = "an experiment's job has one part, and this one is heterogeneous".to_owned();
        return Err(error(line, why, INSTEAD));
    }
    let mut draft = ScriptDraft::default();
    for own in directives(script.text) {
        draft.directive(&own);
    }
    for (line, text) in of_others(script.text) {
        draft.note(
            line,
            format!("`{text}` is left out, though `sbatch` reads it: write it as a key"),
        );
    }
    let launch = draft.processes.launch(&program)?;
    draft.executor.extend(launch.keys);
    draft.notes.extend(program.notes.iter().cloned().chain(launch.notes));
    // With a variable before it, the program does not take the shell's place.
    let trap = program.trap.as_ref().filter(|_| program.variables.is_empty());
    draft.notes.extend(trap.map(|trap| ScriptNote {
        line: trap.line,
        text: format!(
            "`{}` does nothing in `run`: no shell is left beside the program that could see to it",
            trap.text
        ),
    }));
    let is_array = draft.indices.is_some();
    let lines = draft.without_way_back(setup_lines(script, &program));
    let split = Split::of(&lines, is_array, stops_at_errors(script));
    let run = draft.run(&program, launch.words, &split, is_array);
    let run = match own_shell(script, &split, &program) {
        None => text(&run),
        Some(shell) => {
            let words: Vec<String> = shell.iter().map(|own| text(own)).collect();
            format!("[{}, \"-c\", {}]", words.join(", "), text(&run))
        }
    };
    let toml = draft.toml(file, &split, &run);
    Ok(Turned { toml, notes: draft.notes })
}

impl ScriptDraft {
    fn note(&mut self, line: usize, text: String) {
        self.notes.push(ScriptNote { line, text });
    }

    fn directive(&mut self, own: &Directive) {
        let Directive { line, name, value } = own;
        if self.processes.take(name, value) {
            return;
        }
        match name.as_str() {
            "job-name" => self.name = Some(value.clone()),
            "partition" | "mem" => self.executor.push(format!("{} = {}", key(name), text(value))),
            "gpus-per-node" => {
                let number = value.parse::<u32>().ok().filter(|number| *number > 0);
                let value = number.map_or_else(|| text(value), |number| number.to_string());
                self.executor.push(format!("gpus_per_node = {value}"));
            }
            "time" => self.time(*line, value),
            "array" => self.array(*line, value),
            "signal" => self.signal(*line, value),
            "dependency" => self.dependency(*line, value),
            // The harness does these by itself.
            "requeue" | "open-mode" => {}
            "output" | "error" => {
                let told = format!(
                    "`--{name}={value}`: output is kept with the experiment, `nemo-slurm logs` shows it"
                );
                self.note(*line, told);
            }
            _ => match why_no_sbatch_option(name) {
                None if value.is_empty() => self.options.push(format!("{name} = true")),
                None => self.options.push(format!("{name} = {}", text(value))),
                Some(why) => {
                    let given = if value.is_empty() { String::new() } else { format!("={value}") };
                    self.note(*line, format!("`--{name}{given}` is left out: {why}"));
                }
            },
        }
    }

    /// Leaves out the line that leads to the folder of the submission, where a script starts anyway: a trial starts in a
    /// folder of its own, with the code as it was submitted. Behind another change of folder it stays.
    fn without_way_back<'a>(&mut self, lines: Vec<(usize, &'a str)>) -> Vec<&'a str> {
        let mut kept = Vec::new();
        for (line, text) in lines {
            let changes_folder = |text: &&str| text.contains("cd ") || text.contains("pushd ");
            if leads_back(text) && !kept.iter().any(changes_folder) {
                self.note(line, format!(
                    "`{text}` is left out: a trial starts in a folder of its own, with the code as it was submitted"
                ));
                continue;
            }
            if text.contains("SLURM_SUBMIT_DIR") && changes_folder(&text) {
                self.note(line, format!(
                    "`{text}` leads every attempt to the folder of the submission, where the code may have changed since"
                ));
            }
            kept.push(text);
        }
        kept
    }

    /// Minutes, `hours:minutes:seconds` and so on, as Slurm reads them.
    fn time(&mut self, line: usize, value: &str) {
        match duration::from_sbatch(value) {
            Some(seconds) if seconds > 0 => {
                self.executor.push(format!("time = {}", text(&duration::slurm_time(seconds))));
            }
            _ => self.note(line, format!("`--time={value}` is no time that can be turned")),
        }
    }

    fn array(&mut self, line: usize, value: &str) {
        let (list, concurrent) =
            value.split_once('%').map_or((value, None), |(list, most)| (list, most.parse().ok()));
        match list.parse::<IndexSet>() {
            Ok(set) if !set.is_empty() && set.count() as u64 <= MOST => {
                self.indices = Some((set.iter().collect(), concurrent));
            }
            _ => self
                .note(line, format!("`--array={value}` is no list of numbers that can be turned")),
        }
    }

    fn dependency(&mut self, line: usize, value: &str) {
        let mut all = Vec::new();
        for part in value.split(',') {
            let (kind, jobs) = part.split_once(':').unwrap_or((part, ""));
            let is_job = |job: &&str| job.parse::<u32>().is_ok();
            if !matches!(kind, "afterok" | "afterany") || !jobs.split(':').all(|job| is_job(&job)) {
                return self.note(
                    line,
                    format!("`--dependency={value}`: write `after` at the top of the file"),
                );
            }
            let on = if kind == "afterany" { ", on = \"any\"" } else { "" };
            all.extend(jobs.split(':').map(|job| format!("{{ slurm_job = {job}{on} }}")));
        }
        self.after = all;
    }

    /// USR1 asks where nothing else is said.
    fn signal(&mut self, line: usize, value: &str) {
        let own = SignalRequest::read(value);
        self.lead = own.seconds;
        self.signal = own.save_signal().filter(|name| *name != "USR1");
        if own.save_signal().is_none() {
            let told = format!(
                "`--signal={value}`: {} can't ask a program to save, and USR1 does",
                own.signal
            );
            self.note(line, told);
        }
    }

    /// The program by its own words: the processes are the harness's own work.
    fn run(
        &mut self,
        program: &Program,
        words: &[String],
        split: &Split,
        is_array: bool,
    ) -> String {
        // A later attempt goes on in a file that the first one made.
        let redirections = program.redirections.iter().map(|(operator, target)| {
            format!(" {}{target}", appending(operator, target).as_deref().unwrap_or(operator))
        });
        let variables: String =
            program.variables.iter().flat_map(|own| [own.as_str(), " "]).collect();
        let command = format!("{variables}{}{}", words.join(" "), redirections.collect::<String>());
        let is_output = |(operator, target): &&(String, String)| {
            operator.contains('>') && !operator.ends_with('&') && target != "/dev/null"
        };
        if let Some((_, target)) = program.redirections.iter().find(is_output) {
            let place = if target.contains(['/', '$', '~']) {
                format!("`{target}`, which trials share unless its name tells them apart")
            } else {
                format!("`{target}` in the trial's own folder")
            };
            let told = format!(
                "the output is redirected, and every attempt adds to {place}: `nemo-slurm logs` and `metrics` do not see it"
            );
            self.note(program.line, told);
        }
        if split.before.is_empty() && !is_array {
            return escape(&command);
        }
        let index = if is_array {
            format!("export SLURM_ARRAY_TASK_ID={{{INDEX}}}\n")
        } else {
            String::new()
        };
        let before: String =
            split.before.iter().flat_map(|line| [escape(line), "\n".to_owned()]).collect();
        let exec = if program.variables.is_empty() { "exec " } else { "" };
        format!("{index}{before}{exec}{}", escape(&command))
    }

    fn toml(&self, file: &str, split: &Split, run: &str) -> String {
        let name = experiment_name(self.name.as_deref().unwrap_or(file));
        let mut out = format!("# Made of `{file}` by `nemo-slurm init --from`.\n");
        for note in &self.notes {
            writeln!(out, "# line {}: {}", note.line, one_line(&note.text)).ok();
        }
        writeln!(out, "name = {}", text(&name)).ok();
        if !self.after.is_empty() {
            writeln!(out, "after = [{}]", self.after.join(", ")).ok();
        }
        writeln!(out, "\n[executor.cluster]\nkind = \"slurm\"").ok();
        for line in &self.executor {
            writeln!(out, "{line}").ok();
        }
        if !self.options.is_empty() {
            writeln!(out, "sbatch = {{ {} }}", self.options.join(", ")).ok();
        }
        if !split.setup.is_empty() {
            let lines: String = split
                .setup
                .iter()
                .flat_map(|line| ["    ", &text(line), ",\n"].map(str::to_owned))
                .collect();
            writeln!(out, "setup = [\n{lines}]").ok();
        }
        for (name, value) in &split.env {
            writeln!(out, "env.{name} = {}", text(value)).ok();
        }
        writeln!(out, "\n[task.train]\nexecutor = \"cluster\"\nrun = {run}").ok();
        if let Some((indices, concurrent)) = &self.indices {
            let list: Vec<String> = indices.iter().map(u32::to_string).collect();
            writeln!(out, "params.{INDEX} = [{}]", list.join(", ")).ok();
            if let Some(most) = concurrent.filter(|most| *most > 0) {
                writeln!(out, "search.concurrent = {most}").ok();
            }
        }
        if let Some(signal) = self.signal {
            writeln!(out, "checkpoint.signal = \"{signal}\"").ok();
        }
        if let Some(seconds) = self.lead {
            writeln!(out, "checkpoint.lead = \"{seconds}s\"").ok();
        }
        out
    }
}

/// The script's own shell, where what it says may mean nothing or another thing to `sh`, which runs `run`.
fn own_shell<'a>(script: &JobScript<'a>, split: &Split, program: &Program) -> Option<Vec<&'a str>> {
    let words: Vec<&str> = script.interpreter.split_whitespace().collect();
    let name = words.iter().rev().find(|own| !own.starts_with('-')).copied().map(base_name);
    if !script.is_for_a_shell() || matches!(name, Some("sh" | "dash" | "ash" | "busybox")) {
        return None;
    }
    let has_signs = |word: &String| {
        let is_list = word.contains('{') && (word.contains(',') || word.contains(".."));
        let signs = ["(", "[", "<<<", "$'", "$\"", "${"];
        is_list || signs.iter().any(|sign| word.contains(sign))
    };
    let is_of_bash = |(operator, target): &(String, String)| {
        let is_number = target.starts_with(|own: char| own.is_ascii_digit() || own == '-');
        operator.starts_with('&') || operator.ends_with(">&") && !is_number
    };
    let is_needed = !split.before.is_empty()
        || program.words.iter().chain(&program.variables).any(has_signs)
        || program.redirections.iter().any(is_of_bash);
    is_needed.then_some(words)
}

/// What stands before the program.
#[derive(Debug, Default)]
struct Split {
    /// Lines that run before the program, in its environment.
    setup: Vec<String>,
    env: Vec<(String, String)>,
    /// Lines that set what only the program's own shell would know.
    before: Vec<String>,
}

impl Split {
    /// As long as lines load something or export something, they are the setup; from the first other line on, all belong
    /// to the program's own shell.
    fn of(lines: &[&str], is_array: bool, stops_at_errors: bool) -> Self {
        let mut own = Self::default();
        for &line in lines {
            let uses_index = is_array && line.contains("SLURM_ARRAY_TASK_ID");
            match exported(line) {
                _ if uses_index || !own.before.is_empty() => own.before.push(line.to_owned()),
                Some(variable) if own.setup.is_empty() => own.env.push(variable),
                Some(_) => own.setup.push(line.to_owned()),
                None if loads(line) => own.setup.push(line.to_owned()),
                None => own.before.push(line.to_owned()),
            }
        }
        if !own.setup.is_empty() && !stops_at_errors {
            own.setup.insert(0, GO_ON.to_owned());
        }
        own
    }
}

/// `cd $SLURM_SUBMIT_DIR`, with braces, quotes and what is to be done where that fails.
fn leads_back(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("cd ") else { return false };
    let folder = rest.split("||").next().unwrap_or_default().trim_end_matches([';', ' ']);
    let plain: String = folder.chars().filter(|own| !matches!(own, '"' | '{' | '}')).collect();
    plain.trim().trim_end_matches('/') == "$SLURM_SUBMIT_DIR"
}

/// The operator that adds to a file where this one would empty it; none where it empties none.
fn appending(operator: &str, target: &str) -> Option<String> {
    let sign = operator.trim_start_matches(|own: char| own.is_ascii_digit());
    let number = &operator[..operator.len() - sign.len()];
    let is_number = target.starts_with(|own: char| own.is_ascii_digit() || own == '-');
    match sign {
        ">" | ">|" => Some(format!("{number}>>")),
        "&>" => Some("&>>".to_owned()),
        ">&" if !is_number => Some("&>>".to_owned()),
        _ => None,
    }
}

/// `setup` ends an attempt at its first line that fails. Most scripts go on.
const GO_ON: &str = "set +e";

/// Whether it runs as `#!/bin/bash -e`. Lines behind a `set -e` of its own are no setup.
fn stops_at_errors(script: &JobScript<'_>) -> bool {
    let mut words = script.interpreter.split_whitespace().skip(1);
    words.any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains('e'))
}

/// Whether a line changes the environment in which the program is started.
fn loads(line: &str) -> bool {
    let is_one = !line.contains([';', '&', '|']);
    let word = line.split_whitespace().next().unwrap_or_default();
    is_one
        && ["module", "ml", "source", ".", "conda", "spack", "ulimit", "umask", "export", "unset"]
            .contains(&word)
}

/// `export NAME=VALUE`, in which the shell fills nothing in.
fn exported(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.trim().split_once('=')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_literal =
        !value.contains(['$', '`', '\\', ';', '&', '|', '#', '*', '?', '~', '{', ' ', '\'', '"']);
    (is_name && is_literal).then(|| (name.to_owned(), value.to_owned()))
}

fn key(option: &str) -> String {
    option.replace('-', "_")
}

/// A name that an experiment may have.
fn experiment_name(wanted: &str) -> String {
    let stem = wanted
        .rsplit_once('.')
        .map_or(wanted, |(stem, extension)| if extension.len() <= 6 { stem } else { wanted });
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(allowed).take(48).collect();
    let name = name.trim_matches(['.', '_', '-']);
    if name.is_empty() { "job".to_owned() } else { name.to_owned() }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A string of TOML.
fn text(value: &str) -> String {
    let is_plain =
        !value.contains("'''") && !value.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if value.contains('\n') && is_plain && !value.ends_with('\'') {
        return format!("'''\n{value}'''");
    }
    let is_plain = !value.contains('\'') && !value.chars().any(char::is_control);
    if value.contains(['"', '\\']) && is_plain {
        return format!("'{value}'");
    }
    serde_json::Value::from(value).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests;
