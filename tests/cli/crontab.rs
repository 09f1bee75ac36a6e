//! `poll --install`: a line in the user's crontab, among the user's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::World;

/// A `crontab` that keeps its table in a file, and answers as cron's does where there is none.
const CRONTAB: &str = r#"#!/bin/sh
table=$(dirname "$0")/table
case $1 in
  -l) if [ -e "$table" ]; then cat "$table"; else echo "no crontab for ada" >&2; exit 1; fi ;;
  -) if grep -q refuse "$table" 2>/dev/null; then echo "not allowed to use this program" >&2; exit 1; fi; cat >"$table" ;;
esac
"#;

fn world() -> World {
    let mut world = World::new();
    fs::create_dir(world.path("bin")).unwrap();
    let program = world.write("bin/crontab", CRONTAB);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    world.path = format!("{}:{}", world.path("bin").display(), world.path);
    world
}

fn table(world: &World) -> String {
    fs::read_to_string(world.path("bin/table")).unwrap_or_default()
}

#[test]
fn the_line_is_added_once_and_removed_alone() {
    let world = world();
    let own = "MAILTO=ada\n0 3 * * * backup # nemo-slurm poll of /elsewhere\n";
    fs::write(world.path("bin/table"), own).unwrap();
    let line = world.ok(&["poll", "--install", "--dry-run"]);
    assert_eq!(table(&world), own);
    world.ok(&["poll", "--install"]);
    let said = world.ok(&["poll", "--install"]);
    assert!(said.contains("every five minutes"), "{said}");
    assert_eq!(table(&world), format!("{own}{line}\n"));
    assert!(line.starts_with("*/5 * * * * PATH="), "{line}");
    world.ok(&["poll", "--uninstall"]);
    assert_eq!(table(&world), own);
    assert!(world.ok(&["poll", "--uninstall"]).contains("does not run"));
}

#[test]
fn the_line_works_in_the_bare_environment_of_cron() {
    let world = world();
    world.ok(&["poll", "--install"]);
    let line = table(&world);
    let command = line.splitn(6, ' ').nth(5).unwrap().replace("\\%", "%");
    let mut shell = std::process::Command::new("/bin/sh");
    let ran = shell.args(["-c", &command]).env_clear().current_dir("/").output().unwrap();
    let log = fs::read_to_string(world.path("home/cache/poll.log")).unwrap();
    assert!(ran.status.success() && log.contains("Nothing to do"), "{ran:?} {log}");
}

#[test]
fn where_it_cannot_be_changed_the_error_says_so() {
    let world = world();
    fs::write(world.path("bin/table"), "refuse\n").unwrap();
    let refused = world.run(&["poll", "--install"]);
    assert!(refused.code == 1 && refused.stderr.contains("not allowed"), "{refused:?}");
    assert!(refused.stderr.contains("--dry-run"), "{refused:?}");
    fs::remove_file(world.path("bin/crontab")).unwrap();
    let missing = world.run(&["poll", "--uninstall"]);
    let is_told = missing.stderr.contains("no program `crontab`") || missing.code == 0;
    assert!(is_told, "{missing:?}");
}
