//! `show`: what an experiment is.

use std::process::Command;

use serde_json::{Value, json};

use crate::fake::FakeSlurm;
use crate::support::World;

const TEXT: &str = "name = \"shown\"\ndescription = \"the first\"\ntags = [\"draft\"]\n\
                    metadata = { model = \"gpt\" }\n\
                    [task.train]\nrun = \"true {lr}\"\n[task.train.params]\nlr = [0.1, 0.2]\n";

fn show(world: &World, target: &str) -> Value {
    serde_json::from_str(&world.ok(&["show", target, "--json"])).unwrap()
}

#[test]
fn each_key_has_its_source() {
    let world = World::new();
    world.write("exp.toml", TEXT);
    let set = ["--set", "task.train.params.lr=[1, 2, 3]", "--executor", "local", "--sequential"];
    let id = world.ok(&[&["submit", "exp.toml", "--wait"][..], &set].concat());
    // The file may be changed, or lost, after the submission.
    std::fs::remove_file(world.path("exp.toml")).unwrap();
    let shown = show(&world, "@");
    assert_eq!(shown["config"]["task"]["train"]["params"]["lr"], json!([1, 2, 3]));
    let origin = |key: &str| shown["origin"][key].clone();
    assert_eq!(origin("name"), "exp.toml:1");
    assert_eq!(origin("task.train.run"), "exp.toml:6");
    assert_eq!(origin("task.train.params.lr"), "--set task.train.params.lr=[1, 2, 3]");
    assert_eq!(origin("task.train.executor"), "--executor local");
    assert_eq!(origin("task.train.search.concurrent"), "--sequential");
    assert_eq!(origin("task.train.restart.no_progress"), "default");
    assert_eq!(shown["config_hash"].as_str().unwrap().len(), 64);
    assert_eq!((&shown["version"], &shown["git"]), (&json!(1), &Value::Null));
    assert_eq!(shown["generations"][0]["trials"], 3);
    assert_eq!(
        (&shown["generations"][0]["why"], &shown["generations"][0]["jobs"]),
        (&json!("submit"), &json!([]))
    );
    assert_eq!(shown["dir"], world.experiment(&id).to_string_lossy().as_ref());
    assert_eq!((&shown["id"], &shown["state"]), (&json!(id), &json!("completed")));
    let named = show(&world, "@/train/0,2");
    assert_eq!(named["trials"].as_array().unwrap().len(), 2);
    assert_eq!(named["trials"][1]["params"], json!({ "lr": 3 }));
    let text = world.ok(&["show"]);
    for part in ["description  the first", "task.train.params.lr", "exp.toml:6", "GENERATION"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // One that was submitted before there was such a file is told from its text.
    std::fs::remove_file(world.experiment(&id).join("config.json")).unwrap();
    assert_eq!(show(&world, "@")["origin"]["task.train.params.lr"], "experiment.toml:8");
    std::fs::write(world.experiment(&id).join("config.json"), "{").unwrap();
    let damaged = world.run(&["show"]);
    assert!(damaged.code == 0 && damaged.stderr.contains("config.json"), "{damaged:?}");
}

#[test]
fn the_state_of_the_code_is_kept() {
    let world = World::new();
    world.write("exp.toml", TEXT);
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=ada", "-c", "user.email=a@example.org"]).args(arguments);
        let output = git.current_dir(world.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "exp.toml"]);
    git(&["commit", "-q", "-m", "first"]);
    git(&["remote", "add", "origin", "https://ada:secret@example.org/lr.git"]);
    world.ok(&["submit", "exp.toml", "--wait"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let repo = "https://example.org/lr.git";
    let clean = json!({ "commit": commit, "branch": "main", "dirty": false, "repo": repo, "changes": null });
    assert_eq!(show(&world, "@")["git"], clean);
    world.write("exp.toml", &format!("# changed\n{TEXT}"));
    world.ok(&["submit", "exp.toml", "--wait"]);
    let git = &show(&world, "@")["git"];
    assert_eq!((&git["dirty"], &git["changes"]), (&json!(true), &json!("shipped")));
    let text = world.ok(&["show"]);
    let told = "on main, with changes that were not committed; they are shipped";
    assert!(text.contains(told), "{text}");
}

#[test]
fn notes_tell_who_changed_what() {
    let world = World::new();
    world.write("exp.toml", TEXT);
    world.ok(&["submit", "exp.toml", "--wait"]);
    let note = |arguments: &[&str]| {
        let mut command = world.command(&[&["note", "@"], arguments].concat());
        assert!(command.env("LOGNAME", "ada").status().unwrap().success());
    };
    note(&["--describe", "the second", "--set", "model=vit", "--tag", "paper"]);
    note(&["steers \u{1b}[2J the terminal", "--untag", "draft"]);
    let shown = show(&world, "@");
    assert_eq!((&shown["description"], &shown["tags"]), (&json!("the second"), &json!(["paper"])));
    let notes = shown["notes"].as_array().unwrap();
    assert_eq!(
        (notes.len(), &notes[0]["user"], &notes[0]["text"]),
        (2, &json!("ada"), &Value::Null)
    );
    let change = json!({
        "tags": { "before": ["draft"], "after": ["draft", "paper"] },
        "description": { "before": "the first", "after": "the second" },
        "metadata": { "model": { "before": "gpt", "after": "vit" } },
    });
    assert_eq!(notes[0]["change"], change);
    assert!(notes[0]["time"].as_f64().unwrap() > shown["created"].as_f64().unwrap());
    let text = world.ok(&["show"]);
    assert!(text.contains("tags: -draft") && !text.contains('\u{1b}'), "{text}");
    let folder = world.path("home/experiments").join(shown["id"].as_str().unwrap()).join("notes");
    let first = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&first, "{").unwrap();
    let damaged = world.run(&["show"]);
    assert!(damaged.code == 0 && damaged.stderr.contains(first.to_str().unwrap()), "{damaged:?}");
    assert_eq!(show(&world, "@")["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn generations_have_their_jobs_and_slurm_is_not_asked() {
    let fake = FakeSlurm::new(100);
    fake.world.write("exp.toml", &format!("{TEXT}[executor.gpu]\nkind = \"slurm\"\n"));
    fake.world.ok(&["submit", "exp.toml"]);
    let before = fake.calls("squeue");
    let shown = show(&fake.world, "@");
    assert_eq!(fake.calls("squeue"), before);
    let generations = shown["generations"].as_array().unwrap();
    assert_eq!((generations.len(), &generations[0]["trials"]), (1, &json!(2)));
    assert_eq!(generations[0]["jobs"].as_array().unwrap().len(), 1, "{shown:#}");
    assert!(generations[0]["created"].as_f64().unwrap() > 1e9);
}

/// The words for what each generation is.
fn whys(world: &World) -> Vec<Value> {
    let shown = show(world, "@");
    shown["generations"].as_array().unwrap().iter().map(|it| it["why"].clone()).collect()
}

#[test]
fn a_generation_of_what_found_no_room_is_a_window() {
    let fake = FakeSlurm::new(100);
    fake.world.write("exp.toml", &format!("{TEXT}[executor.gpu]\nkind = \"slurm\"\n"));
    std::fs::write(fake.state("no_room"), "train.0\n").unwrap();
    // There may be room for one of the two: that is tried at once.
    let submitted = fake.world.run(&["submit", "exp.toml"]);
    assert!(submitted.stderr.contains("1 trial will be submitted later"), "{submitted:?}");
    assert_eq!(whys(&fake.world), ["submit", "window"]);
    let polled = fake.world.run(&["poll"]);
    assert_eq!(fake.taken().len(), 2, "{polled:?}");
    assert_eq!(whys(&fake.world), ["submit", "window", "window"]);
    let text = fake.world.ok(&["show"]);
    assert!(text.contains("window"), "{text}");
}
