//! Experiments are found: by filters, by words, and by what their notes changed.

use serde_json::{Value, json};

use crate::fake::FakeSlurm;
use crate::support::{World, text};

/// A home of four experiments that are over: two models, one of which failed.
pub(crate) fn home() -> (World, [String; 4]) {
    let world = World::new();
    let ids = [
        submit(
            &world,
            "digits-small",
            "gpt",
            "[\"paper\"]",
            "lr = [0.1, 0.01]\nwidth = [16, 32]",
            "true",
        ),
        submit(
            &world,
            "digits-big",
            "vit",
            "[\"paper\", \"big\"]",
            "lr = 0.5\nwidth = { int = [1, 60] }",
            "true",
        ),
        submit(
            &world,
            "letters",
            "gpt",
            "[]",
            "lr = 0.001\noptimizer = { name = \"adam\", beta = 0.9 }",
            "false",
        ),
        submit(&world, "letters", "mlp", "[\"big\"]", "", "true"),
    ];
    for id in &ids {
        world.run(&["wait", id]);
    }
    (world, ids)
}

fn submit(world: &World, name: &str, model: &str, tags: &str, params: &str, run: &str) -> String {
    world.write(
        "exp.toml",
        &format!(
            "name = \"{name}\"\ndescription = \"{model} on {name}\"\ntags = {tags}\n\
             metadata = {{ model = \"{model}\", depth = {}, data = {{ source = \"wiki\" }} }}\n\
             [executor.here]\nkind = \"local\"\nparallel = 8\n\
             [task.train]\nrun = \"{run}\"\n[task.train.params]\n{params}\n",
            model.len() + name.len()
        ),
    );
    world.ok(&["submit", "exp.toml"])
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.ok(arguments)).unwrap()
}

/// The ids that a command shows, in order.
pub(crate) fn found(world: &World, arguments: &[&str]) -> Vec<String> {
    let shown = json_of(world, &[arguments, &["--json"]].concat());
    let rows = shown["experiments"].as_array().unwrap();
    rows.iter().map(|row| text(&row["id"])).collect()
}

#[test]
fn filters_are_joined_by_and() {
    let (world, ids) = home();
    let check = |arguments: &[&str], expected: &[usize]| {
        let expected: Vec<&String> = expected.iter().map(|place| &ids[*place]).collect();
        let found = found(&world, &[&["list"], arguments].concat());
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{arguments:?}");
    };
    check(&[], &[3, 2, 1, 0]);
    check(&["--state", "failed"], &[2]);
    check(&["--state", "failed,completed", "--tag", "paper"], &[1, 0]);
    check(&["--tag", "paper", "--tag", "big"], &[1]);
    check(&["--name", "digits-*"], &[1, 0]);
    check(&["--name", "letters"], &[3, 2]);
    check(&["--where", "model=gpt"], &[2, 0]);
    check(&["--where", "metadata.model=gpt", "--state", "completed"], &[0]);
    check(&["--where", "data.source=wiki", "-n", "1"], &[3]);
    check(&["--where", "lr<0.05"], &[2, 0]);
    check(&["--where", "lr>0.01"], &[1, 0]);
    check(&["--where", "params.lr>0.01", "--where", "params.lr<0.1"], &[]);
    check(&["--where", "lr=1e-2", "--where", "width=32"], &[0]);
    check(&["--where", "width=47"], &[1]);
    check(&["--where", "width=47.5"], &[]);
    check(&["--where", "optimizer.name=adam"], &[2]);
    check(&["--where", "depth>=14", "--where", "depth<100"], &[0]);
    check(&["--since", "1h"], &[3, 2, 1, 0]);
    check(&["--since", "2020-01-01", "--name", "*big"], &[1]);
    check(&["--since", "2999-01-01"], &[]);
    check(&["--sort", "name"], &[1, 0, 3, 2]);
    check(&["--sort", "-created", "-n", "2"], &[0, 1]);
    check(&["--sort", "trials"], &[1, 0, 3, 2]);
    check(&["--sort", "metadata.depth"], &[3, 2, 1, 0]);
    check(&["--cached", "--tag", "big", "-n", "0"], &[3, 1]);
    let all = json_of(&world, &["list", "--tag", "paper", "-n", "1", "--json"]);
    assert_eq!(all["counts"], json!({ "completed": 2 }), "counts are of all that match");
    let printed = world.run(&["list", "--tag", "paper", "-n", "1"]);
    assert!(printed.stderr.contains("2 of 4 experiments: 2 completed"), "{printed:?}");
    assert!(printed.stdout.contains("paper big"), "{printed:?}");
}

#[test]
fn filters_open_nothing_that_is_over() {
    let (world, _) = home();
    world.ok(&["list"]);
    for arguments in [
        &["list", "--tag", "paper"][..],
        &["list", "--where", "lr<0.05", "--where", "width=16"],
        &["list", "--sort", "ended", "--state", "failed", "-n", "0", "--json"],
    ] {
        assert_eq!(crate::list::opened(&world, arguments), Vec::<String>::new(), "{arguments:?}");
    }
}

#[test]
fn a_trial_meets_all_conditions_of_its_task() {
    let world = World::new();
    let trials = (0..40).map(|n| format!("{{ a = {}, b = \"w{n}\" }}", f64::from(n) / 8.0));
    let trials = trials.collect::<Vec<_>>().join(", ");
    world.write(
        "exp.toml",
        &format!(
            "name = \"list\"\n[executor.here]\nkind = \"local\"\nparallel = 16\n[task.t]\nrun = \"true\"\nsearch.trials = [{trials}]\n"
        ),
    );
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let check = |wheres: &[&str], expected| {
        let options = wheres.iter().flat_map(|condition| ["--where", condition]);
        let found = found(&world, &["list"].into_iter().chain(options).collect::<Vec<_>>());
        assert_eq!(found == [id.as_str()], expected, "{wheres:?}: {found:?}");
    };
    check(&["a=0.125"], true);
    check(&["a=0.126"], false);
    check(&["b=w39"], true);
    check(&["b=w40"], false);
    check(&["a=0.125", "b=w1"], true);
    check(&["a=0.125", "b=w2"], false);
    check(&["a>0.125", "a<0.25"], false);
    // Trials that can't be read are named, and stop nothing.
    let path = world.experiment(&id).join("tasks/t/trials.jsonl");
    std::fs::write(&path, "{\"trial\":0,\"params\":{\"a\":0.125,\"b\":\"w1\"}}\n{\n").unwrap();
    let printed = world.run(&["list", "--where", "b=w1"]);
    assert!(
        printed.code == 0 && printed.stderr.contains("1 line of its `trials.jsonl`"),
        "{printed:?}"
    );
}

#[test]
fn a_wrong_filter_names_its_option_and_shows_an_example() {
    let world = World::new();
    for (option, value, example) in [
        ("--state", "broken", "--state failed,timeout"),
        ("--where", "lr", "--where 'params.lr<0.01'"),
        ("--since", "yesterday", "--since 2d"),
        ("--sort", "colour", "--sort name"),
        ("--tag", "", "--tag paper"),
        ("--name", "", "--name 'digits-*'"),
        ("--name", "digits[", "--name 'digits-[12]*'"),
    ] {
        let printed = world.run(&["list", option, value]);
        assert_eq!(printed.code, 2, "{printed:?}");
        assert!(printed.stderr.contains(option) && printed.stderr.contains(example), "{printed:?}");
        let printed = world.run(&["list", option, value, "--json"]);
        let error: Value = serde_json::from_str(&printed.stdout).unwrap();
        assert_eq!(error["error"]["exit_code"], 2);
        assert!(text(&error["error"]["message"]).contains(example), "{error}");
    }
}

#[test]
fn what_matches_nothing_is_told_why() {
    let (world, _) = home();
    let check = |arguments: &[&str], expected: &str| {
        let arguments = [&["list"], arguments].concat();
        let printed = world.run(&arguments);
        assert_eq!(printed.code, 0, "{printed:?}");
        let hint = if expected.is_empty() { String::new() } else { format!("hint: {expected}\n") };
        assert_eq!(printed.stderr, format!("0 of 4 experiments\n{hint}"), "{arguments:?}");
        let json = json_of(&world, &[&arguments[..], &["--json"]].concat());
        let hints = if expected.is_empty() { Value::Null } else { json!([expected]) };
        assert_eq!(json["hints"], hints, "{arguments:?}");
    };
    check(
        &["--where", "modle=gpt"],
        "no experiment has the key `modle` in its metadata or parameters; the closest is `model`",
    );
    check(
        &["--where", "metadata.width>1"],
        "no experiment has the key `width` in its metadata; the keys are `data.source`, `depth`, `model`",
    );
    check(&["--where", "lr>1000"], "");
    check(&["--where", "optimizer.name=sgd"], "");
    check(&["--tag", "papre"], "no experiment has the tag `papre`; the closest is `paper`");
    check(
        &["--name", "digits"],
        "`--name` must fit the whole name: `nemo-slurm list --name '*digits*'` finds 2",
    );
    check(
        &["--name", "leters"],
        "no experiment has `leters` in its name; the closest is `letters`",
    );
    check(&["--name", "letters", "--state", "pending"], "");
    let found = json_of(&world, &["list", "--name", "letters", "--json"]);
    assert_eq!(found["hints"], Value::Null);
}

#[test]
fn the_best_follows_the_goal_of_each_metric() {
    let world = World::new();
    let submit = |goal: &str, value: &str| {
        let file = format!(
            "name = \"b\"\n[task.t]\nrun = \"echo score: {value}\"\n\
             metrics = {{ score = 'score: (\\S+)' }}\nsearch = {{ metric = \"score\", goal = \"{goal}\" }}\n"
        );
        world.write("exp.toml", &file);
        world.ok(&["submit", "exp.toml", "--wait"])
    };
    let [low, high] = ["1", "2"].map(|value| submit("min", value));
    let [bad, good] = ["0.5", "9"].map(|value| submit("max", value));
    let order = |sort: &str| found(&world, &["list", "--sort", sort]);
    let expected = [&low, &high, &good, &bad];
    assert_eq!(order("best").iter().collect::<Vec<_>>(), expected);
    let reversed: Vec<&String> = expected.into_iter().rev().collect();
    assert_eq!(order("-best").iter().collect::<Vec<_>>(), reversed);
    let where_it_is = world.run(&["list", "--where", "score>1"]);
    assert!(where_it_is.stderr.contains("`score` is a metric"), "{where_it_is:?}");
}

#[test]
fn words_find_experiments_and_the_best_come_first() {
    let (world, ids) = home();
    let check = |arguments: &[&str], expected: &[usize]| {
        let expected: Vec<&String> = expected.iter().map(|place| &ids[*place]).collect();
        let found = found(&world, &[&["search"], arguments].concat());
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{arguments:?}");
    };
    // In the index, and before they are in it.
    for _ in 0..2 {
        check(&["LETTERS"], &[3, 2]);
        check(&["big"], &[1, 3]); // a word of the name and a tag, or a tag alone: of equals the newest
        check(&["digits"], &[1, 0]);
        check(&["digits", "gpt"], &[0]);
        check(&["train", "--state", "failed"], &[2]);
        check(&["model=vit"], &[1]);
        check(&["lr=0.01"], &[0]);
        check(&["width=47"], &[1]);
        check(&["adam"], &[2]);
        check(&["adam", "vit"], &[]);
        check(&["wiki", "-n", "2", "--sort", "name"], &[1, 0]);
    }
    world.ok(&["note", &ids[3], "Needs a second look: \"loss\" spikes"]);
    check(&["spikes"], &[3]);
    check(&["\"loss\""], &[3]);
    let long = "word ".repeat(2000) + "needle";
    world.ok(&["note", &ids[2], &long]);
    check(&["needle"], &[2]);
    assert_eq!(world.run(&["search"]).code, 2);
    assert_eq!(world.run(&["search", " "]).code, 2);
}

/// What a shell is answered for a line whose last word is being typed.
pub(crate) fn completed(world: &World, line: &[&str]) -> Vec<String> {
    let index = line.len().to_string();
    let mut command = world.command(&[&["--", "nemo-slurm"], line].concat());
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", &index).env("_CLAP_IFS", "\n");
    let output = crate::support::printed(&command.output().unwrap());
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_experiments_tasks_and_trials() {
    let (world, ids) = home();
    std::fs::create_dir(world.path("home/experiments/$(reboot)-1sevmcy9")).unwrap();
    let names = ["letters", "digits-big", "digits-small"];
    let all = completed(&world, &["status", ""]);
    assert_eq!(all[..4], ["@", names[0], names[1], names[2]], "{all:?}");
    assert_eq!(all[4..8], [ids[3].clone(), ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    assert!(all.iter().all(|candidate| !candidate.contains('$')), "{all:?}");
    assert_eq!(completed(&world, &["cancel", "digits-b"]), ["digits-big", &ids[1]]);
    assert_eq!(completed(&world, &["note", "digits-big/"]), ["digits-big/train"]);
    let trials = completed(&world, &["logs", "digits-big/train/3,5"]);
    assert_eq!(
        trials[..3],
        ["digits-big/train/3,5", "digits-big/train/3,50", "digits-big/train/3,51"]
    );
    assert_eq!(completed(&world, &["submit", "--continue", "let"])[0], "letters");
    assert_eq!(completed(&world, &["list", "--state", "fa"]), ["failed"]);
    let retried = completed(&world, &["retry", "@", "--state", ""]);
    assert_eq!(retried, ["failed", "timeout", "cancelled"], "no other is taken");
    assert_eq!(completed(&world, &["sear"]), ["search"]);
    assert!(completed(&world, &["status", "digits-big/nothing/"]).is_empty());
    let elsewhere = world.path("elsewhere");
    let others = completed(&world, &["--home", elsewhere.to_str().unwrap(), "status", ""]);
    assert!(others.iter().all(|candidate| candidate.starts_with('-')), "{others:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(world.ok(&["completions", shell]).contains("COMPLETE"), "{shell}");
    }
}

/// `@` is never what Slurm refused, here as in every command.
#[test]
fn after_a_refusal_a_mistake_in_a_file_tells_what_is_still_meant() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let file = "name = \"one\"\n[executor.c]\nkind = \"slurm\"\n[task.train]\nrun = \"true\"\n";
    world.write("exp.toml", file);
    let first = world.ok(&["submit", "exp.toml"]);
    let refuses = "#!/bin/sh\necho 'sbatch: error: Batch job submission failed: Invalid partition' >&2\nexit 1\n";
    std::fs::write(world.path("bin/sbatch"), refuses).unwrap();
    assert_ne!(world.run(&["submit", "exp.toml"]).code, 0);
    world.write("bad.toml", "name = \n");
    let bad = world.run(&["submit", "bad.toml"]);
    let still = format!("nothing was submitted: `@` is still `{first}`");
    assert!(bad.stderr.contains(&still), "{bad:?}");
    assert_eq!(world.status("@")["experiment"]["id"], first.as_str());
}
