//! What is printed: errors with hints, help, completions, man pages.

use clap::CommandFactory;
use nemo_slurm::cli::Cli;

use crate::support::World;

/// Output without what changes from run to run.
fn redacted(text: &str, world: &World) -> String {
    text.replace(&world.folder.path().display().to_string(), "[FOLDER]")
}

#[test]
fn errors_say_what_to_type_next() {
    let world = World::new();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let printed = world.run(arguments);
        assert_eq!((printed.code, redacted(&printed.stderr, &world).as_str()), (code, expected));
        assert_eq!(printed.stdout, "", "errors are no data");
    };
    check(
        &["check", "missing.toml"],
        3,
        "error: can't read `missing.toml`: No such file or directory (os error 2)\n\nhint: `nemo-slurm init` writes a file to start from\n",
    );
    check(
        &["status", "digits"],
        3,
        "error: no experiment is called `digits`\n\nhint: `nemo-slurm list` shows all\n",
    );
    check(
        &["cancel", "a/b/c/d"],
        2,
        "error: `a/b/c/d` is not a target\n\nhint: write EXPERIMENT, EXPERIMENT/TASK or EXPERIMENT/TASK/TRIALS, as in `@/train/3` or `@/train/3,17,40-49`\n",
    );
}

#[test]
fn the_usage_of_every_command_shows_what_it_needs_and_nothing_of_the_environment() {
    let world = World::new();
    let cli = Cli::command();
    let needs = |verb: &&clap::Command| verb.get_positionals().any(clap::Arg::is_required_set);
    let verbs: Vec<&str> =
        cli.get_subcommands().filter(needs).map(clap::Command::get_name).collect();
    assert!(verbs.contains(&"cancel") && verbs.len() > 5, "{verbs:?}");
    for verb in verbs {
        let printed = world.run(&[verb]);
        let usage = printed.stderr.lines().find(|line| line.starts_with("Usage:"));
        let usage = usage.unwrap_or_else(|| panic!("{printed:?}"));
        assert!(usage.starts_with(&format!("Usage: nemo-slurm {verb} <")), "{usage}");
        assert!(!usage.contains("--home"), "{usage}");
    }
    // What was typed is shown.
    let printed = world.run(&["cancel", "--dry-run"]);
    assert!(printed.stderr.contains("Usage: nemo-slurm cancel --dry-run <TARGET>"), "{printed:?}");
    assert!(world.ok(&["cancel", "--help"]).contains("NEMO_SLURM_HOME="));
}

#[test]
fn a_dry_run_names_the_command_that_shows_scripts() {
    let world = World::new();
    let file = "name = \"a\"\n[executor.gpu]\nkind = \"slurm\"\n[task.train]\nrun = \"true\"\n";
    world.write("my.toml", file);
    let printed = world.run(&["submit", "my.toml", "--dry-run"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let named = "`nemo-slurm plan my.toml --scripts` shows the batch scripts.";
    assert!(printed.stderr.contains(named), "{printed:?}");
    assert!(world.ok(&["plan", "my.toml", "--scripts"]).contains("#SBATCH"));
}

#[test]
fn a_folder_is_no_file_but_may_have_one() {
    let world = World::new();
    std::fs::create_dir(world.path("empty")).unwrap();
    world.ok(&["init", "full"]);
    let check = |folder: &str, hint: &str| {
        let printed = world.run(&["submit", folder]);
        let expected =
            format!("error: `{folder}` is a folder, not an experiment's file\n\nhint: {hint}\n");
        assert_eq!((printed.code, printed.stderr), (2, expected));
    };
    check("full", "name the file in it: `full/exp.toml`");
    check("empty", "`nemo-slurm init empty` writes a file to start from there");
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let world = World::new();
    world.write(
        "exp.toml",
        "name = \"a/b\"\n[tsak.train]\nrun = \"true\"\n[task.train]\nrun = \"train {lrr}\"\nafter = [\"prepar\"]\n\
         [task.train.params]\nlr = []\n[task.prepare]\nrun = \"true\"\n",
    );
    let printed = world.run(&["check"]);
    assert_eq!(printed.code, 2);
    for expected in
        ["exp.toml:1", "exp.toml:2", "exp.toml:5", "exp.toml:6", "exp.toml:8", "did you mean"]
    {
        assert!(printed.stderr.contains(expected), "{expected}: {}", printed.stderr);
    }
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["check", "--json"]).stdout).unwrap();
    assert!(json["problems"].as_array().unwrap().len() >= 5, "{json:#}");
}

#[test]
fn init_writes_what_can_be_submitted_and_never_overwrites() {
    let world = World::new();
    let next = world.ok(&["init", "first"]);
    assert_eq!(next, "nemo-slurm submit first/exp.toml --follow");
    let valid = world.ok(&["check", "first/exp.toml"]);
    assert_eq!(valid, "`first` is valid: 1 task, 6 trials.");
    let again = world.run(&["init", "first"]);
    assert_eq!(again.code, 5, "{again:?}");
}

#[test]
fn help_teaches_with_examples() {
    let world = World::new();
    let all = world.ok(&["-h"]);
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A description goes on in lines that are indented further.
    let names = commands.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        name.split(' ').next().filter(|name| *name != "help")
    });
    let names: Vec<&str> = names.collect();
    assert!(names.contains(&"init") && names.contains(&"man"), "{all}");
    for name in names {
        let help = world.ok(&[name, "--help"]);
        assert!(help.contains("\nExample"), "{name}: {help}");
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.ok(&["completions", shell]).contains("nemo-slurm"), "{shell}");
    }
    world.ok(&["man", "man1"]);
    let page = std::fs::read_to_string(world.path("man1/nemo-slurm-submit.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("continue"), "{page}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let world = World::new();
    let program = env!("CARGO_BIN_EXE_nemo-slurm");
    let mut shell = std::process::Command::new("sh");
    world.surround(&mut shell);
    // The pipe's other end is closed before anything is written.
    let script = format!("(sleep 0.2; {program} completions bash; echo code $? >&2) | true");
    let output = shell.arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "code 0\n");
}

#[test]
fn a_metric_that_no_pattern_reads_is_warned_of_before_anything_runs() {
    let world = World::new();
    let file = |metric: &str| {
        format!(
            "name = \"a\"\n[task.t]\nrun = \"true\"\nparams = {{ x = [1, 2] }}\nsearch = {{ metric = \"{metric}\", goal = \"max\" }}\n[task.t.metrics]\nval_accuracy = 'acc (\\S+)'\n"
        )
    };
    for (metric, is_warned) in [("val_acc", true), ("val_accuracy", false)] {
        world.write("exp.toml", &file(metric));
        for command in ["check", "plan", "submit"] {
            let printed = world.run(&[command, "exp.toml"]);
            let warning = "warning: the trials of `t` are ranked by `val_acc`, but `[task.t.metrics]` reads only `val_accuracy`";
            assert_eq!(printed.code, 0, "{printed:?}");
            assert_eq!(printed.stderr.contains(warning), is_warned, "{command}: {printed:?}");
        }
    }
}

#[test]
fn a_pipe_that_hides_a_crash_is_warned_of() {
    let world = World::new();
    for (run, is_warned) in [
        ("python3 train.py 2>&1 | tee log.txt", true),
        ("cd a; python3 train.py \\\n |& tee -a log.txt;\n", true),
        ("python3 train.py | ts | logger", true),
        ("set -o pipefail; python3 train.py | tee log.txt", false),
        ("echo begins | tee log.txt; python3 train.py", false),
        ("grep a b || tee log.txt", false),
        ("cat config | python3 train.py", false),
        ("python3 train.py && echo done | tee -a log", false),
        ("grep a b | tee c && python3 train.py", false),
        ("cd a && python3 train.py | tee log", true),
        ("python3 train.py | tee log && echo done", true),
        ("(python3 train.py && echo done) | tee log", true),
        ("bash -c \"python3 train.py && echo done\" | tee log", true),
    ] {
        world.write("exp.toml", &format!("name = \"a\"\n[task.t]\nrun = '''{run}'''\n"));
        let printed = world.run(&["check", "exp.toml"]);
        assert_eq!(printed.code, 0, "{printed:?}");
        assert_eq!(printed.stderr.contains("counts as completed"), is_warned, "{run}: {printed:?}");
    }
}

#[test]
fn who_resumes_what_failed_is_told_of_retry() {
    let world = World::new();
    world.write("exp.toml", "name = \"a\"\n[task.t]\nrun = \"false\"\n");
    let id = world.ok(&["submit", "exp.toml"]);
    world.run(&["wait", &id]);
    let printed = world.run(&["resume", &id]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("`nemo-slurm retry`"), "{printed:?}");
}
