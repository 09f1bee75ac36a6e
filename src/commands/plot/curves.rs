//! Reads the curves of a metric: of each trial that reported it, in the memory of a screen.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::Params;
use serde_json::{Value, json};

use crate::commands::App;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Goal, Task};
use crate::humanize::listed;
use crate::observe;
use crate::plot::{Chart, ScaleKind, Series, Style, Thinned};
use crate::report::{escape, parameter_text};
use crate::results::{MetricSummary, SeriesSource, each_row, goal_of};
use crate::store::{Stored, Target};
use crate::summary::flatten;

/// The most points of all curves together; below, the least and the most points of each.
const ALL_POINTS: usize = 400_000;
const LEAST_POINTS: usize = 64;
const MOST_POINTS: usize = 2000;

/// The curves of some targets.
#[derive(Default)]
pub(super) struct Curves {
    /// As they are typed, with whole ids.
    targets: Vec<String>,
    /// The metric that is drawn; nothing if none was reported.
    pub(super) metric: Option<String>,
    /// Those that reported it, in the order of targets, tasks and trials.
    pub(super) trials: Vec<TrialCurve>,
    /// What could not be read.
    pub(super) warnings: Vec<String>,
}

/// What a trial reported of the metric.
pub(super) struct TrialCurve {
    pub(super) experiment: String,
    pub(super) task: String,
    pub(super) trial: u32,
    pub(super) params: Option<Params>,
    pub(super) summary: MetricSummary,
    /// How many values have no place on an axis.
    pub(super) not_finite: usize,
    goal: Goal,
    points: Thinned,
}

/// A trial whose folder is there.
struct FoundTrial<'a> {
    stored: &'a Stored,
    task: &'a Task,
    trial: u32,
}

impl Curves {
    /// Reads all of them. A metric that nobody reported is a mistake.
    pub(super) fn read(
        app: &App,
        texts: &[String],
        wanted: Option<&str>,
    ) -> Result<Self, CommandError> {
        let found = texts.iter().map(|text| app.find(text));
        let found: Vec<(Target, Stored)> = found.collect::<Result<_, _>>()?;
        let mut trials = Vec::new();
        for (target, stored) in &found {
            trials.extend(folders(target, stored)?);
        }
        let mut curves = Self::default();
        curves.targets.extend(found.iter().map(|(target, _)| target.to_string()));
        let searched = || trials.iter().rev().find_map(|it| it.task.metric.as_deref());
        let chosen = wanted.or_else(searched).map(str::to_owned);
        curves.metric = chosen.or_else(|| first_reported(&trials));
        let Some(metric) = curves.metric.clone() else { return Ok(curves) };
        let most = (ALL_POINTS / trials.len().max(1)).clamp(LEAST_POINTS, MOST_POINTS) / 2;
        let mut known = BTreeSet::new();
        for trial in &trials {
            let (curve, warnings) = trial.curve(&metric, most, &mut known)?;
            curves.trials.extend(curve);
            curves.warnings.extend(warnings);
        }
        curves.set_params(&found);
        match (curves.trials.is_empty(), known.is_empty()) {
            (true, true) => curves.metric = None,
            (true, false) => return Err(unknown(&metric, &known)),
            (false, _) => {}
        }
        Ok(curves)
    }

    fn set_params(&mut self, found: &[(Target, Stored)]) {
        for (target, stored) in found {
            for read in observe::params(stored, &target.scope) {
                let rows = read.lines.map(|lines| lines.rows).unwrap_or_default();
                let mut params: BTreeMap<u32, Params> =
                    rows.into_iter().map(|line| (line.trial, line.params)).collect();
                let id = stored.id.to_string();
                let is_of = |it: &&mut TrialCurve| it.experiment == id && it.task == read.task;
                for trial in self.trials.iter_mut().filter(is_of) {
                    trial.params = params.remove(&trial.trial).or(trial.params.take());
                }
            }
        }
    }

    /// What is drawn, for a title.
    pub(super) fn title(&self) -> String {
        match self.targets.as_slice() {
            [one, two, _, ..] => format!("{one}, {two} and {} more", self.targets.len() - 2),
            few => few.join(", "),
        }
    }

    /// The parameters in which trials differ.
    fn differing(&self) -> BTreeSet<String> {
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, value) in self.trials.iter().flat_map(|it| it.params.iter().flat_map(flatten)) {
            values.entry(name).or_default().insert(value.to_string());
        }
        values.into_iter().filter(|(_, values)| values.len() > 1).map(|(name, _)| name).collect()
    }

    /// What the legend calls each trial: its number, and in what it differs from the others.
    fn labels(&self) -> Vec<String> {
        let differing = self.differing();
        let is_one = self.trials.windows(2).all(|two| two[0].experiment == two[1].experiment);
        let label = |trial: &TrialCurve| {
            let id = if is_one { trial.in_experiment() } else { trial.target() };
            let params = trial.params.iter().flat_map(flatten);
            let params = params.filter(|(name, _)| differing.contains(name));
            let label = [id].into_iter().chain(params.map(parameter_text)).collect::<Vec<_>>();
            escape::escape_line(&label.join(" ")).into_owned()
        };
        self.trials.iter().map(label).collect()
    }

    /// The places of those with the best last values, in their order.
    fn best(&self, most: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.trials.len()).collect();
        let goal = self.trials.first().map_or(Goal::Min, |trial| trial.goal);
        let last = |place: &usize| self.trials[*place].summary.last;
        places.sort_by(|a, b| match (last(a), last(b)) {
            (Some(a), Some(b)) if goal == Goal::Max => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        places.truncate(most);
        places.sort_unstable();
        places
    }
}

impl TrialCurve {
    pub(super) fn in_experiment(&self) -> String {
        format!("{}/{}", self.task, self.trial)
    }

    pub(super) fn target(&self) -> String {
        format!("{}/{}", self.experiment, self.in_experiment())
    }
}

impl FoundTrial<'_> {
    fn curve(
        &self,
        metric: &str,
        most: usize,
        known: &mut BTreeSet<String>,
    ) -> Result<(Option<TrialCurve>, Vec<String>), CommandError> {
        let goal = goal_of(self.task, metric);
        let mut curve = TrialCurve {
            experiment: self.stored.id.to_string(),
            task: self.task.name.clone(),
            trial: self.trial,
            params: None,
            summary: MetricSummary::default(),
            not_finite: 0,
            goal,
            points: Thinned::new(most),
        };
        let dir = self.stored.dir.task(&self.task.name).trial(self.trial);
        let read = each_row(&dir, (&self.task.name, self.trial), SeriesSource::Reported, |row| {
            if row.metric != metric {
                if !known.contains(&row.metric) {
                    known.insert(row.metric);
                }
                return Ok(());
            }
            curve.add(row.step, row.value);
            Ok(())
        });
        let warnings = read.at("read", &dir.0)?.warnings;
        let has_values = curve.points.n_points() + curve.not_finite > 0;
        Ok((has_values.then_some(curve), warnings))
    }
}

impl TrialCurve {
    fn add(&mut self, step: Option<u64>, value: Option<f64>) {
        self.summary.add(step, value, self.goal);
        let Some(value) = value else {
            self.not_finite += 1;
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "a place on an axis")]
        let x = step.unwrap_or(self.points.n_points() as u64 + 1) as f64;
        self.points.add((x, value));
    }
}

fn folders<'a>(target: &Target, stored: &'a Stored) -> Result<Vec<FoundTrial<'a>>, CommandError> {
    let mut found = Vec::new();
    let tasks = stored.experiment.tasks.iter();
    for task in tasks.filter(|task| target.scope.covers_task(&task.name)) {
        let dir = stored.dir.task(&task.name);
        let mut trials = observe::trial_folders(&dir).at("read", &dir.trials())?;
        trials.retain(|trial| target.scope.covers_trial(*trial));
        trials.sort_unstable();
        found.extend(trials.into_iter().map(|trial| FoundTrial { stored, task, trial }));
    }
    Ok(found)
}

/// The metric that the first trial with any reported first.
fn first_reported(trials: &[FoundTrial<'_>]) -> Option<String> {
    trials.iter().find_map(|FoundTrial { stored, task, trial }| {
        let (dir, mut first) = (stored.dir.task(&task.name).trial(*trial), None);
        let read = each_row(&dir, (&task.name, *trial), SeriesSource::Reported, |row| {
            first.get_or_insert(row.metric);
            Ok(())
        });
        read.ok().and(first)
    })
}

fn unknown(metric: &str, known: &BTreeSet<String>) -> CommandError {
    let text = format!("no trial reported a metric `{metric}`");
    let known = listed(known.iter().map(String::as_str));
    CommandError::new(ExitCode::NotFound, text).hinted(format!("they reported {known}"))
}

/// Curves over steps; of too many those with the best last values.
pub(super) fn chart(curves: &Curves, metric: &str, y_kind: ScaleKind, most: usize) -> Chart {
    let labels = curves.labels();
    let series = curves.best(most).into_iter().map(|place| Series {
        label: if labels.len() > 1 { labels[place].clone() } else { String::new() },
        points: curves.trials[place].points.points(),
    });
    Chart {
        title: format!("{metric} of {}", curves.title()),
        x_label: "step".to_owned(),
        x_kind: ScaleKind::Linear,
        x_named: Vec::new(),
        y_kind,
        style: Style::Curves,
        series: series.collect(),
    }
}

/// Each curve with its points. Of a long one the points that stay have its peaks.
pub(super) fn series_json(curves: &Curves) -> Vec<Value> {
    let one = |trial: &TrialCurve| {
        let point = |(step, value): (f64, f64)| json!({ "step": whole(step), "value": value });
        let points: Vec<Value> = trial.points.points().into_iter().map(point).collect();
        json!({
            "id": trial.target(), "task": trial.task, "trial": trial.trial, "params": trial.params,
            "n_values": trial.points.n_points(), "points": points,
        })
    };
    curves.trials.iter().map(one).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a step")]
fn whole(step: f64) -> u64 {
    step as u64
}
