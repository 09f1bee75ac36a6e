//! What a rehearsal must not be deceived by: counters, names, dates, and one fault behind another.

use super::{check, codes, parse, says, world};

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
