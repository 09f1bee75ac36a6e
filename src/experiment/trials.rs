//! From parameters to trials: the product of a grid, or a list as written.

use std::collections::BTreeMap;

use nemo_harness::rundir::Params;
use serde_json::{Number, Value as Json};

use super::names;
use super::parameters::{self, Domain, Parameter, Parameters};
use super::reader::{Field, Section};
use super::report::{Place, Report, listed};
use super::tree::{Value, dotted};

/// More trials than this are a slip of the pen, or a wish that no cluster grants.
pub(super) const MOST: u128 = 1_000_000;

/// Every trial of a grid: the product of the axes in the order of their names, the last one fastest.
pub(super) fn grid(
    parameters: &[Parameter],
    place: &Place,
    report: &mut Report,
) -> Option<Vec<Params>> {
    let mut lengths = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        lengths.push(length(parameter, report));
    }
    let lengths: Vec<u128> = lengths.into_iter().collect::<Option<_>>()?;
    let product = lengths.iter().try_fold(1_u128, |product, &n| product.checked_mul(n));
    let Some(total) = product.filter(|total| *total <= MOST) else {
        let shown = product.map_or_else(|| "too many".to_owned(), |total| total.to_string());
        let message = format!("the grid has {shown} trials, and {MOST} is the most");
        report.problem(place, message).hint("use fewer values, or a smaller `count`");
        return None;
    };
    let axes: Vec<Vec<Json>> =
        parameters.iter().map(|parameter| values(&parameter.domain)).collect();
    let paths = sorted_paths(parameters);
    let total = usize::try_from(total).ok()?;
    Some((0..total).map(|index| point(index, &axes, &paths)).collect())
}

/// The parameters in the order in which their nested tables are written.
fn sorted_paths(parameters: &[Parameter]) -> Vec<(Vec<&str>, usize)> {
    let mut paths: Vec<(Vec<&str>, usize)> = parameters
        .iter()
        .enumerate()
        .map(|(axis, parameter)| (parameter.name.split('.').collect(), axis))
        .collect();
    paths.sort();
    paths
}

fn point(index: usize, axes: &[Vec<Json>], paths: &[(Vec<&str>, usize)]) -> Params {
    let mut digits = vec![0; axes.len()];
    let mut rest = index;
    for (digit, axis) in digits.iter_mut().zip(axes).rev() {
        *digit = rest % axis.len();
        rest /= axis.len();
    }
    let mut params = Params::new();
    for (path, axis) in paths {
        insert(&mut params, path, axes[*axis][digits[*axis]].clone());
    }
    params
}

fn insert(params: &mut Params, path: &[&str], value: Json) {
    match path {
        [] => {}
        [name] => {
            params.insert((*name).to_owned(), value);
        }
        [name, rest @ ..] => {
            let inner =
                params.entry((*name).to_owned()).or_insert_with(|| Json::Object(Params::new()));
            if let Json::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn length(parameter: &Parameter, report: &mut Report) -> Option<u128> {
    match &parameter.domain {
        Domain::Const(_) => Some(1),
        Domain::Categorical(values) => Some(values.len() as u128),
        Domain::Int { lo, hi, count } => Some(int_length(*lo, *hi, *count)),
        Domain::Double { count: Some(count), .. } | Domain::Log { count: Some(count), .. } => {
            Some(u128::from(*count))
        }
        Domain::Double { count: None, .. } | Domain::Log { count: None, .. } => {
            let message = format!("a grid needs to know how many values `{}` has", parameter.name);
            report.problem(&parameter.place, message).hint("add `count`, such as `count = 4`");
            None
        }
    }
}

fn int_length(lo: i64, hi: i64, count: Option<u32>) -> u128 {
    let all = u128::from(hi.abs_diff(lo)) + 1;
    count.map_or(all, |count| all.min(u128::from(count)))
}

/// The values of an axis. Its length was checked before.
fn values(domain: &Domain) -> Vec<Json> {
    match domain {
        Domain::Const(value) => vec![value.clone()],
        Domain::Categorical(values) => values.clone(),
        Domain::Int { lo, hi, count } => {
            let length = i128::try_from(int_length(*lo, *hi, *count)).unwrap_or(i128::MAX);
            (0..length).map(|i| Json::Number(int_at(*lo, *hi, i, length).into())).collect()
        }
        Domain::Double { lo, hi, count } => {
            spaced(*lo, *hi, count.unwrap_or(1)).map(float).collect()
        }
        Domain::Log { lo, hi, count } => {
            let power = |exponent: f64| 10_f64.powf(exponent).clamp(*lo, *hi);
            let count = count.unwrap_or(1);
            let mut values: Vec<f64> = spaced(lo.log10(), hi.log10(), count).map(power).collect();
            // Through the logarithm and back, a bound would lose its last digit.
            if let (true, [first, .., last]) = (count > 1, values.as_mut_slice()) {
                (*first, *last) = (*lo, *hi);
            }
            values.into_iter().map(float).collect()
        }
    }
}

/// `lo + i·(hi − lo)/(n − 1)`, rounded half away from zero; in integers, since floats lose large ones.
fn int_at(lo: i64, hi: i64, i: i128, n: i128) -> i64 {
    let (lo, hi) = (i128::from(lo), i128::from(hi));
    let (numerator, denominator) =
        if n == 1 { (lo + hi, 2) } else { (lo * (n - 1) + i * (hi - lo), n - 1) };
    let rounded = (2 * numerator.abs() + denominator) / (2 * denominator) * numerator.signum();
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

fn spaced(lo: f64, hi: f64, count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| match (i, count) {
        (_, 1) => lo + (hi - lo) / 2.0,
        (i, n) if i == n - 1 => hi,
        (i, n) => (lo + f64::from(i) * (hi - lo) / f64::from(n - 1)).clamp(lo, hi),
    })
}

fn float(value: f64) -> Json {
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// The trials of a list, each with the constants that all share.
pub(super) fn list(
    rows: &[Field<'_>],
    common: &Parameters,
    place: &Place,
    report: &mut Report,
) -> Option<(Vec<(String, Place)>, Vec<Params>)> {
    let before = report.len();
    let mut shared = BTreeMap::new();
    for parameter in &common.parameters {
        if let Domain::Const(value) = &parameter.domain {
            shared.insert(parameter.name.clone(), (value.clone(), parameter.place.clone()));
        } else {
            let message =
                format!("`{}` has several values, and the trials are a list", parameter.name);
            report
                .problem(&parameter.place, message)
                .hint("beside a list, `params` holds the constants that all trials share");
        }
    }
    if rows.is_empty() {
        report.problem(place, "an empty list leaves nothing to try");
    }
    let mut trials: Vec<Row> = Vec::new();
    for row in rows {
        let mut trial = shared.clone();
        if let Some(section) = row.section(report) {
            flatten(&section, "", &mut trial, report);
        }
        if let (true, Some(first)) = (report.len() == before, trials.first()) {
            same_names(first, &trial, row, report);
        }
        trials.push(trial);
    }
    let names = |row: &Row| row.iter().map(|(name, (_, at))| (name.clone(), at.clone())).collect();
    let names = trials.first().map(names)?;
    (report.len() == before).then(|| (names, trials.iter().map(nest).collect()))
}

/// A trial of a list, its nested names dotted.
type Row = BTreeMap<String, (Json, Place)>;

fn flatten(section: &Section<'_>, prefix: &str, row: &mut Row, report: &mut Report) {
    for field in section.fields() {
        let name = dotted(prefix, field.name);
        let valid = names::check_parameter(field.name)
            .or_else(|refusal| parameters::allow_nested(prefix, field.name, refusal));
        if let Err(refusal) = valid {
            let problem = report.problem(&field.key_place, refusal.message);
            problem.hint(refusal.hint.unwrap_or_default());
        } else if let Value::Table(table) = field.value {
            flatten(&Section::root(table, field.key_place.clone()), &name, row, report);
        } else if let Some(value) = parameters::constant(&field, report) {
            row.insert(name, (value, field.key_place.clone()));
        }
    }
}

fn same_names(first: &Row, trial: &Row, field: &Field<'_>, report: &mut Report) {
    if first.keys().eq(trial.keys()) {
        return;
    }
    let names = |row: &Row| listed(row.keys().map(String::as_str));
    let message = format!(
        "all trials of a list must have the same parameters: this one has {}, the first has {}",
        names(trial),
        names(first)
    );
    report.problem(&field.place, message);
}

fn nest(row: &Row) -> Params {
    let mut paths: Vec<(Vec<&str>, &Json)> =
        row.iter().map(|(name, (value, _))| (name.split('.').collect(), value)).collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    let mut params = Params::new();
    for (path, value) in paths {
        insert(&mut params, &path, value.clone());
    }
    params
}
