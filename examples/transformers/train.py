"""Hugging Face's Trainer on a tiny GPT-2, made from its config, that learns the letters of Python's own documentation.

A Trainer needs only `SaveOnTerm` to be preempted. Transformers 5 and newer have the same built in:
`TrainingArguments(enable_jit_checkpoint=True)`.
"""

import os
import pydoc_data.topics
import signal
import sys
import time
from pathlib import Path

import torch
import transformers

STEPS, LENGTH = 60, 32
SAVED_REQUEUE_ME = 75
PACE = float(os.environ.get("PACE") or 0)


class Text(torch.utils.data.Dataset):
    """Pieces of the documentation's text, byte by byte."""

    def __init__(self):
        text = "\n".join(pydoc_data.topics.topics[name] for name in ("assignment", "numeric-types", "import"))
        self.bytes = torch.tensor(list(text.encode())[:20_000])

    def __len__(self):
        return len(self.bytes) // LENGTH

    def __getitem__(self, index):
        piece = self.bytes[index * LENGTH : (index + 1) * LENGTH]
        return {"input_ids": piece, "labels": piece}


class SaveOnTerm(transformers.TrainerCallback):
    """Saves after the step in which SIGTERM came, and ends the training."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number, frame):
        self.asked = True

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(PACE)
        if self.asked:
            control.should_save = control.should_training_stop = True


class Print(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            print(f"step {state.global_step} loss: {logs['loss']}", flush=True)


def main():
    torch.set_num_threads(1)
    seed = int(os.environ.get("NEMO_SEED") or 0)
    arguments = transformers.TrainingArguments(
        output_dir=os.environ.get("NEMO_CHECKPOINT_DIR") or "checkpoints",
        disable_tqdm=True,
        learning_rate=3e-3,
        logging_steps=1,
        max_steps=STEPS,
        per_device_train_batch_size=8,
        report_to=[],
        save_steps=25,
        seed=seed,
        use_cpu=True,
    )
    transformers.set_seed(seed)
    config = transformers.GPT2Config(vocab_size=256, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2)
    trainer = transformers.Trainer(
        transformers.GPT2LMHeadModel(config), arguments, train_dataset=Text(), callbacks=[SaveOnTerm(), Print()]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=os.environ.get("NEMO_RESUME_FROM") or None)
    if trainer.state.global_step < STEPS:
        sys.exit(SAVED_REQUEUE_ME)
    trainer.save_model(str(Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"))


if __name__ == "__main__":
    main()
