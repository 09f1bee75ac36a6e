//! The trials that parameters lead to.

use super::trials;

/// Checks the trials of a task, one JSON object each.
#[track_caller]
fn check(lines: &str, expected: &[&str]) {
    let trials = trials(&format!("name = 'x'\n[task.t]\nrun = 'x'\n{lines}"), "t", &[]);
    let found: Vec<String> = trials.iter().map(|t| serde_json::to_string(t).unwrap()).collect();
    assert_eq!(found, expected, "trials of {lines}");
}

/// Checks the values of one axis.
#[track_caller]
fn check_axis(domain: &str, expected: &str) {
    let text = format!("name = 'x'\n[task.t]\nrun = 'x'\nparams.a = {domain}");
    let trials = trials(&text, "t", &[]);
    let values: Vec<String> = trials.iter().map(|trial| trial["a"].to_string()).collect();
    assert_eq!(values.join(" "), expected, "values of {domain}");
}

#[test]
fn the_values_of_an_axis() {
    check_axis("3", "3");
    check_axis("1.0", "1.0"); // a float stays one
    check_axis("1e-4", "0.0001");
    check_axis("'a'", "\"a\"");
    check_axis("{ const = [1, 2] }", "[1,2]");
    check_axis("[true, 'b', 1, 1.0, 1e22, -0.0]", "true \"b\" 1 1.0 1e+22 -0.0");
    check_axis("[[1, 2], ['a']]", "[1,2] [\"a\"]");
    check_axis("[1, 1]", "1 1"); // a repetition may be wanted
    check_axis("{ categorical = [1, 2] }", "1 2");
    check_axis("{ int = [2, 5] }", "2 3 4 5");
    check_axis("{ int = [2, 2] }", "2");
    check_axis("{ int = [0, 10], count = 3 }", "0 5 10");
    check_axis("{ int = [0, 10], count = 4 }", "0 3 7 10"); // 3.33 and 6.67
    check_axis("{ int = [1, 4], count = 3 }", "1 3 4"); // 2.5
    check_axis("{ int = [-4, -1], count = 3 }", "-4 -3 -1"); // -2.5, away from zero
    check_axis("{ int = [1, 10], count = 1 }", "6"); // 5.5
    check_axis("{ int = [1, 3], count = 9 }", "1 2 3");
    check_axis("{ int = [0, 9223372036854775807], count = 2 }", "0 9223372036854775807");
    check_axis(
        "{ int = [-9223372036854775808, 9223372036854775807], count = 3 }",
        "-9223372036854775808 -1 9223372036854775807",
    );
    check_axis("{ double = [0, 1], count = 5 }", "0.0 0.25 0.5 0.75 1.0");
    check_axis("{ double = [0.1, 0.3], count = 2 }", "0.1 0.3");
    check_axis("{ double = [1, 2], count = 1 }", "1.5");
    check_axis("{ log = [1e-4, 1e-1], count = 4 }", "0.0001 0.001 0.01 0.1");
    check_axis("{ log = [1e-4, 1], count = 1 }", "0.01");
    check_axis("{ log = [3e-5, 0.7], count = 2 }", "0.00003 0.7");
    check_axis("{ log = [2, 2], count = 3 }", "2.0 2.0 2.0");
}

#[test]
fn a_grid_is_the_product_in_the_order_of_names() {
    check("", &["{}"]);
    check("params = {}", &["{}"]);
    check(
        "params = { b = [1, 2], a = ['x', 'y'], c = 0 }",
        &[
            r#"{"a":"x","b":1,"c":0}"#,
            r#"{"a":"x","b":2,"c":0}"#,
            r#"{"a":"y","b":1,"c":0}"#,
            r#"{"a":"y","b":2,"c":0}"#,
        ],
    );
    check(
        "params = { z = [1, 2], m.k = [3, 4], m.b = 5 }\nsearch.method = 'grid'",
        &[
            r#"{"m":{"b":5,"k":3},"z":1}"#,
            r#"{"m":{"b":5,"k":3},"z":2}"#,
            r#"{"m":{"b":5,"k":4},"z":1}"#,
            r#"{"m":{"b":5,"k":4},"z":2}"#,
        ],
    );
    // `a-b` comes before `a.c` as a dotted name, but after `a` as a key.
    check(
        "params = { a-b = [1, 2], a.c = [3, 4] }",
        &[
            r#"{"a":{"c":3},"a-b":1}"#,
            r#"{"a":{"c":4},"a-b":1}"#,
            r#"{"a":{"c":3},"a-b":2}"#,
            r#"{"a":{"c":4},"a-b":2}"#,
        ],
    );
}

#[test]
fn a_list_is_the_trials_as_written() {
    let expected = [r#"{"b":2,"lr":0.1}"#, r#"{"b":1,"lr":0.2}"#];
    check("search.trials = [{ lr = 0.1, b = 2 }, { lr = 0.2, b = 1 }]", &expected);
    check("params = [{ lr = 0.1, b = 2 }, { lr = 0.2, b = 1 }]", &expected);
    check("[[task.t.params]]\nlr = 0.1\nb = 2\n[[task.t.params]]\nlr = 0.2\nb = 1", &expected);
    check("params.b = 1\nsearch.trials = [{ lr = 0.1, b = 2 }, { lr = 0.2 }]", &expected);
    check(
        "params = { m = { a = 1, b = [2, 3] } }\nsearch.method = 'grid'",
        &[r#"{"m":{"a":1,"b":2}}"#, r#"{"m":{"a":1,"b":3}}"#],
    );
    check(
        "params.m = { a = 1, b = 0 }\nsearch = { method = 'list', trials = [{ m.b = 2 }, { m.b = [3, 4] }] }",
        &[r#"{"m":{"a":1,"b":2}}"#, r#"{"m":{"a":1,"b":[3,4]}}"#],
    );
}

#[test]
fn a_million_trials_are_not_too_many() {
    let text = "name = 'x'\n[task.t]\nrun = 'x'\nparams = { a = { int = [1, 1000] }, b = { int = [1, 1000] } }";
    let trials = trials(text, "t", &[]);
    assert_eq!(trials.len(), 1_000_000);
    assert_eq!(serde_json::to_string(&trials[999_999]).unwrap(), r#"{"a":1000,"b":1000}"#);
}
