//! `note`: what people say of an experiment, and what a list makes of it.

use std::process::Command;

use serde_json::{Value, json};

use crate::find::found;
use crate::support::{World, printed};

fn submit(world: &World) -> String {
    let text = "name = \"noted\"\ndescription = \"first\"\ntags = [\"draft\"]\nmetadata = { model = \"gpt\" }\n\
                [task.t]\nrun = \"true\"\n";
    world.write("exp.toml", text);
    world.ok(&["submit", "exp.toml", "--wait"])
}

fn row(world: &World) -> Value {
    let list: Value = serde_json::from_str(&world.ok(&["list", "--json"])).unwrap();
    list["experiments"][0].clone()
}

/// The notes of an experiment, oldest first.
pub(crate) fn files(world: &World, id: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(world.experiment(id).join("notes")).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    paths.into_iter().map(read).collect()
}

#[test]
fn a_note_changes_what_an_experiment_is_found_by() {
    let world = World::new();
    let id = submit(&world);
    world.ok(&["list"]);
    let options =
        ["--tag", "paper", "--untag", "draft", "--describe", "second", "--set", "model=vit"];
    let more = ["--set", "data.rows=3", "--set", "reviewed=true"];
    let arguments = [&["note", "@", "worth a look"][..], &options, &more].concat();
    let dry = world.ok(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(
        dry,
        "tags: +paper -draft\ndescription: second (before: first)\nmetadata.data.rows: 3 (before: none)\n\
         metadata.model: vit (before: gpt)\nmetadata.reviewed: true (before: none)"
    );
    assert_eq!(files(&world, &id).len(), 0);
    assert_eq!(row(&world)["tags"], json!(["draft"]));
    world.ok(&arguments);
    let noted = row(&world);
    assert_eq!((&noted["tags"], &noted["description"]), (&json!(["paper"]), &json!("second")));
    let metadata = json!({ "model": "vit", "data": { "rows": 3 }, "reviewed": true });
    assert_eq!(noted["metadata"], metadata);
    assert_eq!(found(&world, &["list", "--tag", "paper", "--where", "data.rows>2"]), [id.as_str()]);
    assert_eq!(found(&world, &["list", "--tag", "draft"]), Vec::<String>::new());
    // What is over is again not looked into.
    assert_eq!(crate::list::opened(&world, &["list", "--tag", "paper"]), Vec::<String>::new());
    // The same once more is not noted twice.
    let printed = world.run(&arguments);
    assert!(printed.code == 0 && printed.stderr.contains("Nothing to change"), "{printed:?}");
    assert_eq!(files(&world, &id).len(), 1);
    let removed = world.ok(&["note", &id, "--set", "data.rows=", "--describe", "", "--json"]);
    let removed: Value = serde_json::from_str(&removed).unwrap();
    assert_eq!(
        removed["note"]["change"]["metadata"]["data.rows"],
        json!({ "before": 3, "after": null })
    );
    assert_eq!(removed["description"], Value::Null);
    assert_eq!(row(&world)["metadata"]["data"], json!({}));
}

#[test]
fn a_note_of_one_that_runs_is_seen_at_once() {
    let world = World::new();
    world.write("exp.toml", "name = \"long\"\n[task.t]\nrun = \"sleep 600\"\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a start", |status| status["experiment"]["state"] == "running");
    world.ok(&["list"]);
    world.ok(&["note", "@", "--tag", "urgent"]);
    assert_eq!(found(&world, &["list", "--tag", "urgent", "--cached"]), [id.as_str()]);
    assert_eq!(row(&world)["tags"], json!(["urgent"]));
    world.ok(&["cancel", &id]);
    world.run(&["wait", &id]);
    assert_eq!(row(&world)["tags"], json!(["urgent"]));
}

#[test]
fn a_damaged_note_is_named_and_stops_nothing() {
    let world = World::new();
    let id = submit(&world);
    world.ok(&["note", "@", "--tag", "one"]);
    let folder = world.experiment(&id).join("notes");
    let first = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&first, "{\"time\":1").unwrap();
    let printed = world.run(&["note", "@", "--tag", "two"]);
    let name = first.to_string_lossy().into_owned();
    assert!(printed.code == 0 && printed.stderr.contains(&name), "{printed:?}");
    for _ in 0..2 {
        let printed = world.run(&["list"]);
        assert!(printed.code == 0 && printed.stderr.contains(&name), "{printed:?}");
        assert_eq!(row(&world)["tags"], json!(["draft", "two"]));
    }
}

#[test]
fn many_who_note_at_once_lose_nothing() {
    let world = World::new();
    let id = submit(&world);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for n in 0..4 {
                    world.ok(&["note", "@", "--tag", &format!("t{number}-{n}")]);
                    let (list, cached) = (["list", "--cached"], ["list", "--json"]);
                    world.ok(if n % 2 == 0 { &list } else { &cached });
                }
            });
        }
    });
    assert_eq!(files(&world, &id).len(), 32);
    assert_eq!(row(&world)["tags"].as_array().unwrap().len(), 33);
    assert_eq!(std::fs::read_dir(world.path("home/index/noted")).unwrap().count(), 0);
}

/// Kills a note before each of its system calls that change something, and then notes again.
#[test]
fn after_a_kill_nothing_is_lost_and_nothing_is_there_twice() {
    let world = World::new();
    let id = submit(&world);
    world.ok(&["list"]);
    std::fs::rename(world.path("home"), world.path("fresh")).unwrap();
    let arguments = ["note", "@", "a text", "--tag", "later"];
    let mut n_killed = 0;
    for call in ["mkdir", "openat", "write", "fsync", "rename"] {
        for number in 1.. {
            drop(std::fs::remove_dir_all(world.path("home")));
            let copied = Command::new("cp")
                .args(["-r"])
                .arg(world.path("fresh"))
                .arg(world.path("home"))
                .status();
            assert!(copied.unwrap().success());
            let mut command = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            command.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(arguments);
            world.surround(&mut command);
            let killed = printed(&command.output().unwrap());
            // A list in between may not make the next one forget it.
            world.ok(&["list"]);
            world.ok(&arguments);
            let all = files(&world, &id);
            assert_eq!(all.len(), 1, "{call} {number}: {all:?}");
            assert_eq!(all[0]["text"], "a text");
            assert_eq!(
                found(&world, &["list", "--tag", "later"]),
                [id.as_str()],
                "{call} {number}"
            );
            if killed.code == 0 {
                break;
            }
            n_killed += 1;
        }
    }
    assert!(n_killed > 10, "{n_killed}");
}

#[test]
fn what_can_not_be_noted_is_said() {
    let world = World::new();
    submit(&world);
    for (arguments, said) in [
        (&["note", "@"][..], "there is nothing to note"),
        (&["note", "@/t/0", "--tag", "x"], "those of a whole experiment"),
        (&["note", "@", "--tag", "a b"], "--tag paper"),
        (&["note", "@", "--set", "x"], "--set reviewed=true"),
        (&["note", "@", "--untag", ""], "--tag paper"),
    ] {
        let printed = world.run(arguments);
        assert_eq!(printed.code, 2, "{printed:?}");
        assert!(printed.stderr.contains(said), "{printed:?}");
    }
    world.ok(&["note", "@/t/0", "of one trial"]);
    assert_eq!(world.run(&["note", "nobody", "x"]).code, 3);
}

/// What a program says by message is found as if a person had noted it.
#[test]
fn a_program_notes_sets_metadata_and_keeps_files() {
    let world = World::new();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/python");
    world.write(
        "say.py",
        "import nemo_harness as nemo\nwith nemo.trial() as trial:\n    trial.note('two lines\\nof text')\n    \
         trial.metadata(rows=1200, source='web')\n    open('confusion.csv', 'w').write('1,2')\n    trial.artifact('confusion.csv')\n",
    );
    let text = format!(
        "name = \"says\"\n[executor.here]\nkind = \"local\"\nenv.PYTHONPATH = {python:?}\n[task.t]\nrun = \"python3 say.py\"\n"
    );
    world.write("exp.toml", &text);
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let shown: Value = serde_json::from_str(&world.ok(&["show", &id, "--json"])).unwrap();
    assert_eq!(shown["metadata"]["rows"], 1200, "{shown:#}");
    let notes = shown["notes"].as_array().unwrap();
    let said = notes.iter().find(|note| !note["text"].is_null()).unwrap();
    assert_eq!((&said["user"], &said["target"]), (&"program".into(), &"t/0".into()), "{said:#}");
    assert_eq!(said["text"], "two lines\nof text");
    let found = |condition: &str| {
        let listed = world.ok(&["list", "--where", condition, "--json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["experiments"].as_array().unwrap().len()
    };
    assert_eq!((found("rows>1000"), found("rows>2000"), found("source=web")), (1, 0, 1));
    let results: Value = serde_json::from_str(&world.ok(&["results", &id, "--json"])).unwrap();
    assert_eq!(results["trials"][0]["artifacts"][0]["name"], "confusion.csv", "{results:#}");
}

#[test]
fn who_writes_a_note_is_known_without_a_shell_that_tells() {
    let world = World::new();
    let id = submit(&world);
    let mut command = world.command(&["note", "@", "from a bare environment"]);
    command.env_remove("LOGNAME").env_remove("USER").env_remove("SLURM_JOB_USER");
    let noted = printed(&command.output().unwrap());
    assert_eq!(noted.code, 0, "{noted:?}");
    let known = printed(&Command::new("id").arg("-un").output().unwrap());
    assert_eq!(files(&world, &id)[0]["user"], known.stdout.trim(), "{known:?}");
}
