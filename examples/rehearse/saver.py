"""What the Python programs here share: they hear a request to save, and a save gets its name once it is complete."""

import os
import signal
import sys
import time

asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: asked.append(1))

given = os.environ.get("NEMO_RESUME_FROM")
results = os.environ["NEMO_DIR"] + "/artifacts"
fault = sys.argv[1] if len(sys.argv) > 1 else "none"
LAST, EVERY = 60, 10


def save(step, write, end=""):
    """Lets `write` make a file or folder, and then names it by the completed steps."""
    folder = os.environ["NEMO_CHECKPOINT_DIR"]
    path = f"{folder}/.tmp-{step}{end}"
    write(path)
    os.rename(path, f"{folder}/step-{step}{end}")


def after(step, loss, write, end="", named=None):
    """Ends a step: reports it, and saves where it is time or was asked for."""
    print(f"step {step} loss: {loss!r}", flush=True)
    if step % EVERY == 0 or asked:
        save(step if named is None else named, write, end)
    if asked and step < LAST:
        sys.exit(75)
    time.sleep(0.03)
