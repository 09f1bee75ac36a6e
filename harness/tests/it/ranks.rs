//! Trials of several processes, with an `srun` of the test's own that starts them all on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::scheduler::{RUNNING, job};
use crate::support::{Task, is_alive, signal, wait_until};

/// Starts the tasks as Slurm does: its input goes to all, their output comes back in mixed pieces, and its own exit
/// code is a lie.
const SRUN: &str = r#"#!/usr/bin/env python3
import os, signal, subprocess, sys, threading
test = os.environ["TEST"]
open(test + "/srun-arguments", "w").write("\n".join(sys.argv[1:]))
open(test + "/srun-pid", "w").write(str(os.getpid()))
if os.path.exists(test + "/srun-fails"):
    print("srun: error: Unable to create step for job 9: Invalid account", file=sys.stderr)
    sys.exit(1)
options = [word for word in sys.argv[1:] if word.startswith("--")]
tasks = int(next(o for o in options if o.startswith("--ntasks=")).split("=")[1])
nodes = int(next(o for o in options if o.startswith("--nodes=")).split("=")[1])
command = sys.argv[1:]
while command[0].startswith("--"):
    command = command[1:]
each = tasks // nodes
lock, shims = threading.Lock(), []
for rank in range(tasks):
    own = dict(os.environ, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank % each), SLURM_NODEID=str(rank // each),
        SLURM_STEP_NUM_TASKS=str(tasks), SLURM_STEP_NUM_NODES=str(nodes), SLURM_STEP_TASKS_PER_NODE=f"{each}(x{nodes})",
        SLURM_STEP_ID="0", SLURMD_NODENAME=f"n{rank // each + 1}", SLURM_LAUNCH_NODE_IPADDR="127.0.0.1")
    own_command = list(command)
    if rank == 2 and os.path.exists(test + "/unmounted"):
        own_command[command.index("--workdir") + 1] += "/unmounted"
    shims.append(subprocess.Popen(own_command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))
def gather(shim):
    while True:
        line = shim.stdout.readline()
        if not line:
            return
        assert len(line) <= 1024, "Slurm would cut it"
        with lock:
            os.write(1, line)
threads = [threading.Thread(target=gather, args=(shim,)) for shim in shims]
for thread in threads:
    thread.start()
def spread():
    while True:
        piece = os.read(0, 4096)
        for shim in shims:
            try:
                shim.stdin.write(piece) if piece else shim.stdin.close()
            except OSError:
                pass
        if not piece:
            return
threading.Thread(target=spread, daemon=True).start()
def end(*_):
    for shim in shims:
        shim.kill()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
for thread in threads:
    thread.join()
os._exit(0)
"#;

/// Two nodes with two processes each.
fn ranks(program: &str) -> Task {
    let program = format!("import os\nrank = int(os.environ['RANK'])\n{program}");
    let mut task = job(&program, RUNNING);
    task.spec["launch"] = json!({"nodes": 2, "tasks_per_node": 2});
    let path = task.path("bin/srun");
    fs::write(&path, SRUN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = task.path("bin/scancel");
    fs::write(&path, "#!/bin/sh\necho \"$*\" >> \"$TEST/scancel-calls\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    task.env("SLURM_CPUS_PER_TASK", "3");
    task
}

fn reason(task: &Task) -> String {
    task.ends()[0].reason.clone().unwrap_or_default()
}

fn output(task: &Task, name: &str) -> String {
    fs::read_to_string(task.dir().path().join(name)).unwrap_or_default()
}

#[test]
fn each_rank_knows_its_place_and_has_its_own_output() {
    let task = ranks(
        "print('nemo1 0 exited .9')\nprint('loss: 0.5', 'x' * 5000)\nprint('é%\\x1e\\r')\n\
         names = 'RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR'.split()\n\
         print(*(os.environ[name] for name in names), 20000 <= int(os.environ['MASTER_PORT']) < 30000)",
    )
    .with("/metrics", json!({"loss": "loss: (\\S+)"}));
    assert_eq!(task.run(), 0);
    task.check_ends("Completed Done");
    for (rank, place) in ["0 4 0 2 0", "1 4 1 2 0", "2 4 0 2 1", "3 4 1 2 1"].iter().enumerate() {
        let name = if rank == 0 { "0.out".to_owned() } else { format!("0.{rank}.out") };
        let text = output(&task, &name);
        assert!(text.starts_with("nemo1 0 exited .9\nloss: 0.5 xxx"), "{text}");
        assert!(text.ends_with(&format!("\n{place} 127.0.0.1 True\n")), "{text}");
    }
    assert_eq!(task.metrics().len(), 1, "only rank 0 is listened to");
    let words = fs::read_to_string(task.path("srun-arguments")).unwrap();
    assert!(words.contains("--nodes=2\n--ntasks=4\n--ntasks-per-node=2\n"), "{words}");
    assert!(words.contains("--cpus-per-task=3\n"), "{words}");
}

#[test]
fn one_ranks_crash_ends_all_and_is_named() {
    let crash = "if rank == 2:\n    print('it broke', file=sys.stderr)\n    sys.exit(3)\npause()";
    let task = ranks(crash);
    assert_eq!(task.run(), 93);
    task.check_ends("Failed Failed");
    let expected = "rank 2 on n2 exited with code 3";
    assert!(reason(&task).contains(expected), "{}", reason(&task));
    assert!(reason(&task).contains("ranks 0, 1, 3: signal 15"), "{}", reason(&task));
    assert!(reason(&task).contains("`it broke`"), "{}", reason(&task));
    assert_eq!(task.ends()[0].exit_code, Some(3));
}

#[test]
fn a_killed_rank_is_told_from_those_that_only_followed() {
    let killed = "if rank == 1:\n    open(os.environ['TEST'] + '/gone', 'w').close()\n    os.kill(os.getpid(), 9)\n\
                  while not os.path.exists(os.environ['TEST'] + '/gone'): time.sleep(0.01)\ntime.sleep(0.3)\nsys.exit(1)";
    let task = ranks(killed);
    assert_eq!(task.run(), 93);
    let expected = "rank 1 on n1 was killed by signal 9 (SIGKILL)";
    assert!(reason(&task).contains(expected), "{}", reason(&task));
    assert!(reason(&task).contains("ranks 0, 2, 3: code 1"), "{}", reason(&task));
    assert_eq!((task.ends()[0].exit_code, task.ends()[0].signal), (None, Some(9)));
}

#[test]
fn all_are_asked_and_one_checkpoint_is_committed() {
    let task = ranks(
        "def stop():\n    open(out + '/.tmp-%d' % rank, 'w').close()\n\
         \x20   while rank == 0 and len(os.listdir(out)) < 4: time.sleep(0.01)\n\
         \x20   save(7) if rank == 0 else None\n    sys.exit(75)\n\
         on(signal.SIGUSR1, stop)\nready('ready-%d' % rank)\npause()",
    );
    let mut running = task.start();
    for rank in 0..4 {
        running.wait_for(&format!("ready-{rank}-0"));
    }
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 30;
    let state = format!(
        "JobState=RUNNING Reason=None Restarts=0 StartTime=1000 EndTime={end} PreemptTime=2000"
    );
    fs::write(task.path("state"), state).unwrap();
    running.signal("USR1");
    assert_eq!(running.finish(), 0);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-7"], "{} {}", reason(&task), task.stderr(0));
    assert!(
        task.stderr(0).contains("the program is asked to save (SIGUSR1)"),
        "{}",
        task.stderr(0)
    );
}

/// What another node writes may look whole from here while it is not.
#[test]
fn a_file_in_place_is_not_complete_by_resting() {
    let program =
        "if rank == 3:\n    open(out + '/step-5', 'w').write('half')\n    ready()\npause()";
    let task = ranks(program);
    let mut running = task.start();
    running.wait_for("ready-0");
    std::thread::sleep(std::time::Duration::from_secs(4)); // twice as long as a file of this node rests
    fs::write(task.path("state"), RUNNING.replace("RUNNING", "CANCELLED")).unwrap();
    running.signal("TERM");
    assert_eq!(running.finish(), 143);
    assert_eq!(task.checkpoints(), [""; 0]);
    assert!(reason(&task).contains("may be torn"), "{}", reason(&task));
}

#[test]
fn messages_of_all_ranks_are_heard_and_answered() {
    let task = ranks(
        "import socket\nspeak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nspeak.bind('')\nspeak.settimeout(20)\n\
         speak.connect(os.environ['NEMO_SOCKET'])\nspeak.send(b'ASK=1')\nstate = speak.recv(65536).decode()\n\
         assert 'SAVE=0' in state, state\n\
         speak.send(('STEP=%d\\nMETRICS={\"rank\":%d}' % (rank + 1, rank)).encode())\n\
         open('%s/.tmp-%d' % (out, rank), 'w').close()\nready('ready-%d' % rank)\n\
         while True:\n    state = speak.recv(65536).decode()\n    if 'SAVE=1' in state: break\n\
         print('asked', os.environ['NEMO_SOCKET'])\nspeak.send(b'FINISHED=1')",
    );
    let mut running = task.start();
    for rank in 0..4 {
        running.wait_for(&format!("ready-{rank}-0"));
    }
    running.signal("USR1");
    running.finish();
    let mut seen: Vec<String> =
        task.metrics().iter().map(|line| line.values["rank"].to_string()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["0", "1", "2", "3"]);
    let sockets: std::collections::BTreeSet<String> =
        ["0.out", "0.1.out", "0.2.out", "0.3.out"].iter().map(|name| output(&task, name)).collect();
    assert_eq!(sockets.len(), 4, "each node would have one: {sockets:?}");
    assert!(sockets.iter().all(|line| line.starts_with("asked ")), "{sockets:?}");
}

#[test]
fn ranks_that_cannot_be_started_say_why() {
    let mut task = ranks("");
    task.spec["command"] = json!({"exec": ["no-such-program"]});
    assert_eq!(task.run(), 93);
    task.check_ends("Failed Failed");
    assert!(reason(&task).contains("`no-such-program` was not found"), "{}", reason(&task));
    assert!(reason(&task).contains(" on n"), "{}", reason(&task));
    let task = ranks("");
    fs::write(task.path("srun-fails"), "").unwrap();
    // Nothing of it ran: that is no crash.
    assert_eq!(task.run(), 0);
    task.check_ends("NodeFailure Requeue");
    assert!(reason(&task).contains("Invalid account"), "{}", reason(&task));
}

#[test]
fn a_node_that_can_not_start_a_rank_ends_no_trial() {
    let task = ranks("pause()");
    fs::write(task.path("unmounted"), "").unwrap();
    assert_eq!(task.run(), 0);
    task.check_ends("NodeFailure Requeue");
    assert!(reason(&task).contains("rank 2 on n2 was not started"), "{}", reason(&task));
}

#[test]
fn nothing_stays_when_srun_is_killed() {
    let task = ranks("print(os.getpid())\nsys.stdout.flush()\nready('ready-%d' % rank)\npause()");
    let mut running = task.start();
    for rank in 0..4 {
        running.wait_for(&format!("ready-{rank}-0"));
    }
    let pids: Vec<String> =
        ["0.out", "0.1.out", "0.2.out", "0.3.out"].iter().map(|name| output(&task, name)).collect();
    let srun = fs::read_to_string(task.path("srun-pid")).unwrap();
    signal(srun.parse().unwrap(), "KILL");
    assert_eq!(running.finish(), 93);
    task.check_ends("Failed Failed");
    let calls = fs::read_to_string(task.path("scancel-calls")).unwrap();
    assert_eq!(calls, "--signal=KILL 9.0\n");
    wait_until("the ranks are gone", || !pids.iter().any(|pid| is_alive(pid)));
}

/// A launcher that is known by its name, and a worker below it. Both catch the signal.
const TORCHRUN: &str = r#"#!/usr/bin/env python3
import os, signal, subprocess, sys
test = os.environ["TEST"]
signal.signal(signal.SIGUSR1, lambda *_: open(test + "/agent-was-asked", "w").close())
assert sys.argv[1] == "--no_python", sys.argv
names = "PET_NNODES PET_NPROC_PER_NODE PET_NODE_RANK PET_RDZV_BACKEND PET_MASTER_ADDR PET_MAX_RESTARTS".split()
open(test + "/launched", "w").write(" ".join(os.environ[name] for name in names))
sys.exit(subprocess.call(sys.argv[2:]))
"#;

#[test]
fn a_launchers_workers_are_asked_and_never_the_launcher() {
    let mut task = Task::sh("exec python3 \"$TEST/train.py\"");
    task.spec["launch"] = json!({"nodes": 1, "torchrun": true, "workers_per_node": 2});
    fs::create_dir(task.path("bin")).unwrap();
    let path = task.path("bin/torchrun");
    fs::write(&path, TORCHRUN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let train = format!(
        "{}\ndef stop():\n    save(4)\n    sys.exit(0)\non(signal.SIGUSR1, stop)\nready()\npause()",
        crate::support::PYTHON
    );
    fs::write(task.path("train.py"), train).unwrap();
    let path = std::env::var("PATH").unwrap();
    task.env("PATH", &format!("{}:{path}", task.path("bin").display()));
    assert_eq!(task.signalled(&["USR1"]), 75);
    task.check_ends("Preempted Requeue");
    assert_eq!(task.checkpoints(), ["step-4"]);
    assert!(!task.path("agent-was-asked").exists());
    let launched = fs::read_to_string(task.path("launched")).unwrap();
    assert_eq!(launched, "1 2 0 static 127.0.0.1 0");
}

/// A shim without a harness: the only task of a step.
fn shim(folder: &std::path::Path, program: &str) -> std::process::Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nemo-harness"));
    command.args(["exec", "--attempt", "0", "--port", "20000", "--trial-dir"]).arg(folder);
    command.arg("--workdir").arg(folder).args(["--", "sh", "-c", program]);
    for (name, value) in [
        ("SLURM_PROCID", "0"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_NODEID", "0"),
        ("SLURM_STEP_NUM_TASKS", "1"),
        ("SLURM_STEP_NUM_NODES", "1"),
        ("SLURM_STEP_TASKS_PER_NODE", "1"),
        ("SLURM_JOB_ID", "9"),
        ("SLURM_STEP_ID", "0"),
        ("SLURMD_NODENAME", "n1"),
        ("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"),
    ] {
        command.env(name, value);
    }
    let piped = std::process::Stdio::piped;
    command.stdin(piped()).stdout(piped()).spawn().unwrap()
}

fn lines_of(file: &std::path::Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    wait_until("the processes are there", || read().lines().count() == count);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn a_shim_whose_harness_is_gone_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = "trap '' TERM HUP; echo $$; setsid sleep 100 & echo $!; wait";
    let mut shim = shim(folder.path(), program);
    let pids = lines_of(&folder.path().join("0.out"), 2);
    signal(shim.id(), "TERM"); // Slurm signals its tasks: the harness alone decides what that means
    drop(shim.stdin.take());
    wait_until("the shim ends", || shim.try_wait().unwrap().is_some());
    assert_eq!(shim.wait().unwrap().code(), Some(0));
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
}

#[test]
fn a_shim_leaves_no_daemon_and_tells_the_true_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut shim = shim(folder.path(), "setsid sleep 100 & echo $!; exit 7");
    let _input = shim.stdin.take(); // its end would be an order to kill
    let output = shim.wait_with_output().unwrap();
    let pids = lines_of(&folder.path().join("0.out"), 1);
    assert!(!is_alive(&pids[0]), "a daemon lives on");
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told, "nemo1 0 started .9.0 n1\nnemo1 0 exited .7\n");
}

#[test]
fn ranks_that_share_gpus_that_were_to_be_their_own_are_told() {
    let mut task =
        ranks("print(os.environ['NEMO_SCRATCH'], os.listdir(os.environ['NEMO_SCRATCH']))");
    task.spec["launch"]["gpus_per_task"] = json!(true);
    task.env("CUDA_VISIBLE_DEVICES", "1");
    assert_eq!(task.run(), 0);
    let said = task.stderr(0);
    assert!(said.contains("ranks 0 and 1 on n1 both see GPU 1"), "{said}");
    let scratch = task.stdout(0).split(' ').next().unwrap().to_owned();
    assert!(!fs::exists(scratch).unwrap(), "the last rank has removed it");
}
