//! What is said of tasks that are wrong: how they run, save and wait.

use super::*;

#[test]
fn saving() {
    check_task("checkpoint.every = 500", "4 task.t.checkpoint.every: `every` needs a unit");
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
        "4 task.t.checkpoint.signal: expected one of `USR1`, `USR2`, `TERM`, `INT`, `HUP`, `none`, found \"KILL\"",
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
    let steps = "did you mean \"10 steps\"?";
    check("task.u = { run = 'x', checkpoint.every = '10 stepz' }", steps);
    check("task.u = { run = 'x', checkpoint.every = '10stp' }", steps);
    let time = "write for example \"90s\", \"10min\", \"1h 30min\", \"2d\", \"01:30:00\" or \"1-12:00:00\"";
    check("task.u = { run = 'x', checkpoint.every = '10 fortnights' }", time);
    let keep = "did you mean `trial_latest`?";
    check("task.u = { run = 'x', checkpoint.keep.latest = 2 }", keep);
    let best = "did you mean `trial_best` or `experiment_best`?";
    check("task.u = { run = 'x', checkpoint.keep.best = 2 }", best);
    check("lr = 3", "did you mean `task.t.params.lr`?");
    check("[restart]\nhang = '5m'\ncrashes = 1", "did you mean `task.t.restart`?");
}

#[test]
fn other_people_s_words_are_understood() {
    let check = |line: &str, meant: &str| {
        let text = format!("name = 'x'\n[task.t]\nrun = 'x'\n{line}\n[task.u]\nrun = 'x'");
        let problems = read(&text).expect_err("the file has a mistake");
        let hint = format!("did you mean `{meant}`?");
        assert_eq!(problems.0[0].hint.as_ref(), Some(&hint), "in {text}");
    };
    for (word, meant) in
        [("lower", "min"), ("Higher", "max"), ("maximize", "max"), ("minimise", "min")]
    {
        check(&format!("search = {{ metric = 'a', goal = '{word}' }}"), meant);
    }
    let ends = [
        ("afterok", "ok"),
        ("success", "ok"),
        ("failure", "failed"),
        ("always", "any"),
        ("aftercorr", "each"),
    ];
    for (word, meant) in ends {
        check(&format!("after = {{ task = 'u', on = '{word}' }}"), meant);
    }
    let profiles = [
        ("huggingface", "transformers"),
        ("pytorch-lightning", "lightning"),
        ("torch", "torchrun"),
    ];
    for (word, meant) in profiles {
        check(&format!("profile = '{word}'"), meant);
    }
    check("launch = 'torch.distributed.run'", "torchrun");
}

#[test]
fn an_only_task_can_wait_for_none() {
    let problems = read("name = 'x'\n[task.t]\nrun = 'x'\nafter = 'prepare'").unwrap_err();
    assert_eq!(problems.0[0].hint.as_deref(), Some("`t` is the only task of this file"));
}

#[test]
fn launches() {
    check_task(
        "launch = 'mpirun'",
        "4 task.t.launch: expected one of `torchrun`, found \"mpirun\"",
    );
    check_task(
        "workers_per_node = 2",
        "4 task.t.workers_per_node: `workers_per_node` needs `launch`",
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
        "7 task.t.checkpoint.lead: the program would be asked to save 120 s before the end, but `time` of executor `e` is only 120 s",
    );
    check(
        "name = 'x'\ntimeout = '61s'\n[executor.e]\nkind = 'slurm'\n[task.t]\nrun = 'x'\ncheckpoint.lead = '61s'",
        "7 task.t.checkpoint.lead: the program would be asked to save 61 s before the end, but the experiment's `timeout` is only 61 s",
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
        "4 task.t.after[1]: `after` names `u` twice",
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
fn placeholders() {
    check_run("'{lrr}'", "12 task.train.run: unknown placeholder `{lrr}`");
    check_run("'{opt}'", "12 task.train.run: `{opt}` is a table of parameters");
    check_run("'{opt.gamma}'", "12 task.train.run: unknown placeholder `{opt.gamma}`");
    check_run("'{one}'", "12 task.train.run: `{one}` is a task");
    check_run(
        "'{many.dir}'",
        "12 task.train.run: `{many.dir}` is one folder, but `many` has 2 trials",
    );
    check_run(
        "'{many.result.lr}'",
        "12 task.train.run: `{many.result.lr}` is one value, but `many` has 2 trials",
    );
    check_run(
        "'{many.best.checkpoint}'",
        "12 task.train.run: `{many.best.checkpoint}` needs a metric that ranks the trials of `many`",
    );
    check_run("'{late.result.x}'", "12 task.train.run: `train` does not wait for `late`");
    check_run("'{late.best.dir}'", "12 task.train.run: `train` does not wait for `late`");
    check_run("'{nope.result.x}'", "12 task.train.run: unknown placeholder `{nope.result.x}`");
    check_run("'{one.best.model}'", "12 task.train.run: unknown placeholder `{one.best.model}`");
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

#[test]
fn placeholders_of_executors() {
    check(
        "name = 'x'\nexecutor.e = { kind = 'local', env.X = '{a.result.k} {{b.dir}} {c}' }\n[task.a]\nrun = 'x'\n[task.b]\nafter = 'a'\nrun = 'x'",
        "2 executor.e.env.X: for the task `a`: `a` can't name its own folder like that\n2 executor.e.env.X: for the task `a`: unknown placeholder `{c}`",
    );
    let check_executor = |keys: &str, said: &str| {
        let text = format!(
            "name = 'x'\nexecutor.e = {{ kind = 'local', {keys} }}\n[task.a]\nrun = 'x'\nparams.lr = 1\n[task.b]\nafter = 'a'\nrun = 'x'\nparams.lr = 1"
        );
        check(&text, said);
    };
    check_executor(
        "env.X = '{lr} {nope}'",
        "2 executor.e.env.X: for the task `a`: unknown placeholder `{nope}`",
    );
    check_executor(
        "setup = ['echo {dir}', 'load {x}']",
        "2 executor.e.setup[1]: for the task `a`: unknown placeholder `{x}`",
    );
    check_executor(
        "setup = \"cat <<'EOF'\\n{lr}\\nEOF\"",
        "2 executor.e.setup: `{lr}` stands in a text whose end mark is quoted: the shell fills nothing in there",
    );
    check(
        "name = 'x'\nexecutor.e = { kind = 'local', setup = 'x {a.dirs}' }\n[task.a]\nexecutor = 'local'\nrun = 'x'\n[task.b]\nexecutor = 'e'\nafter = 'a'\nrun = 'x'",
        "2 executor.e.setup: `{a.dirs}` is many folders, and no part of a line of `setup`",
    );
}

#[test]
fn what_touches_a_list_of_folders() {
    let said = "12 task.train.run: `{many.dirs}` stands for the folders of all trials: what touches it would be added to \
                the first or the last one only";
    for text in [
        "cat {many.dirs}/x",
        "cat /mnt{many.dirs}",
        "cat --in={many.dirs} x",
        "cat {many.dirs}\\\"/x\\\"",
        "cat \\\"{many.dirs}\\\"/x",
        "cat '{many.dirs}/x'",
        "cat <{many.dirs}",
        "cat {lr}{many.dirs}",
        "cat {many.dirs}{lr}",
        "cat <<EOF\\n{many.dirs}/x\\nEOF\\n",
    ] {
        check_run(&format!("\"{text}\""), said);
    }
}

#[test]
fn placeholders_that_no_shell_can_fill() {
    let check_run = |run: &str, said: &str| {
        let text = format!("name = 'x'\n[task.t]\nparams.v = 1\nrun = \"\"\"{run}\"\"\"");
        check(&text, said);
    };
    check_run(
        "cat <<'EOF'\n{v}\nEOF\n",
        "5 task.t.run: `{v}` stands in a text whose end mark is quoted: the shell fills nothing in there",
    );
    check_run(
        "echo `a \\\\`b {v}\\\\``",
        "4 task.t.run: `{v}` stands in backticks that hold a backslash",
    );
    check_run("echo $'{v}'", "4 task.t.run: `{v}` stands in `$'…'`");
}

#[test]
fn tiers_that_no_node_has() {
    check(
        "name = 'x'\n[task.t]\nrun = 'x'\ncheckpoint.tier = 'shm'",
        "4 task.t.checkpoint.tier: \"shm\" is no folder of the node",
    );
    check(
        "name = 'x'\n[executor.e]\nkind = 'slurm'\nnodes = 2\n[task.t]\nrun = 'x'\ncheckpoint.tier = '/dev/shm'",
        "7 task.t.checkpoint.tier: a tier is memory of one node, but executor `e` has `nodes = 2`",
    );
}

#[test]
fn trackers_that_are_not_known() {
    let check_tracker = |tracker: &str, said: &str| {
        check(&format!("name = 'x'\n[task.t]\nrun = 'x'\ntracker = {tracker}"), said);
    };
    check_tracker(
        "'wand'",
        "4 task.t.tracker: expected one of `wandb`, `mlflow`, `tensorboard`, `aim`, found \"wand\"",
    );
    check_tracker("['aim', 'aim']", "4 task.t.tracker[1]: `tracker` names it twice");
    check_tracker(
        "3",
        "4 task.t.tracker: expected one of `wandb`, `mlflow`, `tensorboard`, `aim`, found the integer 3",
    );
}

#[test]
fn an_external_checkpointer() {
    let check_keys = |keys: &str, said: &str| {
        check(&format!("name = 'x'\n[task.t]\nrun = 'x'\n[task.t.checkpoint]\n{keys}"), said);
    };
    check_keys("command = []", "5 task.t.checkpoint.command: the command is empty");
    check_keys(
        "command = 3",
        "5 task.t.checkpoint.command: expected a string or a list of strings, found the integer 3",
    );
    check_keys(
        "command = 'x'\nsignal = 'USR1'",
        "6 task.t.checkpoint.signal: `command` takes the checkpoints, so no signal asks for them",
    );
    check_keys(
        "resume = ['x', '{nope}']",
        "5 task.t.checkpoint.resume[1]: unknown placeholder `{nope}`",
    );
}
