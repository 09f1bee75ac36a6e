"""Two workers of torchrun with DistributedDataParallel: each receives USR1, and all stop after the same step."""

import os
import signal
import sys
import time
from pathlib import Path

asked = []
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits

STEPS, BATCH = 200, 32
PACE = float(os.environ.get("PACE") or 0)


def anybody(value):
    """Whether the value is true in any worker. So all decide alike."""
    number = torch.tensor([float(bool(value))])
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return bool(number.item())


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, workers = dist.get_rank(), dist.get_world_size()
    seed = int(os.environ.get("NEMO_SEED") or 0)
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    network = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
    model = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    start = 0
    resume_from = os.environ.get("NEMO_RESUME_FROM")
    if resume_from:
        state = torch.load(resume_from)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]

    for step in range(start + 1, STEPS + 1):
        random = torch.Generator().manual_seed((seed * STEPS + step) * workers + rank)
        batch = torch.randint(len(y), (BATCH,), generator=random)
        loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            print(f"step {step} loss: {loss.item():.9f}", flush=True)
        if anybody(asked):
            if rank == 0:
                folder = Path(os.environ.get("NEMO_CHECKPOINT_DIR") or ".")
                state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, folder / f"step-{step}.tmp")
                os.replace(folder / f"step-{step}.tmp", folder / f"step-{step}.pt")
            dist.barrier()
            sys.exit(0)  # torchrun takes any other code for a failure, and kills the other workers
        time.sleep(PACE)

    if rank == 0:
        artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), artifacts / "weights.pt")
    dist.barrier()


if __name__ == "__main__":
    main()
