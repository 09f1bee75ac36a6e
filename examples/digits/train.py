"""Trains an MLP by minibatch SGD with momentum. The same bits come out, interrupted or not.

Four places, marked (1) to (4), let it be interrupted at any moment. Without nemo-slurm it is an
ordinary program: `python3 train.py --data digits.npz --lr 0.1`.
"""

import os
import signal
import sys

# (1) A save request only sets a flag: the current step is finished first. The handlers are set before
# the slow imports, because a request may come at any time.
asked = []
CHECKPOINTS = os.environ.get("NEMO_CHECKPOINT_DIR")
if CHECKPOINTS:
    for number in (signal.SIGUSR1, signal.SIGTERM):  # scancel sends only SIGTERM
        signal.signal(number, lambda number, frame: asked.append(number))

import argparse
import json
import time
from pathlib import Path

import numpy as np

import model

SAVED_REQUEUE_ME = 75
SEED = int(os.environ.get("NEMO_SEED") or 0)


def save_checkpoint(step, weights, momentum, rng):
    """(2) Saves everything that the next step depends on, under a name that has the step."""
    state = {f"weights_{name}": value for name, value in weights.items()}
    state |= {f"momentum_{name}": value for name, value in momentum.items()}
    state |= {"rng": json.dumps(rng.bit_generator.state), "step": step}
    model.save(Path(CHECKPOINTS) / f"step-{step}.npz", state)


def load_checkpoint(path, rng):
    """(3) Loads the state to resume from. The harness has verified it."""
    path = Path(path)
    if path.is_dir():
        (path,) = path.glob("*.npz")
    with np.load(path) as state:
        rng.bit_generator.state = json.loads(str(state["rng"]))
        parts = [
            {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
            for prefix in ("weights_", "momentum_")
        ]
        return int(state["step"]), *parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits.npz")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--pace", type=float, default=0, metavar="SECONDS", help="sleep at each step")
    args = parser.parse_args()

    with np.load(args.data) as data:
        x, y, x_val, y_val = (data[name] for name in ("x_train", "y_train", "x_val", "y_val"))

    rng = np.random.Generator(np.random.PCG64(SEED))
    resume_from = os.environ.get("NEMO_RESUME_FROM")
    if resume_from:
        start, weights, momentum = load_checkpoint(resume_from, rng)
        print(f"resuming after step {start}", flush=True)
    else:
        start, weights = 0, model.init(rng, args.width)
        momentum = {name: np.zeros_like(value) for name, value in weights.items()}

    for step in range(start + 1, args.steps + 1):
        if asked:  # (4) between two steps, so that no step is lost or done twice
            save_checkpoint(step - 1, weights, momentum, rng)
            print(f"saved after step {step - 1}, as asked", flush=True)
            sys.exit(SAVED_REQUEUE_ME)
        batch = rng.integers(len(y), size=args.batch)
        loss, gradient = model.loss_and_gradient(weights, x[batch], y[batch])
        for name, value in weights.items():
            momentum[name] = args.momentum * momentum[name] - args.lr * gradient[name]
            weights[name] = value + momentum[name]
        if step % 10 == 0 or step == args.steps:
            val = model.accuracy(weights, x_val, y_val)
            print(f"step {step} loss: {loss:.4f} val_accuracy: {val:.4f}", flush=True)
        if CHECKPOINTS and step % args.save_every == 0 and step < args.steps:
            save_checkpoint(step, weights, momentum, rng)
        time.sleep(args.pace)

    artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
    model.save(artifacts / "weights.npz", weights)
    val = model.accuracy(weights, x_val, y_val)
    result = {"lr": args.lr, "width": args.width, "steps": args.steps, "val_accuracy": val}
    (artifacts / "result.json").write_text(json.dumps(result) + "\n")
    print(f"final val_accuracy: {val:.4f}", flush=True)


if __name__ == "__main__":
    main()
