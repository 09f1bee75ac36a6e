"""Adds up 1 to 30 by the module. It has itself preempted at step 10, so that nothing depends on when."""

import subprocess
import time

import nemo_harness as nemo

total = 0


def load(path):
    global total
    total = int((path / "total").read_text())


with nemo.trial() as trial:
    start = trial.resume(load)
    for step in trial.steps(start, 30):
        total += step
        if step == 10:
            subprocess.run(["nemo-slurm", "preempt", "@"], check=True)
            while not trial.should_save():
                time.sleep(0.01)
        if trial.should_save():
            with trial.checkpoint(step) as folder:
                (folder / "total").write_text(str(total))
print(f"from step {start}: total {total}")
