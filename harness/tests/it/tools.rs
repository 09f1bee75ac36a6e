//! Environments that real tools make: a virtual environment, `uv run`, modules. A tool that is not here is passed over, and
//! that is said.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::Task;

/// Runs a program that must succeed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

#[test]
fn a_virtual_environment_is_entered_by_setup() {
    let task =
        Task::sh("python -c 'import os, sys; print(sys.prefix, os.environ[\"NEMO_TRIAL\"])'");
    let venv = task.path("venv").display().to_string();
    run("python3", &["-m", "venv", "--without-pip", &venv]);
    let task = task.with("/setup", json!([format!("source {venv}/bin/activate")]));
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), format!("{venv} 0\n"));
}

#[test]
fn modules_are_loaded_by_setup() {
    let places = ["/usr/share/lmod/lmod/init/bash", "/usr/share/modules/init/bash"];
    let Some(init) = places.iter().find(|place| Path::new(place).exists()) else {
        eprintln!("skipped: neither Lmod nor Environment Modules is here");
        return;
    };
    let task = Task::sh("echo \"$MINE\"; mine-tool");
    let tool = task.path("bin/mine-tool");
    for folder in ["bin", "modules/mine"] {
        std::fs::create_dir_all(task.path(folder)).unwrap();
    }
    std::fs::write(&tool, "#!/bin/sh\necho tool\n").unwrap();
    run("chmod", &["755", &tool.display().to_string()]);
    let bin = task.path("bin").display().to_string();
    let module = format!("#%Module\nsetenv MINE yes\nprepend-path PATH {bin}\n");
    std::fs::write(task.path("modules/mine/1.0"), module).unwrap();
    let modules = task.path("modules").display().to_string();
    let setup =
        json!([format!("source {init}"), format!("module use {modules}"), "module load mine/1.0"]);
    let task = task.with("/setup", setup);
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), "yes\ntool\n");
}

/// What `uv` starts is asked to save, and its exit code counts.
#[test]
fn a_program_under_uv_saves_when_it_is_asked() {
    let uv = std::env::var_os("NEMO_TEST_TRACKERS")
        .map(|python| Path::new(&python).with_file_name("uv"));
    let Some(uv) = uv.filter(|uv| uv.exists()) else {
        eprintln!("skipped: beside the Python of NEMO_TEST_TRACKERS there is no uv");
        return;
    };
    let mut task = Task::python(
        "on(signal.SIGUSR1, lambda: (save(step + 1), sys.exit(75)))\nready()\npause()",
    );
    let words = task.spec["command"]["exec"].as_array().unwrap().clone();
    let under = ["run", "--offline", "--no-project", "--python"].map(|word| json!(word));
    let all: Vec<_> =
        [json!(uv)].into_iter().chain(under).chain([words[0].clone()]).chain(words).collect();
    task.spec["command"] = json!({ "exec": all });
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.committed(), [1]);
}
