"""Runs the launchers of examples/wrapped on a real Slurm, disturbed and undisturbed: see scripts/wrapped."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import prove_resume as runs
from programs import program_of, progress, take

HERE = Path(__file__).resolve().parent
STEPS = 400
PACE = 0.2  # seconds of sleep a step, so that what follows the last fault takes longer than a time limit
# A fault comes once every trial is past that step. What is left after the last one is longer than a segment.
FAULTS = ((40, "kill the program"), (70, "preempt"), (100, "kill the harness"))
# How the records of its attempts tell of it. In a job of a minute Slurm's own signal may come at any moment, so the time limit
# counts as the cause of what a program was killed by; and of a harness that was killed, the next one says that it was lost.
EVIDENCE = {
    "kill the program": lambda end: "SIGKILL" in end["reason"],
    "preempt": lambda end: end["cause"] == "preempted",
    "kill the harness": lambda end: end["cause"] == "node_failure",
    "time limit": lambda end: end["cause"] == "time_limit" and "SIGKILL" not in end["reason"],
}
PATIENCE = 900
BATCH = 'job=$(sbatch --parsable train.sbatch) && until nemo-slurm status "$job" >/dev/null 2>&1; do sleep 0.2; done && exec nemo-slurm wait "$job"'
# It looks at its jobs often, since they end soon.
SNAKEMAKE = "exec snakemake --executor slurm --jobs 2 --latency-wait 30 --slurm-init-seconds-before-status-checks 5"
# How a name is started, the nodes on which it is disturbed, and how many trials it has.
RECIPES = {
    "array": {"nodes": ("n1",), "trials": 3},
    "torchrun": {"nodes": ("n2", "n3"), "trials": 1, "pace": 0.3},
    "submitit": {"nodes": ("n4",), "trials": 1, "launch": "python3 launch.py"},
    "snakemake": {"nodes": ("n5",), "trials": 2, "launch": SNAKEMAKE, "pace": 0.3},
}


class Run:
    """A launcher that was started in a folder of its own, and the trials of its jobs."""

    def __init__(self, name, folder, options, pace):
        self.home, self.work, self.log = folder / "home", folder / "work", folder / "log"
        shutil.copytree(HERE / "wrapped" / name, self.work)
        if not (self.work / "train.py").exists():
            shutil.copy(HERE / "wrapped/train.py", self.work)
        environment = {**os.environ, "NEMO_SLURM_HOME": str(self.home), "PACE": str(pace), "WRAPPED_SBATCH": options}
        environment["PATH"] = f"{folder.parent.parent / 'bin'}:{environment['PATH']}"
        with open(self.log, "w") as log:
            command = RECIPES[name].get("launch", BATCH)
            self.launcher = subprocess.Popen(["sh", "-c", command], cwd=self.work, env=environment, stdout=log, stderr=log)

    def trials(self):
        """The folders of the trials that have begun, in the same order in each run."""
        found = [path.parent for path in self.home.glob("jobs/*/tasks/job/trials/*/attempts.jsonl")]
        return sorted(found, key=lambda trial: (trial.name, (trial.parents[1] / f"task.{trial.name}.json").read_text().split("command")[1]))

    def is_over(self):
        return self.launcher.poll() is not None

    def until(self, what, holds):
        """Waits for a condition. False if the launcher has ended first."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if self.is_over():
                return False
            assert time.monotonic() < end, f"{what} did not come in {PATIENCE} s\n{self.logs()}"
            time.sleep(0.05)
        return True

    def finish(self):
        self.until("the end", lambda: False)
        assert self.launcher.returncode == 0, f"the launcher failed\n{self.logs()}"

    def logs(self):
        paths = [self.log, *self.work.rglob("*.out"), *self.work.rglob("*.log"), *self.home.glob("jobs/*/tasks/job/trials/*/*.err")]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2500:]}" for path in paths if path.exists())


def is_running(trial):
    return len(runs.events(trial, "start")) > len(runs.events(trial, "end"))


def are_past(run, n_trials, step):
    trials = run.trials()
    return len(trials) == n_trials and all(is_running(trial) and progress(trial) >= step for trial in trials)


def kill(kind, trial):
    harness = runs.events(trial, "start")[-1]["pid"]
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just ended by itself
        os.kill(harness if kind == "kill the harness" else program_of(harness), signal.SIGKILL)


def has_suffered(kind, trial):
    return any(EVIDENCE[kind](end) for end in runs.events(trial, "end"))


def disturb(run, recipe):
    for step, kind in FAULTS:
        while run.until(f"step {step}", lambda: are_past(run, recipe["trials"], step)):
            spared = [trial for trial in run.trials() if not has_suffered(kind, trial)]
            if not spared:
                break
            before = {trial: len(runs.events(trial, "start")) for trial in spared}
            if kind == "preempt":
                take(recipe["nodes"][0], WRAPPED_SBATCH="")
            else:
                for trial in spared:
                    kill(kind, trial)
            run.until(f"an attempt after `{kind}`", lambda: all(len(runs.events(trial, "start")) > n for trial, n in before.items()))


def results(run):
    """What the trainings left: the weights in the working folder, and the artifacts of the trials."""
    found = {path.relative_to(run.work): path.read_bytes() for path in run.work.glob("weights*")}
    return found | {(trial.name, path): data for trial in run.trials() for path, data in runs.artifacts(trial).items()}


def compare(name, plain, disturbed):
    expected, found = results(plain), results(disturbed)
    assert expected, f"{name} left no results"
    others = [str(path) for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)]
    assert not others, f"{name}: OTHER BYTES in {others}"
    assert len(plain.trials()) == len(disturbed.trials()) == RECIPES[name]["trials"], f"{name}: {disturbed.trials()}"
    for own, other in zip(plain.trials(), disturbed.trials()):
        expected, found = runs.series(own), runs.series(other)
        steps = [line["step"] for line in expected]
        assert steps == list(range(1, STEPS + 1)), f"{name}: the undisturbed run reported {len(steps)} steps"
        assert expected == found, f"{name}: other metrics in trial {other.name}: {runs.difference(expected, found)}"


def attempts(trial):
    """What became of each attempt: where it began, its last step, the cause of its end, and the reason."""
    ends = {end["attempt"]: end for end in runs.events(trial, "end")}
    for start in runs.events(trial, "start"):
        end = ends[start["attempt"]]
        yield start["resume_step"] or 0, end["step"], end["cause"], end["reason"].split(";")[0]


def check(name, trial):
    spared = [kind for kind in EVIDENCE if not has_suffered(kind, trial)]
    assert not spared, f"{name}: {', '.join(spared)}: nothing of that befell trial {trial.name}"
    firsts = [first for first, *_ in attempts(trial)]
    assert all(firsts[1:]), f"{name}: trial {trial.name} began anew: {firsts}"


def prove(name, scratch):
    recipe, began = RECIPES[name], time.monotonic()
    nodes = f"--nodelist={','.join(recipe['nodes'])}"
    plain = Run(name, scratch / name / "plain", f"--partition=main --time=10 {nodes}", 0)
    plain.finish()
    disturbed = Run(name, scratch / name / "disturbed", f"--partition=scavenge {nodes}", recipe.get("pace", PACE))
    disturb(disturbed, recipe)
    disturbed.finish()
    show(name, disturbed)
    compare(name, plain, disturbed)
    for trial in disturbed.trials():
        check(name, trial)
    n_attempts = sum(len(list(attempts(trial))) for trial in disturbed.trials())
    size = sum(len(data) for data in results(plain).values())
    trials = f"{recipe['trials']} trial{'s' if recipe['trials'] > 1 else ''}, {n_attempts} attempts"
    metrics = recipe["trials"] * STEPS
    print(f"the same bytes  {name}: {trials}, {size:,} bytes and {metrics:,} metrics ({time.monotonic() - began:.0f} s)", flush=True)


def show(name, run):
    """A table of what happened, written at once: names run side by side."""
    rows = [f"{'':9}  trial  from    to  ended by      because"]
    for trial in run.trials():
        for first, last, cause, reason in attempts(trial):
            rows.append(f"{name:9}  {trial.name:>5}  {first:>4}  {last or '-':>4}  {cause:12}  {reason}")
    print("\n".join(rows), flush=True)


def make_programs(program, folder):
    """The programs of nemo-slurm, and an `sbatch` that puts jobs where they are disturbed, whoever submits them."""
    folder.mkdir()
    for name in ("nemo-slurm", "nemo-harness"):
        shutil.copy(program.with_name(name), folder)
    sbatch, srun = shutil.which("sbatch"), shutil.which("srun")
    made = {
        "sbatch": f'case $* in *--wrap=*) exec {sbatch} "$@" $WRAPPED_SBATCH ;; *) exec {sbatch} $WRAPPED_SBATCH "$@" ;; esac',
        # Snakemake's plugin takes the variable away, and this Slurm's configuration is at no place where `srun` finds it.
        "srun": f'SLURM_CONF={os.environ["SLURM_CONF"]} exec {srun} "$@"',
    }
    for name, text in made.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def main():
    program, name = sys.argv[1:]
    scratch = Path(tempfile.mkdtemp(prefix=f"nemo-wrapped-{name}-"))
    make_programs(Path(program).resolve(), scratch / "bin")
    try:
        prove(name, scratch)
    except AssertionError as error:
        sys.exit(f"wrapped: error: {error}\n\nhint: what the runs left is in {scratch}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
