//! `metrics`: the values that trials reported, and those that are found in their logs.

use serde_json::{Value, json};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::support::World;

const FILE: &str = "name = \"series\"\n[task.train]\nrun = \"python3 train.py {seed}\"\n\
                    params.seed = [1, 2]\nrestart.crashes = 1\nmetrics = { step = 'step (\\d+)', loss = 'loss=(\\S+)' }\n";
/// It saves at step 2, crashes at step 3 once, and goes on from 2.
const PROGRAM: &str = "\
import os, sys
saved = os.environ.get('NEMO_RESUME_FROM')
start = int(open(saved + '/step').read()) if saved else 0
for step in range(start + 1, 5):
    print('step', step, f'loss={1 / step} acc: {step}%', flush=True)
    if step == 3 and not saved:
        sys.exit(1)
    if step == 2:
        folder = os.environ['NEMO_CHECKPOINT_DIR']
        os.makedirs(folder + '/step-2.tmp')
        open(folder + '/step-2.tmp/step', 'w').write('2')
        os.rename(folder + '/step-2.tmp', folder + '/step-2')
        import time; time.sleep(1.5)
";

fn world() -> World {
    let world = World::new();
    world.write("exp.toml", FILE);
    world.write("train.py", PROGRAM);
    world.ok(&["submit", "exp.toml", "--wait"]);
    world
}

fn rows(world: &World, more: &[&str]) -> Vec<Value> {
    let text = world.ok(&[&["metrics", "@/train/1", "--json"], more].concat());
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&shown["schema"], &shown["warnings"]), (&json!(1), &json!([])));
    shown["rows"].as_array().unwrap().clone()
}

fn told(rows: &[Value]) -> Vec<String> {
    let one = |row: &Value| {
        format!(
            "{} {} {}={}",
            row["attempt"],
            row["step"],
            row["metric"].as_str().unwrap(),
            row["value"]
        )
    };
    rows.iter().map(one).collect()
}

#[test]
fn values_are_told_once_over_all_attempts() {
    let world = world();
    let reported = rows(&world, &[]);
    let third = 1.0 / 3.0;
    let expected = [
        "0 1 loss=1.0".to_owned(),
        "0 2 loss=0.5".to_owned(),
        format!("1 3 loss={third}"),
        "1 4 loss=0.25".to_owned(),
    ];
    assert_eq!(told(&reported), expected);
    assert_eq!((&reported[0]["task"], &reported[0]["trial"]), (&json!("train"), &json!(1)));
    assert!(reported[0]["time"].as_f64().unwrap() > 1e9);
    assert_eq!(told(&rows(&world, &["-n", "1"])), ["1 4 loss=0.25"]);
    // The step is told by the task's own pattern, and step 3 of the attempt that crashed does not count.
    let found = rows(&world, &["--pattern", r"acc=acc: (\S+)"]);
    assert_eq!(told(&found), ["0 1 acc=1.0", "0 2 acc=2.0", "1 3 acc=3.0", "1 4 acc=4.0"]);
    assert_eq!(found[0]["time"], Value::Null);
    let csv = world.ok(&["metrics", "--format", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (9, "task,trial,attempt,step,time,metric,value"));
    assert!(lines[8].starts_with("train,1,1,4,") && lines[8].ends_with(",loss,0.25"), "{csv}");
    let table = world.ok(&["metrics", "@/train/0", "--metric", "loss"]);
    assert!(table.contains("METRIC") && table.lines().count() == 5, "{table}");
}

#[test]
fn a_parquet_file_has_the_rows_of_csv() {
    let world = world();
    let csv = world.ok(&["metrics", "@", "--format", "csv"]);
    let output = world.command(&["metrics", "@", "--format", "parquet"]).output().unwrap();
    let path = world.path("metrics.parquet");
    std::fs::write(&path, &output.stdout).unwrap();
    let file = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let row = |row: parquet::record::Row| {
        let cell = |(_, field): (&String, &Field)| match field {
            Field::Str(text) => text.clone(),
            Field::Null => String::new(),
            Field::Int(number) => number.to_string(),
            Field::Long(number) => number.to_string(),
            Field::Double(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        row.get_column_iter().map(cell).collect::<Vec<_>>().join(",")
    };
    let rows = file.get_row_iter(None).unwrap().map(|it| row(it.unwrap()));
    let expected: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    // One without rows is whole too.
    let none = ["metrics", "@", "--pattern", "x=y(.)", "--format", "parquet"];
    let empty = world.command(&none).output().unwrap();
    assert!(
        empty.status.success()
            && empty.stdout.starts_with(b"PAR1")
            && empty.stdout.ends_with(b"PAR1")
    );
    // Of a mistake nothing is written.
    let wrong = world.run(&["metrics", "@", "--metric", "los", "--format", "parquet"]);
    assert_eq!((wrong.code, wrong.stdout.len()), (3, 0), "{wrong:?}");
}

#[test]
fn what_was_done_again_is_told_once() {
    let world = world();
    let shown = world.run(&["metrics", "@"]);
    let said = shown.stderr.matches("2 steps of 2 trials").count();
    assert_eq!(said, 1, "{shown:?}");
    let json: Value = serde_json::from_str(&world.ok(&["metrics", "@", "--json"])).unwrap();
    assert_eq!(json["redone"], json!({ "trials": 2, "steps": 2 }));
}

#[test]
fn an_option_that_is_a_format_is_hinted() {
    let world = World::new();
    for verb in ["results", "metrics"] {
        let wrong = world.run(&[verb, "--csv"]);
        assert!(wrong.code == 2 && wrong.stderr.contains("write `--format csv`"), "{wrong:?}");
    }
}

#[test]
fn mistakes_are_told() {
    let world = world();
    let unknown = world.run(&["metrics", "@", "--metric", "los"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(
        unknown.stderr.contains("they reported `loss`") && unknown.stdout.is_empty(),
        "{unknown:?}"
    );
    let unknown = world.run(&["metrics", "@", "--metric", "los", "--json"]);
    let error: Value = serde_json::from_str(&unknown.stdout).unwrap();
    assert_eq!(error["error"]["exit_code"], 3, "{unknown:?}");
    let bad = world.run(&["metrics", "@", "--pattern", "loss=("]);
    assert!(bad.code == 2 && bad.stderr.contains("`loss`"), "{bad:?}");
    let none = world.run(&["metrics", "@", "--pattern", "x=y(.)"]);
    assert!(none.code == 0 && none.stderr.contains("No line of the logs fits"), "{none:?}");
    let empty = world.ok(&["metrics", "@", "--pattern", "x=y(.)", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&empty).unwrap()["rows"], json!([]));
}
