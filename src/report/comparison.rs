//! What several experiments have in common, and in what they differ, for people.

use serde_json::{Map, Value};

use super::fit::{elide, hang};
use super::grid::{ColumnFit, Grid, TextCell};
use super::{INDENT, Page};
use crate::humanize::{count, metric};
use crate::results::{ComparedTrial, Comparison, plain};

/// A longer value is cut: a list of trials may be long.
const LONGEST_VALUE: usize = 40;

/// All of it. Each experiment has a letter: ids are too long for the head of a column.
#[must_use]
pub fn comparison_text(all: &[ComparedTrial], found: &Comparison, page: &Page) -> String {
    let letters: Vec<String> = (0..all.len()).map(letter).collect();
    let head = all.iter().zip(&letters).map(|(one, letter)| {
        let ComparedTrial { id, task, trial, state, why, .. } = one;
        let (state, others) = (state.as_str(), other_values(one));
        let text = format!("{letter}  {id}: {task}/{trial}, {why} ({state}){others}");
        hang(&text, page.width, INDENT)
    });
    let mut parts = vec![head.collect::<Vec<_>>().join("\n")];
    if !found.config.different.is_empty() {
        parts.push(differences(all, &found.config.different, "key", &letters, page));
    }
    parts.push(match found.config.common.len() {
        n if found.config.different.is_empty() => {
            format!("The configurations of these trials do not differ ({}).", count(n, "key"))
        }
        n => format!("{} in common; `--json` shows them.", count(n, "key")),
    });
    if !found.code.different.is_empty() {
        parts.push(differences(all, &found.code.different, "code", &letters, page));
    }
    let spaces = &found.config.search_space;
    if !spaces.is_empty() {
        parts.push(differences(all, spaces, "search space", &letters, page));
    }
    if !found.metrics.is_empty() {
        parts.push(metrics(all, found, &letters, page));
    }
    parts.join("\n\n")
}

/// That the trial does not stand for the others in the keys that retries changed, and which of them were changed.
fn other_values(one: &ComparedTrial) -> String {
    let others = match one.trials_with_other_values {
        0 => return String::new(),
        n => count(n, "other trial"),
    };
    if one.set.is_empty() {
        return format!("; a retry gave {others} of it other values, see `show`");
    }
    format!("; a retry gave this trial other values than {others} of it, see `show`")
}

/// `A` to `Z`, then `A1` and so on.
fn letter(place: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(place % 26).unwrap_or(0));
    if place < 26 { letter.to_string() } else { format!("{letter}{}", place / 26) }
}

fn differences(
    all: &[ComparedTrial],
    different: &Map<String, Value>,
    title: &str,
    letters: &[String],
    page: &Page,
) -> String {
    let titles = letters.iter().map(|letter| (letter.as_str(), ColumnFit::Words));
    let columns: Vec<_> = [(title, ColumnFit::Text)].into_iter().chain(titles).collect();
    let mut grid = Grid::new(&columns);
    for (key, values) in different {
        let value = |one: &ComparedTrial| match &values[one.id.as_str()] {
            Value::Null => "-".to_owned(),
            value => elide(&plain(value), LONGEST_VALUE),
        };
        let cells = all.iter().map(|one| TextCell::from(value(one)));
        grid.row([TextCell::from(key)].into_iter().chain(cells));
    }
    grid.lines(page).join("\n")
}

fn metrics(all: &[ComparedTrial], found: &Comparison, letters: &[String], page: &Page) -> String {
    let values = letters.iter().map(|letter| (letter.as_str(), ColumnFit::Whole));
    let sums = ["min", "max", "mean"].map(|title| (title, ColumnFit::Whole));
    let columns: Vec<_> =
        [("metric", ColumnFit::Whole)].into_iter().chain(values).chain(sums).collect();
    let mut grid = Grid::new(&columns);
    for (name, compared) in &found.metrics {
        let shown = |value: Option<f64>| TextCell::from(metric(&value.into()));
        let own = all.iter().map(|one| match compared.values.get(&one.id) {
            Some(value) => shown(*value),
            None => TextCell::from("-"),
        });
        let sums = [compared.min, compared.max, compared.mean].map(shown);
        grid.row([TextCell::from(name)].into_iter().chain(own).chain(sums));
    }
    grid.lines(page).join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::experiment::ChangedKeys;
    use crate::status::State;

    #[test]
    fn the_trial_that_was_retried_is_told_from_those_that_were_not() {
        let mut one = ComparedTrial {
            id: "long".to_owned(),
            task: "train".to_owned(),
            trial: 2,
            state: State::Completed,
            why: String::new(),
            set: ChangedKeys::new(),
            trials_with_other_values: 0,
            config: Vec::new(),
            space: Vec::new(),
            code: Vec::new(),
            metrics: BTreeMap::new(),
        };
        assert_eq!(other_values(&one), "");
        one.trials_with_other_values = 3;
        let others = "; a retry gave 3 other trials of it other values, see `show`";
        assert_eq!(other_values(&one), others);
        one.set = serde_json::from_value(json!({ "executor.mem": "64G" })).unwrap();
        let own = "; a retry gave this trial other values than 3 other trials of it, see `show`";
        assert_eq!(other_values(&one), own);
    }
}
