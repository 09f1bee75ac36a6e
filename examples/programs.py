"""Runs recipes by nemo-slurm, once undisturbed and once with a kill, a preemption and time limits: see scripts/programs.

    programs.py [--slurm NODE] PROGRAM NAME…    with `--slurm`, the disturbed runs are jobs of a real Slurm on that node
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prove_resume as runs

LEAD = 3.0  # seconds between the request to save and the end of a segment
# Each fault comes once the program is past this part of its way. A segment is long enough for SEGMENT of the way.
FAULTS = ((0.3, "kill"), (0.55, "preempt"))
# And these, of programs that have more than one process.
MORE_FAULTS = {"own-torchrun": ((0.85, "worker"),)}
SEGMENT = 0.35
# Slurm counts time limits in minutes, and may tell of one half a minute early. So a program is slowed down (PACE) until it takes
# so many segments; one with long imports gets two minutes.
SLURM_SEGMENTS = 3
# How often a program sleeps for PACE, where that is not once a step.
SLEEPS = {"own-lightning": 40}
# Files of a result that hold dates and durations.
IGNORED = {"gromacs": ("*.log", "*.cpt")}
# What can't continue exactly, and why: metrics and results are shown, not compared.
INEXACT = {}


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def program_of(harness):
    """The child that is the program: others are the harness's own file (its guard), or the `srun` of its sentinel."""
    own = os.readlink(f"/proc/{harness}/exe")
    for pid in children(harness):
        if os.readlink(f"/proc/{pid}/exe") != own and b"sentinel" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise ProcessLookupError(f"harness {harness} has no program")


def take(node, **environment):
    """A job in the partition `urgent` takes the whole node for a moment."""
    whole = ["sbatch", "--partition=urgent", "--exclusive", "--mem=0", "--output=/dev/null", f"--nodelist={node}"]
    subprocess.run([*whole, "--wrap=sleep 2"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})


def strike(kind, harness, node):
    """A preemption is Slurm's, or its USR1 to the harness; a kill is one of the program, or of one of its workers alone."""
    if kind == "preempt" and node:
        take(node)
        return
    if kind == "preempt":
        os.kill(harness, signal.SIGUSR1)
        return
    killed = [program_of(harness)]
    if kind == "worker":
        killed = children(*killed)[-1:]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)


def progress(trial):
    """The last step that is known of: reported, or committed where no metric is."""
    known = runs.lines(trial / "metrics.jsonl") + runs.events(trial, "checkpoint")
    return max((line.get("step") or 0 for line in known), default=0)


def disturb(trial, total, faults, node, is_over):
    """Each fault comes until an attempt has ended by it: the end of a segment may come first."""
    for part, kind in faults:
        cause = "preempted" if kind == "preempt" else "failed"
        has_come = False
        while not has_come and not is_over():
            starts, ends = runs.events(trial, "start"), runs.events(trial, "end")
            if progress(trial) >= part * total and len(starts) > len(ends):
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just ended by itself
                    strike(kind, starts[-1]["pid"], node)
                has_come = end_of(trial, starts[-1]["attempt"], is_over) == cause
            time.sleep(0.02)


def end_of(trial, attempt, is_over):
    """The cause of its end, once it has one."""
    while True:
        over = is_over()
        for end in runs.events(trial, "end"):
            if end["attempt"] == attempt:
                return end["cause"]
        if over:
            return None
        time.sleep(0.02)


def segments(name, trial, total, node):
    """The settings for how long segments are, after an undisturbed trial: imports may take longer than all that follows."""
    (start,), (end,) = runs.events(trial, "start"), runs.events(trial, "end")
    first = (runs.lines(trial / "metrics.jsonl") + runs.events(trial, "checkpoint"))[0]["time"]
    imports = first - start["time"]
    if not node:
        time_limit = LEAD + 1.5 * imports + SEGMENT * (end["time"] - first)
        return {"executor.local.time": f"{time_limit:.0f}s", "task.train.checkpoint.lead": f"{LEAD:.0f}s"}
    minutes = 1 if imports < 3 else 2
    pace = 60 * minutes * SLURM_SEGMENTS / SLEEPS.get(name, total)
    job = {"partition": '"scavenge"', "time": f'"{minutes}m"', "sbatch.nodelist": f'"{node}"', "env.PACE": f'"{pace:.3f}"'}
    return {f"executor.cluster.{key}": value for key, value in job.items()}


def prove(program, name, scratch, node):
    began = time.monotonic()
    plain, wait = runs.submit(program, name, scratch / name / "plain")
    report = wait.communicate()[1]
    assert wait.returncode == 0, f"{name} failed undisturbed:\n{report.decode()}\n{runs.logs(plain)}"
    expected = runs.trials(plain)["train"]
    total = runs.events(expected, "end")[0]["step"]
    settings = segments(name, expected, total, node)
    disturbed, wait = runs.submit(program, name, scratch / name / "disturbed", settings, "cluster" if node else "local")
    trial = disturbed / "tasks/train/trials/0"
    faults = FAULTS + MORE_FAULTS.get(name, ())
    thread = threading.Thread(target=disturb, args=(trial, total, faults, node, lambda: wait.poll() is not None))
    thread.start()
    report = wait.communicate()[1]
    thread.join()
    assert wait.returncode == 0, f"{name} failed when it was disturbed:\n{report.decode()}\n{runs.logs(disturbed)}"
    compare(name, expected, trial, began)


def starts(trial):
    """How many attempts printed the first step: one that resumes does not."""
    first = re.compile(r"^(step|iter|epoch) 1\b", re.MULTILINE)
    printed = [bool(first.search(path.read_text(errors="replace"))) for path in trial.glob("*.out")]
    return sum(printed) if any(printed) else 1


def results(name, trial):
    ignored = IGNORED.get(name, ())
    return {path: data for path, data in runs.artifacts(trial).items() if not any(path.match(pattern) for pattern in ignored)}


def compare(name, plain, trial, began):
    ends = runs.events(trial, "end")
    causes = [end["cause"] for end in ends]
    resumed = [start["resume_step"] for start in runs.events(trial, "start")][1:]
    for cause in ("failed", "preempted", "time_limit"):
        assert cause in causes, f"{name}: no attempt ended by `{cause}`: {causes}"
    assert any(resumed), f"{name} never resumed: {resumed}"
    assert starts(trial) == 1, f"{name} began at its first step {starts(trial)} times"
    attempts = ", ".join(f"{cause}, from {step or 'the start'}" for cause, step in zip(causes, resumed))
    verdict = "not exact     " if name in INEXACT else "the same bytes"
    if name not in INEXACT:
        expected, found = results(name, plain), results(name, trial)
        assert expected, f"{name} left no artifacts"
        others = [str(path) for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)]
        assert not others, f"{name}: OTHER BYTES in {others} ({attempts})"
        expected, found = runs.series(plain), runs.series(trial)
        assert expected == found, f"{name}: other metrics: {runs.difference(expected, found)} ({attempts})"
    print(f"{verdict}  {name}: {attempts} ({time.monotonic() - began:.0f} s){INEXACT.get(name, '')}", flush=True)


def main():
    words, node = sys.argv[1:], None
    if words[0] == "--slurm":
        node, words = words[1], words[2:]
    program, *names = words
    with tempfile.TemporaryDirectory(prefix="nemo-programs-") as scratch, ThreadPoolExecutor(3) as pool:
        proofs = [pool.submit(prove, str(Path(program).resolve()), name, Path(scratch), node) for name in names]
        errors = [proof.exception() for proof in proofs]
    for error in filter(None, errors):
        print(f"programs: {type(error).__name__}: {error}", file=sys.stderr)
    failed = sum(error is not None for error in errors)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
