//! The `params` of a task: names and their domains.

use nemo_core::placeholder::BuiltIn;
use serde_json::{Number, Value as Json};

use super::names;
use super::problem_report::{KeyPosition, ProblemReport};
use super::reader::{Field, Section};
use super::toml_tree::TomlValue;

/// A parameter, its nested name dotted.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: KeyPosition,
    pub(super) domain: Domain,
}

/// What a parameter may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Domain {
    Const(Json),
    Categorical(Vec<Json>),
    Int { lo: i64, hi: i64, count: Option<u32> },
    Double { lo: f64, hi: f64, count: Option<u32> },
    Log { lo: f64, hi: f64, count: Option<u32> },
}

/// The parameters of a task, ordered by their dotted names.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    /// Every name, those with mistakes too.
    pub(super) names: Vec<(String, KeyPosition)>,
    pub(super) parameters: Vec<Parameter>,
}

const KINDS: [&str; 5] = ["const", "categorical", "int", "double", "log"];

/// Reads a table of parameters.
pub(super) fn read(section: &Section<'_>, report: &mut ProblemReport) -> Parameters {
    let mut found = Parameters::default();
    collect(section, "", &mut found, report);
    found.names.sort_by(|a, b| a.0.cmp(&b.0));
    found.parameters.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn collect(
    section: &Section<'_>,
    prefix: &str,
    found: &mut Parameters,
    report: &mut ProblemReport,
) {
    for field in section.fields() {
        let name = super::toml_tree::dotted(prefix, field.name);
        if check_name(&field, prefix, report).is_none() {
            continue;
        }
        if let Some(inner) = nested(&field) {
            collect(&inner, &name, found, report);
            continue;
        }
        found.names.push((name.clone(), field.key_place.clone()));
        if let Some(domain) = domain(&field, report) {
            let place = field.key_place.clone();
            found.parameters.push(Parameter { name, place, domain });
        }
    }
}

/// Checks a name. A built-in one is only taken at the top: `{model.seed}` can't be mistaken for `{seed}`.
pub(super) fn check_name(
    field: &Field<'_>,
    prefix: &str,
    report: &mut ProblemReport,
) -> Option<()> {
    if !prefix.is_empty() && BuiltIn::of(field.name).is_some() {
        return Some(());
    }
    field.parsed_name(names::check_parameter(field.name), report)
}

/// The table that a parameter is, unless it spells out a domain.
fn nested<'a>(field: &Field<'a>) -> Option<Section<'a>> {
    let TomlValue::Table(table) = field.value else { return None };
    let spelled = table.entries.iter().any(|entry| KINDS.contains(&entry.name.as_str()));
    (!spelled).then(|| Section::root(table, field.key_place.clone()))
}

fn domain(field: &Field<'_>, report: &mut ProblemReport) -> Option<Domain> {
    match field.value {
        TomlValue::List(_) => categorical(field, report),
        TomlValue::Table(_) => spelled(field, report),
        _ => constant(field, report).map(Domain::Const),
    }
}

fn categorical(field: &Field<'_>, report: &mut ProblemReport) -> Option<Domain> {
    let items = field.list("a list of values", report)?;
    if items.is_empty() {
        report
            .problem(&field.place, "an empty list leaves nothing to try")
            .hint(format!("write for example `{} = [1, 2]`", field.name));
        return None;
    }
    let values: Vec<Option<Json>> = items.iter().map(|item| constant(item, report)).collect();
    values.into_iter().collect::<Option<Vec<Json>>>().map(Domain::Categorical)
}

/// `{ log = [1e-4, 1e-1], count = 4 }`.
fn spelled(field: &Field<'_>, report: &mut ProblemReport) -> Option<Domain> {
    let mut section = field.section(report)?;
    let given: Vec<Field<'_>> = KINDS.iter().filter_map(|kind| section.take(kind)).collect();
    let count_field = section.take("count");
    let count = count_field.as_ref().and_then(|field| field.positive(report));
    let before = report.len();
    section.finish(report);
    let [kind] = given.as_slice() else {
        let names = super::problem_report::listed(given.iter().map(|field| field.name));
        report.problem(&field.key_place, format!("a parameter can't be both of {names}"));
        return None;
    };
    let fits = report.len() == before;
    let is_range = matches!(kind.name, "int" | "double" | "log");
    if let (Some(count), false) = (&count_field, is_range) {
        let message = format!("`count` is for a range, not for `{}`", kind.name);
        report.problem(&count.key_place, message).hint("remove it");
        return None;
    }
    if count_field.is_some() && count.is_none() {
        return None;
    }
    let count = count.map(std::num::NonZeroU32::get);
    let domain = match kind.name {
        "const" => constant(kind, report).map(Domain::Const),
        "categorical" => categorical(kind, report),
        "int" => int_bounds(kind, report).map(|(lo, hi)| Domain::Int { lo, hi, count }),
        "double" => bounds(kind, report).map(|(lo, hi)| Domain::Double { lo, hi, count }),
        _ => log_bounds(kind, report).map(|(lo, hi)| Domain::Log { lo, hi, count }),
    };
    domain.filter(|_| fits)
}

fn two<'a>(field: &Field<'a>, report: &mut ProblemReport) -> Option<[Field<'a>; 2]> {
    let expected = format!("two bounds, `{} = [lowest, highest]`", field.name);
    let items = field.list(&expected, report)?;
    let number = items.len();
    let two = items.try_into().ok();
    if two.is_none() {
        report.problem(&field.place, format!("expected {expected}, found {number} values"));
    }
    two
}

fn ordered<T: PartialOrd>(
    field: &Field<'_>,
    lo: T,
    hi: T,
    report: &mut ProblemReport,
) -> Option<(T, T)> {
    if lo <= hi {
        return Some((lo, hi));
    }
    report.problem(&field.place, "the lowest bound is above the highest").hint("swap the two");
    None
}

fn int_bounds(field: &Field<'_>, report: &mut ProblemReport) -> Option<(i64, i64)> {
    let [lo, hi] = two(field, report)?;
    let (lo, hi) = (lo.integer("an integer", report), hi.integer("an integer", report));
    ordered(field, lo?, hi?, report)
}

fn bounds(field: &Field<'_>, report: &mut ProblemReport) -> Option<(f64, f64)> {
    let [lo, hi] = two(field, report)?;
    let (lo, hi) = (number(&lo, report), number(&hi, report));
    let (lo, hi) = ordered(field, lo?, hi?, report)?;
    if (hi - lo).is_finite() {
        return Some((lo, hi));
    }
    report.problem(&field.place, "the range is too wide for a floating-point number");
    None
}

fn log_bounds(field: &Field<'_>, report: &mut ProblemReport) -> Option<(f64, f64)> {
    let (lo, hi) = bounds(field, report)?;
    if lo > 0.0 {
        return Some((lo, hi));
    }
    report
        .problem(&field.place, "the bounds of `log` must be more than 0")
        .hint("bounds are the values themselves, not exponents: `log = [1e-4, 1e-1]`");
    None
}

fn number(field: &Field<'_>, report: &mut ProblemReport) -> Option<f64> {
    match field.value {
        #[expect(clippy::cast_precision_loss, reason = "a bound of a range of floats")]
        TomlValue::Integer(number) => Some(*number as f64),
        TomlValue::Float(number) if number.is_finite() => Some(*number),
        _ => {
            field.wrong("a finite number", report);
            None
        }
    }
}

/// A value that a trial can have: a string, a number, a boolean, or a list of these.
pub(super) fn constant(field: &Field<'_>, report: &mut ProblemReport) -> Option<Json> {
    match field.value {
        TomlValue::Text(text) => Some(Json::String(text.clone())),
        TomlValue::Integer(number) => Some(Json::Number((*number).into())),
        TomlValue::Flag(flag) => Some(Json::Bool(*flag)),
        TomlValue::List(items) => {
            let items = field.items(items);
            let values: Vec<Option<Json>> =
                items.iter().map(|item| constant(item, report)).collect();
            values.into_iter().collect::<Option<_>>().map(Json::Array)
        }
        TomlValue::Float(number) => {
            let finite = Number::from_f64(*number).map(Json::Number);
            if finite.is_none() {
                field.wrong("a finite number", report);
            }
            finite
        }
        TomlValue::Date(_) => {
            field.wrong("a string, a number, a boolean or a list of these", report);
            None
        }
        TomlValue::Table(_) => {
            field.wrong("a value, not a table", report);
            None
        }
    }
}
