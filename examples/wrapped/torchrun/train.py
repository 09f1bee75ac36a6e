"""Four workers of torchrun on two nodes with DistributedDataParallel: all save and stop after the same step."""

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

STEPS, BATCH, SAVE_EVERY = 400, 32, 10
PACE = float(os.environ.get("PACE") or 0)  # seconds of sleep a step, so that there is something to interrupt


def anybody(value):
    """Whether the value is true in any worker. So all decide alike: only those of the first node are asked."""
    number = torch.tensor([float(bool(value))])
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return bool(number.item())


def save(network, optimizer, step):
    path = Path(os.environ.get("NEMO_CHECKPOINT_DIR") or ".") / f"step-{step}.pt"
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, workers = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    network = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
    # With `find_unused_parameters` gradients are always summed in the same order; else DDP finds another one after its
    # first step, and a resumed run would differ in the last bits.
    model = torch.nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    start = 0
    if os.environ.get("NEMO_RESUME_FROM"):
        state = torch.load(os.environ["NEMO_RESUME_FROM"])
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]

    for step in range(start + 1, STEPS + 1):
        random = torch.Generator().manual_seed(step * workers + rank)
        batch = torch.randint(len(y), (BATCH,), generator=random)
        loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            print(f"step {step} loss: {loss.item():.9f}", flush=True)
        must_stop = anybody(asked) and step < STEPS
        if rank == 0 and (must_stop or step % SAVE_EVERY == 0):
            save(network, optimizer, step)
        if must_stop:
            dist.barrier()
            sys.exit(0)  # torchrun takes any other code for a failure, and kills the other workers
        time.sleep(PACE)

    if rank == 0:
        torch.save(network.state_dict(), "weights.pt")
    dist.barrier()


if __name__ == "__main__":
    main()
