//! Which build the programs are, and what is said of a harness of another one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{World, harness, printed};

#[test]
fn both_programs_tell_which_build_they_are() {
    for program in [Path::new(env!("CARGO_BIN_EXE_nemo-slurm")), &harness()] {
        let run =
            |arguments: &[&str]| printed(&Command::new(program).args(arguments).output().unwrap());
        let json = run(&["--version", "--json"]);
        let info: Value = serde_json::from_str(&json.stdout).unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert_eq!((&info["schema"], &info["name"]), (&1.into(), &name.into()), "{json:?}");
        let commit = info["commit"].as_str();
        let is_hash = |it: &str| it.len() == 40 && it.bytes().all(|it| it.is_ascii_hexdigit());
        assert!(commit.is_none_or(is_hash), "{json:?}");
        let is_clone = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
        assert!(commit.is_some() || !is_clone, "a clone knows its commit: {json:?}");
        assert_eq!(info["features"][0], "static", "{json:?}");
        let text = run(&["--version"]).stdout;
        assert!(text.starts_with(&format!("{name} {}", env!("CARGO_PKG_VERSION"))), "{text}");
        assert!(text.contains(commit.map_or("", |it| &it[..9])), "{text}");
    }
}

/// A harness of another version in all but its work.
fn other_build(world: &World) -> std::path::PathBuf {
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo nemo-harness 0.0.1; exit; fi\nexec '{}' \"$@\"\n",
        harness().display()
    );
    let path = world.write("other-harness", &text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_harness_of_another_build_is_told() {
    let world = World::new();
    let file = world.write("exp.toml", "name = \"a\"\n[task.train]\nrun = \"true\"\n");
    let other = other_build(&world);
    let run = |arguments: &[&str], is_other: bool| {
        let mut command = world.command(arguments);
        if is_other {
            command.env("NEMO_HARNESS", &other);
        }
        printed(&command.output().unwrap())
    };
    let submit = ["submit", file.to_str().unwrap(), "--wait"];
    let warned = run(&submit, true);
    assert_eq!(warned.code, 0, "it runs all the same: {warned:?}");
    assert!(warned.stderr.contains("other-harness` is 0.0.1;"), "{warned:?}");
    assert!(warned.stderr.contains("`cargo install --locked --path . && "), "{warned:?}");
    assert!(!run(&submit, false).stderr.contains("warning"), "the right one is not told");
    for (is_other, level) in [(true, "advice"), (false, "ok")] {
        let seen: Value =
            serde_json::from_str(&run(&["doctor", "--json"], is_other).stdout).unwrap();
        let all = seen["findings"].as_array().unwrap();
        let found = all.iter().find(|it| it["topic"] == "harness").unwrap();
        assert_eq!(found["level"], level, "{found:#}");
    }
}
