"""The network, and how its arrays get onto the disk."""

import os
import zipfile
from pathlib import Path

import numpy as np


def init(rng, width):
    """Fresh weights for 64 inputs, one hidden layer and 10 classes."""
    return {
        "w1": rng.normal(size=(64, width)) * np.sqrt(2 / 64),
        "b1": np.zeros(width),
        "w2": rng.normal(size=(width, 10)) * np.sqrt(2 / width),
        "b2": np.zeros(10),
    }


def forward(weights, x):
    """The hidden layer, and the logits."""
    hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    return hidden, hidden @ weights["w2"] + weights["b2"]


def loss_and_gradient(weights, x, y):
    """Mean cross-entropy of a batch, and its gradient."""
    hidden, logits = forward(weights, x)
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    d_logits = np.exp(log_p)
    d_logits[rows, y] -= 1
    d_logits /= len(y)
    d_hidden = d_logits @ weights["w2"].T * (hidden > 0)
    gradient = {
        "w1": x.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_logits,
        "b2": d_logits.sum(axis=0),
    }
    return -log_p[rows, y].mean(), gradient


def accuracy(weights, x, y):
    """The share of images whose highest logit is the right one."""
    return float((forward(weights, x)[1].argmax(axis=1) == y).mean())


def save(path, arrays):
    """Writes an .npz that is complete as soon as it has its name.

    The same arrays give the same bytes: every member has the same date, whatever NumPy's own
    `savez` does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".tmp-{path.name}")
    with zipfile.ZipFile(unfinished, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    os.replace(unfinished, path)
