//! Why trials failed, in their programs' own words.

use serde_json::{Value, json};

use crate::cluster;
use crate::support::{World, trials};

const FILE: &str = "name = \"fails\"\n[task.train]\nrun = \"python3 train.py {n}\"\n\
                    restart.crashes = 0\nparams.n = [0, 1, 2, 3]\n\
                    [task.quiet]\nrun = \"echo step 3; exit 3\"\nrestart.crashes = 0\n";
const PROGRAM: &str = "\
import sys
n = int(sys.argv[1])
print('step', n)
if n < 2:
    try:
        {}['lr']
    except KeyError as error:
        raise ValueError(f'loss is nan at step {n}') from error
if n == 2:
    sys.stderr.write('x' * 50 + '\\n')
    sys.stderr.write('\\n'.join(f'line {i}' for i in range(200000)) + '\\n')
    import no_such_module
";

#[test]
fn failed_trials_tell_why_and_equal_errors_are_shown_once() {
    let world = World::new();
    world.write("exp.toml", FILE);
    world.write("train.py", PROGRAM);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let status = world.status("@");
    let train = trials(&status, "train");
    let error = &train[1]["error"];
    assert_eq!(error["class"], "nan", "{error:#}");
    assert_eq!(error["message"], "ValueError: loss is nan at step 1");
    assert_eq!(error["node"], train[1]["attempts"][0]["node"]);
    let traceback = error["traceback"].as_str().unwrap();
    assert!(traceback.starts_with("Traceback (most recent call last):"), "{traceback}");
    assert!(
        traceback.contains("KeyError: 'lr'") && traceback.ends_with("at step 1"),
        "{traceback}"
    );
    let lines: Vec<&Value> = error["lines"].as_array().unwrap().iter().collect();
    assert_eq!(lines[lines.len() - 1], "ValueError: loss is nan at step 1");
    let far = &train[2]["error"];
    assert_eq!(far["class"], "missing_module", "{far:#}");
    assert_eq!(far["lines"].as_array().unwrap().len(), 20);
    assert_eq!((&train[3]["state"], &train[3]["error"]), (&json!("completed"), &Value::Null));
    let quiet = &trials(&status, "quiet")[0]["error"];
    assert_eq!((&quiet["class"], &quiet["traceback"]), (&json!("crash"), &Value::Null));
    assert!(quiet["message"].as_str().unwrap().contains("exited with code 3"), "{quiet:#}");
    let text = world.ok(&["status"]);
    assert_eq!(text.matches("loss is nan").count(), 1, "{text}");
    assert!(text.contains("train, trials 0-1: ") && text.contains("nan (train.py:8)"), "{text}");
    assert!(text.contains("missing_module (train.py:12)"), "{text}");
}

/// Rank 3 fails by itself, and the others because it is gone.
const RANKS: &str = "\
import os, sys, time
if sys.argv[1] == 'memory':
    raise MemoryError('no room')
if os.environ['RANK'] == '3':
    raise ValueError('shard 3 is empty')
time.sleep(1)
raise ConnectionResetError('peer is gone')
";

#[test]
fn of_several_processes_the_first_that_failed_tells_why() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    world.write("ranks.py", RANKS);
    let text = "name = \"ranks\"\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"\n\
                sbatch = { nodelist = \"n2,n4\" }\nnodes = 2\ntasks_per_node = 2\n\
                [task.train]\nrun = \"python3 ranks.py {how}\"\nrestart.crashes = 0\nparams.how = [\"rank\", \"memory\"]\n\
                [task.lost]\nrun = \"no_such_program\"\nrestart.crashes = 0\n";
    world.write("exp.toml", text);
    world.run(&["submit", "exp.toml", "--wait"]);
    let status = world.status("@");
    let error = &trials(&status, "train")[0]["error"];
    assert_eq!(error["message"], "ValueError: shard 3 is empty", "{status:#}");
    assert_eq!((&error["class"], &error["node"]), (&json!("crash"), &json!("n4")), "{error:#}");
    assert!(error["traceback"].as_str().unwrap().contains("ranks.py\", line 5"), "{error:#}");
    let memory = &trials(&status, "train")[1]["error"];
    assert_eq!(memory["class"], "out_of_memory", "{memory:#}");
    let lost = &trials(&status, "lost")[0]["error"];
    assert_eq!(lost["class"], "bad_configuration", "{lost:#}");
    assert!(lost["message"].as_str().unwrap().contains("no_such_program"), "{lost:#}");
}
