"""Handwritten digits by two workers of torchrun, as PyTorch's own tutorial writes it: `snapshot.pt` is saved in place after
some epochs, and loaded where it is there. Nothing else is random: the order of an epoch follows from its number."""

import os
import sys
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

EPOCHS, SAVE_EVERY, SNAPSHOT = 60, 5, "snapshot.pt"


class Trainer:
    def __init__(self, model, data, optimizer):
        self.rank = int(os.environ["RANK"])
        self.model, self.data, self.optimizer, self.epochs_run = model, data, optimizer, 0
        if os.path.exists(SNAPSHOT):
            self.load_snapshot()
        self.parallel = DistributedDataParallel(self.model)

    def load_snapshot(self):
        snapshot = torch.load(SNAPSHOT)
        self.model.load_state_dict(snapshot["MODEL_STATE"])
        self.optimizer.load_state_dict(snapshot["OPTIMIZER_STATE"])
        self.epochs_run = snapshot["EPOCHS_RUN"]

    def save_snapshot(self, epoch):
        state = {"MODEL_STATE": self.model.state_dict(), "OPTIMIZER_STATE": self.optimizer.state_dict(), "EPOCHS_RUN": epoch}
        torch.save(state, SNAPSHOT)

    def run_epoch(self, epoch):
        self.data.sampler.set_epoch(epoch)
        for x, y in self.data:
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.parallel(x), y)
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def train(self):
        for epoch in range(self.epochs_run + 1, EPOCHS + 1):
            loss = self.run_epoch(epoch)
            time.sleep(float(os.environ.get("PACE", "0.4")))  # a real epoch takes its time
            if self.rank == 0:
                print(f"epoch {epoch} loss: {loss}", flush=True)
                if epoch % SAVE_EVERY == 0:
                    self.save_snapshot(epoch)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(7)
    dist.init_process_group("gloo")
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    loader = DataLoader(data, batch_size=64, sampler=DistributedSampler(data))
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    trainer = Trainer(model, loader, torch.optim.Adam(model.parameters(), 3e-3))
    trainer.train()
    if trainer.rank == 0:
        torch.save(model.state_dict(), sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
