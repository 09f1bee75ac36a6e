"""Trains an MLP on scikit-learn's digits with PyTorch's DistributedDataParallel, on CPUs.

All ranks are asked to save, agree on one step, and save one checkpoint together. The result has the
same bits, interrupted or not. The four places that this needs are marked (1) to (4).
"""

import os
import signal
import sys

# (1) A save request only sets a flag. The handlers are set before the slow imports, because a request may come at any time.
asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):  # scancel sends only SIGTERM
    signal.signal(number, lambda number, frame: asked.append(number))

import argparse
import time
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

SAVED_REQUEUE_ME = 75
SEED = int(os.environ.get("NEMO_SEED") or 0)
CHECKPOINTS = os.environ.get("NEMO_CHECKPOINT_DIR")
TRAIN = 1_500  # the other 297 images are for the validation


def network():
    """The dropout makes each rank's random numbers part of the state."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))


def save_checkpoint(step, model, optimizer):
    """(2) Saves one folder: a part that is the same for all ranks, and a part of each rank.

    Rank 0 renames it when every rank has written its part. Only then is it complete.
    """
    folder = Path(CHECKPOINTS) / f"step-{step}"
    temporary = folder.with_suffix(".tmp")
    temporary.mkdir(exist_ok=True)
    torch.save(torch.get_rng_state(), temporary / f"rank-{dist.get_rank()}.pt")
    if dist.get_rank() == 0:
        state = {"step": step, "model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, temporary / "shared.pt")
    dist.barrier()
    if dist.get_rank() == 0:
        temporary.rename(folder)
    dist.barrier()


def load_checkpoint(folder, model, optimizer):
    """(3) Loads the state to resume from. The harness has verified it."""
    state = torch.load(Path(folder) / "shared.pt")
    model.module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(torch.load(Path(folder) / f"rank-{dist.get_rank()}.pt"))
    return state["step"]


def must_save():
    """(4) Whether any rank was asked to save: the requests arrive at different moments."""
    flag = torch.tensor(1 if asked else 0)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32, help="of each rank")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--pace", type=float, default=0, metavar="SECONDS", help="sleep at each step")
    args = parser.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)

    torch.manual_seed(SEED)
    # With `find_unused_parameters` gradients are always summed in the same order; else DDP finds another one
    # after its first step, and a resumed run would differ in the last bits.
    model = nn.parallel.DistributedDataParallel(network(), find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    torch.manual_seed(SEED + 1 + rank)
    start = 0
    if os.environ.get("NEMO_RESUME_FROM"):
        start = load_checkpoint(os.environ["NEMO_RESUME_FROM"], model, optimizer)
    print(f"rank {rank} of {size} begins after step {start}", flush=True)

    for step in range(start + 1, args.steps + 1):
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        batch = torch.randperm(TRAIN, generator=generator)[: args.batch * size][rank :: size]
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(loss.detach())
        if rank == 0:
            print(f"step {step} loss: {loss.item() / size:.6f}", flush=True)
        time.sleep(args.pace)
        is_asked = CHECKPOINTS and must_save()
        if is_asked or (CHECKPOINTS and step % args.save_every == 0 and step < args.steps):
            save_checkpoint(step, model, optimizer)
        if is_asked and step < args.steps:
            sys.exit(SAVED_REQUEUE_ME)

    if rank == 0:
        model.eval()
        with torch.no_grad():
            correct = (model.module(x[TRAIN:]).argmax(1) == y[TRAIN:]).float().mean().item()
        print(f"val_accuracy: {correct:.4f}", flush=True)
        artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        weights = [parameter.detach().flatten() for parameter in model.module.parameters()]
        (artifacts / "weights.bin").write_bytes(torch.cat(weights).numpy().tobytes())
    dist.barrier()


if __name__ == "__main__":
    main()
