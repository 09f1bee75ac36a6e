//! A tracker's server that can't be asked.

use std::fs;

use serde_json::json;

use crate::support::{Running, Task};

/// A task whose `mlflow` does this when it is asked for a run.
fn tracked(client: &str) -> Task {
    let mut task = Task::python("ready()\nsys.exit(0)").with("/trackers", json!(["mlflow"]));
    let folder = task.path("modules/mlflow");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("__init__.py"), "").unwrap();
    fs::write(folder.join("tracking.py"), format!("import os, time\n{client}")).unwrap();
    let modules = task.path("modules").display().to_string();
    task.env("PYTHONPATH", &modules);
    task
}

#[test]
fn a_stop_is_heard_while_a_server_is_asked() {
    let task = tracked("open(os.environ['TEST'] + '/asking-0', 'w').close()\ntime.sleep(600)");
    let mut running: Running = task.start();
    running.wait_for("asking-0");
    running.signal("TERM");
    running.finish();
    assert!(task.stderr(0).contains("a signal came first"), "{}", task.stderr(0));
    assert_eq!(task.ends().len(), 1);
}

#[test]
fn a_server_that_is_away_is_told_without_its_password() {
    let task = tracked(
        "raise SystemExit('no answer: https://ada:s3cret@example.org ' + os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'])",
    );
    assert_eq!(task.run(), 0);
    let log = task.stderr(0);
    assert!(log.contains("no answer: https://example.org 1"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}
