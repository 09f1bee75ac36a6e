//! `results`: what trials came to, and which values of parameters fail.

use serde_json::{Value, json};

use crate::support::World;

const FILE: &str = "name = \"swept\"\n[task.train]\nrun = \"python3 train.py {lr} {width}\"\n\
                    restart.crashes = 0\nparams.lr = [0.1, 5.0]\nparams.width = [8, 16]\n\
                    search.metric = \"loss\"\nmetrics = { step = 'step (\\d+)', loss = 'loss=(\\S+)' }\n";
const PROGRAM: &str = "\
import os, sys
lr, width = float(sys.argv[1]), int(sys.argv[2])
for step, loss in enumerate([0.5, 0.2, 0.3], 1):
    print('step', step, f'loss={loss + width}', flush=True)
folder = os.environ['NEMO_DIR'] + '/artifacts'
os.makedirs(folder + '/plots', exist_ok=True)
open(folder + '/plots/a.txt', 'w').write('x' * width)
if lr > 1:
    raise ValueError('loss is nan')
";

fn world() -> World {
    let world = World::new();
    world.write("exp.toml", FILE);
    world.write("train.py", PROGRAM);
    assert_eq!(world.run(&["submit", "exp.toml", "--wait"]).code, 1);
    world
}

fn results(world: &World, more: &[&str]) -> Value {
    serde_json::from_str(&world.ok(&[&["results", "@", "--json"], more].concat())).unwrap()
}

#[test]
fn trials_have_their_metrics_artifacts_and_errors() {
    let world = world();
    let shown = results(&world, &["--hash"]);
    assert_eq!((&shown["schema"], shown["trials"].as_array().unwrap().len()), (&json!(1), 4));
    let first = &shown["trials"][0];
    assert_eq!((&first["task"], &first["trial"]), (&json!("train"), &json!(0)));
    assert_eq!(first["state"], "completed", "{first:#}");
    assert_eq!(first["params"], json!({ "lr": 0.1, "width": 8 }));
    let loss = json!({ "last": 8.3, "best": 8.2, "step": 3, "best_step": 2 });
    assert_eq!(first["metrics"], json!({ "loss": loss }));
    assert_eq!((&first["checkpoint"], &first["error"]), (&Value::Null, &Value::Null));
    let artifact = &first["artifacts"][0];
    assert_eq!((&artifact["name"], &artifact["bytes"]), (&json!("plots/a.txt"), &json!(8)));
    assert_eq!(artifact["hash"], blake3::hash(b"xxxxxxxx").to_hex().as_str());
    assert!(std::path::Path::new(artifact["path"].as_str().unwrap()).is_file());
    let failed = &shown["trials"][2];
    assert_eq!((&failed["state"], &failed["error"]["class"]), (&json!("failed"), &json!("nan")));
    assert_eq!(results(&world, &[])["trials"][0]["artifacts"][0].get("hash"), None);
    let csv = world.ok(&["results", "@/train/0,2", "--format", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    let title = "task,trial,state,params.lr,params.width,metrics.loss.last,metrics.loss.best,metrics.loss.step,";
    assert!(lines[0].starts_with(title), "{csv}");
    assert!(lines[1].starts_with("train,0,completed,0.1,8,8.3,8.2,3,"), "{csv}");
    assert!(lines[2].ends_with("plots/a.txt,nan,ValueError: loss is nan"), "{csv}");
    let table = world.ok(&["results"]);
    assert!(table.contains("loss=8.3 (best 8.2 at 2)") && table.contains("nan"), "{table}");
    // Damage is told, and the rest is shown.
    let metrics =
        world.experiment(shown["id"].as_str().unwrap()).join("tasks/train/trials/0/metrics.jsonl");
    std::fs::write(&metrics, std::fs::read_to_string(&metrics).unwrap().replacen('{', "[", 1))
        .unwrap();
    let damaged = world.run(&["results", "@/train/0"]);
    assert!(damaged.code == 0 && damaged.stderr.contains("1 line is ignored"), "{damaged:?}");
    assert_eq!(world.run(&["results", "nothing", "--json"]).code, 3);
}

#[test]
fn a_value_that_fails_is_told_from_a_stable_one() {
    let world = world();
    let shown = results(&world, &["--by-parameter"]);
    let told: Vec<String> = shown["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            format!(
                "{}={} {} {}",
                line["parameter"], line["value"], line["outcome"], line["errors"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#""lr"=0.1 "stable" {}"#,
            r#""lr"=5.0 "fails" {"nan":2}"#,
            r#""width"=8 "mixed" {"nan":1}"#,
            r#""width"=16 "mixed" {"nan":1}"#,
        ]
    );
    let metric = &shown["parameters"][2]["metric"];
    assert_eq!((&metric["name"], &metric["mean"]), (&json!("loss"), &json!(8.2)));
    let table = world.ok(&["results", "--by-parameter"]);
    assert!(table.contains("fails") && table.contains("2 nan"), "{table}");
    assert!(table.contains("BEST OF") && !table.contains("METRIC"), "{table}");
    let csv = world.ok(&["results", "--by-parameter", "--format", "csv"]);
    assert!(csv.contains("train,lr,5.0,fails,2,0,2,loss,"), "{csv}");
}

#[test]
fn yes_and_no_are_1_and_0_in_every_view() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"flags\"\n[task.train]\nrun = \"python3 train.py\"\nsearch.metric = \"flag\"\n",
    );
    world.write(
        "train.py",
        "import os, socket\n\
         speak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         speak.connect(os.environ['NEMO_SOCKET'])\n\
         for step, flag in enumerate(['false', 'true'], 1):\n    \
         speak.send(b'STEP=%d\\nMETRICS={\"flag\":%s,\"phase\":\"warm\"}' % (step, flag.encode()))\n",
    );
    world.ok(&["submit", "exp.toml", "--wait"]);
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&world.ok(&[arguments, &["@", "--json"]].concat())).unwrap()
    };
    let status = json(&["status"]);
    assert_eq!(status["tasks"][0]["trials"][0]["metrics"], json!({ "flag": 1 }), "{status:#}");
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("train/0: `phase` is no number and is not kept"), "{warning}");
    let summary = json!({ "last": 1.0, "best": 0.0, "step": 2, "best_step": 1 });
    assert_eq!(json(&["results"])["trials"][0]["metrics"], json!({ "flag": summary }));
    let points = json!([{ "step": 1, "value": 0.0 }, { "step": 2, "value": 1.0 }]);
    assert_eq!(json(&["plot"])["series"][0]["points"], points);
    let csv = world.ok(&["metrics", "--format", "csv"]);
    let values: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').nth(6)).collect();
    assert_eq!(values, ["0", "1"], "{csv}");
    assert!(world.ok(&["status"]).contains("flag=1"));
    assert!(world.ok(&["results"]).contains("flag=1 (best 0 at 1)"));
}

#[test]
fn trials_that_differ_look_different() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"close\"\n[task.train]\nrun = \"echo loss=0.123456\"\nparams.lr = [0.000123456, 0.000123457]\n\
         params.seed = [20261130, 20261131]\nparams.kind = [\"a\\nb\", \"c\"]\nmetrics.loss = 'loss=(\\S+)'\n",
    );
    world.ok(&["submit", "exp.toml", "--wait"]);
    for verb in ["status", "results"] {
        let shown = world.ok(&[verb]);
        for lr in ["0.000123456", "0.000123457"] {
            for seed in ["20261130", "20261131"] {
                assert!(shown.contains(&format!("kind=a\\nb lr={lr} seed={seed}")), "{shown}");
            }
        }
        assert!(shown.contains("loss=0.1235"), "{shown}");
    }
    let drawn = world.ok(&["plot", "--x", "lr", "--x", "kind"]);
    assert!(drawn.contains("0.000123456") && drawn.contains("0.000123457"), "{drawn}");
    assert!(drawn.contains("a\\nb") && !drawn.contains("a\nb"), "{drawn}");
}

#[test]
fn a_pattern_is_blamed_only_where_the_program_ran_and_only_for_the_target() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"blamed\"\n[executor.here]\nkind = \"local\"\nparallel = 4\n\
         [task.train]\nrun = \"python3 train.py {mode}\"\nrestart.crashes = 0\n\
         params.mode = [\"right\", \"import\", \"wrong\", \"late\"]\n\
         metrics = { step = 'step (\\d+)', loss = 'loss=(\\S+)' }\n\
         [task.other]\nrun = \"true\"\n",
    );
    world.write(
        "train.py",
        "import sys\nmode = sys.argv[1]\n\
         if mode == 'import':\n    import no_such_module\n\
         print('step 1' if mode != 'wrong' else 'Step: 1', 'loss=1' if mode == 'right' else '')\n\
         if mode == 'late':\n    import no_such_module\n",
    );
    assert_eq!(world.run(&["submit", "exp.toml", "--wait"]).code, 1);
    let warnings = |arguments: &[&str]| -> Vec<String> {
        let shown: Value =
            serde_json::from_str(&world.ok(&[arguments, &["--json"]].concat())).unwrap();
        serde_json::from_value(shown["warnings"].clone()).unwrap()
    };
    let all = warnings(&["status", "@"]);
    assert!(all.len() == 1 && all[0].starts_with("train/2,3: no line"), "{all:#?}");
    for verb in ["status", "results", "resources"] {
        assert_eq!(warnings(&[verb, "@/train/0,1"]), [""; 0], "{verb}");
        assert_eq!(warnings(&[verb, "@/other"]), [""; 0], "{verb}");
        let own = warnings(&[verb, "@/train/1,2"]);
        assert!(own.len() == 1 && own[0].starts_with("train/2: no line"), "{verb}: {own:#?}");
    }
    assert_eq!(warnings(&["compare", "@/train/0", "@/train/1"]), [""; 0]);
    assert_eq!(
        warnings(&["compare", "@/train/1", "@/train/2"]),
        warnings(&["status", "@/train/2"])
    );
    assert_eq!(warnings(&["compare", "@/train", "@"]).len(), 1);
}
