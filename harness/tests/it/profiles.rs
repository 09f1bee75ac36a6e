//! Programs that follow a trainer's convention, and know nothing of this one.

use std::fs;

use serde_json::json;

use crate::support::Task;

#[test]
fn a_folder_that_transformers_writes_in_place_is_committed_once_its_state_is_there() {
    let text = "
def write(folder, *names):
    os.makedirs(out + '/' + folder)
    for name in names: open(out + '/' + folder + '/' + name, 'w').write(name)
write('checkpoint-7', 'model.safetensors', 'trainer_state.json', 'checkpoint-is-incomplete.txt')
write('checkpoint-6', 'model.safetensors', 'optimizer.pt')
write('runs', 'trainer_state.json')
write('checkpoint-5', 'model.safetensors', 'trainer_state.json')
pause()";
    let task = Task::python(text).with("/profile", json!("transformers"));
    let mut running = task.start();
    running.wait_for("tasks/train/trials/0/checkpoints/step-5/MANIFEST");
    running.signal("KILL");
    running.finish();
    assert_eq!(task.checkpoints(), ["step-5"]);
}

#[test]
fn lightning_is_told_to_end_once_it_has_saved() {
    let text = "
import pickle
def save_as_asked():
    with open(out + '/hpc_ckpt_1.ckpt', 'wb') as file:
        pickle.dump({'epoch': 0, 'global_step': 120, 'state_dict': {}}, file, protocol=2)
os.mkdir(out + '/lightning_logs')
on(signal.SIGUSR1, save_as_asked)
on(signal.SIGTERM, lambda: sys.exit(0))
ready(); pause()";
    let task = Task::python(text)
        .with("/profile", json!("lightning"))
        .with("/checkpoint/lead", json!(3600));
    let mut running = task.start();
    running.wait_for("ready-0");
    running.signal("USR1");
    assert_eq!(running.finish(), 75, "{}", task.stderr(0));
    assert_eq!(task.checkpoints(), ["step-120"]);
    task.check_ends("Preempted Requeue");
}

#[test]
fn of_torchrun_only_the_worker_hears_the_signal() {
    let text = "
import subprocess
if 'TORCHELASTIC_RUN_ID' in os.environ:
    on(signal.SIGUSR1, lambda: (save(8), sys.exit(85)))
    ready(); pause()
on(signal.SIGUSR1, lambda: print('the agent was asked'))
environment = {**os.environ, 'TORCHELASTIC_RUN_ID': 'x'}
worker = subprocess.run([sys.executable, '-c', os.environ['PROGRAM']], env=environment)
print(worker.returncode)
sys.exit(1)";
    let mut task = Task::python(text).with("/profile", json!("torchrun"));
    let program = task.spec["command"]["exec"][2].as_str().unwrap().to_owned();
    task.env("PROGRAM", &program);
    assert_eq!(task.signalled(&["USR1"]), 75);
    assert_eq!(task.stdout(0), "85\n");
    assert_eq!(task.checkpoints(), ["step-8"]);
    task.check_ends("Preempted Requeue");
}

/// `deepspeed`, and `accelerate launch` with several processes, end their workers at TERM.
#[test]
fn a_launcher_that_would_end_its_workers_is_not_asked() {
    let launcher = "
import signal, subprocess, sys
worker = subprocess.Popen([sys.executable, 'worker.py'])
def end(*_):
    print('the launcher was asked', flush=True)
    worker.kill()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
sys.exit(worker.wait())";
    let worker = "
def save_checkpoint():
    os.mkdir(out + '/.c')
    open(out + '/.c/trainer_state.json', 'w').write('8')
    os.rename(out + '/.c', out + '/checkpoint-8')
    sys.exit(75)
on(signal.SIGTERM, save_checkpoint)
ready(); pause()";
    for name in ["deepspeed", "accelerate"] {
        let task = Task::new(&json!({"exec": ["python3", name, "launch", "worker.py"]}))
            .with("/profile", json!("transformers"))
            .with("/checkpoint/signal", json!("TERM"));
        fs::write(task.path(name), launcher).unwrap();
        let worker = format!("{}\n{worker}", crate::support::PYTHON);
        fs::write(task.path("worker.py"), worker).unwrap();
        assert_eq!(task.signalled(&["USR1"]), 75, "{}", task.stderr(0));
        assert_eq!(task.stdout(0), "", "{name}");
        assert_eq!(task.checkpoints(), ["step-8"], "{name}: {}", task.stderr(0));
    }
}

#[test]
fn logs_that_a_trainer_puts_beside_its_checkpoints_last() {
    let task = Task::python(
        r#"
os.makedirs(out + "/lightning_logs/version_0")
open(out + "/lightning_logs/version_0/metrics.csv", "w").write(os.environ["NEMO_ATTEMPT"])
open(out + "/.x", "w").write("1"); os.rename(out + "/.x", out + "/step=%s.ckpt" % (step + 1))
sys.exit(75 if os.environ["NEMO_ATTEMPT"] == "0" else 0)"#,
    )
    .with("/profile", json!("lightning"));
    assert_eq!((task.run(), task.run()), (75, 0));
    let left = task.dir().path().join("left/0/lightning_logs/version_0/metrics.csv");
    assert_eq!(fs::read_to_string(left).unwrap(), "0");
}
