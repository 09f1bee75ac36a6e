"""A callable as submitit runs it: softmax regression by SGD on handwritten digits, saved every few steps."""

import os
import time
from pathlib import Path

import numpy as np
import submitit
from sklearn.datasets import load_digits

STEPS, BATCH, SAVE_EVERY, RATE = 400, 64, 10, 0.1
PACE = float(os.environ.get("PACE") or 0)  # seconds of sleep a step, so that there is something to interrupt


def save(weights, step):
    folder = Path(os.environ.get("NEMO_CHECKPOINT_DIR") or ".")
    unfinished = folder / f".tmp-{step}.npy"
    np.save(unfinished, weights)
    os.replace(unfinished, folder / f"step-{step}.npy")


class Training:
    def __call__(self):
        digits = load_digits()
        x, y = digits.data / 16, digits.target
        weights, start = np.zeros((64, 10)), 0
        resume_from = os.environ.get("NEMO_RESUME_FROM")
        if resume_from:
            weights, start = np.load(resume_from), int(Path(resume_from).stem.split("-")[-1])
        for step in range(start + 1, STEPS + 1):
            batch = np.random.default_rng(step).integers(len(y), size=BATCH)
            p = np.exp(x[batch] @ weights)
            p /= p.sum(axis=1, keepdims=True)
            print(f"step {step} loss: {-np.log(p[range(BATCH), y[batch]]).mean():.9f}", flush=True)
            p[range(BATCH), y[batch]] -= 1
            weights = weights - RATE / BATCH * x[batch].T @ p
            if step % SAVE_EVERY == 0:
                save(weights, step)
            time.sleep(PACE)
        return weights

    def checkpoint(self):
        """submitit asks on USR2 what to run next time: the same. The last save says where it goes on."""
        return submitit.helpers.DelayedSubmission(self)
