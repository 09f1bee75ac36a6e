"""Handwritten digits in PyTorch Lightning, as people write it: `ModelCheckpoint` keeps the best and the last checkpoint, and
`ckpt_path="last"` goes on from there.

Lightning saves no generator. So the order of an epoch must follow from its number (a sampler with `set_epoch`, which
Lightning calls), and checkpoints are saved at the end of an epoch. With `shuffle=True`, or with dropout, a resumed run
draws other numbers."""

import os
import sys
import time

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

EPOCHS = 40


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.model(x), y)

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("val_loss", self.loss(batch))

    def on_validation_epoch_end(self):
        time.sleep(float(os.environ.get("PACE", "1")))  # a real epoch takes its time
        print(f"step {self.trainer.global_step} val_loss: {self.trainer.callback_metrics['val_loss'].item()}", flush=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def main():
    torch.set_num_threads(1)
    lightning.seed_everything(7)
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    train, test = TensorDataset(images[:1500], labels[:1500]), TensorDataset(images[1500:], labels[1500:])
    order = DistributedSampler(train, num_replicas=1, rank=0)
    checkpoints = ModelCheckpoint("checkpoints", monitor="val_loss", save_top_k=2, save_last=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[checkpoints],
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        max_epochs=EPOCHS,
        num_sanity_val_steps=0,
    )
    module = Digits()
    trainer.fit(module, DataLoader(train, batch_size=64, sampler=order), DataLoader(test, batch_size=300), ckpt_path="last")
    best = torch.load(checkpoints.best_model_path)["state_dict"]
    os.makedirs(sys.argv[1], exist_ok=True)
    torch.save(module.state_dict(), sys.argv[1] + "/last.pt")
    torch.save(best, sys.argv[1] + "/best.pt")


if __name__ == "__main__":
    main()
