"""NumPy: a linear model with Adam, in a compressed `.npz`. The first argument says what it does wrong."""

import numpy as np
import saver

generator = np.random.default_rng(0)
data = generator.normal(size=(256, 6))
target = data @ np.arange(6.0)
state = {"weights": np.zeros(6), "first": np.zeros(6), "second": np.zeros(6)}
step = 0
if saver.given:
    with np.load(saver.given) as saved:
        wanted = ["weights"] if saver.fault == "moments" else list(state)
        state.update({name: saved[name] for name in wanted})
        step = int(saved["step"])


def write(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, step=step, **state)


while step < saver.LAST:
    # The batch follows from the step: there is no random state to save.
    batch = np.random.default_rng(step).integers(0, 256, 32)
    error = data[batch] @ state["weights"] - target[batch]
    gradient = 2 * data[batch].T @ error / 32
    state["first"] = 0.9 * state["first"] + 0.1 * gradient
    state["second"] = 0.99 * state["second"] + 0.01 * gradient**2
    state["weights"] = state["weights"] - 0.1 * state["first"] / (np.sqrt(state["second"]) + 1e-8)
    step += 1
    named = step + 1 if saver.fault == "name" else step
    saver.after(step, float((error**2).mean()), write, ".npz", named)
np.save(saver.results + "/weights.npy", state["weights"])
