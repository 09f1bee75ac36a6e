//! What is said of files that are wrong.

mod executors;
mod limits;
mod parameters;
mod tasks;

use super::read;

#[test]
#[expect(clippy::too_many_lines, reason = "what a person reads, whole")]
fn all_mistakes_are_reported_at_once() {
    let text = r#"name = "my digits"
seeed = 1
timeout = "2 fortnights"
[executor.gpu]
kind = "slurm"
gpus = 1
mem = "0G"
sbatch = { output = "x.log" }
[tsak.train]
[task.train]
after = ["prepair"]
run = "python train.py --lr {rl} --data {prepare.dirs}"
params = { lr = [], width = { int = [4, 2] } }
search = { method = "random", concurrent = 0 }
[task.train.metrics]
loss = 'loss: \S+'
[task.prepare]
run = 3
"#;
    insta::assert_snapshot!(read(text).unwrap_err(), @r##"
    error: "my digits" can't be a name: it contains a space
      --> exp.toml:1, key `name`
       |  name = "my digits"
       |         ^^^^^^^^^^^
    hint: use letters, digits, `.`, `_` and `-`, such as `lr-sweep`

    error: unknown key `seeed`
      --> exp.toml:2, key `seeed`
       |  seeed = 1
       |  ^^^^^
    hint: did you mean `seed`?

    error: "2 fortnights" is not a duration
      --> exp.toml:3, key `timeout`
       |  timeout = "2 fortnights"
       |            ^^^^^^^^^^^^^^
    hint: write for example "90s", "10min", "1h 30min", "2d", "01:30:00" or "1-12:00:00"

    error: unknown key `gpus`
      --> exp.toml:6, key `executor.gpu.gpus`
       |  gpus = 1
       |  ^^^^
    hint: did you mean `gpus_per_node`?

    error: "0G" is not an amount of memory: it must be more than 0
      --> exp.toml:7, key `executor.gpu.mem`
       |  mem = "0G"
       |        ^^^^
    hint: write for example "500M", "8G" or "1T"

    error: `output` can't be set in `sbatch`: output is kept with the experiment: `nemo-slurm logs` shows it
      --> exp.toml:8, key `executor.gpu.sbatch.output`
       |  sbatch = { output = "x.log" }
       |             ^^^^^^

    error: unknown key `tsak`
      --> exp.toml:9, key `tsak`
       |  [tsak.train]
       |   ^^^^
    hint: did you mean `task`?

    error: there is no task `prepair`
      --> exp.toml:11, key `task.train.after[0]`
       |  after = ["prepair"]
       |           ^^^^^^^^^
    hint: did you mean `prepare`?

    error: unknown placeholder `{rl}`
      --> exp.toml:12, key `task.train.run`
       |  run = "python train.py --lr {rl} --data {prepare.dirs}"
       |                              ^^^^
    hint: did you mean `{lr}`? write `{{rl}}` for a literal `{rl}`

    error: `train` does not wait for `prepare`
      --> exp.toml:12, key `task.train.run`
       |  run = "python train.py --lr {rl} --data {prepare.dirs}"
       |                                          ^^^^^^^^^^^^^^
    hint: add `after = ["prepare"]` to `task.train`

    error: an empty list leaves nothing to try
      --> exp.toml:13, key `task.train.params.lr`
       |  params = { lr = [], width = { int = [4, 2] } }
       |                  ^^
    hint: write for example `lr = [1, 2]`

    error: the lowest bound is above the highest
      --> exp.toml:13, key `task.train.params.width.int`
       |  params = { lr = [], width = { int = [4, 2] } }
       |                                      ^^^^^^
    hint: swap the two

    error: `method = "random"` is not supported yet
      --> exp.toml:14, key `task.train.search.method`
       |  search = { method = "random", concurrent = 0 }
       |                      ^^^^^^^^

    error: expected a whole number of at least 1, found the integer 0
      --> exp.toml:14, key `task.train.search.concurrent`
       |  search = { method = "random", concurrent = 0 }
       |                                             ^

    error: the pattern has no group that takes the number
      --> exp.toml:16, key `task.train.metrics.loss`
       |  loss = 'loss: \S+'
       |         ^^^^^^^^^^^
    hint: put the number into parentheses: `loss = 'loss: (\S+)'`

    error: expected a string or a list of strings, found the integer 3
      --> exp.toml:18, key `task.prepare.run`
       |  run = 3
       |        ^
    hint: put it in quotes
    "##);
}

/// Checks that a file has one mistake, given as `line key: message`.
#[track_caller]
fn check(text: &str, expected: &str) {
    let problems = read(text).expect_err("the file has a mistake");
    let shown: Vec<String> = problems
        .0
        .iter()
        .map(|problem| {
            let line = problem.line.unwrap_or(0);
            let key = problem.key.as_deref().unwrap_or("");
            format!("{line} {key}: {}", problem.message)
        })
        .collect();
    assert_eq!(shown.join("\n"), expected, "in {text}");
}

/// The same for lines at the top of a file that is fine otherwise.
#[track_caller]
fn check_top(lines: &str, expected: &str) {
    check(&format!("{lines}\n[task.t]\nrun = 'x'"), expected);
}

/// The same for lines of a Slurm executor.
#[track_caller]
fn check_slurm(lines: &str, expected: &str) {
    check_top(&format!("name = 'x'\n[executor.e]\nkind = 'slurm'\n{lines}"), expected);
}

/// The same for lines of the task `t`, after its command.
#[track_caller]
fn check_task(lines: &str, expected: &str) {
    check(&format!("name = 'x'\n[task.t]\nrun = 'x'\n{lines}"), expected);
}

/// The same for the parameters of `t`.
#[track_caller]
fn check_params(params: &str, expected: &str) {
    check_task(&format!("params = {params}"), expected);
}

/// The same for the command of `train`, which waits for `one` (1 trial) and `many` (2 trials).
#[track_caller]
fn check_run(run: &str, expected: &str) {
    check(
        &format!(
            "name = 'x'\n[task.one]\nrun = 'x'\n[task.many]\nrun = 'x'\nparams.a = [1, 2]\n[task.late]\n\
             run = 'x'\n[task.train]\nafter = ['one', 'many']\nparams = {{ lr = 1, opt.beta = 2 }}\nrun = {run}"
        ),
        expected,
    );
}

#[test]
fn toml_itself() {
    check("name = ", "1 : not valid TOML: string values must be quoted");
    check_top("name = 'x'\nname = 'y'", "2 name: `name` is given twice, first on line 1");
    check_task(
        "[task.u]\nrun = 'x'\n[task.t] # again\nrun = 'y'",
        "6 t: `t` is given twice, first on line 2",
    );
    check_top(
        "name = 'x'\nname.a = 1",
        "1 name: `name` has a value here, and is a table on line 2",
    );
    check_task(
        "checkpoint = '5m'\n[task.t.checkpoint.a]\nb = 1",
        "4 checkpoint: `checkpoint` has a value here, and is a table on line 5",
    );
    check_top(
        "name = 'x'\nseed = 99999999999999999999",
        "2 seed: the integer is too large: it has more than 64 bits",
    );
    check_top(
        "name = 'x'\ndescription = \"a\\u0000b\"",
        "2 description: a string can't contain a NUL byte",
    );
    let deep = format!("name = 'x'\nmetadata.a = {}{}", "[".repeat(60), "]".repeat(60));
    check_top(&deep, "2 metadata.a: is nested more than 40 levels deep");
    for part in [".a", " . a", ".'a'", ".\"a\""] {
        let many = part.repeat(100_000);
        let expected = "2 : the key has too many dots";
        check_top(&format!("name = 'x'\nmetadata{many} = 1"), expected);
        check_top(&format!("name = 'x'\n[metadata{many}]"), expected);
        check_top(&format!("name = 'x'\nmetadata = {{ a{many} = 1 }}"), expected);
    }
    let nested =
        format!("{}1{}", format!("{{ a{} = ", ".a".repeat(19)).repeat(70), " }".repeat(70));
    check_top(
        &format!("name = 'x'\nmetadata.a = {nested}"),
        &format!("2 metadata.a{}: is nested more than 40 levels deep", ".a".repeat(39)),
    );
    // Dots of a text are not those of a key.
    let numbers = "--x 0.1 ".repeat(100);
    super::good(&format!(
        "name = 'x'\ndescription = 'One. Two words. {numbers}'\ntask.t.run = 'x'"
    ));
}

#[test]
fn slips_of_toml_come_with_a_hint() {
    let text = "name = my-digits\nseed =\ndescription = \"open\n[task.t]\nrun = 'x'\nexecutor = True\n[task.u\n";
    insta::assert_snapshot!(read(text).unwrap_err(), @r##"
    error: not valid TOML: string values must be quoted
      --> exp.toml:1
       |  name = my-digits
       |         ^^^^^^^^^
    hint: text needs quotes: `name = "my-digits"`

    error: not valid TOML: string values must be quoted
      --> exp.toml:2
       |  seed =
       |        ^
    hint: give `seed` a value

    error: not valid TOML: invalid basic string, expected `"`
      --> exp.toml:3
       |  description = "open
       |                     ^

    error: not valid TOML: invalid boolean, expected `true`
      --> exp.toml:6
       |  executor = True
       |             ^^^^
    hint: write `true`

    error: not valid TOML: unclosed table, expected `]`
      --> exp.toml:7
       |  [task.u
       |         ^
    "##);
}

#[test]
fn the_top_of_the_file() {
    check("name = 'x'", "1 : the experiment has no task");
    check("name = 'x'\n[task]", "1 : the experiment has no task");
    check("name = 'x'\ntask = 3", "2 task: expected a table, found the integer 3");
    check_top("", "1 : the experiment has no `name`");
    check_top("name = 3", "1 name: expected a string, found the integer 3");
    check_top(
        "name = 'a/b'",
        "1 name: \"a/b\" can't be a name: `/` separates the parts of a target (EXPERIMENT/TASK/TRIAL)",
    );
    check_top(
        "name = '-x'",
        "1 name: \"-x\" can't be a name: it must begin with a letter or a digit",
    );
    check_top("name = ''", "1 name: \"\" can't be a name: it is empty");
    check_top(
        "name = 'x'\ntags = ['a b']",
        "2 tags[0]: \"a b\" can't be a name: it contains a space",
    );
    check_top("name = 'x'\ntags = 3", "2 tags: expected a string, found the integer 3");
    check_top(
        "name = 'x'\nseed = -1",
        "2 seed: expected a whole number from 0 on, found the integer -1",
    );
    check_top(
        "name = 'x'\nseed = 1.5",
        "2 seed: expected a whole number from 0 on, found the number 1.5",
    );
    check_top("name = 'x'\ntimeout = 3", "2 timeout: a duration needs a unit");
    check_top(
        "name = 'x'\ntimeout = '0s'",
        "2 timeout: \"0s\" is not a duration of at least a second",
    );
    check_top(
        "name = 'x'\nmetadata = { a = nan }",
        "2 metadata.a: expected a finite number, found the number NaN",
    );
    check_top(
        "name = 'x'\nafter = [{ on = 'ok' }]",
        "2 after[0]: expected the name of an experiment, `{ experiment = \"…\", on = \"any\" }` or `{ slurm_job = 4711 }`, found a table",
    );
    check_top(
        "name = 'x'\npackage.from = 'gti'",
        "2 package.from: expected one of `git`, `folder`, `none`, found \"gti\"",
    );
    check_top(
        "name = 'x'\npackage.limit = '1'",
        "2 package.limit: \"1\" is not an amount of memory: it has no unit",
    );
    check_top(
        "name = 'x'\npackage = { root = 'src' }",
        "2 package.root: `root` is \"src\", not the folder of this file or one above it",
    );
    check_top(
        "name = 'x'\ndefaults.exectuor = 'local'",
        "2 defaults.exectuor: unknown key `exectuor`",
    );
    check_top(
        "name = 'x'\ndefaults.executor = 'gpu'",
        "2 defaults.executor: there is no executor `gpu`",
    );
}

#[test]
fn an_experiment_waits_for_whole_ones() {
    check_top(
        "name = 'x'\nafter = ['prep/train']",
        "2 after[0]: `prep/train` is a part of an experiment",
    );
    check_top(
        "name = 'x'\nafter = { experiment = 'prep/train/3' }",
        "2 after.experiment: `prep/train/3` is a part of an experiment",
    );
}
