//! The dependencies of the jobs that wait for this one, in the format of `squeue` and `scontrol update`. Pure.
//!
//! If Slurm will not show this finished job as completed, it would cancel the jobs that depend on its success. They are
//! changed to depend on its end: each reads its parents' records before it runs.

/// The delimiter after each field of a row.
const DELIMITER: char = '\u{1f}';

/// The job that the others depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent<'a> {
    /// The id of its array, or its own id.
    pub(crate) job: &'a str,
    /// Its index in the array, if it has one.
    pub(crate) index: Option<u32>,
    /// The experiment's id, with which the names of its jobs begin.
    pub(crate) experiment: &'a str,
}

/// The command that lists the user's waiting jobs and their dependencies.
pub(crate) fn show_waiting() -> Vec<String> {
    let format = format!("--Format=JobArrayID:{DELIMITER},Name:{DELIMITER},Dependency:{DELIMITER}");
    ["squeue", "--me", "--noheader", "--states=PENDING", &format].map(str::to_owned).to_vec()
}

/// The command that changes a job's dependency.
pub(crate) fn wait_for(job: &str, dependency: &str) -> [String; 4] {
    let words = ["scontrol", "update"].map(str::to_owned);
    let [scontrol, update] = words;
    [scontrol, update, format!("JobId={job}"), format!("Dependency={dependency}")]
}

/// The jobs that depend on the parent's success, and the new dependency of each. All successes in a dependency are
/// replaced at once, so that it does not matter which of two parents writes last.
pub(crate) fn replaced(text: &str, parent: Parent<'_>) -> Vec<(String, String)> {
    text.lines().filter_map(|line| replaced_in(line, parent)).collect()
}

fn replaced_in(line: &str, parent: Parent<'_>) -> Option<(String, String)> {
    let mut fields = line.split(DELIMITER);
    let (id, name, dependency) = (fields.next()?.trim(), fields.next()?, fields.next()?);
    name.strip_prefix(parent.experiment)?.strip_prefix('.')?;
    let (job, tasks) = id.split_once('_').map_or((id, None), |(job, tasks)| (job, Some(tasks)));
    let mut kinds = dependency.split(',').map(DependencyTerm::read);
    let is_mine = |part: &DependencyTerm<'_>| part.ids.contains(&parent.job);
    if kinds.clone().any(|part| part.kind == "aftercorr" && is_mine(&part)) {
        // In the waiting array, only the task with the same index waits for this one.
        let index = parent.index.filter(|index| tasks.is_some_and(|tasks| has(tasks, *index)))?;
        return Some((format!("{job}_{index}"), joined(kinds, Some((parent.job, index)))));
    }
    let waits = kinds.any(|part| part.kind == "afterok" && is_mine(&part));
    let tasks =
        tasks.map(|tasks| tasks.split('%').next().unwrap_or_default().trim_end_matches(']'));
    let target = match tasks {
        Some(list) if list.starts_with('[') => format!("{job}_{list}]"),
        Some(index) => format!("{job}_{index}"),
        None => job.to_owned(),
    };
    let all = dependency.split(',').map(DependencyTerm::read);
    waits.then(|| (target, joined(all, None)))
}

/// One condition: `afterok:7_*:8(unfulfilled)`.
#[derive(Clone, Debug)]
struct DependencyTerm<'a> {
    kind: &'a str,
    /// Without the `_*` of a whole array.
    ids: Vec<&'a str>,
}

impl<'a> DependencyTerm<'a> {
    fn read(text: &'a str) -> Self {
        let text = text.split('(').next().unwrap_or_default().trim();
        let mut words = text.split(':');
        let kind = words.next().unwrap_or_default();
        Self { kind, ids: words.map(|id| id.trim_end_matches("_*")).collect() }
    }
}

/// The dependency in which successes became ends, except for the trial-by-trial ones of other parents.
fn joined<'a>(parts: impl Iterator<Item = DependencyTerm<'a>>, own: Option<(&str, u32)>) -> String {
    parts.map(|term| without_success(&term, own)).collect::<Vec<_>>().join(",")
}

fn without_success(term: &DependencyTerm<'_>, own: Option<(&str, u32)>) -> String {
    let ids = term.ids.join(":");
    match (term.kind, own) {
        ("afterok", _) => format!("afterany:{ids}"),
        ("aftercorr", Some((job, index))) if term.ids == [job] => format!("afterany:{job}_{index}"),
        (kind, _) if ids.is_empty() => kind.to_owned(),
        (kind, _) => format!("{kind}:{ids}"),
    }
}

/// Whether a list of tasks such as `[0-98:7,100%3]` or `5` has this index.
fn has(tasks: &str, index: u32) -> bool {
    let text = tasks.trim_start_matches('[').split(['%', ']']).next().unwrap_or_default();
    text.split(',').any(|part| {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let numbers = (first.parse::<u32>(), last.parse::<u32>(), step.parse::<u32>());
        let (Ok(first), Ok(last), Ok(step)) = numbers else { return false };
        (first..=last).contains(&index) && (index - first).is_multiple_of(step.max(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: [&str; 3], expected: Option<(&str, &str)>) {
        let line = row.map(|field| format!("{field}\u{1f}")).concat();
        let parent = Parent { job: "7", index: Some(2), experiment: "digits-3kz8" };
        let expected = expected.map(|(job, new)| (job.to_owned(), new.to_owned()));
        assert_eq!(replaced(&line, parent), Vec::from_iter(expected), "{row:?}");
    }

    #[test]
    fn who_waits_for_success_waits_for_the_end_instead() {
        let name = "digits-3kz8.eval.0";
        let cases = [
            ("9", "afterok:7_*(unfulfilled)", Some(("9", "afterany:7"))),
            ("9_[0-3]", "afterok:7_*(unfulfilled)", Some(("9_[0-3]", "afterany:7"))),
            ("9_[0-98:7%3]", "afterok:7_*(unfulfilled)", Some(("9_[0-98:7]", "afterany:7"))),
            ("9_5", "afterok:7(unfulfilled)", Some(("9_5", "afterany:7"))),
            (
                "9_[0-3]",
                "afterok:6_*(unfulfilled),afterok:7_*(unfulfilled),afternotok:5(unfulfilled)",
                Some(("9_[0-3]", "afterany:6,afterany:7,afternotok:5")),
            ),
            ("9_[0-3]", "aftercorr:7_*(unfulfilled)", Some(("9_2", "afterany:7_2"))),
            (
                "9_[0-3]",
                "aftercorr:7_*(unfulfilled),afterok:6(unfulfilled),singleton(unfulfilled)",
                Some(("9_2", "afterany:7_2,afterany:6,singleton")),
            ),
            ("9_[3,5]", "aftercorr:7_*(unfulfilled)", None),
            ("9_2", "afterany:7_2(unfulfilled)", None),
            ("9", "afterok:77_*(unfulfilled)", None),
            ("9", "afternotok:7_*(unfulfilled)", None),
            ("9", "(null)", None),
        ];
        for (id, dependency, expected) in cases {
            check([id, name, dependency], expected);
        }
        check(["9", "digits-3kz8x.eval.0", "afterok:7_*(unfulfilled)"], None);
        check(["9", "somebody's", "afterok:7_*(unfulfilled)"], None);
    }

    #[test]
    fn lists_of_tasks_are_understood() {
        assert!(has("5", 5) && !has("5", 4));
        assert!(has("[0-98:7%3]", 14) && !has("[0-98:7%3]", 15));
        assert!(has("[1,10,200-210]", 205) && !has("[1,10,200-210]", 2));
        assert!(!has("[1,10,...]", 2));
    }
}
