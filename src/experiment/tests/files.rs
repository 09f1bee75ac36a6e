//! What good files become: executors, order, defaults, and what the command line changes.

use std::path::Path;

use nemo_core::rundir::Profile;

use super::{FILE, WHOLE, good, overridden, trials};
use crate::experiment::{Executor, Override};

/// The executor of each task, in the order of the tasks.
#[track_caller]
fn check_executors(text: &str, forced: Option<&str>, expected: &str) {
    let experiment = overridden(text, &[], forced).unwrap_or_else(|problems| panic!("{problems}"));
    let found: Vec<String> =
        experiment.tasks.iter().map(|task| format!("{}@{}", task.name, task.executor)).collect();
    assert_eq!(found.join(" "), expected);
    let kept: Vec<&String> = experiment.executors.keys().collect();
    assert!(experiment.tasks.iter().all(|task| kept.contains(&&task.executor)));
}

#[test]
fn the_executor_of_a_task() {
    check_executors("name = 'x'\ntask.t.run = 'x'", None, "t@local");
    check_executors("name = 'x'\ntask.t.run = 'x'", Some("slurm"), "t@slurm");
    check_executors("name = 'x'\ndefaults.executor = 'slurm'\ntask.t.run = 'x'", None, "t@slurm");
    let one = "name = 'x'\nexecutor.gpu.kind = 'slurm'\n";
    check_executors(&format!("{one}task.t.run = 'x'"), None, "t@gpu");
    check_executors(&format!("{one}task.t = {{ run = 'x', executor = 'local' }}"), None, "t@local");
    check_executors(
        &format!("{one}task.t = {{ run = 'x', executor = 'local' }}"),
        Some("gpu"),
        "t@gpu",
    );
    let two = "name = 'x'\nexecutor.a.kind = 'slurm'\nexecutor.b.kind = 'local'\n";
    check_executors(&format!("{two}defaults.executor = 'b'\ntask.t.run = 'x'"), None, "t@b");
    check_executors(&format!("{two}task.t.run = 'x'"), Some("a"), "t@a");
    let mixed = format!(
        "{two}task.t = {{ run = 'x', executor = 'a' }}\ntask.u = {{ run = 'x', executor = 'b' }}"
    );
    check_executors(&mixed, None, "t@a u@b"); // nothing waits for anything
    check_executors(
        &format!("{mixed}\ntask.v = {{ run = 'x', executor = 'a', after = 'u' }}"),
        Some("b"),
        "t@b u@b v@b",
    );
}

#[test]
fn a_built_in_executor_can_be_defined_anew() {
    let experiment =
        good("name = 'x'\n[executor.local]\nkind = 'local'\nparallel = 3\n[task.t]\nrun = 'x'");
    let Executor::Local(local) = &experiment.executors["local"] else { panic!("{experiment:?}") };
    assert_eq!(local.parallel.map(std::num::NonZeroU32::get), Some(3));
}

#[test]
fn one_way_trial_by_trial_is_enough() {
    let each = |task: &str| format!("{{ task = '{task}', on = 'each' }}");
    let text = format!(
        "name = 'x'\n[task]\nmany = {{ run = 'x', params.a = [1, 2] }}\n\
         b = {{ run = 'x', params.a = [1, 2], after = {} }}\n\
         c = {{ run = 'x', params.a = [1, 2], after = 'many' }}\n\
         t = {{ run = '{{many.dir}}', params.a = [1, 2], after = [{}, {}] }}",
        each("many"),
        each("b"),
        each("c")
    );
    assert!(good(&text).graph().upstream("t")["many"]);
}

/// The order of tasks that are written as `name` or `name<other,other`.
#[track_caller]
fn check_order(tasks: &str, expected: &str) {
    let mut text = "name = 'x'\n".to_owned();
    for task in tasks.split(' ') {
        let (name, after) = task.split_once('<').unwrap_or((task, ""));
        let after: Vec<&str> = after.split(',').filter(|name| !name.is_empty()).collect();
        let line = format!("task.{name} = {{ run = 'x', after = {after:?} }}\n");
        text.push_str(&line);
    }
    let names: Vec<String> = good(&text).tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(names.join(" "), expected, "order of {tasks}");
}

#[test]
fn tasks_come_after_those_they_wait_for_and_else_as_written() {
    check_order("z y x", "z y x");
    check_order("a<b b", "b a");
    check_order("a<b b<c c", "c b a");
    check_order("d<b,c b<a c<a a", "a b c d");
    check_order("q p<z z a", "q z p a");
}

#[test]
fn what_a_file_may_say_in_several_ways() {
    let text = "name = 'x'\ntags = 'mlp'\nmetadata = { day = 2024-01-02, deep = { a = [1, 2.5] } }\n\
                [executor.e]\nkind = 'slurm'\ngpus_per_node = 'h100:8'\nmem = '8gb'\ntime = '1-00:00:00'\n\
                secrets = 'TOKEN'\nsetup = 'module load cuda'\nenv = { N = 4 }\n\
                sbatch = { mem_bind = 'local', exclusive = true, overcommit = false, nice = 10 }\n\
                [task.t]\nrun = 'x'";
    let experiment = good(text);
    assert_eq!(experiment.tags, ["mlp"]);
    let metadata = serde_json::to_string(&experiment.metadata).unwrap();
    assert_eq!(metadata, r#"{"day":"2024-01-02","deep":{"a":[1,2.5]}}"#);
    let Executor::Slurm(slurm) = &experiment.executors["e"] else { panic!("{experiment:?}") };
    assert_eq!(slurm.gpus_per_node.as_deref(), Some("h100:8"));
    assert_eq!((slurm.mem.as_deref(), slurm.time), (Some("8G"), Some(86_400)));
    assert_eq!(slurm.surroundings.secrets, ["TOKEN"]);
    assert_eq!(slurm.surroundings.setup, ["module load cuda"]);
    assert_eq!(slurm.surroundings.env["N"], "4");
    let options: Vec<String> = slurm.sbatch.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(options, ["exclusive=", "mem-bind=local", "nice=10"]);
}

#[test]
fn a_short_segment_leaves_half_of_itself() {
    let lead = |time: &str| {
        let text = format!("name = 'x'\n[executor.e]\nkind = 'slurm'\n{time}\n[task.t]\nrun = 'x'");
        good(&text).tasks[0].checkpoint.lead
    };
    assert_eq!(lead(""), 60);
    assert_eq!(lead("time = '4h'"), 60);
    assert_eq!(lead("time = '1m'"), 30);
    assert_eq!(lead("time = '1s'"), 0);
    let lead = |timeout: &str| {
        let text = format!(
            "name = 'x'\ntimeout = '{timeout}'\n[executor.e]\nkind = 'slurm'\ntime = '90s'\n[task.t]\nrun = 'x'"
        );
        good(&text).tasks[0].checkpoint.lead
    };
    assert_eq!((lead("1h"), lead("61s"), lead("3s")), (45, 30, 1), "the shorter end counts");
}

#[test]
fn a_profile_chooses_the_signal() {
    let task = |text: &str| {
        let text = format!("name = 'x'\n{text}");
        let task = good(&text).tasks.remove(0);
        (task.profile, task.checkpoint.signal)
    };
    let of = |profile: Option<Profile>, signal: &str| (profile, signal.to_owned());
    assert_eq!(task("task.t.run = 'x'"), of(None, "USR1"));
    let submitit = "defaults.profile = 'submitit'\n";
    assert_eq!(task(&format!("{submitit}task.t.run = 'x'")), of(Some(Profile::Submitit), "USR2"));
    let own = format!("{submitit}task.t = {{ run = 'x', profile = 'transformers' }}");
    assert_eq!(task(&own), of(Some(Profile::Transformers), "TERM"));
    let signal = format!("{submitit}task.t = {{ run = 'x', checkpoint.signal = 'HUP' }}");
    assert_eq!(task(&signal), of(Some(Profile::Submitit), "HUP"));
}

#[test]
fn commands_name_what_there_is() {
    let run = |run: &str| {
        let text = format!(
            "name = 'x'\n[task.one]\nrun = 'x'\n[task.many]\nafter = 'one'\nrun = 'x'\nparams.a = [1, 2]\n\
             [task.same]\nafter = {{ task = 'many', on = 'each' }}\nrun = 'x'\nparams.a = [1, 2]\n\
             [task.t]\nafter = {{ task = 'same', on = 'each' }}\nparams = {{ lr = [1, 2], opt.beta = 2, opt.seed = 1 }}\nrun = {run}"
        );
        good(&text)
    };
    run(
        "'{lr} {opt.beta} {opt.seed} {dir} {trial} {seed} {task} {experiment} {checkpoint_dir} {resume_from}'",
    );
    run("'{one.dir} {one.dirs}'"); // not directly
    run("'{same.dir} {many.dir}'"); // trial by trial, all the way
    run("'{many.dirs} {many.dirs}'");
    run("['x', '{many.dirs}', '{same.dirs}']");
    run("'(ls {many.dirs}; for d in {many.dirs};do cat $d/x; done)>x'");
    run(r#"'echo "all: {many.dirs}." `ls {many.dirs}`'"#); // one text, as a message
    run("'${HOME} ${nope} {{nope}} {} {a,b} {print $1}'");
    let experiment = run("'x'");
    let upstream: Vec<(&str, bool)> = experiment.graph().upstream("t").into_iter().collect();
    assert_eq!(upstream, [("many", true), ("one", false), ("same", true)]);
    assert!(experiment.graph().upstream("nope").is_empty());
}

#[test]
fn the_command_line_changes_the_file() {
    let changes = [
        "name=other",
        "seed=7",
        "task.train.search.concurrent=2",
        "task.train.params.lr=[0.5, 1]",
        "task.train.params.model.name=\"a=b\"",
        "executor.gpu.time=1h",
        "metadata.run=",
    ];
    let experiment = overridden(WHOLE, &changes, None).unwrap();
    assert_eq!((experiment.name.as_str(), experiment.seed), ("other", 7));
    assert_eq!(experiment.metadata["run"], "");
    let train = &experiment.tasks[1];
    assert_eq!(train.concurrent.map(std::num::NonZeroU32::get), Some(2));
    let trials = trials(WHOLE, "train", &changes);
    assert_eq!((train.n_trials, &trials[3]["lr"]), (4, &1.into()));
    assert_eq!(trials[0]["model"]["name"], "a=b");
    let Executor::Slurm(gpu) = &experiment.executors["gpu"] else { panic!("{experiment:?}") };
    assert_eq!(gpu.time, Some(3600));
    assert_eq!(experiment.workdir, Path::new(FILE).parent().unwrap());
}

#[test]
fn mistakes_of_the_command_line_are_shown_there() {
    let changes = [
        "task.trian.executor=gpu",
        "task.train.search.concurent=4",
        "task.train.params.lr=[]",
        "name.first=x",
        "task.evaluate.run=cat {nope}",
    ];
    let problems = overridden(WHOLE, &changes, Some("gpus")).unwrap_err();
    insta::assert_snapshot!(problems, @r##"
    error: there is no task `trian`
      --> the command line, key `task.trian.executor`
       |  --set task.trian.executor=gpu
       |        ^^^^^^^^^^^^^^^^^^^
    hint: did you mean `train`?

    error: unknown key `concurent`
      --> the command line, key `task.train.search.concurent`
       |  --set task.train.search.concurent=4
       |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean `concurrent`?

    error: an empty list leaves nothing to try
      --> the command line, key `task.train.params.lr`
       |  --set task.train.params.lr=[]
       |                             ^^
    hint: write for example `lr = [1, 2]`

    error: `name` is the string "digits", not a table with a key `first`
      --> the command line, key `name.first`
       |  --set name.first=x
       |        ^^^^^^^^^^

    error: unknown placeholder `{nope}`
      --> the command line, key `task.evaluate.run`
       |  --set task.evaluate.run=cat {nope}
       |                              ^^^^^^
    hint: add `nope` to the task's `params`, or write `{{nope}}` for a literal `{nope}`

    error: there is no executor `gpus`
      --> the command line
       |  --executor gpus
       |             ^^^^
    hint: did you mean `gpu`?
    "##);
}

#[test]
fn a_parameter_that_nothing_uses_is_not_added() {
    let file = |run: &str, params: &str| {
        format!("name = 'a'\n[task.train]\nrun = '{run}'\n[task.train.params]\n{params}")
    };
    let said = |file: &str, changes: &[&str]| match overridden(file, changes, None) {
        Ok(_) => String::new(),
        Err(problems) => {
            let problem = &problems.0[0];
            format!("{} | {}", problem.message, problem.hint.clone().unwrap_or_default())
        }
    };
    let rates = file("train {lr} {more.seed}", "lr = 1\nmore.seed = 2\n");
    let slip = ["task.train.params.lrr=3"];
    let hint = "did you mean `lr`? a new one must be in `run`, as `{lrr}`";
    assert_eq!(said(&rates, &slip), format!("`train` has no parameter `lrr` | {hint}"));
    let hint = "did you mean `more.seed`? a new one must be in `run`, as `{more.sed}`";
    let inner = ["task.train.params.more.sed=3"];
    assert_eq!(said(&rates, &inner), format!("`train` has no parameter `more.sed` | {hint}"));
    let hint = "the parameters are: `lr`, `more.seed`; a new one must be in `run`, as `{zzz}`";
    let other = ["task.train.params.zzz=3"];
    assert_eq!(said(&rates, &other), format!("`train` has no parameter `zzz` | {hint}"));
    // Known, or used, or all anew.
    assert_eq!(said(&rates, &["task.train.params.more.seed=[1, 2]"]), "");
    assert_eq!(said(&file("train {lr} {lrr}", "lr = 1\n"), &slip), "");
    assert_eq!(said(&rates, &["task.train.run=train {lrr}", slip[0]]), "");
    assert_eq!(said(&rates, &["task.train.params={ lr = 1, more = { seed = 1 }, lrr = 3 }"]), "");
    assert_eq!(said(&file("train {lrr}", ""), &slip), "");
    let all = ["task.train.params={ lrr = 3 }"];
    assert_eq!(said("name = 'a'\n[task.train]\nrun = 'train'\n", &all), "");
    // Where there is none yet, too.
    let none = "`train` has no parameter `lrr` | a new one must be in `run`, as `{lrr}`";
    assert_eq!(said(&file("train", ""), &slip), none);
    assert_eq!(said("name = 'a'\n[task.train]\nrun = 'train'\n", &slip), none);
}

#[test]
fn a_key_of_a_task_is_found_there() {
    let hint = |change: &str| {
        let problems = overridden(WHOLE, &[change], None).unwrap_err();
        problems.0[0].hint.clone().unwrap_or_default()
    };
    let three = "did you mean `task.evaluate.restart.hang` or `task.prepare.restart.hang` \
                 or `task.train.restart.hang`?";
    assert_eq!(hint("restart.hang=5m"), three);
    assert_eq!(hint("train.restart.hang=5m"), "did you mean `task.train.restart.hang`?");
    assert_eq!(hint("model.depth=3"), "did you mean `task.train.params.model.depth`?");
    assert_eq!(hint("seeed=3"), "did you mean `seed`?");
    let four = format!("{WHOLE}[task.more]\nrun = 'x'\n");
    let problems = overridden(&four, &["restart.hang=5m"], None).unwrap_err();
    let example = "it belongs to a task, as in `task.evaluate.restart.hang`";
    assert_eq!(problems.0[0].hint.as_deref(), Some(example));
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    assert_eq!(text.parse::<Override>().unwrap_err().to_string(), expected);
}

#[test]
fn what_is_no_override() {
    check_refused(
        "seed",
        "`seed` has no `=`: write KEY=VALUE, for example task.train.search.concurrent=4",
    );
    check_refused(
        "=1",
        "`` is not a key: write its parts with dots, for example task.train.params.lr",
    );
    check_refused(
        "a b=1",
        "`a b` is not a key: write its parts with dots, for example task.train.params.lr",
    );
    check_refused(
        "a..b=1",
        "`a..b` is not a key: write its parts with dots, for example task.train.params.lr",
    );
    check_refused("lr=[1, 2", "`[1, 2` is not a list: unclosed array, expected `]`");
    let long = format!("a{}", ".a".repeat(100));
    assert!(format!("{long}=1").parse::<Override>().is_err());
    assert!("metadata.\"a=b\".c=1".parse::<Override>().is_ok());
}

#[test]
fn line_breaks_of_any_editor() {
    let text = "name = 'x'\r\n[task.t]\r\nrun = \"\"\"\r\npython a.py\r\npython b.py\r\n\"\"\"\r\n";
    let experiment = good(text);
    let nemo_core::rundir::CommandSpec::Shell(run) = &experiment.tasks[0].run else { panic!() };
    assert_eq!(run, "python a.py\npython b.py\n");
    let said = super::read("name = 'x'\r\nseeed = 1\r\n[task.t]\r\nrun = 'x'").unwrap_err();
    assert_eq!((said.0[0].line, said.0[0].column), (Some(2), Some(1)));
}

#[test]
fn problems_have_fields_for_programs() {
    let problems = super::read("name = 'x'\nseeed = 1\n[task.t]\nrun = 'x'").unwrap_err();
    let json = serde_json::to_string(&problems.0).unwrap();
    assert_eq!(
        json,
        r#"[{"file":"/home/ada/digits/exp.toml","line":2,"column":1,"key":"seeed","message":"unknown key `seeed`","hint":"did you mean `seed`?"}]"#
    );
}

#[test]
fn the_examples_of_the_reference_are_right() {
    let reference = include_str!("../../../docs/exp-toml.md");
    let blocks: Vec<&str> = reference.split("```toml\n").skip(1).collect();
    assert_eq!(blocks.len(), 9);
    for block in blocks {
        let example = block.split("```").next().unwrap();
        let name = if example.starts_with("name") { "" } else { "name = 'x'\n" };
        good(&format!("{name}{example}"));
    }
}

#[test]
fn how_often_to_save_and_what_to_keep() {
    use nemo_core::rundir::{Every, Keep};
    let read = |text: &str| {
        let text = format!("name = 'x'\n[task.t]\nrun = 'x'\n{text}");
        good(&text).tasks[0].checkpoint.clone()
    };
    assert_eq!((read("").every, read("").keep), (None, Keep::default()));
    assert_eq!(read("checkpoint.every = '10m'").every, Some(Every::Seconds(600)));
    assert_eq!(read("checkpoint.every = 'auto'").every, Some(Every::Auto));
    assert_eq!(read("checkpoint.every = '500 steps'").every, Some(Every::Steps(500)));
    assert_eq!(read("checkpoint.every = '1 step'").every, Some(Every::Steps(1)));
    let keep = Keep { trial_latest: 1, trial_best: 0, experiment_best: 3 };
    assert_eq!(read("checkpoint.keep = { trial_best = 0, experiment_best = 3 }").keep, keep);
}
