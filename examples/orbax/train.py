"""Handwritten digits in Flax. Weights and optimizer are saved by Orbax; what is random follows from the number of the step
(`fold_in`), so that nothing else is to be saved, with dropout too."""

import os
import sys
import time

import flax.linen as nn
import jax
import numpy
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

STEPS, EVERY, BATCH = 100, 10, 128


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.1, deterministic=False)(nn.relu(nn.Dense(32)(x)))
        return nn.Dense(10)(x)


def main():
    folder, result = sys.argv[1:]
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    network, optimizer, key = Network(), optax.adam(1e-3), jax.random.key(7)
    weights = network.init({"params": key, "dropout": key}, images[:1])
    state = {"weights": weights, "optimizer": optimizer.init(weights)}

    @jax.jit
    def update(state, step, x, y):
        def loss_of(weights):
            answers = network.apply(weights, x, rngs={"dropout": jax.random.fold_in(key, step)})
            return optax.softmax_cross_entropy_with_integer_labels(answers, y).mean()

        loss, slopes = jax.value_and_grad(loss_of)(state["weights"])
        change, rest = optimizer.update(slopes, state["optimizer"])
        return {"weights": optax.apply_updates(state["weights"], change), "optimizer": rest}, loss

    options = ocp.CheckpointManagerOptions(save_interval_steps=EVERY, max_to_keep=3)
    with ocp.CheckpointManager(os.path.abspath(folder), options=options) as manager:
        step = manager.latest_step() or 0
        if step:
            state = manager.restore(step, args=ocp.args.StandardRestore(state))
        while step < STEPS:
            draw = numpy.random.default_rng(step).integers(len(images), size=BATCH)
            state, loss = update(state, step, images[draw], labels[draw])
            step += 1
            print(f"step {step} loss: {loss}", flush=True)
            time.sleep(float(os.environ.get("PACE", "0.1")))  # a real step takes its time
            manager.save(step, args=ocp.args.StandardSave(state))
    numpy.savez(result, *jax.tree.leaves(state["weights"]))


main()
