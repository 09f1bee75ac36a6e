//! Environments that tools make: a virtual environment, `uv run`, modules and Apptainer with the real tools, and conda and
//! Spack with stand-ins, since no registry that the tests are installed from serves them. A tool that is not here is passed
//! over, and that is said. `NEMO_TEST_CONDA` and `NEMO_TEST_SPACK` name an installation of the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Task;

/// A program that saves when it is asked.
const SAVES: &str = "on(signal.SIGUSR1, lambda: (save(step + 1), sys.exit(75)))\nready()\npause()";
/// The same for a shell that has little else, as in an image.
const SAVES_IN_SH: &str = r#"
save() {
  echo asked
  mkdir "$NEMO_CHECKPOINT_DIR/step-1.tmp"
  echo 1 >"$NEMO_CHECKPOINT_DIR/step-1.tmp/state"
  mv "$NEMO_CHECKPOINT_DIR/step-1.tmp" "$NEMO_CHECKPOINT_DIR/step-1"
  exit 75
}
trap save USR1
: >"$TEST/ready-$NEMO_ATTEMPT"
while :; do sleep 0.05; done
"#;

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
    executable(&task.path("bin/mine-tool"), "#!/bin/sh\necho tool\n");
    fs::create_dir_all(task.path("modules/mine")).unwrap();
    let bin = task.path("bin").display().to_string();
    let module = format!("#%Module\nsetenv MINE yes\nprepend-path PATH {bin}\n");
    fs::write(task.path("modules/mine/1.0"), module).unwrap();
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
    let mut task = Task::python(SAVES);
    let python = task.spec["command"]["exec"][0].clone();
    under(&mut task, vec![json!(uv), json!("run"), json!("--offline"), json!("--no-project")]);
    task.spec["command"]["exec"].as_array_mut().unwrap().splice(4..4, [json!("--python"), python]);
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.committed(), [1]);
}

/// Puts these words before the program's.
fn under(task: &mut Task, mut words: Vec<Value>) {
    let exec = task.spec["command"]["exec"].as_array_mut().unwrap();
    words.append(exec);
    *exec = words;
}

fn executable(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A conda, and an environment of it in the task's folder that has a program and sets a variable.
fn conda(task: &Task) -> (PathBuf, String) {
    let environment = task.path("environment");
    executable(&environment.join("bin/mine-tool"), "#!/bin/sh\necho tool\n");
    for (name, text) in
        [("conda-meta/history", ""), ("etc/conda/activate.d/mine.sh", "export MINE=yes\n")]
    {
        executable(&environment.join(name), text);
    }
    let base = std::env::var_os("NEMO_TEST_CONDA").map_or_else(
        || {
            let base = task.path("conda");
            executable(&base.join("bin/conda"), include_str!("tools/conda"));
            executable(&base.join("etc/profile.d/conda.sh"), include_str!("tools/conda.sh"));
            base
        },
        PathBuf::from,
    );
    (base, environment.display().to_string())
}

#[test]
fn a_conda_environment_is_entered_by_setup() {
    let task = Task::sh("echo \"$CONDA_PREFIX $MINE\"; mine-tool");
    let (base, environment) = conda(&task);
    let source = format!("source {}/etc/profile.d/conda.sh", base.display());
    let task = task.with("/setup", json!([source, format!("conda activate {environment}")]));
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), format!("{environment} yes\ntool\n"));
}

/// One that is not there ends the attempt before the program starts, and conda's own words are in the log.
#[test]
fn a_conda_environment_that_is_missing_ends_the_attempt() {
    let task = Task::sh("echo started");
    let (base, environment) = conda(&task);
    let source = format!("source {}/etc/profile.d/conda.sh", base.display());
    let missing = format!("conda activate {environment}-2");
    let task = task.with("/setup", json!([source, missing]));
    assert_eq!(task.run(), 1);
    assert_eq!(task.stdout(0), "");
    let log = task.stderr(0);
    assert!(log.contains("EnvironmentLocationNotFound"), "{log}");
}

/// The program is two processes below `conda run`. It alone is asked, and its exit code counts.
#[test]
fn a_program_under_conda_run_saves_when_it_is_asked() {
    let mut task = Task::python(SAVES);
    let (base, environment) = conda(&task);
    let conda = base.join("bin/conda");
    let words = ["run", "--no-capture-output", "-p", &environment].map(|word| json!(word));
    under(&mut task, [json!(conda)].into_iter().chain(words).collect());
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.committed(), [1]);
}

/// A Spack with a package `mine`, and what makes it a command.
fn spack(task: &Task) -> (String, String) {
    let root = std::env::var_os("NEMO_TEST_SPACK").map_or_else(
        || {
            let root = task.path("spack");
            executable(&root.join("bin/spack"), include_str!("tools/spack"));
            let start = include_str!("tools/setup-env.sh");
            executable(&root.join("share/spack/setup-env.sh"), start);
            executable(&root.join("opt/mine/bin/mine-tool"), "#!/bin/sh\necho tool\n");
            root
        },
        PathBuf::from,
    );
    let source = format!("source {}/share/spack/setup-env.sh", root.display());
    (root.display().to_string(), source)
}

#[test]
fn a_package_of_spack_is_loaded_by_setup() {
    let task = Task::sh("echo \"$SPACK_ROOT\"; mine-tool");
    let (root, source) = spack(&task);
    let task = task.with("/setup", json!([source, "spack load mine"]));
    assert_eq!(task.run(), 0);
    assert_eq!(task.stdout(0), format!("{root}\ntool\n"));
}

#[test]
fn a_package_of_spack_that_is_missing_ends_the_attempt() {
    let task = Task::sh("echo started");
    let (_, source) = spack(&task);
    let task = task.with("/setup", json!([source, "spack load nothing"]));
    assert_eq!(task.run(), 1);
    assert_eq!(task.stdout(0), "");
    let log = task.stderr(0);
    assert!(log.contains("matches no installed packages"), "{log}");
}

/// Apptainer's parent process passes the signal on, so the program hears it once; its exit code comes through.
#[test]
fn a_program_in_a_container_saves_when_it_is_asked() {
    for own_processes in [false, true] {
        let Some(task) = in_a_container(own_processes) else { return };
        assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
        assert_eq!(task.stdout(0), "asked\n");
        assert_eq!(task.committed(), [1]);
    }
}

#[test]
fn a_container_ends_with_a_harness_that_is_killed() {
    for own_processes in [false, true] {
        let Some(task) = in_a_container(own_processes) else { return };
        let mut running = task.start();
        running.wait_for("ready-0");
        assert_ne!(processes_of(&task), Vec::<String>::new());
        task.kill_harness();
        running.finish();
        assert_eq!(processes_of(&task), Vec::<String>::new());
    }
}

/// A program in a container, with the host's processes or with its own ones.
fn in_a_container(own_processes: bool) -> Option<Task> {
    let Some(apptainer) = std::env::var_os("NEMO_TEST_APPTAINER").map(PathBuf::from) else {
        eprintln!("skipped: NEMO_TEST_APPTAINER names no Apptainer");
        return None;
    };
    let mut task = Task::new(&json!({"exec": ["sh", "-c", SAVES_IN_SH]}));
    let mut words = vec![json!(apptainer), json!("exec"), json!("--bind"), json!(task.path(""))];
    words.extend(own_processes.then_some(json!("--pid")));
    words.push(json!(apptainer.with_file_name("image")));
    under(&mut task, words);
    Some(task)
}

/// The shells that run the program of the task, in whatever container.
fn processes_of(task: &Task) -> Vec<String> {
    let mark = format!("TEST={}", task.root.path().display());
    let is_ours = |pid: &String| {
        let folder = Path::new("/proc").join(pid);
        let is_shell = fs::read_to_string(folder.join("comm")).is_ok_and(|name| name == "sh\n");
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        is_shell && environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).filter(is_ours).collect()
}
