//! `nemo-harness wrap` in job scripts of anybody: found by Slurm's number, saved, requeued, resumed.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster;
use crate::counting;
use crate::fake::FakeSlurm;
use crate::support::{World, causes, harness, printed, text, trials};

/// A script whose last line is the program, wrapped.
fn script(world: &World, options: &str, steps: u32) {
    counting::write(world, "kind = \"local\"", steps, 0.1);
    let wrap = format!(
        "exec {} wrap --lead 10s --metric 'step=step (\\d+)' --metric 'loss=loss: (\\d+)' {options}",
        harness().display()
    );
    world.write("old.sbatch", &format!(
        "#!/bin/sh\n#SBATCH --job-name=old-train\n#SBATCH --output=slurm-%A_%a.out --open-mode=append\n\
         {wrap} -- python3 count.py {steps} 0.1 $((3 + 2 * ${{SLURM_ARRAY_TASK_ID:-0}}))\n"
    ));
}

/// Submits it, and returns the job's number.
fn submit(world: &World, arguments: &[&str]) -> String {
    let all: Vec<&str> =
        ["--parsable"].iter().chain(arguments).copied().chain(["old.sbatch"]).collect();
    world.slurm("sbatch", &all).trim().to_owned()
}

/// Waits until every trial that is there has counted beyond `step`.
fn until_beyond(world: &World, job: &str, n_trials: usize, step: u64) -> Value {
    until_known(world, job);
    world.until(job, "steps of every trial", |status| {
        let own = trials(status, "job");
        own.len() == n_trials && own.iter().all(|trial| trial["step"].as_u64() > Some(step))
    })
}

fn until_known(world: &World, job: &str) {
    let known = || world.run(&["status", job, "--json"]).code == 0;
    let began = std::time::Instant::now();
    while !known() {
        assert!(began.elapsed().as_secs() < 120, "the job is not known");
        std::thread::sleep(std::time::Duration::from_millis(100)); // looks again
    }
}

/// The losses of a trial are those of an undisturbed run, each step once.
#[track_caller]
fn assert_undisturbed(world: &World, job: &str, trial: u64, seed: u64, steps: u64) {
    let rows = world.ok(&["metrics", job, "--metric", "loss", "--json"]);
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let own = rows["rows"].as_array().unwrap().iter().filter(|row| row["trial"] == trial);
    let own: Vec<(u64, u64)> = own
        .map(|row| {
            (
                row["step"].as_u64().unwrap(),
                row["value"].to_string().trim_end_matches(".0").parse().unwrap(),
            )
        })
        .collect();
    let step = |total: &mut u64, step| {
        *total = *total * 31 % 1_000_003;
        Some((step, *total))
    };
    let expected: Vec<(u64, u64)> = (1..=steps).scan(seed, step).collect();
    assert_eq!(own, expected, "trial {trial}");
}

#[test]
fn a_plain_job_is_known_by_its_number_preempted_and_goes_on() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    script(&world, "", 80);
    let job = submit(&world, &["--time=7", "--cpus-per-task=1"]);
    let status = until_beyond(&world, &job, 1, 5);
    assert_eq!(text(&trials(&status, "job")[0]["slurm_job"]), job);
    world.ok(&["preempt", &job]);
    assert_eq!(world.run(&["wait", &job, "--timeout", "3m"]).code, 0, "{:#}", world.status(&job));
    let status = world.status(&job);
    let trial = &trials(&status, "job")[0];
    assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    assert!(trial["attempts"][1]["resume_step"].as_u64() > Some(5), "{trial:#}");
    assert_undisturbed(&world, &job, 0, 3, 80);
    let listed: Value = serde_json::from_str(&world.ok(&["list", "--jobs", "--json"])).unwrap();
    assert!(text(&listed["experiments"][0]["id"]).starts_with("old-train-"), "{listed:#}");
    assert!(world.ok(&["logs", &job, "--stream", "out"]).contains("step 80"));
    world.ok(&["goodput", &job]);
    let file = std::path::Path::new(&text(&status["experiment"]["dir"])).join("experiment.json");
    let own: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let asked = &own["executors"]["job"];
    assert_eq!((&asked["time"], &asked["cpus_per_task"]), (&420.into(), &1.into()), "{asked:#}");
    assert_eq!(world.ok(&["list", "--json"]).matches("old-train").count(), 0);
}

/// `sbatch` hands on the variables of the task that submits.
#[test]
fn a_job_that_a_task_of_an_array_submits_is_itself() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    script(&world, "", 80);
    world.write(
        "array.sbatch",
        "#!/bin/sh\n#SBATCH --array=0-0 --requeue --output=array.out --open-mode=append\nexport SLURM_RESTART_COUNT=5 RANK=1\n\
         [ -e id ] || { sbatch --parsable old.sbatch >id.tmp && mv id.tmp id; }\nexec sleep 600\n",
    );
    let array = world.slurm("sbatch", &["--parsable", "array.sbatch"]).trim().to_owned();
    let began = std::time::Instant::now();
    while !world.path("id").exists() {
        assert!(began.elapsed().as_secs() < 120, "the task has not submitted");
        std::thread::sleep(std::time::Duration::from_millis(100)); // looks again
    }
    let job = std::fs::read_to_string(world.path("id")).unwrap().trim().to_owned();
    until_beyond(&world, &job, 1, 5);
    world.ok(&["preempt", &job]);
    assert_eq!(world.run(&["wait", &job, "--timeout", "3m"]).code, 0, "{:#}", world.status(&job));
    let status = world.status(&job);
    let trial = &trials(&status, "job")[0];
    assert_eq!(causes(trial), ["preempted", "completed"], "{trial:#}");
    assert_undisturbed(&world, &job, 0, 3, 80);
    let other = world.slurm("scontrol", &["-o", "show", "job", &array]);
    assert!(other.contains(" JobState=RUNNING ") && other.contains(" Restarts=0 "), "{other}");
    world.slurm("scancel", &[&array]);
}

#[test]
fn a_job_array_that_begins_at_1_has_these_trials_and_one_is_cancelled() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    script(&world, "--dir state", 120);
    let job = submit(&world, &["--array=1-2"]);
    until_beyond(&world, &job, 2, 5);
    world.ok(&["cancel", &format!("{job}_2")]);
    world.ok(&["preempt", &format!("{job}_1")]);
    world.run(&["wait", &job, "--timeout", "3m"]);
    let status = world.status(&job);
    let own = trials(&status, "job");
    let shown: Vec<(u64, String)> =
        own.iter().map(|trial| (trial["index"].as_u64().unwrap(), text(&trial["state"]))).collect();
    assert_eq!(shown, [(1, "completed".to_owned()), (2, "cancelled".to_owned())], "{status:#}");
    let resumed = world.run(&["resume", &job]);
    assert!(resumed.stderr.contains("submit the script again"), "{resumed:?}");
    assert_undisturbed(&world, &job, 1, 5, 120);
    assert!(
        world.path("state/tasks/job/trials/1/attempts.jsonl").exists(),
        "--dir is where it is kept"
    );
}

/// Only one task runs at a time, so most have not begun when the first tells of the array; one never begins.
#[test]
fn an_array_with_gaps_has_only_the_trials_that_are_there() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    script(&world, "", 3);
    let cases: [(&str, &[u64]); 3] =
        [("1,5,9%1", &[1, 5, 9]), ("0-10:5%1", &[0, 5, 10]), ("2-3,7%1", &[2, 3, 7])];
    for (array, expected) in cases {
        let job = submit(&world, &[&format!("--array={array}")]);
        let last = expected[expected.len() - 1];
        until_known(&world, &job);
        world.slurm("scancel", &[&format!("{job}_{last}")]);
        let indices = |status: &Value| -> Vec<u64> {
            let own = trials(status, "job");
            own.iter().map(|trial| trial["index"].as_u64().unwrap()).collect()
        };
        assert_eq!(indices(&world.status(&job)), expected, "{array}: the others wait");
        world.run(&["wait", &job, "--timeout", "3m"]);
        let status = world.status(&job);
        assert_eq!(indices(&status), expected, "{status:#}");
        // What Slurm says of the last one may not be in its accounting yet.
        let (_, ran) = trials(&status, "job").split_last().unwrap();
        assert!(ran.iter().all(|own| own["state"] == "completed"), "{status:#}");
        let none = world.run(&["status", &format!("{job}_{}", last - 1)]);
        assert_eq!(none.code, 3, "no task {}: {none:?}", last - 1);
        let listed: Value = serde_json::from_str(&world.ok(&["list", "--jobs", "--json"])).unwrap();
        let wanted: Value = job.parse::<u64>().unwrap().into();
        let rows = listed["experiments"].as_array().unwrap();
        let own = rows.iter().find(|own| own["slurm_job"] == wanted).unwrap();
        let counts = own["trials"].as_object().unwrap().values();
        let n_trials: u64 = counts.filter_map(Value::as_u64).sum();
        assert_eq!(usize::try_from(n_trials), Ok(expected.len()), "{own:#}");
    }
}

/// In one working folder, each task of an array would overwrite the checkpoint of the others.
#[test]
fn tasks_of_an_array_that_save_to_one_path_are_told() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let run = |job: &str, task: &str, from: &str| {
        let mut command = Command::new(harness());
        world.surround(&mut command);
        let slurm = [("JOB_ID", job), ("JOB_NAME", "arr"), ("ARRAY_JOB_ID", job)];
        let bounds = [("MIN", "1"), ("MAX", "3"), ("COUNT", "3"), ("ID", task)];
        for (name, value) in bounds {
            command.env(format!("SLURM_ARRAY_TASK_{name}"), value);
        }
        for (name, value) in slurm {
            command.env(format!("SLURM_{name}"), value);
        }
        let ran = printed(&command.args(["wrap", "--from", from, "--", "true"]).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stderr
    };
    let shared = "saves to `out/ckpt.pt` too";
    assert!(!run("201", "1", "out/ckpt.pt").contains(shared), "it is the first");
    let log = run("201", "3", "out/ckpt.pt");
    assert!(log.contains(&format!("task 1 of this array {shared}")), "{log}");
    assert!(log.contains("$SLURM_ARRAY_TASK_ID"), "{log}");
    let warnings = world.status("201")["warnings"].to_string();
    assert!(warnings.contains(shared), "{warnings}");
    run("301", "1", "out/1/ckpt.pt");
    let log = run("301", "2", "out/2/ckpt.pt");
    assert!(!log.contains("of this array saves"), "{log}");
    assert_eq!(world.status("301")["warnings"], serde_json::json!([]));
}

/// Task 2 of an array `1-2` has run; task 1 was never seen.
#[test]
fn an_array_that_begins_at_1_has_these_trials_for_every_command() {
    let fake = FakeSlurm::new(1001);
    let world = &fake.world;
    let mut command = Command::new(harness());
    world.surround(&mut command);
    let slurm = [("JOB_ID", "102"), ("JOB_NAME", "arr"), ("ARRAY_JOB_ID", "101")];
    let array = [("ARRAY_TASK_ID", "2"), ("ARRAY_TASK_MIN", "1"), ("ARRAY_TASK_MAX", "2")];
    for (name, value) in slurm.into_iter().chain(array) {
        command.env(format!("SLURM_{name}"), value);
    }
    let ran = printed(&command.args(["wrap", "--", "true"]).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = |arguments: &[&str]| -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&world.ok(&all)).unwrap()
    };
    let indices = |trials: &Value, key: &str| -> Vec<u64> {
        trials.as_array().unwrap().iter().map(|trial| trial[key].as_u64().unwrap()).collect()
    };
    assert_eq!(indices(&json(&["status", "101"])["tasks"][0]["trials"], "index"), [1, 2]);
    assert_eq!(indices(&json(&["goodput", "101"])["tasks"][0]["trials"], "index"), [1, 2]);
    assert_eq!(indices(&json(&["results", "101"])["trials"], "trial"), [1, 2]);
    let none = world.run(&["status", "101_0"]);
    assert!(none.code == 3 && none.stderr.contains("its trials are 1-2"), "{none:?}");
    // Nothing is submitted for it, whoever asks.
    for command in ["resume", "poll"] {
        world.run(&[command, "101"]);
    }
    let refused = world.run(&["submit", "--continue", "101"]);
    assert!(refused.code == 5 && refused.stderr.contains("job script under"), "{refused:?}");
    assert_eq!(fake.read("asked"), "");
    let generations = &json(&["show", "101"])["generations"];
    assert_eq!(generations.as_array().unwrap().len(), 1, "{generations:#}");
    assert_eq!(generations[0]["jobs"], serde_json::json!(["101"]));
    assert_eq!(json(&["list", "--jobs"])["experiments"][0]["slurm_job"], 101);
}

#[test]
fn outside_of_a_job_the_program_is_supervised_and_a_folder_goes_on() {
    let world = World::new();
    script(&world, "--dir state", 60);
    let start = || {
        let mut command = Command::new("sh");
        world.surround(&mut command);
        command.arg("old.sbatch").env_remove("SLURM_JOB_ID").stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut running = start();
    let steps = world.path("state/tasks/job/trials/0/metrics.jsonl");
    let began = std::time::Instant::now();
    while std::fs::read_to_string(&steps).unwrap_or_default().lines().count() < 5 {
        assert!(began.elapsed().as_secs() < 60, "it does not begin");
        std::thread::sleep(std::time::Duration::from_millis(50)); // looks again
    }
    printed(&Command::new("kill").args(["-USR1", &running.id().to_string()]).output().unwrap());
    assert_eq!(running.wait().unwrap().code(), Some(75), "saved, to be run again");
    assert_eq!(start().wait().unwrap().code(), Some(0));
    let id = world.ok(&["list", "--jobs", "--json"]);
    let id = text(&serde_json::from_str::<Value>(&id).unwrap()["experiments"][0]["id"]);
    assert_undisturbed(&world, &id, 0, 3, 60);
    assert_eq!(start().wait().unwrap().code(), Some(0), "a folder that is done runs nothing again");
    for command in ["retry", "debug"] {
        let refused = world.run(&[command, &id]);
        let says = refused.stderr.contains("is a job script under `nemo-harness wrap`");
        assert!(refused.code == 5 && says, "{refused:?}");
    }
}

/// Wraps a program outside of a job.
fn wrapped(world: &World, program: &str) -> Command {
    let mut command = Command::new(harness());
    world.surround(&mut command);
    command.args(["wrap", "--dir", "state", "--", "sh", "-c", program]);
    command.env_remove("SLURM_JOB_ID");
    command
}

/// Programs that answer as those of Slurm would in a job of two minutes, on a cluster that sends the user's own signal.
const SCONTROL: &str = r#"#!/bin/sh
case "$*" in
"show config") printf 'PreemptType = preempt/qos\nPreemptParameters = send_user_signal\nJobRequeue = 1\n' ;;
*"show partition main") cat partition ;;
"write batch_script 9 -") printf '#!/bin/sh\n#SBATCH --open-mode=append\nexec nemo-harness wrap -- true\n' ;;
*) echo "JobId=9 JobName=short UserId=u(1) GroupId=g(1) JobState=RUNNING Reason=None Requeue=1 Restarts=0 TimeLimit=00:02:00 NumNodes=1" ;;
esac
"#;
const SRUN: &str = r#"#!/bin/sh
echo "$*" >>steps
trap 'echo "srun: forcing job termination" >&2; exit 1' TERM
[ ! -e listens ] || { : >>listening; while :; do sleep 0.05; done; }
"#;

/// `nemo-harness` in a job of a Slurm whose `scontrol` is this.
fn harness_in_a_job(world: &World, scontrol: &str) -> Command {
    let bin = world.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, text) in [("scontrol", scontrol), ("srun", SRUN), ("squeue", "#!/bin/sh\n")] {
        let path = world.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(harness());
    world.surround(&mut command);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("SLURM_JOB_ID", "9").env("SLURM_JOB_END_TIME", "9999999999");
    command
}

/// Runs `true` in a job, wrapped with these options. Returns what wrap says, and the lead.
fn in_a_short_job(world: &World, options: &[&str]) -> (String, u64) {
    let mut command = harness_in_a_job(world, SCONTROL);
    command.args(["wrap", "--dir", "short"]).args(options).args(["--", "true"]);
    let output = command.output().unwrap();
    let spec = std::fs::read_to_string(world.path("short/tasks/job/task.0.json")).unwrap();
    let spec: Value = serde_json::from_str(&spec).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (said, spec["checkpoint"]["lead"].as_u64().unwrap())
}

#[test]
fn a_short_job_gets_half_of_its_time_and_hears_of_preemptions() {
    let world = World::new();
    let (said, lead) = in_a_short_job(&world, &[]);
    assert_eq!(lead, 60, "{said}");
    assert!(said.contains("`#SBATCH --signal=B:USR1@60`") && !said.contains("open-mode"), "{said}");
    let steps = std::fs::read_to_string(world.path("steps")).unwrap();
    assert!(steps.contains("nemo-harness") && steps.contains(" sentinel "), "{steps}");
    let (said, lead) = in_a_short_job(&world, &["--lead", "2m"]);
    assert!(lead == 60 && said.contains("`--lead` is 120 s"), "{said}");
}

/// Runs a program until its step listens, or at once in a partition with this grace, where no step is needed.
fn until_it_listens(grace: u32, waits: bool) -> (World, String) {
    let world = World::new();
    world
        .write("partition", &format!("PartitionName=main GraceTime={grace} PreemptMode=REQUEUE\n"));
    world.write("listens", "");
    let scontrol = SCONTROL
        .replace("preempt/qos", "preempt/partition_prio")
        .replace("TimeLimit=", "Partition=main TimeLimit=");
    let mut command = harness_in_a_job(&world, &scontrol);
    let program = if waits { "until [ -e listening ]; do sleep 0.05; done" } else { "true" };
    command.args(["wrap", "--dir", "short", "--", "sh", "-c", program]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    (world, String::from_utf8(said).unwrap())
}

#[test]
fn the_step_that_listens_ends_in_silence_and_runs_only_where_it_is_needed() {
    let (world, said) = until_it_listens(20, true);
    assert!(!said.contains("srun:"), "{said}");
    assert!(world.path("steps").exists());
    let (world, said) = until_it_listens(0, false);
    assert!(!world.path("steps").exists(), "{said}");
    assert!(!said.contains("listens for preemptions"), "{said}");
}

#[test]
fn every_attempt_reads_the_file_that_is_redirected_to_it() {
    let world = World::new();
    world.write("in.txt", "header\nrun 1\n");
    let input = std::fs::File::open(world.path("in.txt")).unwrap();
    let again = |program| wrapped(&world, program).stdin(input.try_clone().unwrap()).output();
    // The second attempt begins in the same harness.
    let program = "cat >>read; [ $NEMO_ATTEMPT != 0 ] || exit 85; exit 75";
    assert_eq!(again(program).unwrap().status.code(), Some(75));
    let read = std::fs::read_to_string(world.path("read")).unwrap();
    assert_eq!(read, "header\nrun 1\nheader\nrun 1\n");
    // What the script itself has read is not for the program.
    std::io::Seek::seek(&mut &input, std::io::SeekFrom::Start(7)).unwrap();
    assert_eq!(again("cat >read").unwrap().status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(world.path("read")).unwrap(), "run 1\n");
}

#[test]
fn a_pipe_is_refused_where_something_comes_through_it() {
    let world = World::new();
    let run = |text: &[u8]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, text).unwrap();
        drop(writer);
        wrapped(&world, "cat >read").stdin(reader).output().unwrap()
    };
    let refused = run(b"run 1\n");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(1) && said.contains("write the input to a file"),
        "{said}"
    );
    assert!(!world.path("state").exists(), "nothing was begun");
    assert_eq!(run(b"").status.code(), Some(0));
}

#[test]
fn the_attempts_of_a_wrapped_job_have_one_name() {
    let world = World::new();
    for _ in 0..2 {
        let ended = wrapped(&world, "echo $NEMO_RUN_ID >>ids; exit 75").output().unwrap();
        assert_eq!(ended.status.code(), Some(75));
    }
    let ids = std::fs::read_to_string(world.path("ids")).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1] && ids[0].ends_with("-job-0"), "{ids:?}");
}

/// Runs a wrapped program in a made-up job of Slurm's, to its end.
fn run_in_job(world: &World, number: &str, name: &str, cluster: Option<&str>) {
    let mut command = Command::new(harness());
    world.surround(&mut command);
    command.args(["wrap", "--", "true"]).envs(cluster.map(|own| ("SLURM_CLUSTER_NAME", own)));
    command.env("SLURM_JOB_ID", number).env("SLURM_JOB_NAME", name).env("PATH", "/usr/bin:/bin");
    // Where there is no such file, Slurm's programs wait for it for a minute. This one they refuse.
    command.env("SLURM_CONF", world.write("no-slurm.conf", "Nonsense=1\n"));
    printed(&command.output().unwrap());
}

#[test]
fn a_number_means_the_newest_job_that_has_it() {
    let world = World::new();
    let name_of = |number: &str| {
        let status = world.run(&["status", number, "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        text(&status["experiment"]["name"])
    };
    let jobs = [("alpha", None), ("beta", None), ("gamma", Some("b")), ("delta", Some("b"))];
    for (name, cluster) in jobs {
        run_in_job(&world, "987654321", name, cluster);
        run_in_job(&world, "98765432", "other", cluster);
        assert_eq!(name_of("987654321"), name);
        assert_eq!(name_of("98765432"), "other");
    }
}
