//! `plot`: curves over steps and parameters against a metric, in a terminal, as a picture and as points.

use serde_json::{Value, json};

use crate::support::World;

const FILE: &str = "name = \"drawn\"\n[task.train]\nrun = \"python3 train.py {lr} {model.kind}\"\n\
                    params.lr = [0.01, 0.1, 1]\nparams.model.kind = [\"cnn\", \"mlp\"]\n\
                    search = { metric = \"loss\", goal = \"min\" }\n\
                    metrics = { step = 'step (\\d+)', acc = 'acc=(\\S+)', loss = 'loss=(\\S+)' }\n";
const PROGRAM: &str = "\
import sys
lr, kind = float(sys.argv[1]), sys.argv[2]
for step in range(1, 21):
    print('step', step, f'acc={step / 20} loss={1 / step / lr if step != 7 else float(\"nan\")}', flush=True)
";

fn world() -> World {
    let world = World::new();
    world.write("exp.toml", FILE);
    world.write("train.py", PROGRAM);
    world.ok(&["submit", "exp.toml", "--wait"]);
    world
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    let text = world.ok(&[&["plot"], arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn curves_and_parameters_are_drawn() {
    let world = world();
    let shown = json_of(&world, &["@"]);
    assert_eq!((&shown["metric"], &shown["x"]), (&json!("loss"), &json!("step")), "{shown}");
    let series = shown["series"].as_array().unwrap();
    assert_eq!((series.len(), &series[0]["trial"]), (6, &json!(0)));
    assert_eq!(series[0]["params"], json!({ "lr": 0.01, "model": { "kind": "cnn" } }));
    // The value of step 7 has no place.
    assert_eq!(series[0]["points"].as_array().unwrap().len(), 19);
    assert_eq!(series[0]["points"][1], json!({ "step": 2, "value": 50.0 }));
    let drawn = world.run(&["plot", "@/train/0,2"]);
    assert!(drawn.stdout.starts_with("loss of drawn-"), "{drawn:?}");
    assert!(
        drawn.stdout.contains("o train/0 lr=0.01\n") && drawn.stdout.contains("x train/2 lr=0.1")
    );
    assert!(drawn.stderr.contains("2 values that are no finite numbers"), "{drawn:?}");
    let by_lr = json_of(&world, &["@", "--x", "lr", "--x", "model.kind"]);
    let first = &by_lr["series"][0];
    assert_eq!((&first["x"], &first["of"]), (&json!("lr"), &json!("best")));
    let point = &first["points"][5];
    assert_eq!(
        (&point["trial"], &point["x"], &point["value"]),
        (&json!(5), &json!(1), &json!(0.05))
    );
    assert_eq!(by_lr["series"][1]["points"][0]["x"], "cnn");
    let drawn = world.ok(&["plot", "@", "--x", "lr", "--x", "model.kind", "--metric", "acc"]);
    assert!(drawn.contains("best acc of drawn-") && drawn.contains("mlp"), "{drawn}");
    // Several targets, of which one is a trial.
    let two = json_of(&world, &["@/train/5", "drawn/train/0", "--metric", "acc"]);
    assert_eq!((&two["series"][0]["trial"], &two["series"][1]["trial"]), (&json!(5), &json!(0)));
}

#[test]
fn a_locale_without_more_gets_ascii_and_a_picture_has_all() {
    let world = world();
    let plain = |locale: &str| {
        let mut command = world.command(&["plot", "@", "--metric", "acc"]);
        let output = command.env_remove("LC_CTYPE").env("LC_ALL", locale).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(plain("C").is_ascii() && !plain("en_US.UTF-8").is_ascii(), "{}", plain("C"));
    assert!(plain("C").lines().all(|line| line.len() <= 120));
    let printed = world.run(&["plot", "@", "--svg", "loss.svg"]);
    assert!(printed.stdout.is_empty() && printed.stderr.contains("Wrote loss.svg"), "{printed:?}");
    let picture = std::fs::read_to_string(world.path("loss.svg")).unwrap();
    assert_eq!((picture.matches("<polyline").count(), picture.matches("</svg>").count()), (6, 1));
    let picture = world.ok(&["plot", "@", "--x", "lr", "--svg", "-"]);
    assert_eq!(picture.matches("<circle").count(), 6, "{picture}");
}

#[test]
fn what_is_not_there_is_named() {
    let world = world();
    let unknown = world.run(&["plot", "@", "--metric", "los"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("`acc`, `loss`"), "{unknown:?}");
    let unknown = world.run(&["plot", "@", "--x", "learning_rate"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("`lr`, `model.kind`"), "{unknown:?}");
    world.write("quiet.toml", "name = \"quiet\"\n[task.a]\nrun = \"true\"\n");
    world.ok(&["submit", "quiet.toml", "--wait"]);
    let nothing = world.run(&["plot"]);
    assert!(nothing.code == 0 && nothing.stderr.contains("No metric was reported"), "{nothing:?}");
    assert_eq!(json_of(&world, &["@"])["series"], json!([]));
}
