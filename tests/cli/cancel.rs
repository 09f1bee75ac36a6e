//! `cancel`, `pause` and `preempt` tell every job, say what is true, and are not undone.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::fake::FakeSlurm;
use crate::support::{World, causes, states, text, trials};

const SLURM: &str = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";

/// Puts a script before one of Slurm's programs; `REAL` in it becomes the real one.
pub(crate) fn before(world: &mut World, program: &str, script: &str) {
    let bin = world.path("before");
    std::fs::create_dir_all(&bin).unwrap();
    let real = std::env::split_paths(&world.path).map(|folder| folder.join(program));
    let real = real.into_iter().find(|path| path.is_file()).unwrap();
    let script = script.replace("REAL", real.to_str().unwrap());
    std::fs::write(bin.join(program), format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(bin.join(program), PermissionsExt::from_mode(0o755)).unwrap();
    if !world.path.starts_with(bin.to_str().unwrap()) {
        world.path = format!("{}:{}", bin.display(), world.path);
    }
}

/// What the queue has of an experiment's jobs, whatever has become of them.
fn queue(world: &World, id: &str) -> Vec<String> {
    let text = world.slurm("squeue", &["--noheader", "--format=%j %T", "--states=all"]);
    text.lines().filter(|line| line.starts_with(id)).map(str::to_owned).collect()
}

/// What of an experiment waits or runs.
fn left(world: &World, id: &str) -> Vec<String> {
    let waits_or_runs = |row: &String| row.ends_with(" PENDING") || row.ends_with(" RUNNING");
    queue(world, id).into_iter().filter(waits_or_runs).collect()
}

/// One task that sleeps, and ends at once when it is told.
fn sleeper(world: &World) {
    world.write(
        "exp.toml",
        "name = \"sleeper\"\n[executor.it]\nkind = \"slurm\"\nmem = \"10M\"\n[task.t]\nrun = \"exec sleep 600\"\n",
    );
}

/// A link to nowhere in the place of the folder of requests: nothing can be written there, whoever tries.
fn without_requests(world: &World, id: &str) {
    let folder = world.experiment(id).join("requests");
    let _none = std::fs::remove_dir(&folder);
    std::os::unix::fs::symlink("nowhere/requests", folder).unwrap();
}

#[test]
fn every_array_is_told_whatever_one_of_them_answers() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let tasks =
        |task: u32| format!("[task.t{task}]\nafter = [\"t{}\"]\nrun = \"true\"\n", task - 1);
    let file = format!(
        "name = \"chain\"\n[executor.it]\nkind = \"slurm\"\nmem = \"10M\"\n[task.t0]\nrun = \"sleep 600\"\n{}\
         [task.last]\nrun = \"sleep 600\"\n",
        (1..12).map(tasks).collect::<String>()
    );
    world.write("exp.toml", &file);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the first runs", |status| states(status, "t0") == ["running"]);
    let printed = world.run(&["cancel", &id, "--json"]);
    let json: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((printed.code, &json["trials"]), (0, &13.into()), "{printed:?}");
    assert!(left(&world, &id).is_empty(), "{:?}", left(&world, &id));
    let again = world.run(&["cancel", &id]);
    assert_eq!((again.code, &*again.stderr), (0, "Nothing to do: it is over already.\n"));
}

#[test]
fn a_requeue_that_was_under_way_does_not_undo_a_cancel() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    sleeper(&world);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "it runs", |status| states(status, "t") == ["running"]);
    // The first `scancel` is followed by the requeue that a harness had just asked for.
    let once = world.path("once");
    let script = format!(
        "REAL \"$@\"; code=$?\nif mkdir {} 2>/dev/null; then scontrol requeue \"${{2%%_*}}\"; fi\nexit $code",
        once.display()
    );
    before(&mut world, "scancel", &script);
    world.ok(&["cancel", &id]);
    assert!(once.exists(), "the requeue came");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(left(&world, &id).is_empty(), "{:?}", left(&world, &id));
}

#[test]
fn an_array_whose_answer_was_lost_is_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let mut world = World::new();
    sleeper(&world);
    let path = world.path.clone();
    before(
        &mut world,
        "sbatch",
        "REAL \"$@\" >/dev/null; echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1",
    );
    let printed = world.run(&["submit", "exp.toml"]);
    assert_eq!(printed.code, 4, "{printed:?}");
    world.path = path;
    let id = text(&world.status("@")["experiment"]["id"]);
    assert_eq!(left(&world, &id).len(), 1);
    let printed = world.run(&["cancel", &id]);
    assert_eq!((printed.code, &*printed.stderr), (0, &*format!("Cancelled 1 trial of {id}\n")));
    assert!(left(&world, &id).is_empty(), "{:?}", left(&world, &id));
}

#[test]
fn what_slurm_does_not_answer_to_is_not_called_cancelled() {
    let fake = FakeSlurm::new(1001);
    let mut world = World::new();
    world.slurm_conf = None;
    world.path.clone_from(&fake.world.path);
    world.write(
        "exp.toml",
        "name = \"deaf\"\n[executor.it]\nkind = \"slurm\"\n[task.a]\nrun = \"true\"\n[task.b]\nrun = \"true\"\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    // It refuses the first array and takes the second; both stay in the queue.
    before(
        &mut world,
        "scancel",
        "case \"$*\" in *101) echo 'scancel: error: Kill job error on job id 101: Access/permission denied' >&2; exit 1;; esac; REAL \"$@\"",
    );
    let printed = world.run(&["cancel", &id]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(
        printed.stderr.contains("still in the queue") || printed.stderr.contains("denied"),
        "{printed:?}"
    );
    assert!(!printed.stderr.contains("Cancelled"), "{printed:?}");
    assert!(fake.read("cancelled").contains("102"), "the second is told all the same");
    before(
        &mut world,
        "squeue",
        "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1",
    );
    let printed = world.run(&["cancel", &id]);
    assert_eq!(printed.code, 4, "{printed:?}");
    assert!(printed.stderr.contains(&format!("could not cancel all of `{id}`")), "{printed:?}");
}

#[test]
fn a_home_that_can_not_be_written_stops_no_cancel() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    sleeper(&world);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "it runs", |status| states(status, "t") == ["running"]);
    without_requests(&world, &id);
    let printed = world.run(&["cancel", &id]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("warning: Slurm accepted it, but can't "), "{printed:?}");
    assert!(printed.stderr.contains(&format!("{id}/requests")), "{printed:?}");
    assert!(left(&world, &id).is_empty(), "{:?}", left(&world, &id));
}

/// Without a mark that the harness reads, Slurm itself puts the trial back into the queue.
#[test]
fn a_home_that_can_not_be_written_stops_no_preempt_and_no_pause() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    counting::write(&world, SLURM, 80, 0.1);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    without_requests(&world, &id);
    for (trial, mark) in [("1", "preempt-wanted"), ("2", "pause-wanted")] {
        let trial = world.experiment(&id).join("tasks/train/trials").join(trial).join(mark);
        std::fs::create_dir_all(trial.join("in-the-way")).unwrap();
    }
    let printed = world.run(&["preempt", &format!("{id}/train/1")]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("preempt-wanted"), "names the file: {printed:?}");
    world.until(&id, "it was requeued", |status| {
        trials(status, "train")[1]["attempts"][0]["cause"] != Value::Null
    });
    let printed = world.run(&["pause", &format!("{id}/train/2")]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stderr.contains("pause-wanted"), "names the file: {printed:?}");
    world.until(&id, "it is held", |status| states(status, "train")[2] == "paused");
    world.ok(&["cancel", &id]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::new();
    counting::write(&world, "kind = \"local\"\nparallel = 4", 60, 0.05);
    let id = world.ok(&["submit", "exp.toml"]);
    counting::until_beyond(&world, &id, 3);
    for (verb, what) in
        [("cancel", "Would cancel"), ("pause", "Would pause"), ("preempt", "Would preempt")]
    {
        let printed = world.run(&[verb, &format!("{id}/train"), "--dry-run"]);
        assert_eq!((printed.code, &*printed.stderr), (0, &*format!("{what} 3 trials of {id}\n")));
        let json: Value =
            serde_json::from_str(&world.ok(&[verb, &id, "--dry-run", "--json"])).unwrap();
        assert_eq!(json["action"], verb);
        assert_eq!((&json["dry_run"], &json["requested"]), (&true.into(), &false.into()), "{json}");
    }
    let status = world.until(&id, "the end", |status| status["experiment"]["state"] == "completed");
    for trial in trials(&status, "train") {
        assert_eq!(causes(trial), ["completed"], "{trial:#}");
    }
    assert!(!world.experiment(&id).join("requests").exists());
}

#[test]
fn the_former_name_of_preempt_leads_to_it() {
    let printed = World::new().run(&["cancel", "digits/train", "--gentle"]);
    assert_eq!(printed.code, 2, "{printed:?}");
    assert!(printed.stderr.contains("`nemo-slurm preempt digits/train`"), "{printed:?}");
}

/// What is still in the queue is cancelled again, whatever the number of its arrays.
#[test]
fn what_is_left_of_several_arrays_is_cancelled_again() {
    let fake = FakeSlurm::new(1001);
    let task = |name: &str| format!("[task.{name}]\nrun = \"true\"\n");
    let file = format!(
        "name = \"two\"\n[executor.it]\nkind = \"slurm\"\nmem = \"10M\"\n{}{}",
        task("a"),
        task("b")
    );
    fake.world.write("exp.toml", &file);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let printed = fake.world.run(&["cancel", &id]);
    assert!(printed.stderr.contains("still in the queue"), "{printed:?}");
    let told = fake.read("cancelled");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["101", "102", "101 102"], "{told}");
}

/// Neither a mark nor an answer: then nobody was asked.
#[test]
fn without_a_mark_and_without_an_answer_nothing_is_called_asked() {
    let fake = FakeSlurm::new(1001);
    let mut world = World::new();
    world.slurm_conf = None;
    world.path.clone_from(&fake.world.path);
    world.write(
        "exp.toml",
        "name = \"one\"\n[executor.c]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n",
    );
    let id = world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["101_0", "RUNNING", "100", "None"]]));
    before(
        &mut world,
        "scontrol",
        "case \"$1\" in requeue*) echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1;; esac; REAL \"$@\"",
    );
    for (verb, mark) in [("pause", "pause-wanted"), ("preempt", "preempt-wanted")] {
        let mark = world.experiment(&id).join("tasks/t/trials/0").join(mark);
        std::fs::create_dir_all(mark.join("in-the-way")).unwrap();
        let printed = world.run(&[verb, &id]);
        assert_eq!(printed.code, 4, "{printed:?}");
        assert!(printed.stderr.contains(&format!("could not {verb} all of `{id}`")), "{printed:?}");
        assert!(!printed.stderr.contains("Slurm accepted it"), "{printed:?}");
        assert!(!printed.stderr.contains("Asked"), "{printed:?}");
    }
}

/// While a harness requeues its job, as a pause has told it to, `scancel` may repeat a signal for half a minute.
#[test]
fn a_signal_that_slurm_repeats_for_long_is_no_failure_of_a_pause() {
    let fake = FakeSlurm::new(1001);
    fake.world.write(
        "exp.toml",
        "name = \"one\"\n[executor.c]\nkind = \"slurm\"\n[task.t]\nrun = \"true\"\n",
    );
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["101_0", "RUNNING", "100", "None"]]));
    let scancel = fake.world.path("bin/scancel");
    std::fs::write(&scancel, "#!/bin/sh\nexec sleep 100\n").unwrap();
    let printed = fake.world.run(&["pause", &id, "--json"]);
    let json: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((printed.code, &json["trials"]), (0, &1.into()), "{printed:?}");
    assert_eq!((&json["asked"], &json["unsignalled"]), (&1.into(), &1.into()), "{printed:?}");
    // Nobody is said to have been told by Slurm.
    let words =
        format!("1 running trial of {id} reads the request from its folder within some seconds");
    for (verb, mark) in [("pause", "pause-wanted"), ("preempt", "preempt-wanted")] {
        let printed = fake.world.run(&[verb, &id]);
        assert_eq!(printed.code, 0, "{printed:?}");
        assert!(
            printed.stderr.starts_with("Slurm gave no answer (`scancel` did not"),
            "{printed:?}"
        );
        assert!(printed.stderr.contains(&words), "{printed:?}");
        assert!(!printed.stderr.contains("Asked"), "{printed:?}");
        assert!(fake.world.experiment(&id).join("tasks/t/trials/0").join(mark).exists());
    }
    // Nor is it claimed where Slurm gives no answer at all.
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["102_0", "RUNNING", "100", "None"]]));
    let squeue = "#!/bin/sh\n[ -e \"$FAKE/asked\" ] && exec sleep 100\ncat \"$FAKE/squeue.rows\"\n";
    std::fs::write(&scancel, "#!/bin/sh\ntouch \"$FAKE/asked\"\nexec sleep 100\n").unwrap();
    std::fs::write(fake.world.path("bin/squeue"), squeue).unwrap();
    let printed = fake.world.run(&["--slurm-timeout", "3", "pause", &id]);
    assert_ne!(printed.code, 0, "{printed:?}");
}

/// Slurm is away: what runs reads the request by itself, and that is what is said.
#[test]
fn while_slurm_is_away_what_runs_reads_the_request() {
    let silent = "#!/bin/sh\necho \"$0: error: Unable to contact slurm controller\" >&2\nexit 1\n";
    for (verb, mark) in
        [("pause", Some("pause-wanted")), ("preempt", Some("preempt-wanted")), ("cancel", None)]
    {
        let (fake, id) = crate::budget::spent();
        for program in ["squeue", "scancel", "scontrol"] {
            std::fs::write(fake.world.path("bin").join(program), silent).unwrap();
        }
        let target = format!("{id}/train/0");
        let printed = fake.world.run(&[verb, &target]);
        assert_eq!(printed.code, 4, "{printed:?}");
        let reads = format!(
            "1 trial of {id} ran when that was last known: if it still does, it reads the request"
        );
        let could_not = format!("could not tell Slurm to {verb} `{target}`: ");
        for said in [reads.as_str(), could_not.as_str(), "hint: "] {
            assert!(printed.stderr.contains(said), "{said}: {printed:?}");
        }
        assert!(!printed.stderr.contains("neither waiting nor running"), "{printed:?}");
        let folder = fake.world.experiment(&id);
        assert_eq!(folder.join("requests").read_dir().unwrap().count(), 1, "{verb}");
        if let Some(mark) = mark {
            assert!(folder.join("tasks/train/trials/0").join(mark).exists(), "{verb}");
        }
    }
}

/// Slurm may be away for as long as it is waited for: what runs is asked before.
#[test]
fn a_preempt_is_written_down_before_slurm_is_asked() {
    let (fake, id) = crate::budget::spent();
    let folder = fake.world.experiment(&id);
    let mark = folder.join("tasks/train/trials/0/preempt-wanted");
    // Whether the request and the mark were there when Slurm was asked first.
    let looks = format!(
        "#!/bin/sh\nls {0}/requests | wc -l >>\"{1}\"\n[ -e {2} ] && echo marked >>\"{1}\"\n\
        echo \"$0: error: Unable to contact slurm controller\" >&2\nexit 1\n",
        folder.display(),
        fake.state("seen").display(),
        mark.display(),
    );
    for program in ["squeue", "scancel", "scontrol"] {
        std::fs::write(fake.world.path("bin").join(program), &looks).unwrap();
    }
    let printed = fake.world.run(&["preempt", &format!("{id}/train/0")]);
    assert_eq!(printed.code, 4, "{printed:?}");
    let seen = fake.read("seen");
    assert!(seen.starts_with("1\nmarked\n"), "{seen:?}: {printed:?}");
    assert_eq!(folder.join("requests").read_dir().unwrap().count(), 1);
}

/// A trial that Slurm no longer runs is not asked when it starts again.
#[test]
fn the_mark_of_what_does_not_run_is_taken_back() {
    let (fake, id) = crate::budget::spent();
    fake.answer("squeue", Some(&[&["101_0", "PENDING", "100", "Priority"]]));
    fake.world.run(&["preempt", &format!("{id}/train/0")]);
    let mark = fake.world.experiment(&id).join("tasks/train/trials/0/preempt-wanted");
    assert!(!mark.exists());
}
