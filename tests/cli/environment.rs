//! What programs find in their environment: the user's, and what the file says, on both executors and on a real Slurm.

use std::process::Command;

use crate::cluster;
use crate::support::{World, printed, states, text, trials};

/// A task `a` that runs this; every executor passes on the secret `TOKEN`.
fn write(world: &World, run: &str, sbatch: &str, task: &str) {
    let file = format!(
        r#"name = "env"
[executor.cluster]
kind = "slurm"
mem = "50M"
time = "5m"
secrets = ["TOKEN"]
setup = ["if command -v module; then module load cuda || true; fi"]
sbatch = {{ {sbatch} }}
[executor.here]
kind = "local"
secrets = ["TOKEN"]
setup = ["if command -v module; then module load cuda || true; fi"]
[task.a]
run = {run}
{task}"#
    );
    world.write("exp.toml", &file);
}

/// The executors that can be tried.
fn places() -> Vec<&'static str> {
    if cluster::is_here() { vec!["here", "cluster"] } else { vec!["here"] }
}

/// Submits from a shell with these variables, waits, and returns the id and what the program printed.
#[track_caller]
fn printed_in(world: &World, place: &str, shell: &[(&str, &str)]) -> (String, String) {
    let submit = ["submit", "exp.toml", "--executor", place, "--wait"];
    let output = world.command(&submit).env("TOKEN", "sesame").envs(shell.to_vec()).output();
    let submitted = printed(&output.unwrap());
    assert_eq!(submitted.code, 0, "{place}: {submitted:?}");
    let id = submitted.stdout.trim().to_owned();
    let log = world.experiment(&id).join("tasks/a/trials/0/0.out");
    let log = std::fs::read_to_string(log).unwrap();
    (id, log)
}

const ENV: &str = r#""env""#;

/// The values of a variable in what `env` printed.
fn value(log: &str, name: &str) -> Option<String> {
    let is_it = |line: &&str| line.split_once('=').is_some_and(|(own, _)| own == name);
    log.lines().find(is_it).map(|line| line[name.len() + 1..].to_owned())
}

#[test]
fn a_trial_is_not_the_rank_or_the_job_that_its_shell_is() {
    let world = World::new();
    write(&world, ENV, "", "");
    let shell = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "elsewhere"),
        ("OMPI_COMM_WORLD_RANK", "1"),
        ("PMIX_RANK", "1"),
        ("SLURM_JOB_ID", "4711"),
        ("SLURM_JOBID", "4711"),
        ("SLURM_PROCID", "1"),
        ("SLURM_RESTART_COUNT", "9"),
        ("SBATCH_TIMELIMIT", "1"),
        ("NEMO_PARAM_LR", "7"),
        ("SLURM_TIME_FORMAT", "relative"),
        ("LC_ALL", "C.UTF-8"),
        ("MY_OWN", "a b"),
    ];
    for place in places() {
        let (_, log) = printed_in(&world, place, &shell);
        for (name, inherited) in &shell[..12] {
            let found = value(&log, name);
            let is_own = place == "cluster" && found.as_deref() != Some(inherited);
            let of_slurm = name.starts_with("SLURM_") && is_own;
            assert!(found.is_none() || of_slurm, "{place}: {name}={found:?}");
        }
        for (name, inherited) in &shell[12..] {
            assert_eq!(value(&log, name).as_deref(), Some(*inherited), "{place}: {name}");
        }
        assert_eq!(value(&log, "SLURM_BITSTR_LEN"), None, "{place}: ours, not the user's");
        assert_eq!(value(&log, "SLURM_JOB_ID").is_some(), place == "cluster");
    }
}

#[test]
fn exported_functions_arrive() {
    let world = World::new();
    // A program that a shell starts finds them as well, and so does a shell's own text.
    write(&world, r#""bash -c 'module list'; module avail""#, "", "");
    let shell = [("BASH_FUNC_module%%", "() {  echo \"module: $*\"\n}")];
    for place in places() {
        let (_, log) = printed_in(&world, place, &shell);
        for line in ["module: load cuda", "module: list", "module: avail"] {
            assert!(log.contains(line), "{place}: {log}");
        }
    }
}

#[test]
fn secrets_arrive_whatever_is_exported_and_no_accounts_have_them() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let shell = [("OTHER", "open"), ("NAMED", "n")];
    for (export, other, named) in [
        ("", true, true),
        ("export = \"ALL,ADDED=1\"", true, true),
        ("export = \"NONE\"", false, false),
        ("export = \"NAMED,ADDED=1\"", false, true),
    ] {
        write(&world, ENV, export, "");
        let (id, log) = printed_in(&world, "cluster", &shell);
        assert_eq!(value(&log, "TOKEN").as_deref(), Some("sesame"), "{export}: {log}");
        assert_eq!(value(&log, "OTHER").is_some(), other, "{export}: {log}");
        assert_eq!(value(&log, "NAMED").is_some(), named, "{export}: {log}");
        assert_eq!(value(&log, "ADDED").is_some(), export.contains("ADDED"), "{export}: {log}");
        let job = text(&trials(&world.status(&id), "a")[0]["slurm_job"]);
        let accounts = stored_environment(&world, job.split('_').next().unwrap());
        assert!(accounts.contains("SLURM_CONF="), "{export}: nothing is stored: {accounts}");
        for name in ["sesame", "TOKEN", "OTHER", "NAMED", "LC_ALL", "SLURM_TIME_FORMAT"] {
            assert!(!accounts.contains(name), "{export}: {name} in {accounts}");
        }
    }
}

/// What the accounting database keeps of a job's environment, once it has it.
fn stored_environment(world: &World, job: &str) -> String {
    for _ in 0..100 {
        let mut sacct = Command::new("sacct");
        world.surround(&mut sacct);
        let printed = printed(&sacct.args(["-j", job, "--env-vars"]).output().unwrap());
        if printed.stdout.contains('=') {
            return printed.stdout;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    String::new()
}

#[test]
fn the_environment_is_that_of_the_submission_after_a_restart_too() {
    let world = World::new();
    // The first attempt fails; between the two nothing of the submitting shell is left but the folder.
    let run = r#""env; [ $NEMO_ATTEMPT = 1 ]""#;
    write(&world, run, "", "[task.a.restart]\ncrashes = 1\n");
    for place in places() {
        let submit = ["submit", "exp.toml", "--executor", place, "--wait"];
        let shell = [("TOKEN", "sesame"), ("PATH_OF_CONDA", "/envs/a")];
        let submitted = printed(&world.command(&submit).envs(shell).output().unwrap());
        assert_eq!(submitted.code, 0, "{place}: {submitted:?}");
        let id = submitted.stdout.trim();
        assert_eq!(states(&world.status(id), "a"), ["completed"]);
        let log = world.experiment(id).join("tasks/a/trials/0/1.out");
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(value(&log, "TOKEN").as_deref(), Some("sesame"), "{place}");
        assert_eq!(value(&log, "PATH_OF_CONDA").as_deref(), Some("/envs/a"), "{place}");
    }
}

#[test]
fn a_temporary_folder_of_the_login_node_is_used_where_a_node_has_it() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let there = world.path("tmp").display().to_string();
    write(&world, ENV, "", "");
    for (of_the_shell, expected) in [(there.as_str(), there.as_str()), ("/nowhere/me", "/tmp")] {
        let (_, log) = printed_in(&world, "cluster", &[("TMPDIR", of_the_shell)]);
        assert_eq!(value(&log, "TMPDIR").as_deref(), Some(expected));
        let scratch = value(&log, "NEMO_SCRATCH").unwrap_or_default();
        assert!(scratch.starts_with(&format!("{expected}/nemo-scratch-")), "{log}");
    }
}

#[test]
fn a_secret_that_is_not_set_is_an_error_before_anything_is_written() {
    let world = World::new();
    write(&world, ENV, "", "");
    let refused = world.run(&["submit", "exp.toml", "--executor", "here"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("`TOKEN` is not set"), "{refused:?}");
    assert!(!world.path("home").join("experiments").exists());
}

#[test]
fn secrets_are_private_and_gone_once_all_is_over() {
    let world = World::new();
    let both = r#""cd $NEMO_DIR/../../../..; stat -c %a environment secrets""#;
    write(&world, both, "", "");
    for place in places() {
        let (id, log) = printed_in(&world, place, &[]);
        assert_eq!(log, "600\n600\n", "{place}");
        let dir = world.experiment(&id);
        world.until(&id, "the end", |status| status["tasks"][0]["trials"][0]["final"] == true);
        assert!(!dir.join("secrets").exists(), "{place}: all is over");
        assert!(dir.join("environment").exists(), "{place}");
    }
}

#[test]
fn a_secret_that_is_gone_fails_the_trial_with_the_reason() {
    let world = World::new();
    write(&world, ENV, "", "");
    let (id, _) = printed_in(&world, "here", &[]);
    let dir = world.experiment(&id);
    std::fs::remove_dir_all(dir.join("tasks/a/trials/0")).unwrap();
    let again = || {
        let mut harness = Command::new(crate::support::harness());
        world.surround(&mut harness);
        let run = ["run", "--local", "--trial", "0", "--task-dir"];
        let ended = printed(&harness.args(run).arg(dir.join("tasks/a")).output().unwrap());
        assert_eq!(ended.code, 1, "{ended:?}");
        ended.stderr
    };
    assert!(again().contains("secrets are removed once all trials are over"));
    let none = nemo_core::environment::to_file(&[]);
    std::fs::write(dir.join("secrets"), none).unwrap();
    assert!(again().contains("the secret `TOKEN` is not in"));
}

#[test]
fn what_a_site_says_is_shown_and_what_is_ignored_is_named() {
    let fake = crate::fake::FakeSlurm::new(10);
    let sbatch = fake.world.path("bin/sbatch");
    let script = std::fs::read_to_string(&sbatch).unwrap();
    let notice = "echo 'sbatch: the file system is slow today' >&2\n";
    std::fs::write(&sbatch, script + notice).unwrap();
    let two =
        "name = 'x'\n[executor.s]\nkind = 'slurm'\n[task.a]\nrun = 'x'\n[task.b]\nrun = 'x'\n";
    fake.world.write("exp.toml", two);
    let mut submit = fake.world.command(&["submit", "exp.toml"]);
    let submit = submit.env("SBATCH_TIMELIMIT", "5").env("SBATCH_ACCOUNT", "lab").output();
    let submitted = printed(&submit.unwrap());
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let said = "sbatch: the file system is slow today\n";
    assert_eq!(submitted.stderr.matches(said).count(), 1, "{submitted:?}");
    assert!(submitted.stderr.contains("warning: `SBATCH_TIMELIMIT` is ignored:"), "{submitted:?}");
}

#[test]
fn a_partition_that_ends_jobs_before_they_are_asked_is_warned_of() {
    let fake = crate::fake::FakeSlurm::new(10);
    let partitions = "PartitionName=main Default=YES DefaultTime=00:01:00 GraceTime=0 MaxTime=UNLIMITED Nodes=n[1-4] PreemptMode=OFF State=UP\n";
    std::fs::write(fake.state("partitions"), partitions).unwrap();
    let warned = |time: &str| {
        let text =
            format!("name = 'x'\n[executor.s]\nkind = 'slurm'\n{time}\n[task.a]\nrun = 'x'\n");
        fake.world.write("exp.toml", &text);
        let submitted = fake.world.run(&["submit", "exp.toml"]);
        assert_eq!(submitted.code, 0, "{submitted:?}");
        submitted.stderr.contains("warning: partition `main` ends jobs without a `time` after 60 s")
    };
    assert!(warned(""));
    assert!(!warned("time = '10m'"));
}

#[test]
fn paths_that_no_script_can_hold_are_refused_and_nothing_is_written() {
    use std::os::unix::ffi::OsStrExt;
    let fake = crate::fake::FakeSlurm::new(10);
    for (name, why) in [(&b"caf\xe9"[..], "not UTF-8"), (b"a\nb", "line break")] {
        let folder = fake.world.folder.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(
            folder.join("exp.toml"),
            "name = 'x'\n[executor.s]\nkind = 'slurm'\n[task.a]\nrun = 'x'\n",
        )
        .unwrap();
        for command in ["check", "submit"] {
            let refused = printed(
                &fake.world.command(&[command]).arg(folder.join("exp.toml")).output().unwrap(),
            );
            assert_eq!(refused.code, 2, "{refused:?}");
            assert!(refused.stderr.contains(why), "{refused:?}");
        }
        fake.world
            .write("exp.toml", "name = 'x'\n[executor.s]\nkind = 'slurm'\n[task.a]\nrun = 'x'\n");
        let mut submit = fake.world.command(&["submit", "exp.toml"]);
        let refused =
            printed(&submit.env("NEMO_SLURM_HOME", folder.join("home")).output().unwrap());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(!folder.join("home").exists(), "{refused:?}");
    }
    assert_eq!(fake.names(), Vec::<String>::new());
    let mut submit = fake.world.command(&["submit", "exp.toml"]);
    let refused =
        printed(&submit.env("NEMO_SLURM_HOME", fake.world.path("a\\b")).output().unwrap());
    assert!(refused.stderr.contains("can't be used"), "{refused:?}");
}

/// The cluster for development is asked by its name, as another one would be.
#[test]
fn the_cluster_that_has_the_jobs_is_asked_from_any_shell() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    // A second cluster is only a name here: the real programs note what they are asked, and of which.
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let calls = world.path("calls");
    for program in ["sbatch", "squeue", "sacct", "scancel", "scontrol"] {
        let real = which(program);
        let script =
            format!("#!/bin/sh\necho {program} \"$*\" >>{}\nexec {real} \"$@\"\n", calls.display());
        std::fs::write(bin.join(program), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join(program), mode).unwrap();
    }
    let path = format!("{}:{}", bin.display(), world.path);
    let world = World { path, ..world };
    let task = "[task.a]\nrun = 'sleep 600'\n";
    let executor = |options: &str| {
        format!("name = 'x'\n[executor.s]\nkind = 'slurm'\nmem = '50M'\n{options}\n{task}")
    };
    for (options, variable) in [("sbatch.clusters = 'dev'", ""), ("", "dev")] {
        world.write("exp.toml", &executor(options));
        drop(std::fs::remove_file(&calls));
        let mut submit = world.command(&["submit", "exp.toml"]);
        if !variable.is_empty() {
            submit.env("SLURM_CLUSTERS", variable);
        }
        let submitted = printed(&submit.output().unwrap());
        assert_eq!(submitted.code, 0, "{submitted:?}");
        let id = submitted.stdout.trim();
        // These come from a shell that knows of no other cluster.
        world.until(id, "the start", |status| states(status, "a") == ["running"]);
        for command in ["pause", "resume", "poll", "cancel"] {
            world.ok(&[command, id]);
        }
        world.until(id, "the end", |status| states(status, "a") == ["cancelled"]);
        let calls = std::fs::read_to_string(&calls).unwrap();
        let harness =
            |call: &&str| call.contains("scontrol -o show job") || call.contains("requeue");
        for call in calls.lines().filter(|call| !harness(call)) {
            assert!(call.contains("--clusters=dev"), "{call}");
        }
    }
}

fn which(program: &str) -> String {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_cluster_that_does_not_tell_its_limits_is_taken_for_one_like_ours() {
    let fake = crate::fake::FakeSlurm::new(10);
    let scontrol = fake.world.path("bin/scontrol");
    let script = std::fs::read_to_string(&scontrol).unwrap();
    let refuse = "case \"$*\" in --clusters=*config*) echo 'away' >&2; exit 1 ;; esac\n";
    std::fs::write(&scontrol, script.replacen('\n', &format!("\n{refuse}"), 1)).unwrap();
    let file =
        "name = 'x'\n[executor.s]\nkind = 'slurm'\nsbatch.clusters = 'b'\n[task.a]\nrun = 'x'\n";
    fake.world.write("exp.toml", file);
    let submitted = fake.world.run(&["submit", "exp.toml"]);
    assert_eq!(submitted.code, 0, "{submitted:?}");
    assert!(
        submitted.stderr.contains("warning: can't read the limits of cluster `b`"),
        "{submitted:?}"
    );
    assert!(fake.taken()[0].arguments.starts_with("--clusters=b "), "{:?}", fake.taken());
}
