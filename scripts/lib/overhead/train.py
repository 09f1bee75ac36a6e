"""A training of a fixed number of steps: it prints each, and saves every so many seconds. It works alone, too."""

import os
import signal
import sys
import time

asked = False


def ask(_signal, _frame):
    global asked
    asked = True


def work(state):
    """One step: some hundredths of a second of a processor."""
    for place in range(0, 400_000):
        state = (state * 6364136223846793005 + place) & 0xFFFFFFFFFFFFFFFF
    return state


def save(step, state, size):
    folder = os.environ["NEMO_CHECKPOINT_DIR"]
    with open(f"{folder}/.tmp", "wb") as file:
        file.write(state.to_bytes(8, "little") * (size // 8))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{folder}/.tmp", f"{folder}/step-{step}")


def main():
    steps, every, size = (int(word) for word in sys.argv[1:])
    signal.signal(signal.SIGUSR1, ask)
    state, saved = 1, time.monotonic()
    for step in range(1, steps + 1):
        state = work(state)
        print(f"step {step} loss: {state / 2**64}", flush=True)
        if asked or time.monotonic() - saved >= every:
            save(step, state, size)
            saved = time.monotonic()


main()
