//! Why trials wait, for people.

use super::Page;
use super::escape::escape_line;
use super::fit::hang;
use crate::humanize::{duration, ranges};
use crate::slurm::{JobId, UnixTime};

/// How far in the explanations stand.
const INDENT: usize = 2;
/// A start is sooner if it is so many seconds before the expected one.
const SOONER: u64 = 60;

/// Trials that wait together.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Their task.
    pub task: String,
    /// Their indices.
    pub trials: Vec<u32>,
    /// Their job array.
    pub job: Option<JobId>,
    /// Their indices in it.
    pub indices: Vec<u32>,
    /// Whether they start without a person's doing.
    pub is_in_line: bool,
    /// Slurm's word for what they wait for.
    pub reason: Option<String>,
    /// The same in plain words.
    pub meaning: String,
    /// When Slurm expects them to start.
    pub start: Option<UnixTime>,
    /// What was tried.
    pub sooner: Vec<Sooner>,
}

/// A change, and when the trials would start with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sooner {
    /// As `--set` takes it.
    pub change: String,
    /// As `scontrol update` takes it, if the waiting job can be changed so.
    pub update: Option<String>,
    /// When they would start.
    pub start: UnixTime,
    /// What else it would bring.
    pub warning: Option<String>,
}

/// A paragraph for each group.
#[must_use]
pub fn explain_text(groups: &[Explained], page: &Page) -> String {
    groups.iter().map(|group| paragraph(group, page)).collect::<Vec<_>>().join("\n\n")
}

fn paragraph(group: &Explained, page: &Page) -> String {
    let mut lines = vec![title(group)];
    let mut add = |text: &str| {
        let width = page.width.map(|width| width.saturating_sub(INDENT));
        let text = hang(&escape_line(text), width, 0);
        lines.extend(text.lines().map(|line| format!("{:INDENT$}{line}", "")));
    };
    add(&group.meaning);
    match group.start {
        Some(start) => {
            let next = if group.trials.len() == 1 { "it" } else { "the next of them" };
            add(&format!("Slurm expects {next} to start {}.", when(start, page)));
        }
        None if group.job.is_some() && group.is_in_line => {
            add("Slurm does not say when that will be.");
        }
        None => {}
    }
    let sooner: Vec<&Sooner> = sooner(group).collect();
    if !sooner.is_empty() {
        add("Slurm expects an earlier start with:");
        for it in &sooner {
            let warning = it.warning.as_ref().map(|warning| format!("; {warning}"));
            let warning = warning.unwrap_or_default();
            add(&format!("  {}  {}{warning}", it.change, when(it.start, page)));
        }
        let mut updates: Vec<_> =
            sooner.iter().filter_map(|it| Some((it.start, it.update.as_ref()?))).collect();
        updates.sort_by_key(|(start, _)| *start);
        if let (Some(job), Some((_, update))) = (group.job, updates.first()) {
            let jobs = array_tasks(job, &group.indices);
            add(&format!("To change these jobs: `scontrol update JobId={jobs} {update}`"));
        }
    } else if !group.sooner.is_empty() {
        let tried: Vec<&str> = group.sooner.iter().map(|it| it.change.as_str()).collect();
        add(&format!("Slurm expects no earlier start with: {}.", tried.join(", ")));
    }
    lines.join("\n")
}

/// As `scontrol` takes it: those that wait, since a change of the whole array would reach trials that run.
fn array_tasks(job: JobId, indices: &[u32]) -> String {
    match indices {
        [index] => format!("{job}_{index}"),
        indices => format!("{job}_[{}]", ranges(indices).replace(", ", ",")),
    }
}

/// What starts them sooner than Slurm expects now.
fn sooner(group: &Explained) -> impl Iterator<Item = &Sooner> {
    let is_sooner = |it: &&Sooner| {
        group.start.is_none_or(|start| it.start.seconds() + SOONER <= start.seconds())
    };
    group.sooner.iter().filter(is_sooner)
}

fn title(group: &Explained) -> String {
    let trials = match &group.trials[..] {
        [trial] => format!("{}/{trial}", group.task),
        trials => format!("{}, trials {}", group.task, ranges(trials)),
    };
    let job = group.job.map(|job| format!(" (Slurm job {job})")).unwrap_or_default();
    let reason = group.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    escape_line(&format!("{trials}{job}{reason}")).into_owned()
}

fn when(start: UnixTime, page: &Page) -> String {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
    let left = start.seconds() as f64 - page.now;
    if left < 1.0 { "at once".to_owned() } else { format!("in {}", duration(left)) }
}
