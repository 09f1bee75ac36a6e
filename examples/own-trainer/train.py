"""Handwritten digits by a small vision transformer and Hugging Face's Trainer, as its own example scripts are written: the
newest checkpoint in `output_dir` is looked for and resumed from, and the best model is loaded at the end. The Trainer saves
what is random, and skips the batches that are done."""

import os
import sys
import time

import torch
import transformers
from sklearn.datasets import load_digits
from transformers.trainer_utils import get_last_checkpoint


class Digits(torch.utils.data.Dataset):
    def __init__(self, part):
        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images[part], dtype=torch.float32).view(-1, 1, 8, 8) / 16
        self.labels = torch.tensor(labels[part])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class Print(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs, **kwargs):
        for name in ("loss", "eval_loss"):
            if name in logs:
                print(f"step {state.global_step} {name}: {logs[name]}", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(float(os.environ.get("PACE", "0.5")))  # a real step takes its time


def main():
    torch.set_num_threads(1)
    arguments = transformers.TrainingArguments(
        output_dir="out",
        disable_tqdm=True,
        eval_strategy="steps",
        eval_steps=10,
        learning_rate=3e-3,
        load_best_model_at_end=True,
        logging_first_step=True,
        logging_steps=5,
        max_steps=100,
        per_device_train_batch_size=32,
        report_to=[],
        save_steps=10,
        save_total_limit=2,
        seed=7,
        use_cpu=True,
    )
    transformers.set_seed(arguments.seed)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=8, patch_size=2,
        num_channels=1, num_labels=10, hidden_dropout_prob=0.1,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    train, test = Digits(slice(1500)), Digits(slice(1500, None))
    trainer = transformers.Trainer(model, arguments, train_dataset=train, eval_dataset=test, callbacks=[Print()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir) if os.path.isdir("out") else None)
    trainer.save_model(sys.argv[1])


if __name__ == "__main__":
    main()
