//! `submit` of a job script: its copy is wrapped, the script stays as it is.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::fake::FakeSlurm;
use crate::support::{World, causes, printed, text, trials};

/// A script as people have it: no word of the harness.
fn old_script(world: &World, steps: u32) -> String {
    counting::write(world, "kind = \"local\"", steps, 0.1);
    let script = format!(
        "#!/bin/bash\n#SBATCH --job-name=old-train\n#SBATCH --output=slurm-%A_%a.out\n\
         echo \"on $(hostname)\"\nSEED=$((3 + 2 * ${{SLURM_ARRAY_TASK_ID:-0}}))\n\
         python3 count.py {steps} \\\n  0.1 \"$SEED\" $1\necho done\n"
    );
    world.write("old.sbatch", &script);
    script
}

#[test]
fn a_dry_run_shows_the_script_that_would_be_submitted() {
    let world = World::new();
    let script = old_script(&world, 3);
    let printed =
        world.run(&["submit", "old.sbatch", "--dry-run", "--wrap", "--lead 60s --crashes 2"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stdout.contains("\n#SBATCH --signal=B:USR1@60\n"), "{printed:?}");
    assert!(
        printed
            .stdout
            .contains(" wrap --lead 60s --crashes 2 -- python3 count.py 3 \\\n  0.1 \"$SEED\" $1"),
        "{printed:?}"
    );
    assert!(printed.stderr.contains("note: old.sbatch:8: `echo done` is left out"), "{printed:?}");
    let shown: Value =
        serde_json::from_str(&world.ok(&["submit", "old.sbatch", "--dry-run", "--json"])).unwrap();
    assert_eq!(
        (shown["line"].as_u64(), shown["notes"][0]["line"].as_u64()),
        (Some(6), Some(8)),
        "{shown:#}"
    );
    assert_eq!(std::fs::read_to_string(world.path("old.sbatch")).unwrap(), script, "unchanged");
    assert!(!world.path("home").exists(), "a dry run writes nothing");
}

/// A job of two minutes is not asked to save at its start.
#[test]
fn the_signal_of_a_short_job_leaves_half_of_its_time() {
    let world = World::new();
    world.write("old.sbatch", "#!/bin/bash\n#SBATCH --time=2\npython3 x\n");
    let seconds = |arguments: &[&str]| {
        let all = ["submit", "old.sbatch", "--dry-run"].iter().chain(arguments).copied();
        let shown = world.ok(&all.collect::<Vec<_>>());
        let (_, rest) = shown.split_once("\n#SBATCH --signal=B:USR1@").unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    assert_eq!(seconds(&[]), "60");
    assert_eq!(seconds(&["--sbatch", "-t 1:30"]), "45", "what is typed counts more");
    assert_eq!(seconds(&["--sbatch", "--time=1-0"]), "120");
    assert_eq!(seconds(&["--wrap", "--lead 90s"]), "90", "it was asked for");
    assert_eq!(seconds(&["--wrap", "--lead 2m"]), "60", "it would be all of the time");
    world.write("old.sbatch", "#!/bin/bash\n#SBATCH --signal=B:USR2@90 -t 1\npython3 x\n");
    let shown = world.ok(&["submit", "old.sbatch", "--dry-run"]);
    assert!(shown.contains("\n#SBATCH --signal=B:USR1@30 -t 1\n"), "{shown}");
}

/// Slurm's signal may come while the script still prepares. The program does not inherit that it was ignored.
#[test]
fn a_signal_before_the_program_is_survived_and_the_programs_own_again() {
    let world = World::new();
    let script = "#!/bin/bash\nkill -USR1 $$\nenv grep SigIgn /proc/self/status > mask\n";
    world.write("old.sbatch", script);
    let copy = world.ok(&["submit", "old.sbatch", "--dry-run"]);
    world.write("copy.sh", &copy);
    let mut shell = std::process::Command::new("/bin/bash");
    world.surround(shell.arg("copy.sh").current_dir(world.folder.path()));
    let ran = shell.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let mask = std::fs::read_to_string(world.path("mask")).unwrap();
    let mask = u64::from_str_radix(mask.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(mask & (1 << 9), 0, "USR1 is not ignored: {mask:x}");
}

#[test]
fn a_script_s_signal_asks_its_program() {
    let world = World::new();
    world.write("old.sbatch", "#!/bin/bash\n#SBATCH --signal=B:USR2@90\npython3 x\n");
    let shown = world.run(&["submit", "old.sbatch", "--dry-run"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("\n#SBATCH --signal=B:USR1@90\n"), "{shown:?}");
    assert!(shown.stdout.contains(" wrap --signal USR2 --lead 90s -- python3 x"), "{shown:?}");
    let note = "note: old.sbatch:2: `--signal=B:USR2@90` becomes `--signal=B:USR1@90`";
    assert!(shown.stderr.contains(note), "{shown:?}");
    let typed = world.run(&["submit", "old.sbatch", "--dry-run", "--sbatch=--signal=USR2@9"]);
    assert!(typed.code == 2 && typed.stderr.contains("--wrap '--signal USR2"), "{typed:?}");
}

#[test]
fn a_mistake_names_its_line_and_what_to_type() {
    let world = World::new();
    world.write("loop.sbatch", "#!/bin/sh\nfor i in 1 2; do\n  python3 x $i\ndone\n");
    world.write("loops.sbatch", "#!/bin/sh\nfor i in 1 2; do\nsrun python3 x\ndone\npython3 y\n");
    world.write("plain.sbatch", "python3 x\n");
    world.write("wait.sbatch", "#!/bin/sh\n#SBATCH -QW\npython3 x\n");
    world.write("exp.toml", "name = \"x\"\n[task.a]\nrun = \"true\"\n");
    for (arguments, code, expected) in [
        (&["loop.sbatch"][..], 2, "error: loop.sbatch:4: the script ends with `done`"),
        (&["loop.sbatch"], 2, "nemo-slurm submit --whole"),
        (&["loops.sbatch"], 2, "error: loops.sbatch:3: `srun python3 x` runs in a loop"),
        (&["plain.sbatch"], 2, "error: plain.sbatch:1: this is no script"),
        (&["wait.sbatch"], 2, "error: wait.sbatch:2: with `--wait`"),
        (&["loop.sbatch", "--whole", "--sbatch=-W"], 2, "nemo-slurm wait JOB"),
        (&["loop.sbatch", "--whole", "--wrap", "--dri x"], 2, "no option `--dri`"),
        (&["loop.sbatch", "--set", "a=1"], 2, "--sbatch"),
        (&["exp.toml", "--whole"], 2, "is for job scripts"),
    ] {
        let all: Vec<&str> = ["submit", "--dry-run"].iter().chain(arguments).copied().collect();
        let printed = world.run(&all);
        assert_eq!(printed.code, code, "{arguments:?}: {printed:?}");
        assert!(printed.stderr.contains(expected), "{arguments:?}: {printed:?}");
    }
    let shown = world.ok(&["submit", "--dry-run", "loop.sbatch", "--whole"]);
    assert!(shown.ends_with("/whole/loop.sbatch \"$@\""), "{shown}");
    let printed = world.run(&["check", "loop.sbatch"]);
    assert!(printed.stderr.contains("nemo-slurm submit"), "{printed:?}");
}

#[test]
fn where_sbatch_gives_no_answer_the_job_may_exist() {
    let fake = FakeSlurm::new(10);
    fake.world.write("old.sbatch", "#!/bin/sh\npython3 x\n");
    let sbatch = fake.world.path("bin/sbatch");
    let submit = |script: &str| {
        std::fs::write(&sbatch, script).unwrap();
        let mut command = fake.world.command(&["submit", "old.sbatch", "--json"]);
        printed(&command.env("SBATCH_WAIT", "1").output().unwrap())
    };
    let unknown = submit("#!/bin/sh\nkill -KILL $$\n");
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stdout.contains("it is not known whether `old.sbatch`"), "{unknown:?}");
    assert!(!unknown.stdout.contains("refused"), "{unknown:?}");
    assert!(unknown.stdout.contains("squeue --me"), "{unknown:?}");
    let submitted = submit("#!/bin/sh\n[ -z \"$SBATCH_WAIT\" ] && echo 7\n");
    let shown: Value = serde_json::from_str(&submitted.stdout).unwrap();
    // A submission that was killed before it had set the mode.
    let copy = std::path::PathBuf::from(text(&shown["script"]));
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(submit("#!/bin/sh\necho 8\n").code, 0);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Kills the harness of a trial of the only wrapped job. Its guard sees to the rest.
fn kill_harness(world: &World, trial: u32) {
    let jobs = std::fs::read_dir(world.path("home/jobs")).unwrap().map(|own| own.unwrap().path());
    let job = jobs.into_iter().find(|own| own.join("tasks").exists()).unwrap();
    let records = job.join(format!("tasks/job/trials/{trial}/attempts.jsonl"));
    let records =
        nemo_core::lines::read::<nemo_core::rundir::AttemptRecord>(&records).unwrap().rows;
    let pid = records[0].as_start().unwrap().process.pid.to_string();
    let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn an_old_array_is_submitted_wrapped_preempted_and_goes_on() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let script = old_script(&world, 150);
    let metric = "--lead 10s --metric 'step=step (\\d+)' --metric 'loss=loss: (\\d+)'";
    let job =
        world.ok(&["submit", "old.sbatch", "--sbatch", "--array=1-2 --time=5", "--wrap", metric]);
    assert_eq!(std::fs::read_to_string(world.path("old.sbatch")).unwrap(), script, "unchanged");
    let began = std::time::Instant::now();
    while world.run(&["status", &job, "--json"]).code != 0 {
        assert!(began.elapsed().as_secs() < 120, "the job is not known");
        std::thread::sleep(std::time::Duration::from_millis(100)); // looks again
    }
    world.until(&job, "steps of both", |status| {
        let own = trials(status, "job");
        own.len() == 2 && own.iter().all(|trial| trial["step"].as_u64() > Some(5))
    });
    kill_harness(&world, 1);
    world.ok(&["preempt", &format!("{job}_2")]);
    assert_eq!(world.run(&["wait", &job, "--timeout", "3m"]).code, 0, "{:#}", world.status(&job));
    let status = world.status(&job);
    assert_eq!(causes(&trials(&status, "job")[1]), ["preempted", "completed"], "{status:#}");
    assert_eq!(
        causes(&trials(&status, "job")[0]).len(),
        2,
        "its guard had it requeued: {status:#}"
    );
    let listed: Value = serde_json::from_str(&world.ok(&["list", "--jobs", "--json"])).unwrap();
    let ids: Vec<String> =
        listed["experiments"].as_array().unwrap().iter().map(|own| text(&own["id"])).collect();
    assert_eq!(ids.len(), 1, "both tasks are of one job: {ids:?}");
}

#[test]
fn a_script_becomes_an_experiment_that_runs() {
    let world = World::new();
    counting::write(&world, "kind = \"local\"", 3, 0.0);
    world.write(
        "old.sbatch",
        "#!/bin/bash\n#SBATCH --job-name=old --time=10 --output=x.out --array=1-2\nSEED=$((3 + 2 * SLURM_ARRAY_TASK_ID))\n\
         srun python3 count.py 3 0 \"${SEED}\"\necho done\n",
    );
    let refused = world.run(&["init", "--from", "old.sbatch"]);
    assert_eq!(refused.code, 5, "exp.toml is there already: {refused:?}");
    std::fs::remove_file(world.path("exp.toml")).unwrap();
    std::os::unix::fs::symlink("elsewhere.toml", world.path("exp.toml")).unwrap();
    let refused = world.run(&["init", "--from", "old.sbatch"]);
    assert_eq!(refused.code, 5, "a link to nothing is there too: {refused:?}");
    assert!(!world.path("elsewhere.toml").exists());
    std::fs::remove_file(world.path("exp.toml")).unwrap();
    let printed = world.run(&["init", "--from", "old.sbatch"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("note: old.sbatch:2: `--output=x.out`"), "{printed:?}");
    assert!(world.ok(&["check"]).contains("2 trials"));
    let id = world.ok(&["submit", "--executor", "local", "--wait"]);
    let status = world.status(&id);
    let totals = trials(&status, "train").iter().map(|trial| {
        let index = trial["index"].as_u64().unwrap();
        let path =
            world.experiment(&id).join(format!("tasks/train/trials/{index}/artifacts/total"));
        std::fs::read_to_string(path).unwrap()
    });
    let seeds = [5_u64, 7].map(|seed| (seed * 31 * 31 * 31 % 1_000_003).to_string());
    assert_eq!(totals.collect::<Vec<_>>(), seeds);
}
