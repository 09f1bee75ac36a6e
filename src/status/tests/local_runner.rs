//! Stories of trials on this machine.

use super::*;

/// The first trial of `train` on the local executor.
#[track_caller]
fn check_local(runner: &RunnerView, files: TrialFiles, expected: &str) {
    let mut stored = stored();
    stored.experiment.executors = sample_experiment(Vec::new()).executors;
    let mut sources = sources(&stored);
    sources.runner = runner.clone();
    sources.files.insert("train".to_owned(), [(0, files)].into());
    assert_eq!(described(&sources), expected);
}

#[test]
fn the_local_runner_s_record_is_held_against_what_lives() {
    let started = || RunnerRecord::Started {
        task: "train".to_owned(),
        trial: 0,
        pid: 1,
        gpus: Vec::new(),
        time: 0.0,
    };
    let view = |records, liveness, rebooted| RunnerView {
        records,
        liveness: Some(liveness),
        rebooted,
        damage: None,
    };
    let running =
        |alive| TrialFiles { attempts: vec![start(0, 100.0)], alive, ..TrialFiles::default() };
    let none = TrialFiles::default;
    check_local(&view(vec![], Liveness::Alive, false), none(), "pending []");
    check_local(&view(vec![started()], Liveness::Alive, false), none(), "running []");
    check_local(&view(vec![started()], Liveness::Dead, false), running(Some(true)), "running [-]");
    let go_on = "`nemo-slurm submit --continue sample-00000100` starts";
    check_local(
        &view(vec![started()], Liveness::Dead, false),
        running(Some(false)),
        &format!("failed?: its runner is gone: {go_on} it again [Failed]"),
    );
    // The kernel has another boot id: nothing of before can live.
    check_local(
        &view(vec![started()], Liveness::Dead, true),
        running(Some(false)),
        &format!("failed?: the machine was restarted: {go_on} its runner again [NodeFailure]"),
    );
    check_local(
        &view(vec![], Liveness::Dead, true),
        none(),
        &format!("pending: the machine was restarted: {go_on} its runner again []"),
    );
    let gone = format!("pending: its runner is gone: {go_on} it again []");
    check_local(&view(vec![], Liveness::Dead, false), none(), &gone);
    check_local(&view(vec![started()], Liveness::Dead, false), none(), &gone);
    let go_on = "`nemo-slurm submit --continue sample-00000100` continues it";
    let never_started =
        RunnerView { records: vec![], liveness: None, rebooted: false, damage: None };
    check_local(&never_started, none(), &format!("pending: was not started: {go_on} []"));
    let dropped =
        |cancelled| RunnerRecord::Dropped { task: "train".to_owned(), trial: 0, cancelled };
    check_local(&view(vec![dropped(true)], Liveness::Alive, false), none(), "cancelled []");
    let never = "blocked: its dependency can never be satisfied []";
    check_local(&view(vec![dropped(false)], Liveness::Alive, false), none(), never);
}

#[test]
fn a_local_trial_that_is_paused_says_what_lets_it_go_on() {
    let mut stored = stored();
    stored.experiment.executors = sample_experiment(Vec::new()).executors;
    let mut sources = sources(&stored);
    sources.runner.liveness = Some(Liveness::Alive);
    sources.requests.push(Request {
        action: RequestedAction::Pause,
        scope: Scope::default(),
        time: 0,
        budget: None,
    });
    let resume = "paused: paused; `nemo-slurm resume sample-00000100` resumes it []";
    assert_eq!(described(&sources), resume);
}

/// Each of 60 layers has two tasks, which wait for both of the layer before.
#[test]
fn what_is_held_by_others_is_found_however_many_ways_lead_to_it() {
    let mut stored = stored();
    let layer = |n: usize| ["left", "right"].map(|side| format!("{side}-{n}"));
    for n in 0..60_usize {
        let parents = n.checked_sub(1).map(layer);
        let after: Vec<(&str, On)> =
            parents.iter().flatten().map(|parent| (&**parent, On::Ok)).collect();
        let own = layer(n);
        stored.experiment.tasks.extend(own.iter().map(|name| sample_task(name, 2, 0, &after)));
    }
    assert!(held_by_others(&stored).is_empty(), "it waits for nobody");
    let of = Outside::Experiment("prep-00000050".to_owned());
    stored.experiment.after.push(OutsideDependency { of, on: On::Ok });
    let held = held_by_others(&stored);
    assert_eq!(held["left-59"], [0, 1].into());
}
