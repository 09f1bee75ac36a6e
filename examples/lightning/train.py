"""PyTorch Lightning as it is: its own handler for Slurm saves, and nemo-slurm commits, requeues and resumes.

For the same bits as an undisturbed run, you must add two things to Lightning: the data continues at its position
(`Batches`), and the handler does not save in the middle of a step (`BetweenSteps`).
"""

import os
import signal
import time
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits

STEPS, BATCH = 400, 64
PACE = float(os.environ.get("PACE") or 0)


class Batches(torch.utils.data.IterableDataset):
    """The batches of the steps from `start` on: each follows from its number alone."""

    def __init__(self, seed, start):
        digits = load_digits()
        self.x = torch.tensor(digits.data, dtype=torch.float32) / 16
        self.y = torch.tensor(digits.target)
        self.seed, self.start = seed, start

    def __iter__(self):
        for step in range(self.start, STEPS):
            random = torch.Generator().manual_seed(self.seed * STEPS + step)
            batch = torch.randint(len(self.y), (BATCH,), generator=random)
            yield self.x[batch], self.y[batch]


class Digits(lightning.LightningModule):
    def __init__(self, seed):
        super().__init__()
        self.seed = seed
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))

    def train_dataloader(self):
        return torch.utils.data.DataLoader(Batches(self.seed, self.trainer.global_step), batch_size=None)

    def training_step(self, batch, _):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.model(x), y)
        print(f"step {self.trainer.global_step + 1} loss: {loss.item():.9f}", flush=True)
        time.sleep(PACE)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.003)


class BetweenSteps(lightning.Callback):
    """Lets Lightning's handler of USR1 run after a step: a signal may come in the middle of the optimizer's."""

    def on_train_start(self, trainer, module):
        self.asked, self.handler = [], signal.getsignal(signal.SIGUSR1)
        if callable(self.handler):
            signal.signal(signal.SIGUSR1, lambda *given: self.asked.append(given))

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        while self.asked:
            self.handler(*self.asked.pop())


def main():
    torch.set_num_threads(1)
    seed = int(os.environ.get("NEMO_SEED") or 0)
    lightning.seed_everything(seed)
    checkpoints = os.environ.get("NEMO_CHECKPOINT_DIR") or "checkpoints"
    periodic = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=checkpoints, every_n_train_steps=150, save_top_k=-1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[periodic, BetweenSteps()],
        default_root_dir=checkpoints,  # where the handler saves
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        max_epochs=1,
        max_steps=STEPS,
    )
    module = Digits(seed)
    trainer.fit(module, ckpt_path=os.environ.get("NEMO_RESUME_FROM") or None)
    if trainer.global_step == STEPS:
        artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), artifacts / "weights.pt")


if __name__ == "__main__":
    main()
