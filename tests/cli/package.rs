//! `[package]`: the code that runs is the code that was submitted, and trials share nothing that they write.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster;
use crate::support::{World, states, text, trials};

/// Counts to ten in a file of its own folder, as most programs do that look after their own checkpoints.
const PROGRAM: &str = r#"
import os, sys, time
import lib.words
os.makedirs("out", exist_ok=True)
path = "out/ckpt.pt"
step = int(open(path).read()) if os.path.exists(path) else 0
while step < 10:
    step += 1
    time.sleep(float(os.environ.get("PACE", "0")))
    with open(path + ".new", "w") as file:
        file.write(str(step))
    os.replace(path + ".new", path)
    print("step", step, lib.words.WORD, sys.argv[1], open("data/big").read().strip(), flush=True)
"#;

const EXPERIMENT: &str = r#"
name = "code"
[executor.it]
KIND
[task.train]
run = "exec python3 train.py {n}"
params = { n = [0, 1, 2, 3] }
[task.train.metrics]
step = 'step (\d+)'
"#;

pub(crate) fn git(world: &World, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.arg("-C").arg(world.folder.path()).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
    let output = git.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// A work tree of git with a program, and data that git ignores. The home lies in it too.
pub(crate) fn work_tree(kind: &str) -> World {
    let world = World::new();
    std::fs::create_dir(world.path("lib")).unwrap();
    std::fs::create_dir(world.path("data")).unwrap();
    world.write("train.py", PROGRAM);
    world.write("lib/__init__.py", "");
    world.write("lib/words.py", "WORD = 'first'\n");
    world.write("data/big", "data\n");
    world.write(".gitignore", "data/\nhome/\nout/\n__pycache__/\n");
    world.write("exp.toml", &EXPERIMENT.replace("KIND", kind));
    git(&world, &["init", "-q"]);
    git(&world, &["add", "-A"]);
    git(&world, &["commit", "-qm", "first"]);
    world
}

pub(crate) fn show(world: &World, id: &str) -> Value {
    serde_json::from_str(&world.ok(&["show", id, "--json"])).unwrap()
}

fn output(world: &World, id: &str, trial: u32) -> String {
    world.ok(&["logs", &format!("{id}/train/{trial}"), "--stream", "out"])
}

#[test]
fn an_edit_after_the_submission_changes_nothing_that_runs_and_trials_share_nothing() {
    let world = work_tree("kind = \"local\"\nparallel = 1\nenv = { PACE = \"0.05\" }");
    let printed = world.run(&["submit", "exp.toml"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("Shipped 5 files ("), "{printed:?}");
    assert!(printed.stderr.contains("linked, not shipped: `data`"), "{printed:?}");
    world.write("lib/words.py", "WORD = 'second'\n");
    world.write("train.py", "raise SystemExit('edited')\n");
    let id = printed.stdout.trim().to_owned();
    assert_eq!(world.run(&["wait", &id, "--timeout", "2m"]).code, 0, "{:#}", world.status(&id));
    for trial in 0..4 {
        let printed = output(&world, &id, trial);
        let expected = format!("step 1 first {trial} data");
        assert_eq!(printed.lines().next(), Some(expected.as_str()), "{printed}");
        assert_eq!(printed.lines().count(), 10, "{printed}");
        let work = world.experiment(&id).join(format!("tasks/train/trials/{trial}/work"));
        assert_eq!(std::fs::read_to_string(work.join("out/ckpt.pt")).unwrap(), "10");
    }
    assert!(!world.path("out").exists(), "nothing is written beside the file");
    let package = &show(&world, &id)["package"];
    assert_eq!(package["files"], 5, "{package}");
    let dir = text(&package["dir"]);
    let mode = |name: &str| {
        let path = Path::new(&dir).join("files").join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("lib"), mode("train.py")), (0o500, 0o400));
}

/// What a person's own run has left beside the file is not touched, and a program finds what lies beside it.
#[test]
fn trials_write_into_nothing_of_the_projects_and_find_what_was_not_shipped() {
    let world = work_tree("kind = \"local\"");
    for folder in ["out", "runs", "pkg"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    world.write("out/ckpt.pt", "9");
    world.write("runs/best.json", "mine");
    world.write("pkg/__init__.py", "");
    world.write("pkg/_version.py", "V = 7");
    world.write("local_conf.py", "X = 1");
    world.write(
        ".gitignore",
        "data/\nhome/\nout/\nruns/\n__pycache__/\n_version.py\nlocal_conf.py\n",
    );
    let program = "import os, pathlib, local_conf, pkg._version\n\
        here = pathlib.Path(__file__).resolve().parent\n\
        print((here / 'data/big').read_text().strip(), pkg._version.V, local_conf.X)\n\
        os.makedirs('runs', exist_ok=True)\nopen('runs/best.json', 'a').write('theirs')\n\
        print(os.path.exists('out'))\n";
    world.write("train.py", program);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("each trial writes its own: `out`, `runs`"), "{printed:?}");
    let id = printed.stdout.lines().next().unwrap();
    for trial in 0..4 {
        assert_eq!(output(&world, id, trial), "data 7 1\nFalse");
    }
    assert_eq!(std::fs::read_to_string(world.path("runs/best.json")).unwrap(), "mine");
}

/// A checkpoint that a run by hand left beside the program is no trial's. Data is, and weights that nobody may write to.
#[test]
fn trials_share_no_checkpoint_and_find_what_they_only_read() {
    let world = work_tree("kind = \"local\"");
    world.write(".gitignore", "data/\nhome/\n__pycache__/\n*.pt\n*.pth\n*.npz\n");
    for name in ["ckpt.pt", "base.pth", "data.npz"] {
        world.write(name, "9");
    }
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(world.path("base.pth"), read_only).unwrap();
    let program = PROGRAM.replace("out/ckpt.pt", "ckpt.pt");
    world.write("train.py", &(program + "print(open('base.pth').read(), open('data.npz').read())"));
    let planned = world.run(&["plan", "exp.toml"]);
    assert!(planned.stderr.contains("have a link to `data.npz`: if they write"), "{planned:?}");
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("each trial writes its own: `ckpt.pt` (a file"), "{printed:?}");
    assert!(printed.stderr.contains("linked, not shipped: `base.pth`, `data`, `data.npz`"));
    let id = printed.stdout.lines().next().unwrap();
    for trial in 0..4 {
        let printed = output(&world, id, trial);
        assert!(printed.starts_with("step 1 first") && printed.ends_with("\n9 9"), "{printed}");
    }
    assert_eq!(std::fs::read_to_string(world.path("ckpt.pt")).unwrap(), "9");
    let one = world.run(&["plan", "exp.toml", "--set", "task.train.params.n=[0]"]);
    assert!(one.code == 0 && !one.stderr.contains("have a link to"), "{one:?}");
}

#[test]
fn the_same_code_is_shipped_once_and_changes_are_told() {
    let world = work_tree("kind = \"local\"");
    let hash = |id: &str| text(&show(&world, id)["package"]["hash"]);
    let submit = |arguments: &[&str]| world.run(&[&["submit", "exp.toml"], arguments].concat());
    let [one, two] = [(); 2].map(|()| submit(&[]).stdout.trim().to_owned());
    assert_eq!(hash(&one), hash(&two));
    world.write("lib/words.py", "WORD = 'second'\n");
    world.write("new.py", "NEW = 1\n");
    let changed = submit(&[]);
    assert!(changed.stderr.contains("with 2 changes not committed"), "{changed:?}");
    let id = changed.stdout.trim();
    assert_ne!(hash(id), hash(&one));
    let patch = std::fs::read_to_string(world.experiment(id).join("uncommitted.diff")).unwrap();
    assert!(patch.contains("+WORD = 'second'"), "{patch}");
    assert!(patch.contains("+++ b/new.py\n@@ -0,0 +1 @@\n+NEW = 1"), "{patch}");
    let refused = submit(&["--set", "package.dirty=refuse"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("`lib/words.py`, `new.py`"), "{refused:?}");
    let ignored = submit(&["--set", "package.dirty=ignore"]);
    assert!(ignored.stderr.contains("without 2 changes not committed"), "{ignored:?}");
    assert!(ignored.stderr.contains("not shipped: `data`.\n"), "not `new.py`: {ignored:?}");
    assert_eq!(hash(ignored.stdout.trim()), hash(&one), "the commit alone");
    let fate = |id: &str| text(&show(&world, id)["git"]["changes"]);
    assert_eq!((fate(id), fate(ignored.stdout.trim())), ("shipped".into(), "left_out".into()));
    let words = world.ok(&["show", ignored.stdout.trim()]);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("without the changes that were not committed"), "{words}");
    let packages = std::fs::read_dir(world.path("home/packages")).unwrap();
    assert_eq!(packages.count(), 2, "nothing half made stays");
    let none = submit(&["--set", "package.from=none"]);
    assert_eq!(show(&world, none.stdout.trim())["package"], Value::Null);
    assert_eq!(fate(none.stdout.trim()), "in_place");
    for id in [one, two, id.to_owned()] {
        world.run(&["wait", &id, "--timeout", "1m"]);
    }
}

#[test]
fn a_home_in_the_work_tree_and_what_is_left_out_stay_at_home() {
    let world = work_tree("kind = \"local\"");
    std::fs::create_dir(world.path("sub")).unwrap();
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    world.write("sub/exp.toml", &text.replace("train.py", "../train.py"));
    world.write("sub/keys.txt", "first\n");
    world.write(".gitignore", "data/\n");
    git(&world, &["add", "-A", "sub"]);
    git(&world, &["commit", "-qm", "second"]);
    world.write("sub/keys.txt", "secret\n");
    world.write("sub/.nemoignore", "keys.txt\n");
    let planned: Value =
        serde_json::from_str(&world.ok(&["plan", "sub/exp.toml", "--json"])).unwrap();
    let names = |planned: &Value| -> Vec<String> {
        let files = planned["package"]["files"].as_array().unwrap();
        files.iter().map(|file| crate::support::text(&file["path"])).collect()
    };
    assert_eq!(names(&planned), [".nemoignore", "exp.toml"], "{planned:#}");
    let above =
        ["plan", "sub/exp.toml", "--json", "--set", "package={ from = 'git', root = '..' }"];
    let above = names(&serde_json::from_str(&world.ok(&above)).unwrap());
    assert!(above.contains(&"sub/exp.toml".to_owned()), "{above:?}");
    assert!(!above.contains(&"sub/keys.txt".to_owned()), "{above:?}");
    let id = world.ok(&["submit", "sub/exp.toml"]);
    let patch = std::fs::read_to_string(world.experiment(&id).join("uncommitted.diff")).unwrap();
    assert!(!patch.contains("secret"), "{patch}");
    let planned: Value = serde_json::from_str(&world.ok(&["plan", "exp.toml", "--json"])).unwrap();
    let own = names(&planned);
    assert!(own.iter().all(|name| !name.starts_with("home/")), "{own:?}");
    world.run(&["wait", &id, "--timeout", "1m"]);
}

/// A work tree with a submodule `sub` that has `own.py`.
pub(crate) fn with_submodule() -> World {
    let world = work_tree("kind = \"local\"");
    std::fs::create_dir(world.path("data/other")).unwrap();
    world.write("data/other/own.py", "OWN = 1\n");
    let other = world.path("data/other").display().to_string();
    for arguments in [
        &["-C", &other, "init", "-q"][..],
        &["-C", &other, "add", "-A"],
        &["-C", &other, "commit", "-qm", "first"],
        &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &other, "sub"],
        &["commit", "-qm", "with a submodule"],
    ] {
        git(&world, arguments);
    }
    world
}

#[test]
fn the_commit_alone_has_the_files_of_its_submodules() {
    let world = with_submodule();
    world.write("sub/own.py", "OWN = 2\n");
    world.write("sub/new.py", "NEW = 2\n");
    let keys = "package={ from = 'git', submodules = true, dirty = 'ignore' }";
    let submitted = world.run(&["submit", "exp.toml", "--set", keys]);
    assert!(submitted.stderr.contains("linked, not shipped: `data`.\n"), "{submitted:?}");
    let id = submitted.stdout.trim().to_owned();
    let files = Path::new(&text(&show(&world, &id)["package"]["dir"])).join("files");
    assert_eq!(std::fs::read_to_string(files.join("sub/own.py")).unwrap(), "OWN = 1\n");
    assert!(!files.join("sub/new.py").exists());
    world.run(&["wait", &id, "--timeout", "1m"]);
}

/// Applied to the commit, the patch makes what was shipped.
#[test]
fn the_patch_has_new_files_and_those_of_submodules() {
    let world = with_submodule();
    world.write("sub/own.py", "OWN = 2\n");
    world.write("sub/new.py", "NEW = 2\n");
    world.write("sub/keys.txt", "secret\n");
    world.write("sub/.nemoignore", "keys.txt\n");
    world.write("lib/new.py", "NEW = 3\n");
    let index = std::fs::read(world.path(".git/index")).unwrap();
    let id = world.ok(&["submit", "exp.toml", "--set", "package.submodules=true"]);
    assert!(std::fs::read(world.path(".git/index")).unwrap() == index, "it is the user's");
    let patch = world.experiment(&id).join("uncommitted.diff");
    let text = std::fs::read_to_string(&patch).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let files =
        [("sub/own.py", "OWN = 2\n"), ("sub/new.py", "NEW = 2\n"), ("lib/new.py", "NEW = 3\n")];
    for (name, _) in files {
        std::fs::remove_file(world.path(name)).unwrap();
    }
    world.write("sub/own.py", "OWN = 1\n");
    std::fs::remove_file(world.path("sub/.nemoignore")).unwrap();
    let mut apply = Command::new("patch");
    apply.args(["-p1", "-s", "-i"]).arg(&patch).current_dir(world.folder.path());
    let applied = apply.output().unwrap();
    assert!(applied.status.success(), "{applied:?}\n{text}");
    for (name, content) in files {
        assert_eq!(std::fs::read_to_string(world.path(name)).unwrap(), content, "{name}");
    }
    world.run(&["wait", &id, "--timeout", "1m"]);
}

#[test]
fn what_must_not_be_shipped_is_refused_with_what_to_type() {
    let world = work_tree("kind = \"local\"");
    let refused = |expected: &str| {
        let printed = world.run(&["submit", "exp.toml"]);
        assert_eq!(printed.code, 2, "{printed:?}");
        assert!(printed.stderr.contains(expected), "{expected}: {printed:?}");
        assert!(printed.stderr.contains(".nemoignore"), "{printed:?}");
    };
    world.write(".env.local", "A=b");
    refused("`.env.local` is not shipped: `.env*` hold passwords");
    world.write(".nemoignore", ".env.local\n");
    assert_eq!(world.run(&["submit", "exp.toml"]).code, 0, "it is linked");
    let token = format!("TOKEN = 'hf_{}'\n", "aB3".repeat(12));
    world.write("lib/words.py", &format!("WORD = 'x'\n{token}"));
    refused("`lib/words.py` is not shipped: line 2 has what looks like a token of Hugging Face");
    let listed = world.run(&["submit", "exp.toml", "--set", "package.include=['lib/words.py']"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    world.write("lib/words.py", "WORD = 'x'\n");
    std::fs::write(world.path("weights.bin"), vec![0; 3 << 20]).unwrap();
    let large = world.run(&["submit", "exp.toml", "--set", "package.limit=1MiB"]);
    assert_eq!(large.code, 2, "{large:?}");
    assert!(large.stderr.contains("the largest: `weights.bin` (3 MiB)"), "{large:?}");
    let wrong = world.run(&["check", "exp.toml", "--set", "package.root=src"]);
    assert!(wrong.stderr.contains("or one above it"), "{wrong:?}");
}

#[test]
fn a_folder_is_shipped_whole_with_links_and_rights() {
    let world = work_tree("kind = \"local\"");
    std::fs::remove_dir_all(world.path(".git")).unwrap();
    std::fs::write(world.path("run.sh"), "#!/bin/sh\ncat inside outside/big; pwd\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path("run.sh"), mode).unwrap();
    symlink("lib/words.py", world.path("inside")).unwrap();
    symlink(world.path("data"), world.path("outside")).unwrap();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd \xff%name");
    std::fs::write(world.folder.path().join(name), "").unwrap();
    world.write(".nemoignore", "data/\n");
    std::fs::create_dir(world.path("sub")).unwrap();
    let file =
        "name = 'x'\npackage = { from = 'folder', root = '..' }\n[task.a]\nrun = ['../run.sh']\n";
    world.write("sub/exp.toml", &file.replace("['../run.sh']", "'cd .. && ./run.sh'"));
    let planned: Value =
        serde_json::from_str(&world.ok(&["plan", "sub/exp.toml", "--json"])).unwrap();
    assert_eq!(planned["package"]["linked"], json!(["data"]), "{planned:#}");
    let id = world.ok(&["submit", "sub/exp.toml"]);
    assert_eq!(world.run(&["wait", &id, "--timeout", "1m"]).code, 0, "{:#}", world.status(&id));
    let printed = world.ok(&["logs", &id, "--stream", "out"]);
    assert!(printed.contains("WORD = 'first'"), "{printed}");
    assert!(printed.contains("data"), "{printed}");
    assert!(printed.contains("/tasks/a/trials/0/work"), "{printed}");
}

#[test]
fn a_package_that_somebody_changed_is_not_run() {
    let world = work_tree("kind = \"local\"");
    let id = world.ok(&["submit", "exp.toml"]);
    world.run(&["wait", &id, "--timeout", "1m"]);
    let file = Path::new(&text(&show(&world, &id)["package"]["dir"])).join("files/lib/words.py");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&file, "WORD = 'other'\n").unwrap();
    let retried: Value =
        serde_json::from_str(&world.ok(&["retry", &id, "--state", "failed", "--json"])).unwrap();
    assert_eq!(retried["jobs"].as_array().map_or(0, Vec::len), 0, "all of it has run: {retried}");
    let spec = world.experiment(&id).join("tasks/train");
    let harness = crate::support::harness();
    let mut again = Command::new(harness);
    world.surround(again.args(["run", "--local", "--trial", "0", "--task-dir"]).arg(&spec));
    std::fs::remove_file(spec.join("trials/0/attempts.jsonl")).unwrap();
    // This boot has read the package. A trial that has no copy of it yet reads it once more.
    std::fs::remove_file(spec.join("trials/0/work-is-whole")).unwrap();
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("words.py` is not as it was submitted"), "{said}");
    // The same code, submitted again, is shipped anew.
    let id = world.ok(&["submit", "exp.toml"]);
    assert_eq!(world.run(&["wait", &id, "--timeout", "1m"]).code, 0, "{:#}", world.status(&id));
    let names = std::fs::read_dir(world.path("home/packages")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains(".damaged-")), "{names:?}");
}

#[test]
fn on_slurm_a_preempted_trial_goes_on_in_its_own_folder() {
    if !cluster::is_here() {
        return;
    }
    let kind = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\nenv = { PACE = \"1.5\" }";
    let world = work_tree(kind);
    let keys = "[task.train.checkpoint]\nfrom = \"out/ckpt.pt\"\nrestore_to = \"out/ckpt.pt\"\n";
    world.write("exp.toml", &(EXPERIMENT.replace("KIND", kind) + keys));
    let id = world.ok(&["submit", "exp.toml"]);
    world.write("train.py", "raise SystemExit('edited')\n");
    let ckpt = world.experiment(&id).join("tasks/train/trials/0/work/out/ckpt.pt");
    world.until(&id, "a step", |_| ckpt.exists());
    let job = text(&trials(&world.status(&id), "train")[0]["slurm_job"]);
    world.slurm("scontrol", &["requeue", &job]);
    let printed = world.run(&["wait", &id, "--timeout", "4m"]);
    assert_eq!(printed.code, 0, "{printed:?} {:#}", world.status(&id));
    let status = world.status(&id);
    assert_eq!(states(&status, "train"), ["completed"; 4]);
    assert!(trials(&status, "train")[0]["attempts"].as_array().unwrap().len() > 1, "{status:#}");
    assert_eq!(std::fs::read_to_string(ckpt).unwrap(), "10");
}

#[test]
fn all_secrets_are_named_at_once_and_before_a_submission() {
    let world = work_tree("kind = \"local\"");
    world.write(".env", "A=1\n");
    world.write("lib/id_rsa", "x\n");
    world.write("lib/words.py", &format!("WORD = 'x'\nKEY = 'AKIA{}'\n", "ABCDEFGH12345678"));
    for arguments in
        [&["plan", "exp.toml"][..], &["submit", "exp.toml", "--dry-run"], &["submit", "exp.toml"]]
    {
        let refused = world.run(arguments);
        assert_eq!(refused.code, 2, "{refused:?}");
        let told = &refused.stderr;
        assert!(told.contains("3 files are not shipped: `.env`: "), "{told}");
        assert!(
            told.contains("`lib/id_rsa`: `id_*` are keys; `lib/words.py`: line 2 has"),
            "{told}"
        );
        assert!(told.contains(r#"include = [".env", "lib/id_rsa", "lib/words.py"]"#), "{told}");
    }
    world.write(".nemoignore", ".env\nid_rsa\n");
    let refused = world.run(&["plan", "exp.toml", "--json"]);
    assert!(refused.code == 2 && refused.stdout.contains("lib/words.py"), "{refused:?}");
    let planned = world.run(&["plan", "exp.toml", "--set", "package.include=[\"lib/words.py\"]"]);
    assert_eq!(planned.code, 0, "{planned:?}");
}

#[test]
fn a_limit_is_exact_and_what_includes_nothing_is_told() {
    let world = work_tree("kind = \"local\"");
    world.write("more.py", &"#".repeat(2000));
    let refused = world.run(&["plan", "exp.toml", "--set", "package.limit=1K"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("more than `package.limit` (1 KiB)"), "{refused:?}");
    assert_eq!(world.run(&["plan", "exp.toml", "--set", "package.limit=8K"]).code, 0);
    let patterns = "package.include=[\"data\", \"data/**\", \"dta/*\"]";
    for arguments in
        [&["plan", "exp.toml", "--set", patterns][..], &["submit", "exp.toml", "--set", patterns]]
    {
        let told = world.run(arguments);
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.stderr.contains("is meant by `data`, `dta/*` (all files"), "{told:?}");
    }
    world.run(&["wait", "@", "--timeout", "1m"]);
}

/// Who corrects a file and retries runs the old code: that is said, and what to type.
#[test]
fn a_retry_and_debug_tell_which_code_runs() {
    let world = work_tree("kind = \"local\"");
    world.write("train.py", "import lib.missing_file\nopen('nothing')\n");
    world.write("lib/missing_file.py", "open('no/such/file')\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.run(&["wait", &id, "--timeout", "1m"]);
    let same = world.run(&["retry", &id, "--trials", "0", "--dry-run"]);
    assert!(same.stderr.contains("The code that was submitted on 20"), "{same:?}");
    assert_eq!(same.stderr.matches("`nemo-slurm submit FILE`").count(), 1, "{same:?}");
    world.write("lib/missing_file.py", "");
    let advised = world.run(&["retry", &id, "--advise"]);
    assert!(advised.stdout.contains("its files, and submit again"), "{advised:?}");
    let debugged = world.run(&["debug", &format!("{id}/train/0")]);
    assert!(debugged.stderr.contains("no/such/file"), "what was submitted: {debugged:?}");
    let retried = world.run(&["retry", &id, "--trials", "0"]);
    for told in [debugged.stderr, retried.stderr] {
        assert_eq!(told.matches("have changed since they were submitted").count(), 1, "{told}");
    }
    world.run(&["wait", &id, "--timeout", "1m"]);
}
