//! The `sbatch` table of an executor: any option of `sbatch` that the tool does not set itself.

use std::collections::BTreeMap;

use super::reader::Field;
use super::report::Report;
use super::tree::Value;

/// Options that the tool sets, and why they can't be set here.
const REFUSED: [(&str, &str); 17] = [
    ("array", "it is made from the trials; `search.concurrent` limits how many run at once"),
    ("dependency", "it is made from `after`"),
    ("output", "output is kept with the experiment: `nemo-slurm logs` shows it"),
    ("error", "output is kept with the experiment: `nemo-slurm logs` shows it"),
    ("job-name", "it is made from the names of the experiment and the task"),
    ("signal", "it is made from `checkpoint.signal` and `checkpoint.lead`"),
    ("requeue", "trials are requeued as `restart` says"),
    ("no-requeue", "trials are requeued as `restart` says"),
    ("open-mode", "a requeued trial goes on with its own files"),
    ("hold", "`nemo-slurm pause` and `resume` hold and release trials"),
    ("parsable", "the tool reads what `sbatch` prints"),
    ("wrap", "the script is made from `run`"),
    ("kill-on-invalid-dep", "it is made from `after`"),
    ("chdir", "programs run in the folder of the experiment's file"),
    ("nodes", "it has a key of its own, `nodes`"),
    ("ntasks", "it is made from `nodes` and `tasks_per_node`"),
    ("test-only", "nothing would be submitted; `nemo-slurm plan` shows what would be"),
];

/// Options that have a key of their own in the executor.
const OWN_KEYS: [(&str, &str); 6] = [
    ("ntasks-per-node", "tasks_per_node"),
    ("partition", "partition"),
    ("gpus-per-node", "gpus_per_node"),
    ("cpus-per-task", "cpus_per_task"),
    ("mem", "mem"),
    ("time", "time"),
];

/// Reads the table.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let fields = field.section(report).map(|section| section.fields()).unwrap_or_default();
    for field in fields {
        let name = field.name.replace('_', "-");
        if let Some((why, hint)) = refusal(&name) {
            let message = format!("`{}` can't be set in `sbatch`: {why}", field.name);
            let problem = report.problem(&field.key_place, message);
            if let Some(hint) = hint {
                problem.hint(hint);
            }
            continue;
        }
        let Some(value) = value(&field, report) else { continue };
        if options.insert(name.clone(), value).is_some() {
            report.problem(
                &field.key_place,
                format!("`{name}` is given twice, with `-` and with `_`"),
            );
        }
    }
    options
}

fn refusal(name: &str) -> Option<(String, Option<String>)> {
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !valid || name.len() < 2 {
        let why = "it is not a long option of `sbatch`".to_owned();
        return Some((
            why,
            Some("write it without its dashes, such as `constraint = \"a100\"`".to_owned()),
        ));
    }
    // `sbatch` takes any unique beginning of an option's name, so a beginning is refused like the whole.
    let own = OWN_KEYS.iter().find(|(option, _)| *option == name);
    if let Some((_, key)) = own {
        let hint = format!("move it up into the executor: `{key} = …`");
        return Some((format!("the executor has the key `{key}` for it"), Some(hint)));
    }
    let refused = REFUSED.iter().find(|(option, _)| option.starts_with(name));
    refused.map(|(_, why)| ((*why).to_owned(), None))
}

/// The option's text. `true` is a flag, whose text is empty; `false` is no option at all.
fn value(field: &Field<'_>, report: &mut Report) -> Option<String> {
    match field.value {
        Value::Integer(number) => Some(number.to_string()),
        Value::Flag(flag) => flag.then(String::new),
        Value::Text(text) if text.is_empty() => {
            report
                .problem(&field.place, "the option's value is empty")
                .hint(format!("write `{} = true` for an option without a value", field.name));
            None
        }
        Value::Text(text) if text.contains(|c: char| c.is_control()) => {
            report.problem(&field.place, "the value of an option can't contain a line break");
            None
        }
        Value::Text(text) => Some(text.clone()),
        Value::Float(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => {
            field.wrong("a string, an integer or `true`", report);
            None
        }
    }
}
