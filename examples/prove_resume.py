"""Runs examples by nemo-slurm on this machine, preempts them, and compares what comes out: see prove-resume."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Each is preempted as soon as it is past these parts of its way.
WHEN = (0.15, 0.45, 0.75)
ALL = ("torchrun", "torch", "lightning", "transformers", "condor", "submitit")
AT_ONCE = 3  # most of the time they sleep


def lines(path):
    """The whole lines of a file that is being written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def submit(program, example, home, settings=(), executor="local"):
    environment = {**os.environ, "NEMO_SLURM_HOME": str(home)}
    command = [program, "submit", str(HERE / example / "exp.toml"), "--executor", executor]
    for key in settings:
        command += ["--set", f"{key}={settings[key]}"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (experiment,) = (home / "experiments").iterdir()
    wait = [program, "wait", experiment.name]
    return experiment, subprocess.Popen(wait, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def series(trial):
    """What was reported, without when and by which attempt."""
    return [{key: value for key, value in line.items() if key not in ("time", "attempt")} for line in lines(trial / "metrics.jsonl")]


def artifacts(trial):
    folder = trial / "artifacts"
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "training_args.bin"}


def events(trial, kind):
    return [record for record in lines(trial / "attempts.jsonl") if record["event"] == kind]


def preempt(trial, total, over):
    """Plays Slurm: USR1 to the harness, three times on the way."""
    for part in WHEN:
        while not over():
            reported = [line.get("step") or 0 for line in lines(trial / "metrics.jsonl")]
            starts, ends = events(trial, "start"), events(trial, "end")
            if max(reported, default=0) >= part * total and len(starts) > len(ends):
                os.kill(starts[-1]["pid"], signal.SIGUSR1)
                attempt = starts[-1]["attempt"]
                while not over() and all(end["attempt"] < attempt for end in events(trial, "end")):
                    time.sleep(0.02)
                break
            time.sleep(0.02)


def trials(experiment):
    return {task.name: task / "trials/0" for task in sorted((experiment / "tasks").iterdir())}


def prove(program, example, scratch):
    began = time.monotonic()
    plain, wait = submit(program, example, scratch / example / "plain")
    report = wait.communicate()[1]
    assert wait.returncode == 0, f"{example} failed undisturbed:\n{report.decode()}\n{logs(plain)}"
    expected = trials(plain)
    disturbed, wait = submit(program, example, scratch / example / "preempted")
    threads = []
    for task, trial in trials(disturbed).items():
        total = max(line["step"] for line in lines(expected[task] / "metrics.jsonl"))
        threads.append(threading.Thread(target=preempt, args=(trial, total, lambda: wait.poll() is not None)))
        threads[-1].start()
    report = wait.communicate()[1]
    for thread in threads:
        thread.join()
    assert wait.returncode == 0, f"{example} failed when it was preempted:\n{report.decode()}\n{logs(disturbed)}"
    for task, trial in trials(disturbed).items():
        compare(f"{example}/{task}", expected[task], trial, began)


def compare(name, plain, trial, began):
    resumed = [record["resume_step"] for record in events(trial, "start")]
    preempted = sum(record["cause"] == "preempted" for record in events(trial, "end"))
    assert preempted >= 1 and any(resumed), f"{name} was not preempted and resumed: {resumed}"
    assert artifacts(plain), f"{name} left no artifacts"
    assert artifacts(trial) == artifacts(plain), f"{name}: OTHER BYTES in {[str(path) for path in artifacts(plain) if artifacts(trial).get(path) != artifacts(plain)[path]]}"
    assert series(plain) and series(trial) == series(plain), f"{name}: other metrics: {difference(series(plain), series(trial))}"
    steps = ", ".join("the start" if step is None else str(step) for step in resumed[1:])
    size = sum(len(data) for data in artifacts(plain).values())
    print(
        f"the same bytes  {name}: {size:,} bytes and {len(series(plain))} metrics,"
        f" {preempted} preemptions, resumed from {steps} ({time.monotonic() - began:.0f} s)",
        flush=True,
    )


def difference(expected, found):
    pairs = zip(expected, found)
    first = next((pair for pair in pairs if pair[0] != pair[1]), None)
    return f"{first}, {len(expected)} and {len(found)} lines"


def logs(experiment):
    texts = []
    for trial in trials(experiment).values():
        for path in sorted(trial.glob("*.err")):
            texts.append(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}")
    return "\n".join(texts)


def main():
    program, *names = sys.argv[1:]
    names = names or ALL
    for name in names:
        if not (HERE / name / "exp.toml").exists():
            sys.exit(f"prove-resume: there is no example `{name}`")
    with tempfile.TemporaryDirectory(prefix="nemo-prove-") as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        proofs = [pool.submit(prove, str(Path(program).resolve()), name, Path(scratch)) for name in names]
        errors = [proof.exception() for proof in proofs]
    for error in filter(None, errors):
        print(f"prove-resume: {type(error).__name__}: {error}", file=sys.stderr)
    if any(errors):
        sys.exit(1)
    print(f"{len(names)} examples: every preempted run ended with the bytes and metrics of the undisturbed one.")


if __name__ == "__main__":
    main()
