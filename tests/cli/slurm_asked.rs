//! Programs that `srun` runs for the trial itself: their tasks are not below the harness, and are asked all the same.

use std::fs;

use crate::cluster;
use crate::support::{World, text, trials};

/// Writes down each signal that it gets; saves once there was one.
const PROGRAM: &str = r#"
import os, pathlib, signal, sys, time
folder, home = (pathlib.Path(os.environ[name]) for name in ("NEMO_CHECKPOINT_DIR", "NEMO_DIR"))
asked = []
def note(number, _):
    asked.append(number)
    with open(home / "heard", "a") as file: file.write(f"{number}\n")
signal.signal(signal.SIGUSR1, note)
for number in sys.argv[1:]: signal.signal(int(number), note)
(home / "ready").touch()
while not asked: time.sleep(0.05)
time.sleep(1.5) # a second request would come by now
new = folder / ".tmp-7"
new.mkdir(); (new / "state").write_text("7"); new.rename(folder / "step-7")
sys.exit(75)
"#;

/// Starts tasks that run the program in different ways, asks all to stop, and answers with the experiment's id.
fn preempted(world: &World, tasks: &[(&str, &str)]) -> String {
    world.write("loop.py", PROGRAM);
    world.write("train.sh", "python3 -u loop.py &\nwait $!\nwait $!\n");
    let mut file =
        "name = \"asked\"\n[executor.it]\nkind = \"slurm\"\ntime = \"5m\"\nmem = \"100M\"\n"
            .to_string();
    for (name, keys) in tasks {
        file.extend(["[task.", name, "]\n", keys, "\ncheckpoint.lead = \"20s\"\n"]);
    }
    world.write("exp.toml", &file);
    let id = world.ok(&["submit", "exp.toml"]);
    for (name, _) in tasks {
        let ready = world.experiment(&id).join(format!("tasks/{name}/trials/0/ready"));
        world.until(&id, "a program that is ready", |_| ready.exists());
    }
    world.ok(&["preempt", &id]);
    id
}

/// The signals that a program heard.
fn heard(world: &World, id: &str, task: &str) -> String {
    let file = world.experiment(id).join(format!("tasks/{task}/trials/0/heard"));
    fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn a_program_below_srun_is_asked_once_and_saves() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let tasks = [
        ("list", "run = [\"srun\", \"python3\", \"loop.py\"]"),
        ("text", "run = \"srun python3 loop.py\""),
        ("piped", "run = \"srun python3 loop.py | cat\""),
        ("script", "run = \"srun bash train.sh\""), // the shell would die of the signal, and is spared
        ("term", "run = \"srun python3 loop.py 15\"\ncheckpoint.signal = \"TERM\""),
    ];
    let id = preempted(&world, &tasks);
    for (name, _) in tasks {
        let what = format!("{name} saved");
        let status = world.until(&id, &what, |status| {
            trials(status, name)[0]["attempts"][0]["cause"].is_string()
        });
        let attempt = &trials(&status, name)[0]["attempts"][0];
        assert_eq!(text(&attempt["cause"]), "preempted", "{name}: {attempt:#}");
        assert_eq!(attempt["checkpoint_step"], 7, "{name}: {attempt:#}");
        let signal = if name == "term" { "15\n" } else { "10\n" };
        assert_eq!(heard(&world, &id, name), signal, "{name}");
    }
    world.ok(&["cancel", &id]);
}
