//! Rehearsals of programs that tell no steps.

use serde_json::Value;

use super::{codes, parse, says, world};

#[test]
fn one_that_tells_no_steps_is_compared_by_its_files() {
    let world = world("tells_no_steps", "20s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--seed", "2"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{report:#}");
    for run in &report["runs"].as_array().unwrap()[2..] {
        assert!(!run["attempts"][0]["injected"].is_null(), "{run:#}");
        assert_eq!(run["comparison"]["results"]["compared"], 1, "{run:#}");
    }
}

/// A program that prints losses and never a step: what is found, and the runs, all of which must be disturbed.
#[track_caller]
fn check_without_steps(program: &str, code: i32, expected: &[&str]) -> (String, Value) {
    let world = world(program, "4s", "");
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    world.write("exp.toml", &text.replace("step = '^step (\\d+)'\n", ""));
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--seed", "3"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (code, expected.to_vec()), "{report:#}");
    for run in &report["runs"].as_array().unwrap()[2..] {
        assert!(!run["attempts"][0]["injected"].is_null(), "{run:#}");
        assert_eq!(run["comparison"]["equal"], code == 0, "{run:#}");
        assert_eq!(run["codes"], serde_json::json!(expected), "{run:#}");
    }
    (report["findings"][0].to_string(), report)
}

#[test]
fn one_that_prints_no_step_is_compared_by_the_order_of_its_reports() {
    check_without_steps("tells_no_step", 0, &[]);
}

#[test]
fn one_that_prints_no_step_and_loses_its_random_numbers_is_not_safe() {
    let program = "tells_no_step_and_forgets_random";
    let (finding, _) = check_without_steps(program, 1, &["resume-not-exact"]);
    says(
        &finding,
        &["the first after the resume", "the data or the random numbers start from the beginning"],
    );
}

#[test]
fn one_that_prints_no_step_and_forgets_the_optimizer_is_told_so() {
    let program = "tells_no_step_and_forgets_momentum";
    let (finding, _) = check_without_steps(program, 1, &["resume-not-exact"]);
    says(&finding, &["most likely the optimizer's state is lost", "loss at report "]);
}
