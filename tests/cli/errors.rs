//! What goes wrong is said with its file and what to type, to a person and to a script; nothing steers the terminal.

use serde_json::Value;

use crate::support::World;

/// The error that a command prints for a script.
#[track_caller]
fn json_error(world: &World, arguments: &[&str], code: i32) -> Value {
    let printed = world.run(arguments);
    assert_eq!(printed.code, code, "{arguments:?}: {printed:?}");
    let json: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((&json["schema"], &json["error"]["exit_code"]), (&1.into(), &code.into()), "{json}");
    assert!(json["error"]["hints"].is_array(), "{json}");
    json["error"].clone()
}

#[test]
fn a_script_is_told_in_json() {
    let world = World::new();
    let error = json_error(&world, &["status", "nobody", "--json"], 3);
    assert_eq!(error["message"], "no experiment is called `nobody`");
    assert_eq!(error["hints"][0], "`nemo-slurm list` shows all");
    let error = json_error(&world, &["status", "--json", "--nonsense"], 2);
    assert_eq!(error["message"], "unexpected argument '--nonsense' found");
    let error = json_error(&world, &["cancel", "--json"], 2);
    assert!(error["message"].as_str().unwrap().contains("<TARGET>"), "{error}");
    world.write("exp.toml", "name = 5\n");
    json_error(&world, &["submit", "exp.toml", "--json"], 2);
    assert!(world.run(&["status", "--help", "--json"]).stdout.contains("Usage:"), "no error");
}

#[test]
fn an_io_error_names_its_file_and_is_no_wrong_use() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"io\"\n[executor.it]\nkind = \"local\"\n[task.t]\nrun = \"true\"\n",
    );
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let folder = world.experiment(&id).join("tasks/t/trials/0/attempts.jsonl");
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let printed = world.run(&["status", &id]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(
        printed.stderr.contains(&format!("error: can't read `{}`", folder.display())),
        "{printed:?}"
    );
    assert_eq!(
        printed.stderr.matches("it is a folder, not a file").count(),
        1,
        "the cause, once: {printed:?}"
    );
    let error = json_error(&world, &["status", &id, "--json"], 1);
    assert!(error["message"].as_str().unwrap().contains("attempts.jsonl"), "{error}");
    world.write("file", "");
    let printed = world.run(&["--home", "file/home", "submit", "exp.toml"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(printed.stderr.contains("file/home"), "{printed:?}");
}

#[test]
fn a_closed_or_full_stderr_is_no_panic() {
    let world = World::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = world.command(&["status", "nobody"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let printed = world.command(&["init", "--help"]).stdout(full).output().unwrap();
    assert!(!String::from_utf8_lossy(&printed.stderr).contains("panicked"), "{printed:?}");
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"esc\"\n[executor.it]\nkind = \"local\"\n[task.t]\nrun = 'printf \"p \\033]0;PWNED\\007\\n\"'\n\
         params = { p = [\"a\\u001b[31mb\", \"c\\nd\\u202e\"] }\n",
    );
    let id = world.ok(&["submit", "exp.toml", "--wait"]);
    let printed = world.run(&["status", &id, "--attempts"]);
    assert!(printed.stdout.contains("a\\x1b[31mb"), "{printed:?}");
    assert!(printed.stdout.contains("c\\nd\\u{202e}"), "{printed:?}");
    let is_foreign = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!printed.stdout.contains(is_foreign), "{printed:?}");
    let status = world.status(&id);
    assert_eq!(status["tasks"][0]["trials"][1]["params"]["p"], "c\nd\u{202e}", "JSON is exact");
    let logs = world.ok(&["logs", &format!("{id}/t/0"), "--stream", "out"]);
    assert!(logs.contains("\u{1b}]0;PWNED\u{7}"), "a file gets what was written: {logs:?}");
    let printed = world.run(&["status", "no\u{1b}]0;PWNED\u{7}body"]);
    assert!(printed.stderr.contains("no\\x1b]0;PWNED\\x07body"), "{printed:?}");
}

/// A command that is pasted without the home would act on another one.
#[test]
fn what_is_to_be_typed_names_the_home_that_was_given() {
    let world = World::new();
    let home = world.path("other home");
    let given = ["--home", home.to_str().unwrap()];
    let option = format!("`nemo-slurm --home '{}' ", home.display());
    let file = "name = \"h\"\n[executor.it]\nkind = \"local\"\n[task.t]\nrun = \"false\"\n";
    world.write("exp.toml", file);
    let run = |arguments: &[&str]| world.run(&[&given, arguments].concat());
    let missing = run(&["status", "nobody"]);
    assert!(missing.stderr.contains(&format!("{option}list` shows all")), "{missing:?}");
    let error: Value = serde_json::from_str(&run(&["status", "nobody", "--json"]).stdout).unwrap();
    assert_eq!(error["error"]["hints"][0], format!("{option}list` shows all"));
    let none = run(&["list"]);
    assert!(none.stderr.contains(&format!("{option}init`")), "{none:?}");
    let id = run(&["submit", "exp.toml", "--wait"]).stdout.trim().to_owned();
    let over = run(&["wait", &id]);
    assert!(over.stderr.contains(&format!("{option}status {id}` shows more")), "{over:?}");
    // The same home by the environment is meant without a word.
    let own = world.path("home");
    let same = world.run(&["--home", own.to_str().unwrap(), "status", "nobody"]);
    assert!(same.stderr.contains("`nemo-slurm list` shows all"), "{same:?}");
}
