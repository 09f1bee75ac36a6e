"""Stands in for a training program. It saves when it is asked to, and resumes. It needs only Python's standard library."""

import argparse
import json
import os
import signal
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--width", type=int, required=True)
parser.add_argument("--steps", type=int, default=300)
args = parser.parse_args()

asked_to_save = False


def ask_to_save(*_):
    global asked_to_save
    asked_to_save = True  # only a flag: the current step is finished first


signal.signal(signal.SIGUSR1, ask_to_save)
signal.signal(signal.SIGTERM, ask_to_save)  # scancel sends only this one

step, loss = 0, float(args.width)
resume_from = os.environ.get("NEMO_RESUME_FROM")
if resume_from:
    with open(resume_from) as file:
        step, loss = json.load(file)
    print(f"resuming after step {step}", flush=True)

while step < args.steps:
    step += 1
    loss -= args.lr * loss / 10
    print(f"step {step} loss: {loss:.6f}", flush=True)
    time.sleep(0.1)
    folder = os.environ.get("NEMO_CHECKPOINT_DIR")
    if folder and (asked_to_save or step % 100 == 0):
        # A temporary name, then a rename: nobody ever sees half of a checkpoint.
        temporary = os.path.join(folder, ".tmp-save")
        with open(temporary, "w") as file:
            json.dump([step, loss], file)
        os.replace(temporary, os.path.join(folder, f"step-{step}.json"))
    if asked_to_save:
        print(f"saved after step {step}, as asked", flush=True)
        sys.exit(75)  # saved: run me again from here
