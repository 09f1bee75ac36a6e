//! What a rehearsal must not be deceived by: counters, names, dates, and one fault behind another.

use super::{check, codes, parse, says, world};
use crate::support::World;

#[test]
fn one_that_counts_from_the_beginning_does_not_start_over() {
    let (finding, _) = check("counts_from_the_beginning", "killed", 1, "wrong-step");
    says(&finding, &["it counts from step 1 again", "those of the steps after the checkpoint"]);
}

#[test]
fn logs_dates_random_names_and_other_savers_are_no_fault() {
    let world = world("odd_and_right", "20s", "");
    let printed =
        world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "killed", "--seed", "3"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{report:#}");
    let killed = &report["runs"][2];
    assert_eq!(killed["disturbed"], true, "{killed:#}");
    assert_eq!(killed["comparison"]["results"]["compared"], 1, "{killed:#}");
    assert_eq!(killed["comparison"]["results"]["not_compared"][0], "artifacts/train.log");
}

#[test]
fn one_fault_does_not_hide_another() {
    let world = world("miscounts_and_forgets_momentum", "20s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "preempted"]);
    let report = parse(&printed);
    assert_eq!(
        (printed.code, codes(&report)),
        (1, vec!["wrong-step", "resume-not-exact"]),
        "{report:#}"
    );
}

#[test]
fn a_pattern_of_steps_is_enough() {
    let world = world("good", "20s", "");
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    world.write("exp.toml", text.split_once("loss = '").unwrap().0);
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "killed"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec![]), "{report:#}");
    let attempts = &report["runs"][2]["attempts"];
    assert!(attempts[0]["injected"]["step"].as_u64() > Some(10), "{attempts:#}");
    let resumed = attempts[1]["resume_step"].as_u64().unwrap();
    assert_eq!(attempts[1]["first_step"].as_u64(), Some(resumed + 1), "{attempts:#}");
}

#[test]
fn weights_that_differ_undisturbed_are_noise_only_where_the_file_says_so() {
    let world = world("is_not_deterministic", "20s", "");
    let rules = "[task.train.rehearse]\nnoise = [\"*\"]\n[task.train.metrics]";
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    world.write("exp.toml", &text.replace("[task.train.metrics]", rules));
    let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "preempted"]);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (0, vec!["not-deterministic"]), "{report:#}");
}

#[test]
fn settings_that_are_the_same_do_not_speak_for_weights() {
    let program = "forgets_momentum_when_asked";
    let (finding, _) = check(program, "preempted", 1, "resume-not-exact");
    says(&finding, &["loss at step"]);
    let world = world(program, "20s", "");
    let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
    let with = |metrics: &str| {
        world.write("exp.toml", &text.replace("loss = 'loss: (\\S+)'\n", metrics));
        let text = std::fs::read_to_string(world.path("exp.toml")).unwrap();
        world.write("exp.toml", &text.replace("seconds = 'seconds: (\\S+)'\n", ""));
        let arguments = ["rehearse", "exp.toml", "train", "--json", "--only", "preempted"];
        let printed = world.run(&arguments);
        let report = parse(&printed);
        assert_eq!((printed.code, codes(&report)), (1, vec!["nothing-to-compare"]), "{report:#}");
        report["findings"][0].to_string()
    };
    says(&with(""), &["no metric was read", "written after the resume"]);
    says(&with("lr = 'step (\\d+)'\n"), &["follow from the step alone, as a learning rate does"]);
}

#[test]
fn where_there_was_no_time_to_disturb_anything_nothing_is_safe() {
    let world = world("good", "20s", "");
    let arguments = ["rehearse", "exp.toml", "train", "--json", "--time-limit", "3s"];
    let printed = world.run(&arguments);
    let report = parse(&printed);
    assert_eq!((printed.code, codes(&report)), (1, vec!["not-disturbed"]), "{report:#}");
    assert_eq!(report["safe"], false);
}

#[test]
fn metrics_alone_are_told_to_be_alone() {
    let world = world("leaves_no_weights", "20s", "");
    let printed = world.run(&["rehearse", "exp.toml", "train", "--only", "preempted"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    says(
        &printed.stdout,
        &["note[only-metrics]", "safe to be interrupted, as far as its metrics tell"],
    );
}

/// A program that saves to `snapshot.json` beside the file and goes on from it.
const OWN_FILE: &str = r#"
import json, os, time
x, step = 1.0, 0
if os.path.exists("snapshot.json"):
    step, x = json.load(open("snapshot.json"))
while step < 40:
    step, x = step + 1, x * 1.01
    print(f"step {step} loss: {x!r}", flush=True)
    if step % 5 == 0:
        json.dump([step, x], open("snapshot.tmp", "w"))
        os.rename("snapshot.tmp", "snapshot.json")
    time.sleep(0.03)
"#;

#[test]
fn a_rehearsal_does_not_touch_what_the_users_own_program_saved() {
    for package in ["none", "folder"] {
        let world = World::new();
        world.write("own.py", OWN_FILE);
        world.write("snapshot.json", "[39, 7.5]");
        world.write(
            "exp.toml",
            &format!(
                "name = \"own\"\npackage.from = \"{package}\"\n[task.train]\nrun = \"python3 own.py\"\n\
                 checkpoint = {{ signal = \"none\", lead = \"5s\", from = \"snapshot.json\", restore_to = \"snapshot.json\" }}\n\
                 [task.train.metrics]\nstep = 'step (\\d+)'\nloss = 'loss: (\\S+)'\n"
            ),
        );
        let printed = world.run(&["rehearse", "exp.toml", "train", "--json", "--only", "killed"]);
        let report = parse(&printed);
        assert_eq!((printed.code, codes(&report)), (0, vec!["saves-by-itself"]), "{report:#}");
        assert_eq!(report["runs"][0]["attempts"][0]["first_step"], 1, "{report:#}");
        assert_eq!(std::fs::read_to_string(world.path("snapshot.json")).unwrap(), "[39, 7.5]");
        let names = std::fs::read_dir(world.path("")).unwrap();
        let names: Vec<String> =
            names.map(|own| own.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.starts_with(".nemo-")), "{names:?}");
        assert!(!world.path("home/rehearsals").exists());
    }
}
