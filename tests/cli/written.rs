//! Metrics that programs write by themselves: event files of TensorBoard, `metrics.csv` of Lightning, `trainer_state.json`
//! of Transformers, W&B's offline files. Nothing of the program is changed for it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::World;

/// A training that is killed after step 5 and goes on from 3; each run has its own files, as with these libraries.
const PROGRAM: &str = "\
import json, os, struct, sys, time
def crc(data):
    value = 0xffffffff
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82f63b78 if value & 1 else 0)
    value ^= 0xffffffff
    return struct.pack('<I', (((value >> 15) | (value << 17)) + 0xa282ead8) & 0xffffffff)
def part(number, data): return bytes([number << 3 | 2, len(data)]) + data
def record(data):
    head = struct.pack('<Q', len(data))
    return head + crc(head) + data + crc(data)
def scalar(step, tag, value):
    simple = part(1, tag.encode()) + bytes([2 << 3 | 5]) + struct.pack('<f', value)
    return record(bytes([1 << 3 | 1]) + struct.pack('<d', time.time()) + bytes([2 << 3, step]) + part(5, part(1, simple)))
saved = os.environ.get('NEMO_RESUME_FROM')
start = int(open(saved + '/step').read()) if saved else 0
attempt = os.environ['NEMO_ATTEMPT']
results = os.environ['NEMO_DIR'] + '/artifacts'
for folder in ['tb/train', 'tb/validation', 'logs/version_' + attempt]:
    os.makedirs(results + '/' + folder, exist_ok=True)
writers = [open(f'{results}/tb/{name}/events.out.tfevents.{time.time():.0f}.{attempt}', 'wb') for name in ['train', 'validation']]
table = open(f'{results}/logs/version_{attempt}/metrics.csv', 'w')
table.write('epoch,step,lr,told\\n')
logs = os.environ['NEMO_CHECKPOINT_DIR'] + '/logs.tmp'
os.makedirs(logs)
staged = open(logs + '/metrics.csv', 'w')
staged.write('step,staged\\n')
sign = -1 if attempt == '0' else 1
for step in range(start + 1, 8):
    print('step', step, f'told={sign * step}', flush=True)
    for writer in writers:
        writer.write(scalar(step, 'epoch_loss', sign * step))
    writers[0].write(scalar(step, 'grad', sign * step))
    for writer in writers:
        writer.flush()
    table.write(f'0,{step},{sign * step},77\\n')
    table.flush()
    staged.write(f'{step},{step}\\n')
    staged.flush()
    if step in (3, 6):
        folder = os.environ['NEMO_CHECKPOINT_DIR'] + f'/step-{step}'
        os.makedirs(folder + '.tmp')
        history = [{'step': n, 'epoch': n / 7, 'eval_f1': n / 10} for n in range(1, step + 1)]
        json.dump({'global_step': step, 'log_history': history}, open(folder + '.tmp/trainer_state.json', 'w'))
        open(folder + '.tmp/step', 'w').write(str(step))
        os.rename(folder + '.tmp', folder)
        time.sleep(1.5)
    if step == 5 and not saved:
        writers[0].write(b'\\x30\\x00\\x00')
        os._exit(1)
";
const FILE: &str = "name = \"written\"\n[task.train]\nrun = \"python3 train.py\"\nrestart.crashes = 1\n\
                    search = { metric = \"grad\", goal = \"max\" }\n\
                    metrics = { step = 'step (\\d+)', told = 'told=(\\S+)' }\n";

fn world() -> World {
    let world = World::new();
    world.write("exp.toml", FILE);
    world.write("train.py", PROGRAM);
    world.ok(&["submit", "exp.toml", "--wait"]);
    world
}

fn artifacts(world: &World) -> PathBuf {
    let id = world.status("@")["experiment"]["id"].as_str().unwrap().to_owned();
    world.experiment(&id).join("tasks/train/trials/0/artifacts")
}

fn rows(world: &World, metric: &str) -> Vec<String> {
    let text = world.ok(&["metrics", "@", "--metric", metric, "--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["warnings"], json!([]), "{shown:#}");
    let row = |row: &Value| {
        let source = row["source"].as_str().unwrap();
        format!("{} {} {} {source}", row["attempt"], row["step"], row["value"])
    };
    shown["rows"].as_array().unwrap().iter().map(row).collect()
}

/// Steps 4 and 5 were done twice: they count as they were the second time.
fn expected(source: &str) -> Vec<String> {
    let row = |step: i32| {
        let (attempt, sign) = if step < 4 { (0, -1) } else { (1, 1) };
        format!("{attempt} {step} {}.0 {source}", sign * step)
    };
    (1..8).map(row).collect()
}

#[test]
fn files_of_trackers_are_read_in_place_and_what_was_done_again_counts_once() {
    let world = world();
    assert_eq!(rows(&world, "grad"), expected("tensorboard"));
    // Two writers use one tag: the folder tells them apart.
    assert_eq!(rows(&world, "train/epoch_loss"), expected("tensorboard"));
    assert_eq!(rows(&world, "validation/epoch_loss"), expected("tensorboard"));
    assert_eq!(rows(&world, "lr"), expected("lightning"));
    // Where it saves, only the last attempt's files are still there.
    assert_eq!(rows(&world, "staged"), [4, 5, 6, 7].map(|n| format!("1 {n} {n}.0 lightning")));
    // What the harness was told comes before a file of the same name.
    assert_eq!(rows(&world, "told"), expected("reported"));
    // The newest checkpoint has the whole history up to it.
    let history = rows(&world, "eval_f1");
    assert_eq!((history.len(), &*history[5]), (6, "1 6 0.6 transformers"));
    assert_eq!(history[2], "0 3 0.3 transformers");
    let text = world.ok(&["results", "@", "--json"]);
    let results: Value = serde_json::from_str(&text).unwrap();
    let metrics = &results["trials"][0]["metrics"];
    let grad =
        json!({ "last": 7.0, "best": 7.0, "step": 7, "best_step": 7, "source": "tensorboard" });
    assert_eq!((&metrics["grad"], &metrics["told"]["source"]), (&grad, &Value::Null));
    let drawn: Value = serde_json::from_str(&world.ok(&["plot", "@", "--json"])).unwrap();
    assert_eq!(drawn["metric"], "grad");
    assert_eq!(drawn["series"][0]["points"][6], json!({ "step": 7, "value": 7.0 }));
    // The only trial stands for all; with two, the better one by what the files say.
    let compared: Value =
        serde_json::from_str(&world.ok(&["compare", "@/train/0", "@/train", "--json"])).unwrap();
    assert_eq!(compared["metrics"]["grad"]["max"], 7.0, "{compared:#}");
    let table = world.ok(&["compare", "@/train/0", "@/train"]);
    assert!(table.contains("/train/0: train/0, named ("), "{table}");
    // That something was left out is said.
    let table = world.run(&["metrics", "@", "--metric", "grad"]);
    assert!(table.stderr.contains("2 steps of 1 trial"), "{table:?}");
}

#[test]
fn damage_is_named_and_the_rest_is_shown() {
    let world = world();
    let events = artifacts(&world).join("tb/train");
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&events).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut bytes = std::fs::read(&names[1]).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&names[1], &bytes).unwrap();
    let shown = world.run(&["metrics", "@", "--metric", "grad", "--json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let warnings = shown["warnings"].to_string();
    assert!(warnings.contains("is damaged: 1 record left out"), "{warnings}");
    assert_eq!(shown["rows"].as_array().unwrap().len(), 7);
    // The program's files are as they were.
    assert_eq!(std::fs::read(&names[1]).unwrap(), bytes);
}

/// As `tensorboardX`, the summaries of TensorFlow 2 and `wandb` wrote them (of the last only the history is kept).
#[test]
fn files_of_the_real_libraries_are_read() {
    let world = World::new();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/written");
    let run = format!("mkdir -p $NEMO_DIR/artifacts; cp {data}/* $NEMO_DIR/artifacts");
    world.write("exp.toml", &format!("name = \"real\"\n[task.train]\nrun = \"{run}\"\n"));
    world.ok(&["submit", "exp.toml", "--wait"]);
    // These files are older than the attempt that copied them.
    let shown: Value = serde_json::from_str(&world.ok(&["results", "@", "--json"])).unwrap();
    let metrics = &shown["trials"][0]["metrics"];
    let last = |name: &str| (metrics[name]["last"].clone(), metrics[name]["step"].clone());
    assert_eq!(last("loss"), (json!(0.25), json!(3)), "{metrics:#}");
    assert_eq!(last("acc"), (json!(0.75), json!(3)));
    assert_eq!(last("wloss"), (json!(1.0 / 3.0), json!(2)));
    assert_eq!(last("nested.a"), (json!(2.0), json!(2)));
    assert_eq!(metrics.as_object().unwrap().len(), 5, "{metrics:#}");
}

/// A program whose code was shipped works in a folder of its own: what it logs there is found, what was shipped is not.
#[test]
fn what_a_shipped_program_logs_in_its_working_folder_is_read() {
    let world = World::new();
    std::fs::create_dir(world.path("data")).unwrap();
    world.write("data/metrics.csv", "step,shipped\n1,5\n");
    world.write(
        "train.py",
        "import os\nos.makedirs('logs')\nopen('logs/metrics.csv', 'w').write('step,own\\n3,0.5\\n')\n",
    );
    let text = "name = \"shipped\"\n[package]\nfrom = \"folder\"\n[task.train]\nrun = \"python3 train.py\"\n";
    world.write("exp.toml", text);
    world.ok(&["submit", "exp.toml", "--wait"]);
    let text = world.ok(&["metrics", "@", "--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    let rows = shown["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["metric"], &rows[0]["step"]),
        (1, &json!("own"), &json!(3)),
        "{shown:#}"
    );
}

#[test]
fn a_metric_that_stands_in_own_files_alone_is_not_called_missing() {
    let world = World::new();
    let run = "mkdir -p $NEMO_DIR/artifacts; (echo step,loss; echo 1,0.5) >$NEMO_DIR/artifacts/metrics.csv";
    let file = format!("name = \"own\"\n[task.train]\nrun = \"{run}\"\nsearch.metric = \"loss\"\n");
    world.write("exp.toml", &file);
    world.ok(&["submit", "exp.toml", "--wait"]);
    let said = "`loss` of `train` is in Lightning's `metrics.csv` alone: `results` and `plot` show it, but only what is \
                reported tells the best trial";
    assert_eq!(world.status("@")["warnings"], json!([said]));
}
