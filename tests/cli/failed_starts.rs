//! Starts that fail before the harness writes a word: told in plain words, and brought back by `poll`, though not for ever.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::fake::FakeSlurm;
use crate::support::{PATIENCE, World, causes, states, text, trials};

const ONE: &str =
    "name = \"start\"\n[executor.c]\nkind = \"slurm\"\n[task.train]\nrun = \"true\"\n";

/// A fake whose only job ended like this, and was restarted so often.
pub(crate) fn ended(exit: &str, restarts: &str) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", ONE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    fake.answer("squeue", Some(&[&["101_[0]", "FAILED", "100", "None"]]));
    fake.answer("sacct", Some(&[&["101_0", "FAILED", exit, "100", "100", "101", "n1"]]));
    let job = format!(
        "JobId=101 ArrayJobId=101 ArrayTaskId=0 JobName=a UserId=u(1) GroupId=u(1) JobState=FAILED Reason=None Requeue=1 Restarts={restarts} ExitCode={exit} TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n"
    );
    std::fs::write(fake.state("job"), job).unwrap();
    (fake, id)
}

#[test]
fn each_has_a_cause_and_poll_starts_it_again() {
    for (exit, told) in [
        ("0:53", "could not open the job's output file on n1"),
        ("126:0", "n1 could not execute the harness"),
        ("127:0", "the harness was not found on n1"),
        ("74:0", "which can't read or write its folder"),
        ("0:9", "killed by signal 9 (SIGKILL)"),
        ("9:0", "killed by signal 9 (SIGKILL)"),
        ("137:0", "killed by signal 9 (SIGKILL)"),
    ] {
        let (fake, id) = ended(exit, "0");
        let trial = trials(&fake.world.status(&id), "train")[0].clone();
        let reason = trial["reason"].as_str().unwrap();
        assert!(reason.contains(told) && reason.contains("`nemo-slurm poll`"), "{exit}: {reason}");
        assert_eq!(trial["state"], "failed");
        assert_eq!(trial["attempts"][0]["cause"], "start_failed", "{exit}");
        fake.world.ok(&["poll"]);
        assert_eq!(fake.read("requeued"), "101_0\n", "{exit}");
    }
}

/// A controller was killed before it wrote down that it had requeued the job, and shows the run that has ended.
#[test]
fn a_run_that_is_shown_long_after_its_end_is_requeued() {
    let (fake, id) = ended("0:0", "3");
    fake.answer("squeue", Some(&[&["101_0", "RUNNING", "100", "None"]]));
    fake.answer("sacct", Some(&[&["101_0", "RUNNING", "0:0", "100", "100", "Unknown", "n1"]]));
    let job = fake.read("job").replace("JobState=FAILED", "JobState=RUNNING");
    std::fs::write(fake.state("job"), &job).unwrap();
    let folder = fake.world.experiment(&id).join("tasks/train/trials/0");
    std::fs::create_dir_all(&folder).unwrap();
    let record = concat!(
        r#"{"event":"start","attempt":0,"slurm_job":"101_0","restarts":3,"node":"n1","boot_id":"b","pid":1,"#,
        r#""start_ticks":1,"time":110.0,"resume_step":null}"#,
        "\n",
        r#"{"event":"end","attempt":0,"time":200.0,"cause":"preempted","exit_code":75,"signal":null,"step":null,"#,
        r#""checkpoint_step":7,"next":"requeue","reason":"preempted","stopped":null,"saving":null}"#,
        "\n"
    );
    std::fs::write(folder.join("attempts.jsonl"), record).unwrap();
    let trial = trials(&fake.world.status(&id), "train")[0].clone();
    assert!(text(&trial["reason"]).contains("Slurm still shows that run"), "{trial:#}");
    fake.world.ok(&["poll"]);
    assert_eq!(fake.read("requeued"), "Incomplete 101_0\n");
    // A later run of the job is none of that record's.
    std::fs::write(fake.state("job"), job.replace("Restarts=3", "Restarts=4")).unwrap();
    fake.world.ok(&["poll"]);
    assert_eq!(fake.read("requeued"), "Incomplete 101_0\n");
}

#[test]
fn what_somebody_cancelled_is_not_brought_back() {
    let (fake, id) = ended("0:9", "0");
    fake.world.run(&["cancel", &id]);
    fake.world.run(&["poll"]);
    assert_eq!(fake.read("requeued"), "");
}

#[test]
fn what_somebody_paused_is_brought_back_to_wait() {
    let (fake, id) = ended("0:9", "0");
    fake.world.run(&["pause", &id]);
    fake.world.ok(&["poll"]);
    let calls = fake.read("arguments");
    assert!(calls.contains("hold 101_0") && !calls.contains("StartTime"), "{calls}");
}

#[test]
fn that_nothing_is_to_be_done_is_not_said_without_an_answer() {
    let (fake, _) = ended("0:9", "0");
    let silent =
        "#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2\nexit 1\n";
    std::fs::write(fake.world.path("bin/squeue"), silent).unwrap();
    let printed = fake.world.run(&["poll"]);
    assert_eq!(printed.code, 4, "{printed:?}");
    assert!(!printed.stderr.contains("Nothing to do"), "{printed:?}");
}

#[test]
fn what_can_t_be_started_is_given_up() {
    let (fake, id) = ended("127:0", "2"); // `no_progress` is 3
    let printed = fake.world.run(&["poll"]);
    assert_eq!((printed.code, fake.read("requeued").as_str()), (1, ""), "{printed:?}");
    assert!(
        printed.stderr.contains(&format!("{id}/train/0: job 101_0 failed to start too often")),
        "{printed:?}"
    );
}

/// A mark that was torn, and a folder that is damaged, keep no other trial waiting.
#[test]
fn one_that_is_damaged_delays_no_other() {
    let (fake, id) = ended("0:9", "0");
    let torn = fake.world.ok(&["submit", "exp.toml"]);
    let damaged = fake.world.ok(&["submit", "exp.toml"]);
    for experiment in [&id, &torn] {
        let dir = fake.world.experiment(experiment).join("tasks/train/trials/0");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("requeue-wanted"), "").unwrap();
    }
    std::fs::write(fake.world.experiment(&damaged).join("experiment.json"), "{").unwrap();
    let queue = ["101_[0]", "102_[0]"].map(|id| [id, "FAILED", "100", "None"]);
    let account = ["101_0", "102_0"].map(|id| [id, "FAILED", "0:9", "100", "100", "101", "n1"]);
    fake.answer("squeue", Some(&[&queue[0], &queue[1]]));
    fake.answer("sacct", Some(&[&account[0], &account[1]]));
    let printed = fake.world.run(&["poll"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(printed.stderr.contains(&format!("warning: `{damaged}`")), "{printed:?}");
    let mut requeued: Vec<String> = fake.read("requeued").lines().map(str::to_owned).collect();
    requeued.sort();
    assert_eq!(requeued, ["101_0", "102_0"], "{printed:?}");
}

const FAMILY: &str = "name = \"family\"\n[executor.c]\nkind = \"slurm\"\n[task.train]\nrun = \"true {x}\"\nparams = { x = [0, 1, 2] }\n\
     [task.ok]\nafter = [\"train\"]\nrun = \"true {x}\"\nparams = { x = [0, 1] }\n\
     [task.each]\nafter = [{ task = \"train\", on = \"each\" }]\nrun = \"true {x}\"\nparams = { x = [0, 1, 2] }\n\
     [task.last]\nafter = [\"ok\"]\nrun = \"true\"\n";

/// A trial's first harness was killed, and Slurm cancelled what waits for it.
pub(crate) fn family(restarts: &str) -> FakeSlurm {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FAMILY);
    fake.world.ok(&["submit", "exp.toml"]);
    let never = "DependencyNeverSatisfied";
    let queued = [
        ("101_0", "FAILED", "None"),
        ("101_1", "RUNNING", "None"),
        ("101_2", "PENDING", "Resources"),
        ("102_[0-1]", "CANCELLED", never),
        ("103_0", "CANCELLED", never),
        ("103_[1-2]", "PENDING", "Dependency"),
        ("104_[0]", "CANCELLED", never),
    ];
    let rows = queued.map(|(id, state, reason)| [id, state, "100", reason]);
    fake.answer("squeue", Some(&rows.each_ref().map(<[&str; 4]>::as_slice)));
    fake.answer("sacct", Some(&[&["101_0", "FAILED", "0:9", "100", "100", "101", "n1"]]));
    let job = format!(
        "JobId=101 ArrayJobId=101 ArrayTaskId=0 JobName=a UserId=u(1) GroupId=u(1) JobState=FAILED Reason=None Requeue=1 Restarts={restarts} ExitCode=0:9 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n"
    );
    std::fs::write(fake.state("job"), job).unwrap();
    fake
}

#[test]
fn what_slurm_cancelled_for_it_waits_for_its_end_again() {
    let fake = family("0");
    fake.world.ok(&["poll"]);
    assert_eq!(fake.read("requeued"), "101_0\n102_[0-1]\n103_[0]\n104_[0]\n");
    let updated = fake.read("updated");
    let dependencies: Vec<&str> =
        updated.lines().filter(|line| line.contains("Dependency=")).collect();
    let expected = [
        "JobId=102_[0-1] Dependency=afterany:101",
        "JobId=103_[0] Dependency=afterany:101_0",
        "JobId=104_[0] Dependency=afterany:102",
    ];
    assert_eq!(dependencies, expected);
}

#[test]
fn what_waits_for_a_job_that_is_given_up_is_left_alone() {
    let fake = family("4");
    let printed = fake.world.run(&["poll"]);
    assert_eq!((printed.code, fake.read("requeued").as_str()), (1, ""), "{printed:?}");
    assert!(!fake.read("updated").contains("Dependency="), "{printed:?}");
}

/// A controller that lost its state started the job of a trial that is over once more, and holds it: that failed.
#[test]
fn the_held_job_of_a_trial_that_is_over_keeps_nobody_waiting() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FAMILY);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let dir = fake.world.experiment(&id).join("tasks/train/trials/0");
    std::fs::create_dir_all(&dir).unwrap();
    let records = [
        r#"{"event":"start","attempt":0,"slurm_job":"101_0","restarts":0,"node":"n1","pid":1,"boot_id":"b","start_ticks":1,"time":100.0,"resume_step":null}"#,
        r#"{"event":"end","attempt":0,"time":101.0,"cause":"completed","exit_code":0,"signal":null,"step":null,"checkpoint_step":null,"next":"done","reason":null}"#,
    ];
    std::fs::write(dir.join("attempts.jsonl"), records.join("\n") + "\n").unwrap();
    fake.answer(
        "squeue",
        Some(&[
            &["101_0", "PENDING", "100", "launch failed requeued held"],
            &["103_0", "PENDING", "100", "Dependency"],
        ]),
    );
    let job = "JobId=101 ArrayJobId=101 ArrayTaskId=0 JobName=a UserId=u(1) GroupId=u(1) JobState=PENDING Reason=launch_failed_requeued_held Requeue=1 Restarts=1 ExitCode=0:0 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n";
    std::fs::write(fake.state("job"), job).unwrap();
    assert_eq!(trials(&fake.world.status(&id), "train")[0]["state"], "completed");
    fake.world.ok(&["poll"]);
    assert_eq!(
        (fake.read("released").lines().last(), fake.read("requeued").as_str()),
        (Some("101_0"), "")
    );
}

const LATER: &str = "name = \"start\"\n[executor.c]\nkind = \"slurm\"\nmem = \"50M\"\ntime = \"5m\"\nsbatch = { begin = \"now+3\" }\n[task.train]\nrun = \"true\"\n";

/// Fails the start on a real Slurm, until `poll` brings the trial back.
fn failed_and_brought_back(spoil: impl Fn(&World), mend: impl Fn(&World), told: &str) {
    let world = World::new();
    world.write("exp.toml", LATER);
    let id = world.ok(&["submit", "exp.toml"]);
    spoil(&world);
    let began = std::time::Instant::now();
    let has_failed = || {
        let mut sacct = std::process::Command::new("sacct");
        world.surround(&mut sacct);
        let name = format!("--name={id}.train.0");
        let output = sacct.args(["--noheader", "--allocations", "--format=State", &name]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().contains("FAILED")
    };
    while !has_failed() {
        assert!(began.elapsed() < PATIENCE, "the job never failed");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    mend(&world);
    let failed = world.status(&id);
    let trial = &trials(&failed, "train")[0];
    let reason = text(&trial["reason"]);
    assert!(reason.contains(told) && reason.contains("`nemo-slurm poll`"), "{trial:#}");
    world.ok(&["poll"]);
    let status =
        world.until(&id, "completed", |status| status["experiment"]["state"] == "completed");
    assert_eq!(causes(&trials(&status, "train")[0]), ["start_failed", "completed"], "{status:#}");
}

#[test]
fn a_home_that_is_away_and_a_harness_that_can_t_run_are_told_apart() {
    if !crate::cluster::is_here() {
        return;
    }
    let away = |world: &World, from: &str, to: &str| {
        std::fs::rename(world.path(from), world.path(to)).unwrap();
    };
    failed_and_brought_back(
        |world| away(world, "home", "unmounted"),
        |world| away(world, "unmounted", "home"),
        "could not open the job's output file on",
    );
    let mode = |world: &World, mode| {
        let bin = std::fs::read_dir(world.path("home/bin")).unwrap();
        for program in bin {
            let path = program.unwrap().path();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    failed_and_brought_back(
        |world| mode(world, 0o644),
        |world| mode(world, 0o755),
        "could not execute the harness: no permission",
    );
}

/// A folder that is mounted read-only over itself, until this is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let own = Self(folder);
        own.mount("--bind");
        own.mount("-oremount,bind,ro");
        own
    }

    fn mount(&self, option: &str) {
        let mut mount = Command::new("mount");
        let made = mount.arg(option).args([&self.0, &self.0]).status().unwrap();
        assert!(made.success(), "mount {option}");
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // A harness may be in it.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

/// Submits a trial whose folder is read-only.
fn submit_read_only(world: &World, text: &str) -> (String, ReadOnly) {
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    let folder = ReadOnly::new(world.experiment(&id).join("tasks/train/trials/0"));
    (id, folder)
}

#[test]
fn a_trial_whose_folder_is_read_only_is_given_up_with_the_harness_s_own_words() {
    if !crate::cluster::is_here() {
        return;
    }
    let world = World::new();
    let (id, folder) = submit_read_only(&world, &format!("{LATER}restart.no_progress = 1\n"));
    // The accounting tells the exit code a moment later.
    let status = world.until(&id, "the failed start", |status| {
        causes(&trials(status, "train")[0]) == ["start_failed"]
    });
    let trial = &trials(&status, "train")[0];
    assert_eq!(trial["state"], "failed", "{trial:#}");
    assert!(text(&trial["reason"]).contains("which can't read or write its folder"), "{trial:#}");
    assert_eq!(trial["error"]["class"], "node_failure", "{trial:#}");
    let told = text(&trial["error"]["message"]);
    assert!(told.contains("params.json`: Read-only file system"), "{trial:#}");
    drop(folder);
    world.ok(&["retry", &id]);
    let status =
        world.until(&id, "completed", |status| status["experiment"]["state"] == "completed");
    assert_eq!(causes(&trials(&status, "train")[0]).last().unwrap(), "completed", "{status:#}");
}

/// Nobody but its own guard has the job requeued, and the trial completes once the folder can be written.
#[test]
fn a_trial_whose_folder_is_read_only_begins_later() {
    if !crate::cluster::is_here() {
        return;
    }
    let world = World::new();
    let (id, folder) = submit_read_only(&world, LATER);
    let output = world.experiment(&id).join("tasks/train/slurm");
    let said = || -> String {
        let files = std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    let began = std::time::Instant::now();
    while said().matches("was requeued").count() < 2 {
        assert!(began.elapsed() < PATIENCE, "never: {}", said());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(!said().contains("`nemo-slurm poll` failed"), "{}", said());
    let seen = world.until(&id, "the requeue", |status| states(status, "train") == ["pending"]);
    let reason = text(&trials(&seen, "train")[0]["reason"]);
    let told = "its last start was in vain: the trial can't begin here now: ";
    assert!(
        reason.contains(told) && reason.ends_with("Read-only file system (os error 30)"),
        "{reason}"
    );
    drop(folder);
    // The pauses grow: nobody waits half a minute for the third start here.
    let job = format!("JobId={}", text(&trials(&seen, "train")[0]["slurm_job"]));
    world.slurm("scontrol", &["update", &job, "StartTime=now+3"]);
    let status =
        world.until(&id, "completed", |status| status["experiment"]["state"] == "completed");
    assert_eq!(causes(&trials(&status, "train")[0]), ["completed"], "{status:#}");
}
