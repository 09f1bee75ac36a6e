"""Plain Python: JSON, a log with dates, and files whose names are random. The first argument says what it does wrong."""

import datetime
import json
import os
import random
import tempfile

import saver

state = {"step": 0, "weights": [0.0] * 4, "momentum": [0.0] * 4, "random": None}
generator = random.Random(0)
if saver.given:
    with open(saver.given) as file:
        state = json.load(file)
    version, words, gauss = state["random"]
    if saver.fault != "data":
        generator.setstate((version, tuple(words), gauss))
log = open(saver.results + "/train.log", "a")
print(datetime.datetime.now(), "begins", file=log, flush=True)


def write(path):
    state["random"] = generator.getstate()
    with open(path, "w") as file:
        json.dump({**state, "written": str(datetime.datetime.now())}, file)


# One that counts from the beginning again does its last steps twice, from the right state.
first = 0 if saver.fault == "counter" else state["step"]
for step in range(first + 1, saver.LAST + 1):
    x = [generator.uniform(-1, 1) for _ in range(4)]
    error = sum(w * v for w, v in zip(state["weights"], x)) - sum(x)
    state["momentum"] = [0.9 * m - 0.02 * error * v for m, v in zip(state["momentum"], x)]
    state["weights"] = [w + m for w, m in zip(state["weights"], state["momentum"])]
    state["step"] = step
    saver.after(step, error * error, write, ".json")
handle, _ = tempfile.mkstemp(prefix="tmp", dir=saver.results)
with os.fdopen(handle, "w") as file:
    json.dump(state["weights"], file)
