//! A layer over the tree: take a key, expect a type, report what does not fit, report unknown keys.

use std::num::NonZeroU32;

use super::names;
use super::problem_report::{KeyPosition, ProblemReport, choices, listed};
use super::synonyms::Synonyms;
use super::toml_tree::{Table, TomlNode, TomlValue, dotted};
use super::units::{self, UnitError};
use nemo_core::duration;

/// A value under its dotted key.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    /// The value's place.
    pub(super) place: KeyPosition,
    /// The place of the key, which shows better where the value is a table.
    pub(super) key_place: KeyPosition,
    pub(super) value: &'a TomlValue,
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Section<'a> {
    pub(super) place: KeyPosition,
    pub(super) table: &'a Table,
    known: Vec<&'static str>,
    unsupported: Vec<&'static str>,
}

impl<'a> Field<'a> {
    fn item(&self, index: usize, node: &'a TomlNode) -> Self {
        let place = KeyPosition { at: node.at, key: format!("{}[{index}]", self.place.key) };
        Self { name: self.name, key_place: place.clone(), place, value: &node.value }
    }

    /// Reports that something else was expected.
    pub(super) fn wrong(&self, expected: &str, report: &mut ProblemReport) -> &Self {
        let message = format!("expected {expected}, found {}", self.value.describe());
        let place = match self.value {
            TomlValue::Table(_) => &self.key_place,
            _ => &self.place,
        };
        let problem = report.problem(place, message);
        if let (
            TomlValue::Integer(_) | TomlValue::Float(_) | TomlValue::Flag(_) | TomlValue::Date(_),
            true,
        ) = (self.value, expected.starts_with("a string"))
        {
            problem.hint("put it in quotes");
        }
        self
    }

    pub(super) fn text(&self, report: &mut ProblemReport) -> Option<String> {
        self.text_as("a string", report)
    }

    /// A string, called what it is in the message.
    pub(super) fn text_as(&self, expected: &str, report: &mut ProblemReport) -> Option<String> {
        if let TomlValue::Text(text) = self.value {
            return Some(text.clone());
        }
        self.wrong(expected, report);
        None
    }

    /// A whole number that `T` can hold.
    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        expected: &str,
        report: &mut ProblemReport,
    ) -> Option<T> {
        let number = match self.value {
            TomlValue::Integer(number) => T::try_from(*number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong(expected, report);
        }
        number
    }

    pub(super) fn positive(&self, report: &mut ProblemReport) -> Option<NonZeroU32> {
        let expected = "a whole number of at least 1";
        let number = self.integer::<u32>(expected, report)?;
        let positive = NonZeroU32::new(number);
        if positive.is_none() {
            self.wrong(expected, report);
        }
        positive
    }

    /// Seconds, as in `"1h 30min"`.
    pub(super) fn duration(&self, report: &mut ProblemReport) -> Option<u64> {
        let text = match self.value {
            TomlValue::Integer(number) => return self.without_unit(&number.to_string(), report),
            TomlValue::Text(text) if duration::is_number(text) && self.name == "time" => {
                return self.without_unit(text, report);
            }
            _ => self.text_as("a duration such as \"1h 30min\"", report)?,
        };
        self.parsed(units::duration(&text), report)
    }

    /// `sbatch` reads a number alone as minutes; whoever knows it means them.
    fn without_unit(&self, number: &str, report: &mut ProblemReport) -> Option<u64> {
        let hint = if self.name == "time" {
            format!("`sbatch --time={number}` are minutes: write `time = \"{number}min\"`")
        } else {
            format!("for example `{} = \"{number}s\"`", self.name)
        };
        report.problem(&self.place, "a duration needs a unit").hint(hint);
        None
    }

    /// The value, or the problem that a parser of ours saw in it.
    pub(super) fn parsed<T>(
        &self,
        parsed: Result<T, UnitError>,
        report: &mut ProblemReport,
    ) -> Option<T> {
        refused(&self.place, parsed, report)
    }

    /// The same for what a parser saw in the name.
    pub(super) fn parsed_name<T>(
        &self,
        parsed: Result<T, UnitError>,
        report: &mut ProblemReport,
    ) -> Option<T> {
        refused(&self.key_place, parsed, report)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &self,
        words: &[(&str, T)],
        report: &mut ProblemReport,
    ) -> Option<T> {
        self.word_or(words, &[], report)
    }

    /// The same, with other words by which one of these may be meant.
    pub(super) fn word_or<T: Copy>(
        &self,
        words: &[(&str, T)],
        synonyms: &Synonyms,
        report: &mut ProblemReport,
    ) -> Option<T> {
        let names = words.iter().map(|(name, _)| *name);
        let TomlValue::Text(text) = self.value else {
            self.wrong(&format!("one of {}", listed(names)), report);
            return None;
        };
        let found = words.iter().find(|(name, _)| name == text);
        if found.is_none() {
            let message = format!("expected one of {}, found {text:?}", listed(names.clone()));
            let problem = report.problem(&self.place, message);
            let meant = synonyms.iter().find(|(other, _)| other.eq_ignore_ascii_case(text));
            let meant = meant.map(|(_, name)| *name);
            if let Some(name) = meant.or_else(|| super::problem_report::nearest(text, names)) {
                problem.hint(format!("did you mean `{name}`?"));
            }
        }
        found.map(|(_, value)| *value)
    }

    /// The name of an experiment, a task, an executor or a tag.
    pub(super) fn valid_name(&self, report: &mut ProblemReport) -> Option<String> {
        let text = self.text(report)?;
        self.parsed(names::check(&text), report)?;
        Some(text)
    }

    pub(super) fn list(
        &self,
        expected: &str,
        report: &mut ProblemReport,
    ) -> Option<Vec<Field<'a>>> {
        if let TomlValue::List(items) = self.value {
            return Some(self.items(items));
        }
        self.wrong(expected, report);
        None
    }

    /// The items of a list that this value is.
    pub(super) fn items(&self, items: &'a [TomlNode]) -> Vec<Field<'a>> {
        items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect()
    }

    /// A list, or one value alone in its stead.
    pub(super) fn one_or_more(&self) -> Vec<Field<'a>> {
        match self.value {
            TomlValue::List(items) => self.items(items),
            _ => vec![self.clone()],
        }
    }

    /// True or false.
    pub(super) fn flag(&self, report: &mut ProblemReport) -> Option<bool> {
        if let TomlValue::Flag(flag) = self.value {
            return Some(*flag);
        }
        self.wrong("true or false", report);
        None
    }

    /// A list of strings, or one string alone.
    pub(super) fn texts(&self, report: &mut ProblemReport) -> Vec<String> {
        let expected = match self.value {
            TomlValue::List(_) => "a string",
            _ => "a string or a list of strings",
        };
        let items = self.one_or_more();
        items.iter().filter_map(|item| item.text_as(expected, report)).collect()
    }

    pub(super) fn section(&self, report: &mut ProblemReport) -> Option<Section<'a>> {
        let TomlValue::Table(table) = self.value else {
            self.wrong("a table", report);
            return None;
        };
        let place = self.key_place.clone();
        Some(Section { place, table, known: Vec::new(), unsupported: Vec::new() })
    }
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a Table, place: KeyPosition) -> Self {
        Self { place, table, known: Vec::new(), unsupported: Vec::new() }
    }

    /// The value of a key that the section may have.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        self.fields().into_iter().find(|field| field.name == name)
    }

    /// The table under a key that the section may have.
    pub(super) fn take_section(
        &mut self,
        name: &'static str,
        report: &mut ProblemReport,
    ) -> Option<Section<'a>> {
        self.take(name)?.section(report)
    }

    /// The fields of a table whose keys are free, such as the tasks by name.
    pub(super) fn take_fields(
        &mut self,
        name: &'static str,
        report: &mut ProblemReport,
    ) -> Vec<Field<'a>> {
        self.take_section(name, report).map_or_else(Vec::new, |section| section.fields())
    }

    /// Every field, as written.
    pub(super) fn fields(&self) -> Vec<Field<'a>> {
        let field = |entry: &'a super::toml_tree::TableEntry| {
            let key = dotted(&self.place.key, &entry.name);
            Field {
                name: &entry.name,
                place: KeyPosition { at: entry.node.at, key: key.clone() },
                key_place: KeyPosition { at: entry.at, key },
                value: &entry.node.value,
            }
        };
        self.table.entries.iter().map(field).collect()
    }

    /// Keys that have a meaning, but not in this version.
    pub(super) fn unsupported(&mut self, names: &[&'static str]) {
        self.unsupported.extend(names);
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(self, report: &mut ProblemReport) {
        self.finish_with(report, |_| None);
    }

    /// The same, with a hint for keys that belong somewhere else.
    pub(super) fn finish_with(
        self,
        report: &mut ProblemReport,
        elsewhere: impl Fn(&Field<'_>) -> Option<String>,
    ) {
        for field in self.fields() {
            if self.unsupported.contains(&field.name) {
                unsupported(&field.key_place, field.name, report);
            } else if !self.known.contains(&field.name) {
                let known = self.known.iter().copied();
                let message = format!("unknown key `{}`", field.name);
                let hint = elsewhere(&field)
                    .unwrap_or_else(|| choices(field.name, "the keys here are", known));
                report.problem(&field.key_place, message).hint(hint);
            }
        }
    }
}

fn refused<T>(
    place: &KeyPosition,
    parsed: Result<T, UnitError>,
    report: &mut ProblemReport,
) -> Option<T> {
    let refusal = match parsed {
        Ok(value) => return Some(value),
        Err(refusal) => refusal,
    };
    report.problem(place, refusal.message).hint(refusal.hint);
    None
}

/// Reports something that the format has and this version has not.
pub(super) fn unsupported(place: &KeyPosition, what: &str, report: &mut ProblemReport) {
    report.problem(place, format!("`{what}` is not supported yet"));
}
