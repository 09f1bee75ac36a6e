"""JAX with Flax, Optax and Orbax, whose folder of a save is renamed by itself. The first argument says what it does wrong."""

import os
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import saver


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.tanh(nn.Dense(16)(x))
        return nn.Dense(1)(nn.Dropout(0.2, deterministic=not train)(x))


network, optimizer = Network(), optax.adam(1e-2)
data = jax.random.normal(jax.random.key(1), (256, 8))
params = network.init(jax.random.key(0), data[:1], False)
state = {
    "params": params,
    "optimizer": optimizer.init(params),
    "random": jax.random.key_data(jax.random.key(2)),
    "step": 0,
}
checkpointer = ocp.StandardCheckpointer()
if saver.given:
    saved = checkpointer.restore(os.path.abspath(saver.given), state)
    lost = {"optimizer": ["optimizer"], "random": ["random"]}.get(saver.fault, [])
    state.update({name: own for name, own in saved.items() if name not in lost})


@jax.jit
def train(params, moments, random):
    random, batch, dropout = jax.random.split(jax.random.wrap_key_data(random), 3)
    x = data[jax.random.randint(batch, (32,), 0, 256)]

    def loss(params):
        y = network.apply(params, x, True, rngs={"dropout": dropout})
        return jnp.square(y - x.sum(1, keepdims=True)).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    change, moments = optimizer.update(gradient, moments)
    return value, optax.apply_updates(params, change), moments, jax.random.key_data(random)


def save():
    path = os.path.abspath(os.environ["NEMO_CHECKPOINT_DIR"])
    checkpointer.save(f"{path}/step-{state['step']}", state)
    checkpointer.wait_until_finished()


step = int(state["step"])
while step < saver.LAST:
    loss, *after = train(state["params"], state["optimizer"], state["random"])
    step += 1
    state = {"params": after[0], "optimizer": after[1], "random": after[2], "step": step}
    print(f"step {step} loss: {float(loss)!r}", flush=True)
    if step % 20 == 0 or saver.asked:
        save()
    if saver.asked and step < saver.LAST:
        raise SystemExit(75)
    time.sleep(0.03)
weights = jax.tree_util.tree_leaves(state["params"])
np.savez(saver.results + "/weights.npz", *[np.asarray(own) for own in weights])
