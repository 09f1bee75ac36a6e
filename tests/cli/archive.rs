//! `archive` and `restore`: what lists leave out, what is refused, and what a kill leaves behind.

use std::process::Command;

use serde_json::{Value, json};

use crate::fake::FakeSlurm;
use crate::find::{completed, found};
use crate::note::files;
use crate::retry_rules::end;
use crate::support::{World, causes, printed, trials};

/// An experiment that is over.
fn submit(world: &World, name: &str, run: &str) -> String {
    world.write("exp.toml", &format!("name = \"{name}\"\n[task.t]\nrun = \"{run}\"\n"));
    let id = world.ok(&["submit", "exp.toml"]);
    world.run(&["wait", &id]);
    id
}

fn json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.ok(&[arguments, &["--json"]].concat())).unwrap()
}

/// What the last line of a list says.
fn last_line(world: &World, arguments: &[&str]) -> String {
    let printed = world.run(arguments);
    assert_eq!(printed.code, 0, "{printed:?}");
    printed.stderr.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn what_is_archived_is_left_out_until_it_is_asked_for() {
    let world = World::new();
    let ids = ["a", "b", "c"].map(|name| submit(&world, name, "true"));
    let [a, b, c] = ids.each_ref().map(String::as_str);
    world.ok(&["list"]);
    let done = json(&world, &["archive", a, "c", a]);
    let row = |id: &str| json!({ "id": id, "archived": true, "written": true });
    assert_eq!(done, json!({ "schema": 1, "dry_run": false, "experiments": [row(a), row(c)] }));
    for arguments in [&["list"][..], &["search", "t"], &["list", "--cached"]] {
        assert_eq!(found(&world, arguments), [b], "{arguments:?}");
        let archived = [arguments, &["--archived"]].concat();
        assert_eq!(found(&world, &archived), [c, a], "{archived:?}");
    }
    let list = json(&world, &["list"]);
    assert_eq!((&list["counts"], &list["hidden"]), (&json!({ "completed": 1 }), &json!(2)));
    assert_eq!(list["experiments"][0]["archived"], false);
    let list = json(&world, &["list", "--archived"]);
    assert_eq!((&list["counts"], &list["hidden"]), (&json!({ "completed": 2 }), &json!(0)));
    assert_eq!(list["experiments"][0]["archived"], true);
    let hidden = "; 2 archived are not shown: add `--archived`";
    assert_eq!(last_line(&world, &["list"]), format!("1 experiment: 1 completed{hidden}"));
    assert_eq!(last_line(&world, &["list", "--archived"]), "2 archived experiments: 2 completed");
    // The filters choose among both, and a hint that nothing matches would not be true.
    let of_a = last_line(&world, &["list", "--name", "a"]);
    assert_eq!(of_a, "0 of 1 experiment; 1 archived is not shown: add `--archived`");
    assert_eq!(last_line(&world, &["list", "--state", "failed"]), "0 of 1 experiment");
    // What is over is again not looked into.
    for arguments in [&["list"][..], &["list", "--archived"]] {
        assert_eq!(crate::list::opened(&world, arguments), Vec::<String>::new());
    }
}

#[test]
fn an_archived_experiment_is_found_by_its_name_and_tells_who_archived_it() {
    let world = World::new();
    let (a, b) = (submit(&world, "a", "true"), submit(&world, "b", "true"));
    world.write(
        "big.toml",
        "name = \"meta\"\nmetadata = { archived = true }\n[task.t]\nrun = \"true\"\n",
    );
    let meta = world.ok(&["submit", "big.toml", "--wait"]);
    world.ok(&["list"]);
    assert_eq!(found(&world, &["list"])[0], meta, "a key of metadata is none of ours");
    world.ok(&["archive", "@"]);
    world.ok(&["archive", "@"]);
    assert_eq!(found(&world, &["list", "--archived"]), [meta.as_str(), &b]);
    assert_eq!(world.status("@")["experiment"]["id"], a.as_str());
    assert_eq!(world.status("b")["experiment"]["id"], b.as_str());
    let shown = json(&world, &["show", &b]);
    assert_eq!(shown["archived"], true);
    let note = &shown["notes"][0];
    assert_eq!(note["change"], json!({ "archived": { "before": false, "after": true } }));
    assert!(note["user"].is_string() && note["time"].as_f64() > shown["created"].as_f64());
    world.ok(&["restore", "b"]);
    let text = world.ok(&["show", "b"]);
    assert!(text.contains("\n  archived\n") && text.contains("\n  restored"), "{text}");
    assert!(!text.contains(", archived"), "{text}");
    assert_eq!(world.status("@")["experiment"]["id"], b.as_str());
    let archived = completed(&world, &["restore", ""]);
    assert!(archived.contains(&meta) && !archived.contains(&a), "{archived:?}");
    world.ok(&["archive", "a", "b"]);
    let nothing = world.run(&["status", "@"]);
    assert_eq!(nothing.code, 3, "{nothing:?}");
    assert!(nothing.stderr.contains("nemo-slurm list --archived"), "{nothing:?}");
}

#[test]
fn the_same_once_more_and_a_dry_run_change_nothing() {
    let world = World::new();
    let id = submit(&world, "a", "true");
    let dry = world.run(&["archive", "a", "--dry-run"]);
    assert_eq!(dry.stderr.trim_end(), format!("Would archive 1 experiment: `{id}`."));
    assert!(files(&world, &id).is_empty());
    world.ok(&["archive", "a"]);
    let again = world.run(&["archive", "a"]);
    assert_eq!((again.code, files(&world, &id).len()), (0, 1), "{again:?}");
    assert!(again.stderr.contains("archived already"), "{again:?}");
    let dry = json(&world, &["restore", "a", "--dry-run"]);
    let row = json!({ "id": id, "archived": true, "written": false });
    assert_eq!((&dry["experiments"][0], files(&world, &id).len()), (&row, 1));
    world.ok(&["restore", "a"]);
    assert!(world.run(&["restore", "a"]).stderr.contains("not archived"));
    assert_eq!(files(&world, &id).len(), 2);
    let part = world.run(&["archive", "a/t"]);
    assert_eq!(part.code, 2, "{part:?}");
    assert!(part.stderr.contains(&format!("nemo-slurm archive {id}")), "{part:?}");
}

#[test]
fn what_is_not_over_is_not_archived_nor_what_is_named_with_it() {
    let world = World::new();
    let over = submit(&world, "over", "true");
    world.write("exp.toml", "name = \"long\"\n[task.t]\nrun = \"sleep 600\"\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "a start", |status| status["experiment"]["state"] == "running");
    for arguments in [&["archive", &over, &id][..], &["archive", &id, "--dry-run"]] {
        let refused = world.run(arguments);
        assert_eq!(refused.code, 5, "{refused:?}");
        for hint in [format!("nemo-slurm wait {id}"), format!("nemo-slurm cancel {id}")] {
            assert!(refused.stderr.contains(&hint), "{refused:?}");
        }
    }
    assert!(files(&world, &over).is_empty());
    world.ok(&["cancel", &id]);
    world.run(&["wait", &id]);
    world.ok(&["archive", &over, &id]);
    assert_eq!(found(&world, &["list", "--archived"]), [id.as_str(), &over]);
}

#[test]
fn what_is_archived_is_not_run_again() {
    let world = World::new();
    let id = submit(&world, "bad", "exit 3");
    world.ok(&["archive", &id]);
    for arguments in [&["retry", &id][..], &["retry", &id, "--dry-run"], &["resume", &id]] {
        let refused = world.run(arguments);
        assert_eq!(refused.code, 5, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(&format!("nemo-slurm restore {id}")), "{refused:?}");
    }
    world.ok(&["restore", &id]);
    world.ok(&["retry", &id]);
    world.run(&["wait", &id]);
    assert_eq!(causes(&trials(&world.status(&id), "t")[0]), ["failed", "failed"]);
}

#[test]
fn what_a_rule_retries_or_slurm_may_still_run_is_not_over() {
    let fake = FakeSlurm::new(1001);
    let text = "name = \"s\"\n[executor.gpu]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n[task.t.retry]\nfailed = 1\n";
    fake.world.write("exp.toml", text);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let pending = fake.world.run(&["archive", &id]);
    assert_eq!(pending.code, 5, "{pending:?}");
    end(&fake, &id, "t/0", "101_0", 0, "failed");
    fake.answer("squeue", Some(&[]));
    let due = fake.world.run(&["archive", &id]);
    assert_eq!(due.code, 5, "{due:?}");
    assert!(due.stderr.contains("runs again by itself"), "{due:?}");
    assert!(files(&fake.world, &id).is_empty());
}

/// Kills an `archive` before each of its system calls that change something, and then archives again.
#[test]
fn after_a_kill_nothing_is_lost_and_nothing_is_there_twice() {
    let world = World::new();
    let id = submit(&world, "a", "true");
    world.ok(&["list"]);
    std::fs::rename(world.path("home"), world.path("fresh")).unwrap();
    let arguments = ["archive", &id];
    let mut n_killed = 0;
    for call in ["mkdir", "openat", "write", "fsync", "rename"] {
        for number in 1.. {
            drop(std::fs::remove_dir_all(world.path("home")));
            let mut copy = Command::new("cp");
            copy.arg("-r").args([world.path("fresh"), world.path("home")]);
            assert!(copy.status().unwrap().success());
            let mut command = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            command.arg(env!("CARGO_BIN_EXE_nemo-slurm")).args(arguments);
            world.surround(&mut command);
            let killed = printed(&command.output().unwrap());
            // What a list says in between holds: archived or not, and it is there.
            let listed =
                found(&world, &["list"]).len() + found(&world, &["list", "--archived"]).len();
            assert_eq!(listed, 1, "{call} {number}");
            world.ok(&arguments);
            assert_eq!(files(&world, &id).len(), 1, "{call} {number}");
            assert_eq!(found(&world, &["list", "--archived"]), [id.as_str()], "{call} {number}");
            assert!(found(&world, &["list"]).is_empty(), "{call} {number}");
            if killed.code == 0 {
                break;
            }
            n_killed += 1;
        }
    }
    assert!(n_killed > 10, "{n_killed}");
}
