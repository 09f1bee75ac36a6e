//! `compare`: in what experiments, tasks and trials differ.

use serde_json::{Value, json};

use crate::support::World;

const FILE: &str = "name = \"compared\"\nmetadata = { model = \"vit\" }\n\
                    [task.prep]\nrun = \"true\"\n\
                    [task.train]\nafter = [\"prep\"]\nrun = \"echo loss={lr}\"\nparams.lr = [0.3, 0.1, 0.2]\n\
                    params.model.width = 8\nmetrics.loss = 'loss=(\\S+)'\n";

fn submit(world: &World, more: &[&str]) -> String {
    world.write("exp.toml", FILE);
    world.ok(&[&["submit", "exp.toml", "--wait"], more].concat())
}

fn compare(world: &World, targets: &[&str]) -> Value {
    let text = world.ok(&[&["compare", "--json"], targets].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn experiments_stand_for_their_best_trial_or_the_median() {
    let world = World::new();
    let median = submit(&world, &[]);
    let best = submit(
        &world,
        &["--set", "task.train.search.metric=loss", "--set", "task.train.params.model.width=16"],
    );
    let found = compare(&world, &[&median, &best]);
    assert_eq!((&found["schema"], &found["warnings"]), (&json!(1), &json!([])));
    let stands =
        |id: &str| (found["trials"][id]["trial"].clone(), found["trials"][id]["why"].clone());
    assert_eq!(stands(&median), (json!(2), json!("the median of 3 trials by loss")));
    assert_eq!(stands(&best), (json!(1), json!("the best of 3 trials by loss")));
    let different = &found["config"]["different"];
    assert_eq!(different["task.train.params.lr"], json!({ &median: 0.2, &best: 0.1 }));
    assert_eq!(different["task.train.params.model.width"], json!({ &median: 8, &best: 16 }));
    assert_eq!(different["task.train.search.metric"], json!({ &median: null, &best: "loss" }));
    let spaces = &found["config"]["search_space"];
    assert_eq!(spaces, &json!({ "task.train.params.model.width": { &median: 8, &best: 16 } }));
    let common = &found["config"]["common"];
    assert_eq!(
        (&common["metadata.model"], &common["task.prep.run"]),
        (&json!("vit"), &json!("true"))
    );
    assert_eq!(common.get("task.train.params.lr"), None);
    let loss = &found["metrics"]["loss"];
    assert_eq!(loss["values"], json!({ &median: 0.2, &best: 0.1 }), "{loss:#}");
    assert_eq!((&loss["min"], &loss["max"]), (&json!(0.1), &json!(0.2)));
    assert!((loss["mean"].as_f64().unwrap() - 0.15).abs() < 1e-9);
    let text = world.ok(&["compare", &median, &best]);
    for part in ["the median of 3 trials", "task.train.params.lr", "METRIC", "in common"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn trials_differ_in_their_parameters_only() {
    let world = World::new();
    let id = submit(&world, &[]);
    let found = compare(&world, &["@/train/0", "@/train/1"]);
    let (first, second) = (format!("{id}/train/0"), format!("{id}/train/1"));
    let expected = json!({ "task.train.params.lr": { &first: 0.3, &second: 0.1 } });
    assert_eq!(found["config"]["different"], expected, "{found:#}");
    assert_eq!(found["config"]["common"]["task.train.params.model.width"], 8);
    assert_eq!(found["config"]["common"].get("task.prep.run"), None);
    assert_eq!(found["config"]["search_space"], json!({}));
    let same = world.run(&["compare", "@", &id]);
    assert!(same.code == 2 && same.stderr.contains("named already"), "{same:?}");
    assert_eq!(world.run(&["compare", "@"]).code, 2);
    assert_eq!(world.run(&["compare", "@", "nothing"]).code, 3);
}
