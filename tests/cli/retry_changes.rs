//! `retry` that changes how trials run: `--set`, `--from-step` and `--from-start`, on a scripted Slurm, on this machine and
//! on a real Slurm.

use serde_json::{Value, json};

use crate::cluster;
use crate::retry::{AFTER, AGAIN, broken, failed, kill_and_go_on, retry, wait_in_queue};
use crate::support::{World, causes, states, trials};

const CHANGES: [&str; 5] =
    ["--from-start", "--set", "executor.mem=64G", "--set", "restart.crashes=3"];

fn script(world: &World, id: &str, name: &str) -> String {
    std::fs::read_to_string(world.experiment(id).join("tasks").join(name)).unwrap()
}

fn file(world: &World, id: &str, name: &str) -> Value {
    serde_json::from_str(&script(world, id, name)).unwrap()
}

#[test]
fn changed_keys_hold_for_the_retried_trials_alone_and_for_later_retries() {
    let (fake, id) = failed();
    let world = &fake.world;
    let one = format!("{id}/train/1");
    let only_one = [&[one.as_str()][..], &CHANGES].concat();
    let planned = retry(world, &[&only_one[..], &["--dry-run"]].concat());
    let set = json!({"executor.mem": "64G", "restart.crashes": "3"});
    let change = json!([{"task": "train", "trials": "1", "set": set, "from_step": null, "from_start": true}]);
    assert_eq!(planned["changes"], change, "{planned:#}");
    let retried = retry(world, &only_one);
    assert_eq!(retried["changes"], change, "{retried:#}");
    let text = script(world, &id, "train/1.sbatch");
    assert!(text.contains("#SBATCH --mem=64G\n") && text.contains("--array=1\n"), "{text}");
    assert!(text.contains("--spec task.1.0.json\n"), "{text}");
    assert!(!script(world, &id, "train/0.sbatch").contains("--mem"));
    let spec = file(world, &id, "train/task.1.0.json");
    assert_eq!(spec["restart"]["crashes"], 3);
    assert_eq!(spec["restart_from"], json!({"generation": 1, "step": null}));
    assert_eq!(file(world, &id, "train/task.json")["restart"]["crashes"], 0);
    // Trial 2 was never changed, and what failed again keeps its memory, but begins where it was.
    let row = ["104_1", "FAILED", "0:0", "300", "300", "400", "n1"];
    fake.answer("sacct", Some(&[&row]));
    let dir = world.experiment(&id).join("tasks/train/trials/1/attempts.jsonl");
    let end = r#"{"event":"start","attempt":1,"slurm_job":"104_1","restarts":0,"node":"n1","pid":1,"boot_id":"b","start_ticks":1,"time":300.5,"resume_step":null}
{"event":"end","attempt":1,"time":300.9,"cause":"failed","exit_code":1,"signal":null,"step":null,"checkpoint_step":null,"next":"failed","reason":null}
"#;
    let before = std::fs::read_to_string(&dir).unwrap();
    std::fs::write(&dir, before + end).unwrap();
    wait_in_queue(&fake, &[]);
    let again = retry(world, &[&format!("{id}/train"), "--set", "executor.time=4h"]);
    let shown = |change: &Value| json!([change["trials"], change["set"], change["from_start"]]);
    let changes: Vec<Value> = again["changes"].as_array().unwrap().iter().map(shown).collect();
    let time = json!({"executor.time": "4h"});
    let all = json!({"executor.time": "4h", "executor.mem": "64G", "restart.crashes": "3"});
    assert!(changes.contains(&json!(["2", time, false])), "{again:#}");
    assert!(changes.contains(&json!(["1", all, false])), "{again:#}");
    let tasks = again["jobs"].as_array().unwrap().iter().map(|job| job["task"].clone());
    let expected = ["train", "train", "evaluate"];
    assert_eq!(tasks.collect::<Vec<_>>(), expected, "an array for each way: {again:#}");
    let texts = ["train/2.sbatch", "train/3.sbatch"].map(|name| script(world, &id, name));
    assert!(
        texts.iter().all(|text| text.contains("--time=240:00")
            || text.contains("--time=04:00:00")
            || text.contains("--time=4:00:00")),
        "{texts:?}"
    );
    assert_eq!(texts.iter().filter(|text| text.contains("--mem=64G")).count(), 1, "{texts:?}");
    shown_with_what_was_changed(world, &id);
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.ok(&[arguments, &["--json"]].concat())).unwrap()
}

/// Trial 1 got more memory, and then all that failed got more time: `show` and `compare` tell which trial ran with what.
fn shown_with_what_was_changed(world: &World, id: &str) {
    let shown = json_of(world, &["show", id]);
    let generation = |number: usize| {
        let own = &shown["generations"][number];
        let change =
            |it: &Value| json!([it["trials"], it["changed"], it["from_start"], it["rule"]]);
        let changes = own["changes"].as_array().unwrap().iter().map(change);
        (own["user"].clone(), own["refused"].clone(), changes.collect::<Vec<_>>())
    };
    let first = json!({"executor.mem": "64G", "restart.crashes": "3"});
    assert_eq!(generation(0), (Value::Null, json!(false), vec![]), "{shown:#}");
    let (user, refused, changes) = generation(1);
    assert_eq!((refused, changes), (json!(false), vec![json!(["1", first, true, null])]));
    assert!(user.is_string(), "{shown:#}");
    let (_, _, mut changes) = generation(2);
    changes.sort_by_key(Value::to_string);
    let time = json!({"executor.time": "4h"});
    let each = |trials: &str| json!([trials, time, false, null]);
    assert_eq!(changes, [each("1"), each("2")], "only what is new: {shown:#}");
    assert_eq!(shown["config"]["executor"]["gpu"]["mem"], Value::Null, "as it was submitted");
    let text = world.ok(&["show", id]);
    for part in ["CHANGED TRIALS", "from the start, executor.mem=64G", "executor.time=4h"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let trials = |index: usize| {
        let shown = json_of(world, &["show", &format!("{id}/train/0-2")]);
        let own = shown["trials"][index].clone();
        let config = &own["config"];
        let restart = &config["task"]["train"]["restart"]["crashes"];
        json!([
            own["generation"],
            own["set"],
            config["executor"]["gpu"]["mem"],
            config["executor"]["gpu"]["time"],
            restart
        ])
    };
    let all = json!({"executor.mem": "64G", "executor.time": "4h", "restart.crashes": "3"});
    let submitted = &shown["config"]["executor"]["gpu"]["time"];
    assert_eq!(trials(0), json!([0, {}, null, submitted, 0]));
    assert_eq!(trials(1), json!([2, all, "64G", "4h", 3]));
    assert_eq!(trials(2), json!([2, time, null, "4h", 0]));
    let one = world.ok(&["show", &format!("{id}/train/1")]);
    let line = one.lines().find(|line| line.contains("executor.gpu.mem")).unwrap_or_default();
    assert!(line.contains("64G") && line.ends_with("retry"), "{one}");
    compared_as_they_ran(world, id);
}

fn compared_as_they_ran(world: &World, id: &str) {
    let [zero, one] = [0, 1].map(|trial| format!("{id}/train/{trial}"));
    let found = json_of(world, &["compare", &zero, &one]);
    let different = &found["config"]["different"];
    assert_eq!(different["executor.gpu.mem"], json!({ &zero: null, &one: "64G" }), "{found:#}");
    assert_eq!(different["task.train.restart.crashes"], json!({ &zero: 0, &one: 3 }), "{found:#}");
    assert_eq!(found["trials"][&one]["set"]["executor.time"], "4h");
    assert_eq!(found["trials"][&one]["trials_with_other_values"], 0);
    // A task stands for one trial, and the others may have run otherwise.
    let task = format!("{id}/train");
    let found = json_of(world, &["compare", &task, &zero]);
    let n = found["trials"][&task]["trials_with_other_values"].as_u64().unwrap();
    assert!(n > 0, "{found:#}");
    let text =
        world.ok(&["compare", &task, &zero]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("other values") && text.contains("see `show`"), "{text}");
}

/// Who retries without naming a key is told too, and what Slurm refused is told as such.
#[test]
fn a_refused_retry_is_shown_as_refused() {
    let (fake, id) = failed();
    std::fs::write(fake.state("refuse"), format!("{id}.train.1\n")).unwrap();
    let trial = format!("{id}/train/1");
    let set = ["--set", "executor.mem=64G"];
    assert_eq!(fake.world.run(&[&["retry", trial.as_str()][..], &set].concat()).code, 2);
    let shown = json_of(&fake.world, &["show", &trial]);
    assert_eq!(shown["generations"][1]["refused"], true, "{shown:#}");
    assert_eq!(shown["trials"][0]["set"], json!({}), "{shown:#}");
    assert!(fake.world.ok(&["show", &id]).contains("retry (refused)"));
}

#[test]
fn what_a_retry_cannot_change_is_refused_before_anything_is_done() {
    let (fake, id) = failed();
    let refused = |arguments: &[&str], expected: &str| {
        let printed = fake.world.run(&[&["retry", &id], arguments].concat());
        assert_eq!(printed.code, 2, "{printed:?}");
        assert!(printed.stderr.contains(expected), "{expected}: {printed:?}");
    };
    refused(&["--set", "task.train.params.lr=1"], "another trial");
    refused(&["--set", "executor.kind=local"], "can't change `executor.kind`");
    refused(&["--set", "executor.memory=64G"], "memory");
    refused(&["--set", "executor.mem=lots"], "lots");
    refused(&["--set", "executor.mem"], "has no `=`");
    refused(&["--from-step", "77"], "it has no checkpoint of step 77");
    refused(&["--from-step", "77", "--from-start"], "cannot be used with");
    assert_eq!(fake.names().len(), 3, "nothing was submitted");
    assert!(fake.world.run(&["status", &id, "--json"]).stdout.contains("\"cancelled\""));
    let asked = fake.world.run(&["retry", &id, "--set", "executor.mem=lots", "--json"]);
    let error: Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!(error["error"]["exit_code"], 2, "{asked:?}");
}

#[test]
fn a_trial_that_waits_or_runs_keeps_its_checkpoints() {
    let (fake, id) = failed();
    let trial = format!("{id}/train/1");
    retry(&fake.world, &[&trial]);
    wait_in_queue(&fake, &["104_[1]"]);
    let refused = fake.world.run(&["retry", &trial, "--from-start"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("train/1: it is pending"), "{refused:?}");
}

#[test]
fn kill_9_of_a_retry_that_changes_something_loses_none_of_it() {
    let points = (1..).step_by(13).zip(AGAIN.into_iter().cycle());
    let mut points = points.take_while(|(point, again)| {
        let (killed, fake) = kill_and_go_on(*point, &CHANGES, again);
        assert_eq!(fake.names(), AFTER);
        let id = fake.taken()[0].name.split_once('.').unwrap().0.to_owned();
        let text = script(&fake.world, &id, "train/1.sbatch");
        assert!(text.contains("--mem=64G") && text.contains("--spec task.1.0.json"), "{text}");
        let spec = file(&fake.world, &id, "train/task.1.0.json");
        assert_eq!(spec["restart_from"]["generation"], 1);
        killed
    });
    let (last, _) = points.by_ref().last().unwrap_or_default();
    assert!(last > 60, "only {last} calls: were the right ones traced?");
}

/// A trial with a checkpoint at step 4 fails; begun anew, it passes step 1 again, and its checkpoint of before stays.
fn begun_anew(world: &World, set: &str, changed: fn(&World, &str)) {
    let id = world.ok(&["submit", "exp.toml"]);
    let is_failed = |status: &Value| states(status, "train") == ["completed", "failed"];
    world.until(&id, "a failed trial", is_failed);
    std::fs::remove_file(world.path("broken")).unwrap();
    let other = world.run(&["retry", &id, "--from-step", "3"]);
    assert!(other.stderr.contains("it has no checkpoint of step 3; it has 4"), "{other:?}");
    retry(world, &[&id, "--from-start", "--set", set, "--set", "executor.env.WHY=again"]);
    let printed = world.run(&["wait", &id]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let status = world.status(&id);
    let trial = &trials(&status, "train")[1];
    assert_eq!(causes(trial), ["failed", "completed"], "{trial:#}");
    assert_eq!(trial["attempts"][1]["resume_step"], Value::Null);
    let logs = world.ok(&["logs", &format!("{id}/train/1"), "--attempt", "1", "--stream", "out"]);
    assert_eq!(logs.lines().next(), Some("step 1"), "{logs}");
    let dir = world.experiment(&id).join("tasks/train/trials/1");
    let names = std::fs::read_dir(dir.join("checkpoints")).unwrap();
    let names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("set-aside-step-4-")), "{names:?}");
    assert!(names.contains(&"step-4".to_owned()), "its own: {names:?}");
    let record = std::fs::read_to_string(dir.join("attempts.jsonl")).unwrap();
    assert!(
        record.contains(
            r#""event":"set_aside","attempt":1,"generation":1,"from_step":null,"steps":[4]"#
        ),
        "{record}"
    );
    changed(world, &id);
}

#[test]
fn on_this_machine_a_retry_begins_anew_with_changed_keys() {
    begun_anew(&broken("kind = \"local\""), "executor.time=30m", |world, id| {
        assert_eq!(file(world, id, "train/task.1.0.json")["time_limit"], 1800);
        assert_eq!(file(world, id, "train/task.1.0.json")["env"]["WHY"], "again");
    });
}

#[test]
fn on_slurm_a_retry_begins_anew_with_changed_keys() {
    if cluster::is_here() {
        let executor = "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"";
        begun_anew(&broken(executor), "executor.mem=200M", |world, id| {
            assert!(script(world, id, "train/1.sbatch").contains("#SBATCH --mem=200M\n"));
            assert!(script(world, id, "train/0.sbatch").contains("#SBATCH --mem=100M\n"));
        });
    }
}

/// What an experiment's time has ended runs again with that time, and not for a moment only.
#[test]
fn the_time_of_the_experiment_begins_anew() {
    let world = World::new();
    let text = "name = \"late\"\ntimeout = \"5s\"\n[task.train]\nrun = \"test $NEMO_ATTEMPT = 1 || sleep 60\"\n\
        checkpoint.lead = \"1s\"\nretry = { failed = 5 }\n[task.after]\nafter = [\"train\"]\nrun = \"true\"\n";
    world.write("exp.toml", text);
    let id = world.ok(&["submit", "exp.toml"]);
    let printed = world.run(&["wait", &id, "--timeout", "1m"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let status = world.status(&id);
    assert_eq!(states(&status, "train"), ["timeout"], "no rule gives it more time: {status:#}");
    assert_eq!(trials(&status, "train")[0]["attempts"].as_array().unwrap().len(), 1, "{status:#}");
    retry(&world, &[&id]);
    let printed = world.run(&["wait", &id, "--timeout", "1m"]);
    assert_eq!(printed.code, 0, "{printed:?} {:#}", world.status(&id));
}
