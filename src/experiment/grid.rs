//! From parameters to the trials of a grid.

use nemo_core::rundir::Params;
use serde_json::{Number, Value as Json};

use super::MOST_TRIALS;
use super::parameters::{Domain, Parameter};
use super::problem_report::{KeyPosition, ProblemReport};

/// Every trial of a grid: the product of the axes in the order of their names, the last one fastest.
pub(super) fn trials(
    parameters: &[Parameter],
    place: &KeyPosition,
    report: &mut ProblemReport,
) -> Option<Vec<Params>> {
    let mut lengths = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        lengths.push(length(parameter, report));
    }
    let lengths: Vec<u128> = lengths.into_iter().collect::<Option<_>>()?;
    let product = lengths.iter().try_fold(1_u128, |product, &n| product.checked_mul(n));
    let Some(total) = product.filter(|total| *total <= u128::from(MOST_TRIALS)) else {
        let shown = product.map_or_else(|| "too many".to_owned(), |total| total.to_string());
        let message = format!("the grid has {shown} trials; the maximum is {MOST_TRIALS}");
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

/// Puts a value under its dotted name.
pub(super) fn insert(params: &mut Params, path: &[&str], value: Json) {
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

fn length(parameter: &Parameter, report: &mut ProblemReport) -> Option<u128> {
    match &parameter.domain {
        Domain::Const(_) => Some(1),
        Domain::Categorical(values) => Some(values.len() as u128),
        Domain::Int { lo, hi, count } => Some(int_length(*lo, *hi, *count)),
        Domain::Double { count: Some(count), .. } | Domain::Log { count: Some(count), .. } => {
            Some(u128::from(*count))
        }
        Domain::Double { count: None, .. } | Domain::Log { count: None, .. } => {
            let message =
                format!("the grid does not know how many values `{}` has", parameter.name);
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
            let count = count.unwrap_or(1);
            let mut values: Vec<f64> = spaced(lo.log10(), hi.log10(), count)
                .map(|exponent| 10_f64.powf(exponent).clamp(*lo, *hi))
                .collect();
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
