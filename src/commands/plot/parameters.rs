//! A parameter against a metric: a point for each trial.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::PlottedValue;
use super::curves::{Curves, TrialCurve};
use crate::error::{CommandError, ExitCode};
use crate::humanize::listed;
use crate::plot::{Chart, ScaleKind, Series, Style};
use crate::report::escape;
use crate::results::plain;
use crate::summary::flatten;

/// More values of a parameter have no room along an axis.
const MOST_NAMED: usize = 8;

/// A trial's value of a parameter and of the metric.
struct Pair<'a> {
    trial: &'a TrialCurve,
    x: &'a Value,
    y: f64,
}

/// A chart for each parameter. One that no trial has is a mistake.
pub(super) fn parameter_charts(
    curves: &Curves,
    metric: &str,
    names: &[String],
    value: PlottedValue,
    y_kind: &ScaleKind,
) -> Result<Vec<Chart>, CommandError> {
    let charts = names.iter().map(|name| {
        let pairs = pairs(curves, name, value);
        if pairs.is_empty() {
            return Err(unknown(curves, name));
        }
        let title = format!("{} {metric} of {} by {name}", value.as_str(), curves.title());
        Ok(chart(&pairs, title, name, y_kind.clone()))
    });
    charts.collect()
}

/// The points of each parameter.
pub(super) fn parameter_json(curves: &Curves, names: &[String], value: PlottedValue) -> Vec<Value> {
    let one = |name: &String| {
        let points = pairs(curves, name, value).into_iter().map(|pair| {
            let TrialCurve { task, trial, summary, .. } = pair.trial;
            json!({
                "id": pair.trial.target(), "task": task, "trial": trial, "x": pair.x, "value": pair.y,
                "last": summary.last, "best": summary.best,
            })
        });
        json!({ "x": name, "of": value.as_str(), "points": points.collect::<Vec<_>>() })
    };
    names.iter().map(one).collect()
}

fn pairs<'a>(curves: &'a Curves, name: &str, value: PlottedValue) -> Vec<Pair<'a>> {
    let pair = |trial: &'a TrialCurve| {
        let params = trial.params.as_ref()?;
        let x = flatten(params).into_iter().find(|(own, _)| own == name)?.1;
        let y = match value {
            PlottedValue::Best => trial.summary.best,
            PlottedValue::Last => trial.summary.last,
        };
        Some(Pair { trial, x, y: y? })
    };
    curves.trials.iter().filter_map(pair).collect()
}

/// Numbers lie on an axis, all else side by side.
fn chart(pairs: &[Pair<'_>], title: String, name: &str, y_kind: ScaleKind) -> Chart {
    let numbers: Option<Vec<f64>> = pairs.iter().map(|pair| pair.x.as_f64()).collect();
    let (x_kind, places) = match numbers {
        Some(numbers) => (ScaleKind::fitting(&numbers), numbers),
        None => names(pairs),
    };
    let x_named = match x_kind {
        ScaleKind::Names(_) => Vec::new(),
        ScaleKind::Linear | ScaleKind::Logarithmic => few_values(&places),
    };
    let tasks: BTreeSet<String> = pairs.iter().map(series_name).collect();
    let series = tasks.iter().map(|task| {
        let own = pairs.iter().zip(&places).filter(|(pair, _)| series_name(pair) == *task);
        let mut points: Vec<(f64, f64)> = own.map(|(pair, x)| (*x, pair.y)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { label: if tasks.len() > 1 { task.clone() } else { String::new() }, points }
    });
    let series = series.collect();
    Chart { title, x_label: name.to_owned(), x_kind, x_named, y_kind, style: Style::Dots, series }
}

/// Those of a grid, which are named themselves; none if there are too many for that.
fn few_values(places: &[f64]) -> Vec<f64> {
    let mut values = places.to_vec();
    values.sort_by(f64::total_cmp);
    values.dedup();
    if values.len() > MOST_NAMED { Vec::new() } else { values }
}

/// Trials of one task have one mark.
fn series_name(pair: &Pair<'_>) -> String {
    format!("{}/{}", pair.trial.experiment, pair.trial.task)
}

#[expect(clippy::cast_precision_loss, reason = "so many names have no room on a screen")]
fn names(pairs: &[Pair<'_>]) -> (ScaleKind, Vec<f64>) {
    let all: BTreeSet<String> = pairs.iter().map(|pair| plain(pair.x)).collect();
    let all: Vec<String> = all.into_iter().collect();
    let place = |pair: &Pair<'_>| all.iter().position(|name| *name == plain(pair.x)).unwrap_or(0);
    let places = pairs.iter().map(|pair| place(pair) as f64).collect();
    let shown = all.iter().map(|name| escape::escape_line(name).into_owned());
    (ScaleKind::Names(shown.collect()), places)
}

fn unknown(curves: &Curves, name: &str) -> CommandError {
    let params = curves.trials.iter().flat_map(|trial| trial.params.iter().flat_map(flatten));
    let known: BTreeSet<String> = params.map(|(name, _)| name).collect();
    let text = format!("no trial with this metric has a parameter `{name}`");
    let known = listed(known.iter().map(String::as_str));
    CommandError::new(ExitCode::NotFound, text).hinted(format!("their parameters are {known}"))
}
