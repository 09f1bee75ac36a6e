//! `list` and the summaries that it shows: what is opened, what is asked, and what damage does to it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::fake::FakeSlurm;
use crate::support::{World, printed, text};

/// A local experiment of so many trials.
fn submit(world: &World, name: &str, trials: u32) -> String {
    let last = trials - 1;
    world.write(
        "exp.toml",
        &format!(
            "name = \"{name}\"\ntags = [\"one\"]\n[metadata]\nmodel = \"gpt\"\n[task.only]\nrun = \"echo loss: {{x}}\"\n\
             [task.only.params]\nx = {{ int = [0, {last}] }}\n[task.only.search]\nmethod = \"grid\"\nmetric = \"loss\"\n\
             goal = \"min\"\n[task.only.metrics]\nloss = 'loss: (\\d+)'\n"
        ),
    );
    let id = world.ok(&["submit", "exp.toml"]);
    world.ok(&["wait", &id]);
    id
}

fn list(world: &World, more: &[&str]) -> Value {
    let arguments = [&["list", "--json"], more].concat();
    serde_json::from_str(&world.ok(&arguments)).unwrap()
}

/// The only file of the index.
fn index(world: &World) -> PathBuf {
    let entries = std::fs::read_dir(world.path("home/index")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// The files that a command opens in folders of experiments, without those folders themselves.
pub(crate) fn opened(world: &World, arguments: &[&str]) -> Vec<String> {
    let log = world.path("strace.log");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=open,openat,openat2,statx,stat,newfstatat", "-o"]).arg(&log);
    command.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(arguments);
    world.surround(&mut command);
    let end = printed(&command.output().unwrap());
    assert_eq!(end.code, 0, "{end:?}");
    let calls = std::fs::read_to_string(log).unwrap();
    calls.lines().filter(|line| line.contains("/experiments/")).map(str::to_owned).collect()
}

#[test]
fn what_is_over_is_never_looked_into_again() {
    let world = World::new();
    let ids = [submit(&world, "few", 2), submit(&world, "more", 40)];
    let first = list(&world, &[]);
    assert_eq!(opened(&world, &["list"]), Vec::<String>::new());
    assert_eq!(opened(&world, &["list", "-n", "0", "--json"]), Vec::<String>::new());
    assert_eq!(list(&world, &[]), first);
    let rows = first["experiments"].as_array().unwrap();
    let shown: Vec<String> = rows.iter().map(|row| text(&row["id"])).collect();
    assert_eq!(shown, [ids[1].clone(), ids[0].clone()]);
    assert_eq!(first["counts"], serde_json::json!({ "completed": 2 }));
    let newest = &rows[0];
    assert_eq!(newest["trials"], serde_json::json!({ "completed": 40 }), "{newest:#}");
    assert_eq!(
        newest["best"],
        serde_json::json!({ "task": "only", "trial": 0, "metric": "loss", "value": 0.0, "goal": "min" })
    );
    assert_eq!((&newest["tags"][0], &newest["metadata"]["model"]), (&"one".into(), &"gpt".into()));
    assert!(newest["ended"].as_f64() > newest["created"].as_f64(), "{newest:#}");
    assert_eq!(newest["dir"], world.experiment(&ids[1]).to_string_lossy().as_ref());
}

#[test]
fn the_index_and_the_summaries_may_be_deleted_or_damaged() {
    let world = World::new();
    let id = submit(&world, "lost", 3);
    let without_age = |mut list: Value| {
        list["experiments"][0].as_object_mut().unwrap().remove("as_of");
        list
    };
    let whole = without_age(list(&world, &[]));
    let folder = world.path("home/index");
    for is_summary in [false, true] {
        // Where there is an index, nobody reads the summary.
        let path = || {
            if is_summary {
                drop(std::fs::remove_dir_all(&folder));
                world.experiment(&id).join("summary.json")
            } else {
                index(&world)
            }
        };
        std::fs::remove_file(path()).unwrap();
        assert_eq!(without_age(list(&world, &[])), whole, "without {}", path().display());
        // One that lies is known by its checksum.
        let text = std::fs::read_to_string(path()).unwrap();
        assert!(text.contains("\"completed\""), "{text}");
        std::fs::write(path(), text.replace("completed", "cancelled")).unwrap();
        assert_eq!(without_age(list(&world, &[])), whole, "with a false {}", path().display());
        std::fs::write(path(), text.get(..20).unwrap()).unwrap();
        assert_eq!(without_age(list(&world, &[])), whole, "with half of {}", path().display());
    }
    std::fs::remove_dir_all(world.experiment(&id)).unwrap();
    assert_eq!(list(&world, &[])["experiments"], serde_json::json!([]));
}

#[test]
fn a_damaged_experiment_is_a_row_beside_the_others() {
    let world = World::new();
    let ids = [submit(&world, "a", 1), submit(&world, "b", 1), submit(&world, "c", 1)];
    let broken = world.experiment(&ids[1]);
    std::fs::write(broken.join("experiment.json"), "{\"name\": \"b").unwrap();
    std::fs::remove_file(broken.join("summary.json")).unwrap();
    drop(std::fs::remove_dir_all(world.path("home/index")));
    for arguments in [&[][..], &["--cached"]] {
        let list = list(&world, arguments);
        assert_eq!(list["counts"], serde_json::json!({ "completed": 2, "damaged": 1 }));
        let row = &list["experiments"][1];
        assert_eq!((text(&row["id"]), text(&row["state"])), (ids[1].clone(), "damaged".to_owned()));
        assert!(text(&row["reason"]).contains("experiment.json"), "{row:#}");
    }
    let printed = world.run(&["list"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stdout.contains("damaged"), "{printed:?}");
    assert!(printed.stderr.contains("experiment.json"), "{printed:?}");
}

#[test]
fn slurm_is_asked_once_for_all_and_not_again_while_the_answer_is_new() {
    let fake = FakeSlurm::new(100);
    let world = &fake.world;
    world.write(
        "exp.toml",
        "name = \"s\"\n[executor.gpu]\nkind = \"slurm\"\n[task.only]\nrun = \"true\"\n",
    );
    for _ in 0..3 {
        world.ok(&["submit", "exp.toml"]);
    }
    let asked = |arguments: &[&str]| {
        let before = fake.calls("squeue");
        let list = list(world, arguments);
        assert_eq!(list["counts"], serde_json::json!({ "pending": 3 }), "{list:#}");
        fake.calls("squeue") - before
    };
    let first = fake.calls("squeue");
    assert_eq!(list(world, &["--cached"])["counts"].as_object().unwrap().len(), 1);
    assert_eq!(fake.calls("squeue"), first, "--cached asks nobody");
    assert_eq!(asked(&[]), 1);
    assert_eq!(asked(&[]), 0);
    assert_eq!(asked(&["--cached"]), 0);
    assert_eq!(fake.calls("sacct"), 0, "nothing has ended");
    // Nobody remembers anything.
    for entry in std::fs::read_dir(world.path("home/experiments")).unwrap() {
        std::fs::remove_file(entry.unwrap().path().join("summary.json")).unwrap();
    }
    assert_eq!(asked(&[]), 0, "the answer is kept, for whoever asks");
    std::fs::remove_dir_all(world.path("home/cache")).unwrap();
    for entry in std::fs::read_dir(world.path("home/experiments")).unwrap() {
        std::fs::remove_file(entry.unwrap().path().join("summary.json")).unwrap();
    }
    assert_eq!(asked(&[]), 1);
}

/// Experiments of one trial each, on the scripted Slurm.
fn submit_to(fake: &FakeSlurm, number: usize) -> Vec<String> {
    let text = "name = \"s\"\n[executor.gpu]\nkind = \"slurm\"\n[task.only]\nrun = \"true\"\n";
    fake.world.write("exp.toml", text);
    (0..number).map(|_| fake.world.ok(&["submit", "exp.toml"])).collect()
}

#[test]
fn poll_asks_one_question_for_all_and_none_where_nothing_is_open() {
    let fake = FakeSlurm::new(100);
    let asked = || {
        let before = (fake.calls("squeue"), fake.calls("sacct"));
        fake.world.ok(&["poll"]);
        (fake.calls("squeue") - before.0, fake.calls("sacct") - before.1)
    };
    submit(&fake.world, "local", 2);
    assert_eq!(asked(), (0, 0));
    submit_to(&fake, 5);
    assert_eq!(asked(), (1, 1), "nobody knows yet what they are");
    assert_eq!(asked(), (1, 0), "all of them wait");
    fake.answer("squeue", Some(&[]));
    assert_eq!(asked(), (1, 1), "none of them is in the queue");
}

#[test]
fn several_who_wait_share_one_question_in_ten_seconds() {
    let fake = FakeSlurm::new(100);
    let ids = submit_to(&fake, 4);
    let before = fake.calls("squeue");
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                let printed = fake.world.run(&["wait", id, "--timeout", "11s"]);
                assert_eq!(printed.code, 4, "{printed:?}");
            });
        }
    });
    let asked = fake.calls("squeue") - before;
    assert!((1..=2).contains(&asked), "{asked} times in 11 s");
}
