"""A self-checkpointing job as for HTCondor (`checkpoint_exit_code = 85`): it saves every few steps, exits with 85, and is
started again at once. It catches no signal: steps since the last save are done again.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

STEPS, BATCH, SAVE_EVERY = 300, 64, 60
SAVED_START_ME_AGAIN = 85
CHECKPOINTS = Path(os.environ.get("NEMO_CHECKPOINT_DIR") or "checkpoints")
PACE = float(os.environ.get("PACE") or 0)


def main():
    seed = int(os.environ.get("NEMO_SEED") or 0)
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    weights, start = np.zeros((64, 10)), 0
    resume_from = os.environ.get("NEMO_RESUME_FROM")
    if resume_from:
        with np.load(resume_from) as state:
            weights, start = state["weights"], int(state["step"])
    for step in range(start + 1, STEPS + 1):
        batch = np.random.default_rng([seed, step]).integers(len(y), size=BATCH)
        p = np.exp(x[batch] @ weights)
        p /= p.sum(axis=1, keepdims=True)
        print(f"step {step} loss: {-np.log(p[range(BATCH), y[batch]]).mean():.9f}", flush=True)
        p[range(BATCH), y[batch]] -= 1
        weights = weights - 0.5 / BATCH * x[batch].T @ p
        time.sleep(PACE)
        if step % SAVE_EVERY == 0 and step < STEPS:
            CHECKPOINTS.mkdir(exist_ok=True)
            np.savez(CHECKPOINTS / f"step-{step}.npz", weights=weights, step=step)
            sys.exit(SAVED_START_ME_AGAIN)
    artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    np.save(artifacts / "weights.npy", weights)


if __name__ == "__main__":
    main()
