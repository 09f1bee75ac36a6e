//! `[package]`: what differs from the commit is told and kept, however it came to be, and what runs is the copy.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::package::{git, show, with_submodule, work_tree};
use crate::support::{World, text};

fn shipped_files(world: &World, id: &str) -> std::path::PathBuf {
    Path::new(&text(&show(world, id)["package"]["dir"])).join("files")
}

fn patch(world: &World, id: &str) -> String {
    std::fs::read_to_string(world.experiment(id).join("uncommitted.diff")).unwrap()
}

/// Applied to the commit, the patch makes what was shipped.
#[test]
fn the_patch_has_what_was_removed_and_renamed() {
    let world = work_tree("kind = \"local\"");
    world.write("old.py", "OLD = 1\n");
    world.write("keys.txt", "secret\n");
    world.write(".nemoignore", "keys.txt\n");
    git(&world, &["add", "-A"]);
    git(&world, &["commit", "-qm", "second"]);
    git(&world, &["mv", "lib/words.py", "lib/names.py"]);
    git(&world, &["rm", "-q", "keys.txt"]);
    std::fs::remove_file(world.path("old.py")).unwrap();
    let id = world.ok(&["submit", "exp.toml"]);
    assert!(!patch(&world, &id).contains("secret"), "{}", patch(&world, &id));
    git(&world, &["reset", "-q", "--hard"]);
    let diff = world.experiment(&id).join("uncommitted.diff").display().to_string();
    git(&world, &["apply", &diff]);
    for (name, is_there) in [("old.py", false), ("lib/words.py", false), ("lib/names.py", true)] {
        assert_eq!(world.path(name).exists(), is_there, "{name}");
        assert_eq!(shipped_files(&world, &id).join(name).exists(), is_there, "{name}");
    }
    world.run(&["wait", &id, "--timeout", "1m"]);
}

/// Who removes a key from a file that git knows, and submits, must not find it in the home.
#[test]
fn a_patch_with_a_secret_is_not_kept() {
    let world = work_tree("kind = \"local\"");
    world.write("lib/words.py", &format!("WORD = 'first'\nTOKEN = 'hf_{}'\n", "aB3".repeat(12)));
    git(&world, &["commit", "-qam", "with a token"]);
    world.write("lib/words.py", "WORD = 'first'\n");
    let printed = world.run(&["submit", "exp.toml"]);
    assert!(printed.stderr.contains("but not kept as a patch"), "{printed:?}");
    let id = printed.stdout.trim();
    assert!(!world.experiment(id).join("uncommitted.diff").exists());
    world.run(&["wait", id, "--timeout", "1m"]);
}

#[test]
fn a_setting_hides_no_change_of_a_submodule() {
    let world = with_submodule();
    git(&world, &["config", "submodule.sub.ignore", "all"]);
    world.write("sub/own.py", "OWN = 2\n");
    let keys = "package={ from = 'git', submodules = true, dirty = 'refuse' }";
    let refused = world.run(&["plan", "exp.toml", "--set", keys]);
    assert!(refused.code == 2 && refused.stderr.contains("`sub/own.py`"), "{refused:?}");
    let id = world.ok(&["submit", "exp.toml", "--set", "package.submodules=true"]);
    assert!(patch(&world, &id).contains("+OWN = 2"), "{}", patch(&world, &id));
    world.run(&["wait", &id, "--timeout", "1m"]);
    let keys = "package={ from = 'git', dirty = 'refuse' }";
    let planned = world.run(&["plan", "exp.toml", "--set", keys]);
    assert_eq!(planned.code, 0, "it is not shipped, and the setting holds: {planned:?}");
}

/// In a hook, and below `git rebase --exec`, variables name another work tree.
#[test]
fn the_folder_says_which_work_tree_is_meant() {
    let (world, other) = (work_tree("kind = \"local\""), work_tree("kind = \"local\""));
    let mut plan = Command::new(env!("CARGO_BIN_EXE_nemo-slurm"));
    world.surround(plan.args(["plan", "exp.toml"]));
    let variables = [("GIT_DIR", ".git"), ("GIT_INDEX_FILE", ".git/index"), ("GIT_WORK_TREE", ".")];
    plan.envs(variables.map(|(name, path)| (name, other.path(path))));
    world.write("lib/words.py", "WORD = 'second'\n");
    let printed = plan.output().unwrap();
    let said = String::from_utf8_lossy(&printed.stdout);
    assert!(said.contains("Ships 5 files") && said.contains("with 1 change "), "{said}");
}

#[test]
fn a_link_into_the_folder_leads_to_what_was_shipped() {
    let world = work_tree("kind = \"local\"");
    symlink(world.path("lib/words.py"), world.path("absolute")).unwrap();
    symlink(world.path("lib"), world.path("lib/own")).unwrap();
    symlink(world.path(""), world.path("top")).unwrap();
    symlink("lib", world.path("library")).unwrap();
    symlink("library/words.py", world.path("through")).unwrap();
    symlink(world.path("data/big"), world.path("ignored")).unwrap();
    let check = |id: &str| {
        let files = shipped_files(&world, id);
        let leads = |name: &str| std::fs::read_link(files.join(name)).unwrap();
        assert_eq!(leads("absolute"), Path::new("lib/words.py"));
        assert_eq!(leads("lib/own"), Path::new("."));
        assert_eq!(leads("top"), Path::new("."));
        assert_eq!(leads("through"), Path::new("lib/words.py"));
        assert_eq!(leads("ignored"), world.path("data/big"));
    };
    let id = world.ok(&["submit", "exp.toml"]);
    check(&id);
    git(&world, &["add", "-A"]);
    git(&world, &["commit", "-qm", "links"]);
    let commit = world.ok(&["submit", "exp.toml", "--set", "package.dirty=ignore"]);
    check(&commit);
    for id in [id, commit] {
        world.run(&["wait", &id, "--timeout", "1m"]);
    }
}

/// A pattern for a folder takes no secret along that happens to lie there.
#[test]
fn a_secret_is_shipped_only_if_it_is_named() {
    let world = work_tree("kind = \"local\"");
    std::fs::create_dir(world.path("data/certificates")).unwrap();
    world.write("data/.env", "A=1\n");
    world.write("data/certificates/test.pem", "public\n");
    let plan = |patterns: &str| {
        world.run(&["plan", "exp.toml", "--set", &format!("package.include=[{patterns}]")])
    };
    for (patterns, is_refused) in [
        ("'data/**'", true),
        ("'**', 'data/.env'", true),
        ("'data/**', 'data/.env', 'data/certificates/*.pem'", false),
        ("'data/**', '.env*', 'data/certificates/test.pem'", false),
    ] {
        let printed = plan(patterns);
        assert_eq!(printed.code == 2, is_refused, "{patterns}: {printed:?}");
    }
}

#[test]
fn what_git_leaves_out_as_a_whole_is_told() {
    let world = with_submodule();
    let planned = |arguments: &[&str]| world.run(&[&["plan"], arguments].concat()).stderr;
    std::fs::write(world.path("data/exp.toml"), "name = 'x'\n[task.a]\nrun = 'true'\n").unwrap();
    let told = planned(&["data/exp.toml"]);
    assert!(told.contains("nothing is shipped: git ignores all"), "{told}");
    assert!(told.contains("from=folder"), "{told}");
    world.write("data/.nemoignore", "*\n");
    for from in ["folder", "git"] {
        let told = planned(&["data/exp.toml", "--set", &format!("package.from={from}")]);
        assert!(told.contains("nothing is shipped: `.nemoignore` names all of"), "{told}");
        assert!(!told.contains("from=folder"), "{told}");
    }
    let told = planned(&["exp.toml", "--set", "package.submodules=true"]);
    assert!(!told.contains("checked out"), "{told}");
    git(&world, &["submodule", "--quiet", "deinit", "--force", "sub"]);
    let told = planned(&["exp.toml", "--set", "package.submodules=true"]);
    assert!(told.contains("`sub`: `git submodule update --init --recursive`"), "{told}");
}

/// A file that git was told to take for unchanged is shipped as it is, and so it counts.
#[test]
fn a_change_that_git_was_told_to_overlook_is_told() {
    for option in ["--assume-unchanged", "--skip-worktree"] {
        let world = work_tree("kind = \"local\"");
        git(&world, &["update-index", option, "lib/words.py"]);
        assert!(!world.run(&["plan", "exp.toml"]).stdout.contains("not committed"), "unchanged");
        world.write("lib/words.py", "WORD = 'second'\n");
        let refused = world.run(&["plan", "exp.toml", "--set", "package.dirty=refuse"]);
        assert!(refused.stderr.contains("1 change that was not committed: `lib/words.py`"));
        let index = std::fs::read(world.path(".git/index")).unwrap();
        let id = world.ok(&["submit", "exp.toml"]);
        assert!(std::fs::read(world.path(".git/index")).unwrap() == index, "it is the user's");
        assert!(patch(&world, &id).contains("+WORD = 'second'"), "{}", patch(&world, &id));
        world.run(&["wait", &id, "--timeout", "1m"]);

        let world = with_submodule();
        git(&world, &["-C", "sub", "update-index", option, "own.py"]);
        let keys = "package={ from = 'git', submodules = true, dirty = 'refuse' }";
        let plan = || world.run(&["plan", "exp.toml", "--set", keys]);
        assert_eq!(plan().code, 0, "unchanged");
        world.write("sub/own.py", "OWN = 2\n");
        let refused = plan();
        assert!(refused.code == 2 && refused.stderr.contains("`sub/own.py`"), "{refused:?}");
        let id = world.ok(&["submit", "exp.toml", "--set", "package.submodules=true"]);
        assert!(patch(&world, &id).contains("+OWN = 2"), "{}", patch(&world, &id));
        world.run(&["wait", &id, "--timeout", "1m"]);
    }
}

/// Git leaves out by itself what lies outside of the folder: its patch is for the top of the work tree all the same.
#[test]
fn a_setting_for_relative_names_leaves_the_patch_as_it_is() {
    let world = work_tree("kind = \"local\"");
    git(&world, &["config", "diff.relative", "true"]);
    std::fs::create_dir(world.path("part")).unwrap();
    let file = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    for (name, text) in [("part/exp.toml", &*file), ("part/train.py", "print(1)\n")] {
        world.write(name, text);
    }
    git(&world, &["add", "-A"]);
    git(&world, &["commit", "-qm", "a part"]);
    world.write("part/train.py", "print(2)\n");
    let id = world.ok(&["submit", "part/exp.toml"]);
    assert!(patch(&world, &id).contains("+++ b/part/train.py"), "{}", patch(&world, &id));
    world.run(&["wait", &id, "--timeout", "1m"]);
}
