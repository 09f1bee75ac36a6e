"""Runs recipes by nemo-slurm, once undisturbed and once with a kill, a preemption and time limits: see scripts/programs."""

import contextlib
import os
import re
import signal
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
# Files of a result that hold dates and durations.
IGNORED = {"gromacs": ("*.log", "*.cpt")}
# What can't continue exactly, and why: metrics and results are shown, not compared.
INEXACT = {}


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def strike(kind, harness):
    """A preemption is Slurm's USR1 to the harness; a kill is one of the program, or of one of its workers alone."""
    if kind == "preempt":
        os.kill(harness, signal.SIGUSR1)
        return
    killed = children(harness)
    if kind == "worker":
        killed = [worker for child in killed for worker in children(child)][-1:]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)


def progress(trial):
    """The last step that is known of: reported, or committed where no metric is."""
    known = runs.lines(trial / "metrics.jsonl") + runs.events(trial, "checkpoint")
    return max((line.get("step") or 0 for line in known), default=0)


def disturb(trial, total, faults, is_over):
    """Each fault comes until an attempt has ended by it: the end of a segment may come first."""
    for part, kind in faults:
        cause = "preempted" if kind == "preempt" else "failed"
        has_come = False
        while not has_come and not is_over():
            starts, ends = runs.events(trial, "start"), runs.events(trial, "end")
            if progress(trial) >= part * total and len(starts) > len(ends):
                with contextlib.suppress(ProcessLookupError):
                    strike(kind, starts[-1]["pid"])
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


def segment(trial):
    """How long segments are, after an undisturbed trial: imports may take longer than all that follows."""
    (start,), (end,) = runs.events(trial, "start"), runs.events(trial, "end")
    first = (runs.lines(trial / "metrics.jsonl") + runs.events(trial, "checkpoint"))[0]["time"]
    return LEAD + 1.5 * (first - start["time"]) + SEGMENT * (end["time"] - first)


def prove(program, name, scratch):
    began = time.monotonic()
    plain, wait = runs.submit(program, name, scratch / name / "plain")
    report = wait.communicate()[1]
    assert wait.returncode == 0, f"{name} failed undisturbed:\n{report.decode()}\n{runs.logs(plain)}"
    expected = runs.trials(plain)["train"]
    total = runs.events(expected, "end")[0]["step"]
    settings = {"executor.local.time": f"{segment(expected):.0f}s", "task.train.checkpoint.lead": f"{LEAD:.0f}s"}
    disturbed, wait = runs.submit(program, name, scratch / name / "disturbed", settings)
    trial = disturbed / "tasks/train/trials/0"
    faults = FAULTS + MORE_FAULTS.get(name, ())
    thread = threading.Thread(target=disturb, args=(trial, total, faults, lambda: wait.poll() is not None))
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
    program, *names = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="nemo-programs-") as scratch, ThreadPoolExecutor(3) as pool:
        proofs = [pool.submit(prove, str(Path(program).resolve()), name, Path(scratch)) for name in names]
        errors = [proof.exception() for proof in proofs]
    for error in filter(None, errors):
        print(f"programs: {type(error).__name__}: {error}", file=sys.stderr)
    failed = sum(error is not None for error in errors)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
