//! Rehearsals on a real Slurm, by its own ways.

use serde_json::Value;

use super::{assert_clean, codes, parse, says, world};
use crate::cluster;

/// Rehearses a program on the cluster that is here.
fn on_slurm(program: &str, more: &[&str]) -> (i32, Value) {
    let executor = "[executor.cluster]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"10m\"\n\
                    [executor.here]\nkind = \"local\"\n[defaults]\nexecutor = \"here\"";
    let world = world(program, "20s", executor);
    let arguments = ["rehearse", "exp.toml", "train", "--executor", "cluster", "--json"];
    let printed = world.run(&[&arguments, more].concat());
    (printed.code, parse(&printed))
}

#[test]
fn one_that_catches_only_usr1_is_told_of_slurms_term() {
    if !cluster::is_here() {
        return;
    }
    let (code, report) = on_slurm("catches_only_usr1", &["--only", "requeued"]);
    assert_eq!((code, codes(&report)), (1, vec!["dies-of-term"]), "{report:#}");
    says(&report["findings"].to_string(), &["Slurm's own SIGTERM", "catch SIGTERM with the same"]);
}

#[test]
fn a_rehearsal_uses_slurms_own_ways() {
    if !cluster::is_here() {
        return;
    }
    let (code, report) = on_slurm("good", &["--interruptions", "1"]);
    assert_eq!((code, codes(&report)), (0, vec![]), "{report:#}");
    assert_clean(&report, &["undisturbed", "undisturbed", "preempted", "requeued"]);
}
