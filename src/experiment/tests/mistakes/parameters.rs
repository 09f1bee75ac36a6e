//! What is said of parameters and searches that are wrong.

use super::*;

#[test]
fn parameters() {
    check_params("3", "4 task.t.params: expected a table, found the integer 3");
    check_params("{ lr = [] }", "4 task.t.params.lr: an empty list leaves nothing to try");
    check_params(
        "{ lr = { categorical = [] } }",
        "4 task.t.params.lr.categorical: an empty list leaves nothing to try",
    );
    check_params(
        "{ lr = { log = [0.1, 1] } }",
        "4 task.t.params.lr: the grid does not know how many values `lr` has",
    );
    check_params(
        "{ lr = { double = [0, 1] } }",
        "4 task.t.params.lr: the grid does not know how many values `lr` has",
    );
    check_params(
        "{ lr = { log = [0, 1], count = 2 } }",
        "4 task.t.params.lr.log: the bounds of `log` must be more than 0",
    );
    check_params(
        "{ lr = { double = [1, 0], count = 2 } }",
        "4 task.t.params.lr.double: the lowest bound is above the highest",
    );
    check_params(
        "{ lr = { double = [1], count = 2 } }",
        "4 task.t.params.lr.double: expected two bounds, `double = [lowest, highest]`, found 1 values",
    );
    check_params(
        "{ lr = { double = [1, inf], count = 2 } }",
        "4 task.t.params.lr.double[1]: expected a finite number, found the number inf",
    );
    check_params(
        "{ lr = { double = [-1e308, 1e308], count = 2 } }",
        "4 task.t.params.lr.double: the range is too wide for a floating-point number",
    );
    check_params(
        "{ n = { int = [1.5, 2] } }",
        "4 task.t.params.n.int[0]: expected an integer, found the number 1.5",
    );
    check_params(
        "{ n = { int = [1, 2], count = 0 } }",
        "4 task.t.params.n.count: expected a whole number of at least 1, found the integer 0",
    );
    check_params(
        "{ n = { int = [1, 2], const = 1 } }",
        "4 task.t.params.n: a parameter can't be both of `const`, `int`",
    );
    check_params(
        "{ n = { int = [1, 2], cuont = 1 } }",
        "4 task.t.params.n.cuont: unknown key `cuont`",
    );
    check_params(
        "{ n = { const = 1, count = 1 } }",
        "4 task.t.params.n.count: `count` is for a range, not for `const`",
    );
}

#[test]
fn values_names_and_sizes() {
    check_params(
        "{ n = nan }",
        "4 task.t.params.n: expected a finite number, found the number NaN",
    );
    check_params(
        "{ n = 2024-01-01 }",
        "4 task.t.params.n: expected a string, a number, a boolean or a list of these, found the date 2024-01-01",
    );
    check_params(
        "{ n = [{ a = 1 }] }",
        "4 task.t.params.n[0]: expected a value, not a table, found a table",
    );
    check_params(
        "{ seed = [1, 0.5] }",
        "4 task.t.params.seed: `seed` is the trial's seed, a whole number from 0 on, but a trial has 0.5",
    );
    check_params(
        "{ seed = -1 }",
        "4 task.t.params.seed: `seed` is the trial's seed, a whole number from 0 on, but a trial has -1",
    );
    check_params("{ dir = 1 }", "4 task.t.params.dir: a parameter can't be named `dir`");
    check_params(
        "{ a-b = 1, a_b = 2 }",
        "4 task.t.params.a_b: `a_b` and `a-b` would both be `NEMO_PARAM_A_B`",
    );
    check_params(
        "{ lr = 1, LR.x = 2 }",
        "4 task.t.params.lr: `lr` and `LR` would both be `NEMO_PARAM_LR`",
    );
    check_params("{ 'a.b' = 1 }", "4 task.t.params.a.b: \"a.b\" can't be the name of a parameter");
    check_params("{ t = 1 }", "4 task.t.params.t: a parameter can't be named like the task `t`");
    check_params(
        "{ t.dir = 1 }",
        "4 task.t.params.t.dir: a parameter can't be named like the task `t`",
    );
    check_params(
        "{ a = { int = [1, 1001] }, b = { int = [1, 1000] } }",
        "4 task.t.params: the grid has 1001000 trials; the maximum is 1000000",
    );
    check_params(
        "{ a = { int = [-9223372036854775808, 9223372036854775807] } }",
        "4 task.t.params: the grid has 18446744073709551616 trials; the maximum is 1000000",
    );
}

#[test]
fn searches() {
    check_task(
        "search.method = 'random'",
        "4 task.t.search.method: `method = \"random\"` is not supported yet",
    );
    check_task(
        "search = { method = 'asha', rungs = 3 }",
        "4 task.t.search.method: `method = \"asha\"` is not supported yet",
    );
    check_task(
        "search.method = 'adaptive_asha'",
        "4 task.t.search.method: `method = \"adaptive_asha\"` is not supported yet",
    );
    check_task(
        "search.method = 'gird'",
        "4 task.t.search.method: expected one of `grid`, `list`, `random`, `asha`, `adaptive_asha`, found \"gird\"",
    );
    check_task(
        "search.concurrent = 0",
        "4 task.t.search.concurrent: expected a whole number of at least 1, found the integer 0",
    );
    check_task("search.goal = 'max'", "4 task.t.search.goal: `goal` needs a `metric`");
    check_task(
        "search = { metric = 'a', goal = 'up' }",
        "4 task.t.search.goal: expected one of `min`, `max`, found \"up\"",
    );
    check_task("search.metric = ''", "4 task.t.search.metric: the metric's name is empty");
}

#[test]
fn lists_of_trials() {
    check_task(
        "search.method = 'list'",
        "4 task.t.search.method: `method = \"list\"` needs `trials`",
    );
    check_task(
        "search.trials = 20",
        "4 task.t.search.trials: expected a list of tables, such as `[{ lr = 0.1 }]`, found the integer 20",
    );
    check_task(
        "search = { method = 'grid', trials = 20 }",
        "4 task.t.search.trials: a grid makes its trials from `params` and can't have `trials`",
    );
    check_task("search.trials = []", "4 task.t.search.trials: an empty list leaves nothing to try");
    check_task(
        "search.trials = [1]",
        "4 task.t.search.trials[0]: expected a table, found the integer 1",
    );
    check_task(
        "search.trials = [{ a = 1 }, { b = 1 }]",
        "4 task.t.search.trials[1]: all trials must have the same parameters: this one has `b`, the first `a`",
    );
    check_task(
        "search.trials = [{ a = { x = 1 } }, { a = 1 }]",
        "4 task.t.search.trials[1]: all trials must have the same parameters: this one has `a`, the first `a.x`",
    );
    check_task(
        "params.a = 1\nsearch.trials = [{ a = { x = 1 } }]",
        "5 task.t.search.trials[0].a.x: `a` can't be both a value and a table with `a.x`",
    );
    check_task(
        "params.a = [1, 2]\nsearch.trials = [{ b = 1 }]",
        "4 task.t.params.a: `a` has several values, and the trials are a list",
    );
    check_task(
        "params = [{ a = 1 }]\nsearch.trials = [{ a = 1 }]",
        "5 task.t.search.trials: the trials are listed twice, in `params` and here",
    );
    check_task(
        "params = [{ a = 1 }]\nsearch.method = 'grid'",
        "5 task.t.search.method: `method` is \"grid\", but the trials are a list",
    );
}
