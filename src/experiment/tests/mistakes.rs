//! What is said of files that are wrong.

use super::read;

#[test]
#[expect(clippy::too_many_lines, reason = "what a person reads, whole")]
fn all_mistakes_are_reported_at_once() {
    let text = r#"name = "my digits"
seeed = 1
timeout = "2 weeks"
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
    error: "my digits" can't be a name: it has a space in it
      --> exp.toml:1, key `name`
       |  name = "my digits"
       |         ^^^^^^^^^^^
    hint: use letters, digits, `.`, `_` and `-`, such as `lr-sweep`

    error: unknown key `seeed`
      --> exp.toml:2, key `seeed`
       |  seeed = 1
       |  ^^^^^
    hint: did you mean `seed`?

    error: "2 weeks" is not a duration
      --> exp.toml:3, key `timeout`
       |  timeout = "2 weeks"
       |            ^^^^^^^^^
    hint: write for example "90s", "10m", "1h30m", "2d" or "1-12:00:00"

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
    hint: exchange the two

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
        "2 : not valid TOML: cannot extend value of type string with a dotted key",
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
        let expected = "2 : a key with so many dots can't be right";
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
        "2 tags[0]: \"a b\" can't be a name: it has a space in it",
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
    check_top("name = 'x'\nafter = ['prep']", "2 after: `after` is not supported yet");
    check_top(
        "name = 'x'\npackage.from = 'git'",
        "2 package.from: `from = \"git\"` is not supported yet",
    );
    check_top("name = 'x'\npackage.limit = '1MiB'", "2 package: `package` is not supported yet");
    check_top(
        "name = 'x'\npackage = { from = 'none', root = '.' }",
        "2 package.root: `root` is not supported yet",
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
fn executors() {
    check_top("name = 'x'\n[executor.e]", "2 executor.e: `executor.e` has no `kind`");
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'slrum'",
        "3 executor.e.kind: expected one of `slurm`, `local`, `container`, found \"slrum\"",
    );
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'container'\nimage = 'x'",
        "3 executor.e.kind: `kind = \"container\"` is not supported yet",
    );
    check_top(
        "name = 'x'\n[executor.'a b']\nkind = 'local'",
        "2 executor.a b: \"a b\" can't be a name: it has a space in it",
    );
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'local'\nmem = '8G'",
        "4 executor.e.mem: a local executor has no key `mem`",
    );
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'local'\nparallel = 0",
        "4 executor.e.parallel: expected a whole number of at least 1, found the integer 0",
    );
}

#[test]
fn slurm_executors() {
    check_slurm("parallel = 2", "4 executor.e.parallel: a Slurm executor has no key `parallel`");
    check_slurm(
        "tasks_per_node = 0",
        "4 executor.e.tasks_per_node: expected a whole number of at least 1, found the integer 0",
    );
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'local'\nnodes = 2",
        "4 executor.e.nodes: a local executor has no key `nodes`",
    );
    check_slurm(
        "nodes = 0",
        "4 executor.e.nodes: expected a whole number of at least 1, found the integer 0",
    );
    check_slurm(
        "cpus_per_task = 0",
        "4 executor.e.cpus_per_task: expected a whole number of at least 1, found the integer 0",
    );
    check_slurm(
        "gpus_per_node = true",
        "4 executor.e.gpus_per_node: expected a number of GPUs, or a type and a number such as \"h100:8\", found `true`",
    );
    check_slurm(
        "gpus_per_node = 'a b'",
        "4 executor.e.gpus_per_node: expected a number of GPUs, or a type and a number such as \"h100:8\", found the string \"a b\"",
    );
    check_slurm(
        "partition = 'a b'",
        "4 executor.e.partition: \"a b\" can't be the name of a partition",
    );
    check_slurm("mem = '8'", "4 executor.e.mem: \"8\" is not an amount of memory: it has no unit");
    check_slurm(
        "mem = 8",
        "4 executor.e.mem: expected an amount of memory such as \"8G\", found the integer 8",
    );
    check_slurm("time = 'soon'", "4 executor.e.time: \"soon\" is not a duration");
    check_slurm(
        "env = { 'A B' = '1' }",
        "4 executor.e.env.A B: \"A B\" can't be the name of an environment variable",
    );
    check_slurm("env = { A = 1.5 }", "4 executor.e.env.A: expected a string, found the number 1.5");
    check_slurm(
        "secrets = ['a-b']",
        "4 executor.e.secrets[0]: \"a-b\" can't be the name of an environment variable",
    );
    check_slurm(
        "env = { A = 'x' }\nsecrets = ['A']",
        "5 executor.e.secrets[0]: `A` is in `env` and in `secrets`",
    );
    check_slurm("setup = [1]", "4 executor.e.setup[0]: expected a string, found the integer 1");
    check_slurm("memory = '8G'", "4 executor.e.memory: unknown key `memory`");
}

#[test]
fn a_built_in_executor_that_is_defined_wrongly_is_not_taken_for_the_built_in_one() {
    check(
        "name = 'x'\n[executor.local]\nkind = 'slurm'\nmem = '0G'\n[task]\nu = { run = 'x', executor = 'local' }\n\
         t = { run = 'x', executor = 'slurm', after = 'u' }",
        "4 executor.local.mem: \"0G\" is not an amount of memory: it must be more than 0",
    );
}

#[test]
fn sbatch_options() {
    let refused = |option: &str, why: &str| {
        check_slurm(
            &format!("sbatch.{option} = 'x'"),
            &format!("4 executor.e.sbatch.{option}: `{option}` can't be set in `sbatch`: {why}"),
        );
    };
    refused("array", "it is made from the trials; `search.concurrent` limits how many run at once");
    refused("dependency", "it is made from `after`");
    refused("output", "output is kept with the experiment: `nemo-slurm logs` shows it");
    refused("error", "output is kept with the experiment: `nemo-slurm logs` shows it");
    refused("job-name", "it is made from the names of the experiment and the task");
    refused("job_name", "it is made from the names of the experiment and the task");
    refused("signal", "it is made from `checkpoint.signal` and `checkpoint.lead`");
    refused("requeue", "trials are requeued as `restart` says");
    refused("no-requeue", "trials are requeued as `restart` says");
    refused("open-mode", "a requeued trial goes on with its own files");
    refused("hold", "`nemo-slurm pause` and `resume` hold and release trials");
    refused("parsable", "the tool reads what `sbatch` prints");
    refused("wrap", "the script is made from `run`");
    refused("kill-on-invalid-dep", "it is made from `after`");
    refused("chdir", "programs run in the folder of the experiment's file");
    refused("nodes", "it has a key of its own, `nodes`");
    refused("ntasks", "it is made from `nodes` and `tasks_per_node`");
    refused("arra", "it is made from the trials; `search.concurrent` limits how many run at once"); // sbatch would take it
    refused("time", "the executor has the key `time` for it");
    refused("p", "it is not a long option of `sbatch`");
    refused("--qos", "it is not a long option of `sbatch`");
    refused("QOS", "it is not a long option of `sbatch`");
    check_slurm(
        "sbatch.'a b' = 1",
        "4 executor.e.sbatch.a b: `a b` can't be set in `sbatch`: it is not a long option of `sbatch`",
    );
    check_slurm(
        "sbatch.qos = \"a\\n#SBATCH --hold\"",
        "4 executor.e.sbatch.qos: the value of an option can't contain a line break",
    );
    check_slurm("sbatch.qos = ''", "4 executor.e.sbatch.qos: the option's value is empty");
    check_slurm(
        "sbatch.qos = ['a']",
        "4 executor.e.sbatch.qos: expected a string, an integer or `true`, found a list",
    );
    check_slurm(
        "sbatch = { mem-per_cpu = 1, mem_per_cpu = 1 }",
        "4 executor.e.sbatch.mem_per_cpu: `mem-per-cpu` is given twice, with `-` and with `_`",
    );
}

#[test]
fn which_executor() {
    let two = "name = 'x'\n[executor.a]\nkind = 'local'\n[executor.b]\nkind = 'slurm'\n";
    check(
        &format!("{two}[task.t]\nrun = 'x'"),
        "6 task.t: no executor is chosen, and the file defines several: `a`, `b`",
    );
    check_task("executor = 'slrum'", "4 task.t.executor: there is no executor `slrum`");
    check(
        &format!(
            "{two}[task.prepare]\nrun = 'x'\nexecutor = 'a'\n[task.train]\nrun = 'x'\nexecutor = 'b'\nafter = 'prepare'"
        ),
        "12 task.train.after: not supported yet: `train` on Slurm can't wait for `prepare` on a local executor",
    );
}

#[test]
fn saving() {
    check_task(
        "checkpoint.every = 500",
        "4 task.t.checkpoint.every: `every` needs a unit: 500 what?",
    );
    check_task(
        "checkpoint.every = 'often'",
        "4 task.t.checkpoint.every: \"often\" is not a duration",
    );
    check_task(
        "checkpoint.every = '0 steps'",
        "4 task.t.checkpoint.every: \"0 steps\" is not a number of steps",
    );
    check_task(
        "checkpoint.keep = { best = 1 }",
        "4 task.t.checkpoint.keep.best: unknown key `best`",
    );
    check_task(
        "checkpoint.keep = { trial_best = -1 }",
        "4 task.t.checkpoint.keep.trial_best: expected a whole number from 0 on, found the integer -1",
    );
    check_task(
        "checkpoint.signal = 'KILL'",
        "4 task.t.checkpoint.signal: expected one of `USR1`, `USR2`, `TERM`, `INT`, `HUP`, found \"KILL\"",
    );
    check_task("checkpoint.lead = 60", "4 task.t.checkpoint.lead: a duration needs a unit");
}

#[test]
fn hints_say_what_was_meant() {
    let check = |lines: &str, expected: &str| {
        let text = format!("name = 'x'\n{lines}\n[task.t]\nrun = 'x'\nparams = {{ lr = [1, 2] }}");
        let problems = read(&text).expect_err("the file has a mistake");
        assert_eq!(problems.0[0].hint.as_deref(), Some(expected), "in {text}");
    };
    let unit = "write \"50 steps\", or a time such as \"50s\" or \"50m\"";
    check("task.u = { run = 'x', checkpoint.every = '50' }", unit);
    check("task.u = { run = 'x', checkpoint.every = 50 }", unit);
    let keep = "did you mean `trial_latest`?";
    check("task.u = { run = 'x', checkpoint.keep.latest = 2 }", keep);
    let best = "did you mean `trial_best` or `experiment_best`?";
    check("task.u = { run = 'x', checkpoint.keep.best = 2 }", best);
    check("lr = 3", "did you mean `task.t.params.lr`?");
    check("[restart]\nhang = '5m'\ncrashes = 1", "did you mean `task.t.restart`?");
}

#[test]
fn launches() {
    check_task(
        "launch = 'mpirun'",
        "4 task.t.launch: expected one of `torchrun`, found \"mpirun\"",
    );
    check_task(
        "workers_per_node = 2",
        "4 task.t.workers_per_node: `workers_per_node` means nothing without `launch`",
    );
    check_task(
        "launch = 'torchrun'\n[executor.e]\nkind = 'slurm'\ntasks_per_node = 4",
        "2 task.t: `torchrun` is one task on each node, but executor `e` has `tasks_per_node = 4`",
    );
}

#[test]
fn tasks() {
    check("name = 'x'\n[task.t]", "2 task.t: the task has no `run`");
    check("name = 'x'\ntask.t = 'x'", "2 task.t: expected a table, found the string \"x\"");
    check("name = 'x'\ntask.t.run = ''", "2 task.t.run: the command is empty");
    check("name = 'x'\ntask.t.run = []", "2 task.t.run: the command is empty");
    check("name = 'x'\ntask.t.run = ['']", "2 task.t.run: the command is empty");
    check(
        "name = 'x'\ntask.t.run = [3]",
        "2 task.t.run[0]: expected a string, found the integer 3",
    );
    check(
        "name = 'x'\ntask.t.run = { a = 1 }",
        "2 task.t.run: expected a string or a list of strings, found a table",
    );
    check(
        "name = 'x'\n[task.'a/b']\nrun = 'x'",
        "2 task.a/b: \"a/b\" can't be a name: `/` separates the parts of a target (EXPERIMENT/TASK/TRIAL)",
    );
    check("name = 'x'\n[task.seed]\nrun = 'x'", "2 task.seed: a task can't be named `seed`");
}

#[test]
fn keys_of_tasks() {
    check_task("lunch = 1", "4 task.t.lunch: unknown key `lunch`");
}

#[test]
fn how_a_task_is_run() {
    check_task(
        "profile = 'torch'",
        "4 task.t.profile: expected one of `lightning`, `transformers`, `torchrun`, `submitit`, `condor`, found \"torch\"",
    );
    check_task(
        "[[task.t.log_policy]]\nname = 'x'",
        "4 task.t.log_policy[0]: a log policy needs `name`, `pattern` and `action`",
    );
    check_task(
        "log_policy = [{ name = 'x', pattern = 'x', action = 'lable' }]",
        "4 task.t.log_policy[0].action: expected one of `exclude_node`, `stop_restarting`, `label`, found \"lable\"",
    );
    check_task(
        "restart.hang = '0s'",
        "4 task.t.restart.hang: \"0s\" is not a duration of at least a second",
    );
    check_task(
        "restart.crashes = -1",
        "4 task.t.restart.crashes: expected a whole number from 0 on, found the integer -1",
    );
    check_task("restart.crashs = 1", "4 task.t.restart.crashs: unknown key `crashs`");
    check_task(
        "metrics.loss = 'loss: '",
        "4 task.t.metrics.loss: the pattern has no group that takes the number",
    );
    check_task(
        "metrics.loss = '('",
        "4 task.t.metrics.loss: the pattern is not a regular expression: found open group without closing ')'",
    );
    check_task(
        "metrics.loss = 1",
        "4 task.t.metrics.loss: expected a string with a regular expression, found the integer 1",
    );
    check_task("metrics.'' = '(x)'", "4 task.t.metrics.: \"\" can't be the name of a metric");
}

#[test]
fn a_lead_as_long_as_the_segment() {
    check(
        "name = 'x'\n[executor.e]\nkind = 'slurm'\ntime = '2m'\n[task.t]\nrun = 'x'\ncheckpoint.lead = '2m'",
        "7 task.t.checkpoint.lead: the program would be told 120 s before the end, but `time` of executor `e` is only 120 s",
    );
}

#[test]
fn what_tasks_wait_for() {
    check_task("after = 'u'", "4 task.t.after: there is no task `u`");
    check_task("after = 't'", "4 task.t.after: `t` waits for itself");
    check_task(
        "after = [3]",
        "4 task.t.after[0]: expected the name of a task, or `{ task = \"…\", on = \"ok\" }`, found the integer 3",
    );
    check_task(
        "after = { on = 'ok' }",
        "4 task.t.after: expected the name of a task, or `{ task = \"…\", on = \"ok\" }`, found no `task` in it",
    );
    check_task(
        "after = { task = 'u', on = 'okay' }\n[task.u]\nrun = 'x'",
        "4 task.t.after.on: expected one of `ok`, `failed`, `any`, `each`, found \"okay\"",
    );
    check_task(
        "after = ['u', 'u']\n[task.u]\nrun = 'x'",
        "4 task.t.after[1]: `u` is waited for twice",
    );
    check_task(
        "after = 'u'\n[task.u]\nrun = 'x'\nafter = 't'",
        "4 task.t.after: tasks wait for each other: t → u → t",
    );
    check_task(
        "after = { task = 'u', on = 'each' }\nparams.a = [1, 2]\n[task.u]\nrun = 'x'\nparams.a = [1, 2, 3]",
        "4 task.t.after.task: `on = \"each\"` goes trial by trial, but `u` has 3 trials and `t` has 2 trials",
    );
}

#[test]
fn every_cycle_is_named() {
    check(
        "name = 'x'\n[task]\na = { run = 'x', after = 'c' }\nb = { run = 'x', after = 'a' }\nc = { run = 'x', after = 'b' }\n\
         p = { run = 'x', after = ['q', 'a'] }\nq = { run = 'x', after = 'p' }",
        "3 task.a.after: tasks wait for each other: a → c → b → a\n6 task.p.after[0]: tasks wait for each other: p → q → p",
    );
}

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
        "4 task.t.params.lr: a grid needs to know how many values `lr` has",
    );
    check_params(
        "{ lr = { double = [0, 1] } }",
        "4 task.t.params.lr: a grid needs to know how many values `lr` has",
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
        "4 task.t.params.lr.double: the range is wider than a number can be",
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
    check_params("{ seed = 1 }", "4 task.t.params.seed: a parameter can't be named `seed`");
    check_params("{ 'a.b' = 1 }", "4 task.t.params.a.b: \"a.b\" can't be the name of a parameter");
    check_params("{ t = 1 }", "4 task.t.params.t: a parameter can't be named like the task `t`");
    check_params(
        "{ t.dir = 1 }",
        "4 task.t.params.t.dir: a parameter can't be named like the task `t`",
    );
    check_params(
        "{ a = { int = [1, 1001] }, b = { int = [1, 1000] } }",
        "4 task.t.params: the grid has 1001000 trials, and 1000000 is the most",
    );
    check_params(
        "{ a = { int = [-9223372036854775808, 9223372036854775807] } }",
        "4 task.t.params: the grid has 18446744073709551616 trials, and 1000000 is the most",
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
    check_task(
        "search.goal = 'max'",
        "4 task.t.search.goal: `goal` needs a `metric` to be the goal of",
    );
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
        "4 task.t.search.method: `method = \"list\"` needs the list",
    );
    check_task(
        "search.trials = 20",
        "4 task.t.search.trials: expected a list of tables, such as `[{ lr = 0.1 }]`, found the integer 20",
    );
    check_task(
        "search = { method = 'grid', trials = 20 }",
        "4 task.t.search.trials: `trials` is not for a grid, whose trials follow from `params`",
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
        "5 task.t.search.trials[0].a.x: `a` can't be a value and a table with `a.x` in it",
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

#[test]
fn placeholders() {
    check_run("'{lrr}'", "12 task.train.run: unknown placeholder `{lrr}`");
    check_run("'{opt}'", "12 task.train.run: `{opt}` is a table of parameters");
    check_run("'{opt.gamma}'", "12 task.train.run: unknown placeholder `{opt.gamma}`");
    check_run("'{one}'", "12 task.train.run: `{one}` is a task");
    check_run(
        "'{many.dir}'",
        "12 task.train.run: `{many.dir}` is one folder, but `many` has 2 trials",
    );
    check_run("'{late.dir}'", "12 task.train.run: `train` does not wait for `late`");
    check_run("'{train.dir}'", "12 task.train.run: `train` can't name its own folder like that");
    check_run(
        "'{one.dirs} {many.dirs}'",
        "12 task.train.run: a string has room for one list of folders, and `{one.dirs}` is there already",
    );
    check_run(
        "['x', '--in={many.dirs}']",
        "12 task.train.run[1]: `{many.dirs}` must be an item of its own",
    );
    check_run("'''\n{lr}\n{nope}'''", "14 task.train.run: unknown placeholder `{nope}`");
    check(
        "name = 'x'\n[task.1st]\nrun = 'x'\n[task.t]\nafter = '1st'\nrun = 'cat {1st.dir}/x'",
        "6 task.t.run: `1st` can't be named in a placeholder",
    );
}
