//! What is said of executors that are wrong.

use super::*;

#[test]
fn executors() {
    check_top("name = 'x'\n[executor.e]", "2 executor.e: `executor.e` has no `kind`");
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'slrum'",
        "3 executor.e.kind: expected one of `slurm`, `local`, found \"slrum\"",
    );
    check_top(
        "name = 'x'\n[executor.e]\nkind = 'container'\nimage = 'x'",
        "3 executor.e.kind: `kind = \"container\"` is not supported yet",
    );
    check_top(
        "name = 'x'\n[executor.'a b']\nkind = 'local'",
        "2 executor.a b: \"a b\" can't be a name: it contains a space",
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

/// At the top of a file `executor` is the table of them, and no choice.
#[test]
fn a_name_at_the_top_is_told_where_it_belongs() {
    let at_top = |name: &str| format!("name = 'x'\nexecutor = '{name}'");
    check_top(
        &at_top("slrum"),
        "2 executor: there is no executor `slrum`, and its name does not stand here",
    );
    check_top(
        &at_top("slurm"),
        "2 executor: a name of an executor does not stand at the top of the file",
    );
    let hint = |name: &str| {
        let problems = read(&(at_top(name) + "\n[task.t]\nrun = 'x'")).unwrap_err();
        problems.0[0].hint.clone().unwrap()
    };
    assert!(hint("slrum").starts_with("did you mean `slurm`?"), "{}", hint("slrum"));
    assert!(hint("slurm").contains("below `[defaults]`"), "{}", hint("slurm"));
}

/// The same where the file defines executors: TOML allows no value and table of one name.
#[test]
fn a_name_at_the_top_beside_tables_is_told_where_it_belongs() {
    let beside = |name: &str| {
        format!("name = 'x'\nexecutor = '{name}'\n[executor.s]\nkind = 'slurm'\n[executor.fast]")
    };
    check_top(
        &beside("slrum"),
        "2 executor: `executor` has a value here, and is a table on line 3",
    );
    for (name, meant) in [("slrum", "s"), ("fast", "fast"), ("fsat", "fast")] {
        let problems = read(&(beside(name) + "\nkind = 'local'\n[task.t]\nrun = 'x'")).unwrap_err();
        let hint = problems.0[0].hint.clone().unwrap();
        let expected =
            format!("write `executor = \"{meant}\"` below `[defaults]`, or in a task, instead");
        assert_eq!((problems.0.len(), hint), (1, expected), "{name}");
    }
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
        "nodes = '2-4'",
        "4 executor.e.nodes: a trial has a fixed number of nodes, not a range",
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
fn gpus_are_asked_for_once() {
    check_slurm(
        "gpus_per_node = 4\nsbatch.gres = 'license:1,gpu:h100:4'",
        "4 executor.e.gpus_per_node: GPUs are requested twice: here, and in `sbatch.gres`",
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
    refused("parsable", "nemo-slurm reads what `sbatch` prints");
    refused("wrap", "the script is made from `run`");
    refused("kill-on-invalid-dep", "it is made from `after`");
    refused("chdir", "programs run in the folder of the experiment's file");
    refused("nodes", "it has a key of its own, `nodes`");
    refused("ntasks", "it is made from `nodes` and `tasks_per_node`");
    for option in ["arra", "clus", "tes", "wai", "part", "gpus-per-n"] {
        refused(option, "it is an abbreviated option"); // sbatch would take it
    }
    let wait =
        "`sbatch` would not return before the jobs are over; `nemo-slurm submit --wait` waits";
    refused("wait", wait);
    for option in ["uid", "gid"] {
        refused(option, "jobs are submitted as yourself");
    }
    for option in ["help", "usage", "version"] {
        refused(option, "`sbatch` would only print information, and submit nothing");
    }
    refused("input", "programs have no standard input");
    refused("export-file", "programs inherit your environment; `env` adds to it");
    refused("tasks-per-node", "the executor has the key `tasks_per_node` for it");
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
        "4 executor.e.sbatch.mem_per_cpu: `mem-per-cpu` is given twice",
    );
}

#[test]
fn what_no_program_can_be_given() {
    let long = "x".repeat(128 * 1024);
    check_slurm(
        &format!("env.A = '{long}'"),
        "4 executor.e.env.A: the variable has 131074 bytes, more than Linux passes to a program",
    );
    check_slurm(
        &format!("setup = ['{long}']"),
        "4 executor.e.setup: the lines have 131073 bytes, more than Linux passes to a program",
    );
}

#[test]
fn a_number_alone_is_minutes_only_where_sbatch_reads_it() {
    let minutes = "`sbatch --time=90` are minutes: write `time = \"90min\"`";
    let problem = |line: &str| {
        let text = format!("name = 'x'\n[executor.e]\nkind = 'slurm'\n{line}\n[task.t]\nrun = 'x'");
        read(&text).unwrap_err().to_string()
    };
    check_slurm("time = 90", "4 executor.e.time: a duration needs a unit");
    check_slurm("time = '90'", "4 executor.e.time: a duration needs a unit");
    assert!(problem("time = 90").contains(minutes) && problem("time = '90'").contains(minutes));
    assert!(
        problem("sbatch.time-min = 'soon'").contains("a number alone are minutes, as for `sbatch`")
    );
    for (given, passed_on) in
        [("90", "90"), ("'90'", "90"), ("'90:00'", "90:00"), ("'1h 30min'", "01:30:00")]
    {
        let text = format!(
            "name = 'x'\n[executor.e]\nkind = 'slurm'\nsbatch.time_min = {given}\n[task.t]\nrun = 'x'"
        );
        let experiment = read(&text).unwrap();
        let crate::experiment::Executor::Slurm(slurm) = &experiment.executors["e"] else {
            panic!()
        };
        assert_eq!(slurm.sbatch["time-min"], passed_on);
    }
}

#[test]
fn what_is_exported() {
    let exported = |value: &str| {
        let text = format!(
            "name = 'x'\n[executor.e]\nkind = 'slurm'\nsbatch.export = '{value}'\n[task.t]\nrun = 'x'"
        );
        let experiment = read(&text).unwrap();
        let crate::experiment::Executor::Slurm(slurm) = &experiment.executors["e"] else {
            panic!()
        };
        assert!(slurm.sbatch.is_empty(), "the tool hands the variables on itself");
        (slurm.surroundings.export.clone(), slurm.surroundings.env.clone())
    };
    let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    let set = |name: &str| [(name.to_owned(), "1".to_owned())].into();
    assert_eq!(exported("ALL"), (None, [].into()));
    assert_eq!(exported("NONE"), (names(&[]), [].into()));
    assert_eq!(exported("NIL"), (names(&[]), [].into()));
    assert_eq!(exported("ALL,A=1"), (None, set("A")));
    assert_eq!(exported("B, A=1"), (names(&["B"]), set("A")));
    check_slurm(
        "sbatch.export = 'A B'",
        "4 executor.e.sbatch.export: \"A B\" can't be the name of an environment variable",
    );
    check_slurm(
        "env = { A = '2' }\nsbatch.export = 'A=1'",
        "5 executor.e.sbatch.export: `A` is in `export`, and in `env` or `secrets`",
    );
}

#[test]
fn one_cluster() {
    for value in ["a,b", "all", "a b", "é"] {
        let said = "4 executor.e.sbatch.clusters: `clusters` must be the name of one cluster";
        check_slurm(&format!("sbatch.clusters = '{value}'"), said);
    }
}

#[test]
fn all_tasks_are_on_one_cluster() {
    let file = |other: &str| {
        format!(
            "name = 'x'\n[executor.a]\nkind = 'slurm'\nsbatch.clusters = 'a'\n[executor.b]\nkind = 'slurm'\n{other}\n\
             [task.t]\nexecutor = 'a'\nrun = 'x'\n[task.u]\nexecutor = 'b'\nrun = 'x'"
        )
    };
    check(&file("sbatch.clusters = 'b'"), "11 task.u: `u` and `t` are on different clusters");
    check(&file("nodes = 1"), "11 task.u: `u` and `t` are on different clusters");
    let experiment = read(&file("sbatch.clusters = 'a'")).unwrap();
    assert_eq!(experiment.cluster(), Some("a"));
}

#[test]
fn which_executor() {
    let two = "name = 'x'\n[executor.a]\nkind = 'local'\n[executor.b]\nkind = 'slurm'\n";
    check(
        &format!("{two}[task.t]\nrun = 'x'"),
        "6 task.t: no executor is chosen, and the file defines several: `a`, `b`",
    );
    check_task("executor = 'slrum'", "4 task.t.executor: there is no executor `slrum`");
    let own = "name = 'x'\n[executor.local]\nenv = { 'A B' = '1' }\n[task.t]\nexecutor = 'local'\nrun = 'x'\n";
    check(own, "3 executor.local.env.A B: \"A B\" can't be the name of an environment variable");
}
