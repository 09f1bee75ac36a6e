//! `after` at the top of the file: what the whole experiment waits for, other experiments and jobs of Slurm.

use serde::{Deserialize, Serialize};

use super::On;
use super::problem_report::ProblemReport;
use super::reader::{Field, Section};
use super::synonyms;
use super::toml_tree::TomlValue;

/// Something outside of the experiment that must be over before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideDependency {
    /// What it is.
    #[serde(flatten)]
    pub of: Outside,
    /// What must have become of it: `ok` or `any`.
    pub on: On,
}

impl OutsideDependency {
    /// Such as: after the experiment of this name.
    #[must_use]
    pub fn in_words(&self) -> String {
        let when = if self.on == On::Any { "after the end of" } else { "after" };
        format!("{when} {}", self.what())
    }

    /// What it is, in words.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.of {
            Outside::Experiment(name) => format!("experiment `{name}`"),
            Outside::SlurmJob(job) => format!("job {job}"),
        }
    }
}

/// What an experiment can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Another experiment: its name as written, and once submitted its id.
    Experiment(String),
    /// A job that somebody else submitted.
    SlurmJob(u32),
}

const ON: [(&str, On); 2] = [("ok", On::Ok), ("any", On::Any)];

/// Reads `after` of a file.
pub(super) fn read(file: &mut Section<'_>, report: &mut ProblemReport) -> Vec<OutsideDependency> {
    let Some(field) = file.take("after") else { return Vec::new() };
    field.one_or_more().iter().filter_map(|item| one(item, report)).collect()
}

fn one(item: &Field<'_>, report: &mut ProblemReport) -> Option<OutsideDependency> {
    let expected = "the name of an experiment, `{ experiment = \"…\", on = \"any\" }` or `{ slurm_job = 4711 }`";
    match item.value {
        TomlValue::Text(name) => {
            let of = Outside::Experiment(whole(item, name.clone(), report)?);
            Some(OutsideDependency { of, on: On::Ok })
        }
        TomlValue::Table(_) => {
            let mut section = item.section(report)?;
            let experiment = section.take("experiment");
            let job = section.take("slurm_job");
            let on = section.take("on").map(|on| on.word_or(&ON, synonyms::ENDS, report));
            section.finish(report);
            let of = match (experiment, job) {
                (Some(name), None) => {
                    Outside::Experiment(whole(&name, name.text(report)?, report)?)
                }
                (None, Some(job)) => Outside::SlurmJob(job.positive(report)?.get()),
                (Some(_), Some(_)) | (None, None) => {
                    item.wrong(expected, report);
                    return None;
                }
            };
            Some(OutsideDependency { of, on: on.unwrap_or(Some(On::Ok))? })
        }
        _ => {
            item.wrong(expected, report);
            None
        }
    }
}

/// The name of a whole experiment: one can't wait for a part of another.
fn whole(field: &Field<'_>, name: String, report: &mut ProblemReport) -> Option<String> {
    let Some((experiment, _)) = name.split_once('/') else { return Some(name) };
    report
        .problem(&field.place, format!("`{name}` is a part of an experiment"))
        .hint(format!("an experiment waits for whole ones: write {experiment:?}"));
    None
}
