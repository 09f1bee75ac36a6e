//! What holds for any file.

use std::path::Path;

use proptest::prelude::*;

use super::{FILE, WHOLE, good, read, trials};
use crate::experiment::{Experiment, Override, load};

/// Pieces that mutations put into a good file, where they hurt most.
const FRAGMENTS: [&str; 24] = [
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "'''",
    "\n",
    "#",
    "0",
    "-1",
    "nan",
    "é",
    "\u{0}",
    "[[task.train.params]]\n",
    "{train.dirs}",
    "{{",
    "9223372036854775807",
    "1e400",
    "true",
    "after = [\"evaluate\"]\n",
];

fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Replaces a stretch of the text.
fn mutate(text: &str, (at, length, fragment): (usize, usize, usize)) -> String {
    let start = boundary(text, at % (text.len() + 1));
    let end = boundary(text, start + length);
    format!("{}{}{}", &text[..start], FRAGMENTS[fragment], &text[end.max(start)..])
}

fn a_mutation() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..10_000_usize, prop_oneof![Just(0), 0..4_usize, 0..80_usize], 0..FRAGMENTS.len())
}

/// Loads, and shows whatever comes of it.
fn exercise(text: &str) {
    match read(text) {
        Ok(experiment) => {
            let json = serde_json::to_string(&experiment).unwrap();
            assert_eq!(serde_json::from_str::<Experiment>(&json).unwrap(), experiment);
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason: {text}");
            assert!(problems.to_string().starts_with("error: "));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn arbitrary_text_is_no_reason_to_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_broken_file_is_no_reason_to_panic(mutations in proptest::collection::vec(a_mutation(), 1..5)) {
        let text = mutations.into_iter().fold(WHOLE.to_owned(), |text, mutation| mutate(&text, mutation));
        exercise(&text);
    }

    #[test]
    fn an_override_is_no_reason_to_panic(key in "(name|task(\\.[a-z]{1,5})?|task\\.train(\\.(run|params|search|after))?)", value in "\\PC{0,20}") {
        if let Ok(change) = format!("{key}={value}").parse::<Override>() {
            let problems = load(WHOLE, Path::new(FILE), &[change], None).map_err(|problems| problems.to_string());
            prop_assert!(problems.is_ok() || !problems.unwrap_err().is_empty());
        }
    }

    #[test]
    fn a_grid_has_the_product_of_its_axes(
        list in proptest::collection::vec(any::<i64>(), 1..5),
        low in any::<i64>(),
        width in 0..6_i64,
        count in 1..6_u32,
        bounds in (-1e300..1e300_f64, -1e300..1e300_f64),
    ) {
        let high = low.saturating_add(width);
        let (lo, hi) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        let text = format!(
            "name = 'x'\n[task.t]\nrun = 'x'\n[task.t.params]\na = {list:?}\nb.c = {{ int = [{low}, {high}] }}\n\
             d = {{ double = [{lo:?}, {hi:?}], count = {count} }}\ne = {{ int = [{low}, {high}], count = {count} }}"
        );
        let experiment = good(&text);
        let trials = trials(&text, "t", &[]);
        let whole = usize::try_from(high.abs_diff(low)).unwrap() + 1;
        let count = count as usize;
        prop_assert_eq!(trials.len(), list.len() * whole * count * whole.min(count));
        for trial in &trials {
            let names: Vec<&String> = trial.keys().collect();
            prop_assert_eq!(names, ["a", "b", "d", "e"]);
            let (d, e) = (trial["d"].as_f64().unwrap(), trial["e"].as_i64().unwrap());
            prop_assert!((lo..=hi).contains(&d) && (low..=high).contains(&e));
        }
        let json = serde_json::to_string(&experiment).unwrap();
        prop_assert_eq!(serde_json::from_str::<Experiment>(&json).unwrap(), experiment);
    }

    #[test]
    fn evenly_spaced_values_end_at_the_bounds(exponents in (-300..300_i32, -300..300_i32), count in 2..9_u32) {
        let (lo, hi) = (exponents.0.min(exponents.1), exponents.0.max(exponents.1));
        let text = format!("name = 'x'\n[task.t]\nrun = 'x'\nparams.a = {{ log = [3e{lo}, 3e{hi}], count = {count} }}");
        let values: Vec<f64> = trials(&text, "t", &[]).iter().map(|trial| trial["a"].as_f64().unwrap()).collect();
        prop_assert_eq!(values.len(), count as usize);
        prop_assert_eq!(values[0].to_string(), format!("3e{lo}").parse::<f64>().unwrap().to_string());
        prop_assert_eq!(values[values.len() - 1].to_string(), format!("3e{hi}").parse::<f64>().unwrap().to_string());
        prop_assert!(values.is_sorted());
    }
}
