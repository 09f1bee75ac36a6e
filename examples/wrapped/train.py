"""Softmax regression by SGD with momentum on handwritten digits: saved every few steps, and when it is asked.

Without nemo-slurm it is an ordinary program: `python3 train.py --rate 0.1 --out weights.npy`.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):  # in a step, Slurm may send its TERM to every process
    signal.signal(number, lambda number, frame: asked.append(number))

import numpy as np
from sklearn.datasets import load_digits

BATCH, SAVE_EVERY, SAVED_REQUEUE_ME = 64, 10, 75
PACE = float(os.environ.get("PACE") or 0)  # seconds of sleep a step, so that there is something to interrupt


def write(path, array):
    """A file that has its name once it is complete."""
    unfinished = path.with_name(f".tmp-{path.name}")
    with open(unfinished, "wb") as file:
        np.save(file, array)
    os.replace(unfinished, path)


def gradient_and_loss(weights, x, y):
    p = np.exp(x @ weights)
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[range(BATCH), y]).mean()
    p[range(BATCH), y] -= 1
    return x.T @ p / BATCH, loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default="weights.npy")
    args = parser.parse_args()
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    state, start = np.zeros((2, 64, 10)), 0  # weights and momentum
    checkpoints, resume_from = os.environ.get("NEMO_CHECKPOINT_DIR"), os.environ.get("NEMO_RESUME_FROM")
    if resume_from:
        state, start = np.load(resume_from), int(Path(resume_from).stem.split("-")[-1])

    for step in range(start + 1, args.steps + 1):
        batch = np.random.default_rng(step).integers(len(y), size=BATCH)
        gradient, loss = gradient_and_loss(state[0], x[batch], y[batch])
        state[1] = 0.9 * state[1] - args.rate * gradient
        state[0] += state[1]
        print(f"step {step} loss: {loss:.9f}", flush=True)
        must_stop = bool(asked) and step < args.steps
        if checkpoints and (must_stop or step % SAVE_EVERY == 0):
            write(Path(checkpoints) / f"step-{step}.npy", state)
        if must_stop:
            sys.exit(SAVED_REQUEUE_ME)
        time.sleep(PACE)
    write(args.out, state[0])


if __name__ == "__main__":
    main()
