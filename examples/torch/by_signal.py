"""The same loop without nemo_harness: a signal asks it to save, its exit code says that it did."""

import os
import signal
import sys
import time
from pathlib import Path

# A save request only sets a flag: the current step is finished first. The handlers are set before the slow imports,
# because a request may come at any time. Slurm itself sends SIGTERM: on scancel, and at the end of a grace time.
asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: asked.append(number))

import torch

import digits

STEPS, BATCH = 200, 64
SAVED_REQUEUE_ME = 75
CHECKPOINTS = Path(os.environ.get("NEMO_CHECKPOINT_DIR") or "checkpoints")
ARTIFACTS = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
PACE = float(os.environ.get("PACE") or 0)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(int(os.environ.get("NEMO_SEED") or 0))
    (x, y), (x_val, y_val) = digits.load()
    model = digits.network()
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    start = 0
    resume_from = os.environ.get("NEMO_RESUME_FROM")
    if resume_from:
        state = torch.load(resume_from)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        start = state["step"]

    for step in range(start + 1, STEPS + 1):
        batch = torch.randint(len(y), (BATCH,))
        loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss: {loss.item():.9f}", flush=True)
        if asked:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            CHECKPOINTS.mkdir(exist_ok=True)
            unfinished = CHECKPOINTS / f"step-{step}.tmp"
            torch.save({**state, "random": torch.get_rng_state(), "step": step}, unfinished)
            os.replace(unfinished, CHECKPOINTS / f"step-{step}.pt")  # it is complete once it has its name
            sys.exit(SAVED_REQUEUE_ME)
        time.sleep(PACE)

    model.eval()
    accuracy = (model(x_val).argmax(1) == y_val).float().mean()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), ARTIFACTS / "weights.pt")
    print(f"accuracy: {accuracy:.4f}")


if __name__ == "__main__":
    main()
