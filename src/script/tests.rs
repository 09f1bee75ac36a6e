//! What a person reads of a script, and what a real shell makes of it.

use std::num::NonZeroU32;

use super::*;
use crate::experiment::{EnvSpec, Goal};
use crate::plan::ArrayDependency;
use nemo_core::rundir::{CheckpointSpec, CommandSpec, RestartSpec};

fn array(after: Vec<ArrayDependency>, held: bool) -> JobArray {
    JobArray {
        task: "train".to_owned(),
        index: 1,
        offset: 1000,
        trials: (1000..1006).collect(),
        throttle: NonZeroU32::new(2),
        after,
        held,
        outside: Vec::new(),
        behind: Vec::new(),
        after_jobs: Vec::new(),
        wrapped: None,
    }
}

fn task() -> Task {
    Task {
        name: "train".to_owned(),
        executor: "gpu".to_owned(),
        run: CommandSpec::Shell("true".to_owned()),
        after: Vec::new(),
        n_trials: 6,
        concurrent: None,
        metric: None,
        goal: Goal::Min,
        checkpoint: CheckpointSpec {
            signal: "USR1".to_owned(),
            lead: 120,
            every: None,
            keep: nemo_core::rundir::Keep::default(),
            from: Vec::new(),
            restore_to: None,
            tier: None,
            command: None,
            resume: None,
        },
        restart: RestartSpec { crashes: 0, no_progress: 3, hang: None },
        metrics: std::collections::BTreeMap::new(),
        launch: None,
        log_policy: Vec::new(),
        profile: None,
        trackers: Vec::new(),
        retry: std::collections::BTreeMap::new(),
        rehearse: crate::experiment::RehearsalRules::default(),
    }
}

#[test]
fn the_array_line_names_the_trials_of_a_sparse_array() {
    let sparse = JobArray {
        offset: 1000,
        trials: "1003,1017,1040-1049".parse().unwrap(),
        ..array(Vec::new(), false)
    };
    let executor = SlurmExecutor::default();
    let setting = ScriptContext {
        experiment: "x",
        task: &task(),
        executor: &executor,
        task_dir: Path::new("/x"),
        output_dir: "/x".into(),
        harness: Path::new("/x"),
        spec: None,
    };
    let line = |array: &JobArray| {
        let options = options(array, &setting);
        options.into_iter().find(|(name, _)| name == "array").unwrap().1
    };
    assert_eq!(line(&sparse), "3,17,40-49%2");
    assert_eq!(line(&array(Vec::new(), false)), "0-5%2");
}

#[test]
fn a_whole_script() {
    let executor = SlurmExecutor {
        nodes: None,
        tasks_per_node: None,
        partition: Some("main".to_owned()),
        gpus_per_node: Some("h100:8".to_owned()),
        cpus_per_task: NonZeroU32::new(4),
        mem: Some("8G".to_owned()),
        time: Some(14_400),
        sbatch: [("comment", "two words # \"x\""), ("exclusive", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        budget: None,
        surroundings: EnvSpec::default(),
    };
    let setting = ScriptContext {
        experiment: "digits-3kz81q7m",
        task: &task(),
        executor: &executor,
        task_dir: Path::new("/home/o'neil/50% done/tasks/train"),
        output_dir: "/home/o'neil/50% done/tasks/train/slurm".into(),
        harness: Path::new("/home/o'neil/nemo-harness"),
        spec: None,
    };
    insta::assert_snapshot!(script(&array(Vec::new(), false), &setting), @r#"
    #!/bin/bash
    #SBATCH --job-name=digits-3kz81q7m.train.1
    #SBATCH --array=0-5%2
    #SBATCH --output="/home/o'neil/50%% done/tasks/train/slurm/%A_%a.out"
    #SBATCH --open-mode=append
    #SBATCH --requeue
    #SBATCH --signal=B:USR1@120
    #SBATCH --nodes=1
    #SBATCH --ntasks=1
    #SBATCH --partition=main
    #SBATCH --gpus-per-node=h100:8
    #SBATCH --cpus-per-task=4
    #SBATCH --mem=8G
    #SBATCH --time=04:00:00
    #SBATCH --comment="two words # \"x\""
    #SBATCH --exclusive
    # The harness is the batch process: signals reach it first.
    exec '/home/o'\''neil/nemo-harness' run --task-dir '/home/o'\''neil/50% done/tasks/train' --offset 1000
    "#);
}

#[track_caller]
fn check_processes(nodes: u32, tasks: u32, launch: Option<Launch>, expected: &str) {
    let executor = SlurmExecutor {
        nodes: NonZeroU32::new(nodes),
        tasks_per_node: NonZeroU32::new(tasks),
        ..SlurmExecutor::default()
    };
    let setting = ScriptContext {
        experiment: "x",
        task: &Task { launch, ..task() },
        executor: &executor,
        task_dir: Path::new("/x"),
        output_dir: "/x".into(),
        harness: Path::new("/x"),
        spec: None,
    };
    let text = script(&array(Vec::new(), false), &setting);
    let meant = |line: &&str| line.contains("nodes") || line.contains("ntasks");
    assert_eq!(text.lines().filter(meant).collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn processes_of_a_trial() {
    let torchrun = Some(Launch::Torchrun { workers_per_node: NonZeroU32::new(8) });
    check_processes(0, 0, None, "#SBATCH --nodes=1 #SBATCH --ntasks=1");
    check_processes(1, 0, torchrun, "#SBATCH --nodes=1 #SBATCH --ntasks=1");
    let two = "#SBATCH --nodes=2 #SBATCH --ntasks=2 #SBATCH --ntasks-per-node=1";
    check_processes(2, 0, None, two);
    check_processes(2, 0, torchrun, two);
    let eight = "#SBATCH --nodes=2 #SBATCH --ntasks=8 #SBATCH --ntasks-per-node=4";
    check_processes(2, 4, None, eight);
    check_processes(1, 4, None, "#SBATCH --nodes=1 #SBATCH --ntasks=4 #SBATCH --ntasks-per-node=4");
}

#[track_caller]
fn check_arguments(edges: &[(usize, Relation)], held: bool, expected: &str) {
    let edges = edges.iter().map(|&(array, on)| ArrayDependency { array, on }).collect();
    let submitted = (0..).zip([JobId(7), JobId(8), JobId(9)]).collect();
    assert_eq!(arguments(&array(edges, held), &submitted).join(" "), expected);
}

#[test]
fn dependencies_as_sbatch_reads_them() {
    use Relation::{AfterAny, AfterCorr, AfterNotOk, AfterOk, AnyAfterNotOk};
    check_arguments(&[], false, "");
    check_arguments(&[], true, "--hold");
    let kill = "--kill-on-invalid-dep=yes";
    let check = |edges: &[_], text: &str| {
        check_arguments(edges, false, &format!("--dependency={text} {kill}"));
    };
    check(&[(0, AfterOk), (1, AfterOk)], "afterok:7:8");
    check(&[(0, AfterOk), (2, AfterAny), (1, AfterOk)], "afterok:7:8,afterany:9");
    check(&[(0, AfterCorr)], "aftercorr:7");
    check(&[(0, AfterNotOk)], "afternotok:7");
    check(&[(0, AnyAfterNotOk), (1, AnyAfterNotOk)], "afternotok:7?afternotok:8");
}

#[test]
fn a_shell_reads_a_word_back() {
    let hostile = ["", "a b", "'; rm -rf ~; '", "two\nlines", "$(id) `id` $HOME", "-n", "*", "\\"];
    for text in hostile {
        #[expect(clippy::disallowed_methods, reason = "a real shell is what the words are for")]
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", shell_word(text)))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    }
}
