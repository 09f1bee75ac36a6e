"""A callable with `checkpoint()`, as it is given to submitit: on USR2 it is pickled, and it resumes from its last save.

`Training` needs no change. `main` replaces `executor.submit(Training())`: it runs the class by submitit's own code,
with submitit's handler of USR2. nemo-slurm does the scheduling.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import submitit
from sklearn.datasets import load_digits
from submitit.core import submission, utils

STEPS, BATCH, SAVE_EVERY = 300, 64, 20
PACE = float(os.environ.get("PACE") or 0)


class Training:
    """Softmax regression by SGD, saved every few steps."""

    def __init__(self, seed, folder):
        self.seed, self.folder = seed, Path(folder)

    def __call__(self, resume_from=""):
        digits = load_digits()
        x, y = digits.data / 16, digits.target
        weights, start = np.zeros((64, 10)), 0
        if resume_from:
            with np.load(resume_from) as state:
                weights, start = state["weights"], int(state["step"])
        for step in range(start + 1, STEPS + 1):
            batch = np.random.default_rng([self.seed, step]).integers(len(y), size=BATCH)
            p = np.exp(x[batch] @ weights)
            p /= p.sum(axis=1, keepdims=True)
            print(f"step {step} loss: {-np.log(p[range(BATCH), y[batch]]).mean():.9f}", flush=True)
            p[range(BATCH), y[batch]] -= 1
            weights = weights - 0.5 / BATCH * x[batch].T @ p
            if step % SAVE_EVERY == 0:
                self.save(weights, step)
            time.sleep(PACE)
        return weights

    def save(self, weights, step):
        self.folder.mkdir(exist_ok=True)
        unfinished = self.folder / ".tmp.npz"
        np.savez(unfinished, weights=weights, step=step)
        os.replace(unfinished, self.folder / f"step-{step}.npz")

    def checkpoint(self, *arguments):
        """submitit asks what to run next time: the same. The last save says where to continue."""
        return submitit.helpers.DelayedSubmission(Training(self.seed, self.folder))


def main():
    trial = Path(os.environ.get("NEMO_DIR") or ".")
    attempt = os.environ.get("NEMO_ATTEMPT") or "0"
    os.environ.update(SUBMITIT_EXECUTOR="local", SUBMITIT_LOCAL_JOB_ID=attempt)
    folder = trial / "submitit"
    folder.mkdir(exist_ok=True)
    training = Training(int(os.environ.get("NEMO_SEED") or 0), os.environ.get("NEMO_CHECKPOINT_DIR") or "checkpoints")
    delayed = utils.DelayedSubmission(training, os.environ.get("NEMO_RESUME_FROM") or "")
    delayed.set_timeout(60, 1_000)
    paths = utils.JobPaths(folder, attempt)
    delayed.dump(paths.submitted_pickle)
    submission.process_job(folder)
    outcome, weights = utils.pickle_load(utils.JobPaths(folder, attempt, 0).result_pickle)
    assert outcome == "success", weights
    (trial / "artifacts").mkdir(exist_ok=True)
    np.save(trial / "artifacts/weights.npy", weights)


if __name__ == "__main__":
    sys.exit(main())
