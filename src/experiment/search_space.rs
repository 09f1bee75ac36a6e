//! The `params` and `search` of a task: which trials it has, and how many run at once.

use std::num::NonZeroU32;

use nemo_core::rundir::Params;

use super::parameters::{self, Parameters};
use super::problem_report::{KeyPosition, ProblemReport};
use super::reader::{Field, Section, unsupported};
use super::toml_tree::TomlValue;
use super::{Goal, grid, synonyms, trial_list};

/// What a task searches.
pub(super) struct SearchDraft {
    /// The dotted names of its parameters, those with mistakes too.
    pub(super) names: Vec<(String, KeyPosition)>,
    /// Nothing where there are mistakes.
    pub(super) trials: Option<Vec<Params>>,
    pub(super) concurrent: Option<NonZeroU32>,
    pub(super) metric: Option<String>,
    pub(super) goal: Goal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Grid,
    List,
    Unsupported,
}

const METHODS: [(&str, Method); 5] = [
    ("grid", Method::Grid),
    ("list", Method::List),
    ("random", Method::Unsupported),
    ("asha", Method::Unsupported),
    ("adaptive_asha", Method::Unsupported),
];

/// The parameters as written: a table of domains, or trials one by one.
struct Space<'a> {
    place: KeyPosition,
    common: Parameters,
    /// Whether the parameters have no mistake, so that their number of trials means something.
    fits: bool,
    rows: Option<Field<'a>>,
    method: Option<(Method, KeyPosition)>,
}

/// Reads both sections of a task.
pub(super) fn read(task: &mut Section<'_>, report: &mut ProblemReport) -> SearchDraft {
    let mut space = space(task, report);
    let mut search = SearchDraft {
        names: space.common.names.clone(),
        trials: None,
        concurrent: None,
        metric: None,
        goal: Goal::Min,
    };
    if let Some(mut section) = task.take_section("search", report) {
        space.method = method(&mut section, report);
        settings(&mut section, &mut search, report);
        if let Some((Method::Unsupported, _)) = space.method {
            return search; // The other keys of the section have a meaning of their own.
        }
        rows(&mut section, &mut space, report);
        section.finish(report);
    }
    make_trials(&space, &mut search, report);
    search
}

fn space<'a>(task: &mut Section<'a>, report: &mut ProblemReport) -> Space<'a> {
    let before = report.len();
    let place = task.place.clone();
    let common = Parameters::default();
    let mut space = Space { place, common, fits: true, rows: None, method: None };
    if let Some(field) = task.take("params") {
        space.place = field.key_place.clone();
        if let TomlValue::List(_) = field.value {
            space.rows = Some(field);
        } else if let Some(section) = field.section(report) {
            space.common = parameters::read(&section, report);
        }
    }
    space.fits = report.len() == before;
    space
}

fn method(section: &mut Section<'_>, report: &mut ProblemReport) -> Option<(Method, KeyPosition)> {
    let field = section.take("method")?;
    let method = field.word(&METHODS, report)?;
    if let (Method::Unsupported, TomlValue::Text(name)) = (method, field.value) {
        unsupported(&field.place, &format!("method = \"{name}\""), report);
    }
    Some((method, field.place))
}

fn settings(section: &mut Section<'_>, search: &mut SearchDraft, report: &mut ProblemReport) {
    search.concurrent = section.take("concurrent").and_then(|field| field.positive(report));
    let metric = section.take("metric");
    search.metric = metric.as_ref().and_then(|field| field.text(report));
    if let (Some(field), Some("")) = (&metric, search.metric.as_deref()) {
        report.problem(&field.place, "the metric's name is empty");
    }
    if let Some(goal) = section.take("goal") {
        let words = [("min", Goal::Min), ("max", Goal::Max)];
        search.goal = goal.word_or(&words, synonyms::GOALS, report).unwrap_or(Goal::Min);
        if metric.is_none() {
            report
                .problem(&goal.key_place, "`goal` needs a `metric`")
                .hint("add `metric = \"…\"`, the name that the program reports");
        }
    }
}

/// Takes `search.trials`.
fn rows<'a>(section: &mut Section<'a>, space: &mut Space<'a>, report: &mut ProblemReport) {
    let Some(field) = section.take("trials") else { return };
    if space.rows.is_some() {
        report.problem(&field.key_place, "the trials are listed twice, in `params` and here");
    } else if let Some((Method::Grid, _)) = space.method {
        let message = "a grid makes its trials from `params` and can't have `trials`";
        report
            .problem(&field.key_place, message)
            .hint("remove it; `concurrent` limits how many run at once");
    } else if let Some(_items) = field.list("a list of tables, such as `[{ lr = 0.1 }]`", report) {
        space.rows = Some(field);
    } else {
        space.fits = false;
    }
}

fn make_trials(space: &Space<'_>, search: &mut SearchDraft, report: &mut ProblemReport) {
    match (&space.rows, &space.method) {
        (Some(rows), None | Some((Method::List, _))) => {
            let found = trial_list::read(&rows.one_or_more(), &space.common, &rows.place, report);
            search.names = found.names;
            search.trials = found.trials;
        }
        (Some(rows), Some((Method::Grid | Method::Unsupported, place))) => {
            let found = trial_list::read(&rows.one_or_more(), &space.common, &rows.place, report);
            search.names = found.names;
            report
                .problem(place, "`method` is \"grid\", but the trials are a list")
                .hint("remove `method`");
        }
        (None, Some((Method::List, place))) if space.fits => {
            report
                .problem(place, "`method = \"list\"` needs `trials`")
                .hint("add `trials = [{ lr = 0.1 }, { lr = 0.2 }]` to `search`");
        }
        (None, None | Some((Method::Grid, _))) if space.fits => {
            search.trials = grid::trials(&space.common.parameters, &space.place, report);
        }
        (None, None | Some(_)) => {}
    }
}
