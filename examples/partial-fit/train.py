"""Handwritten digits by SGDClassifier.partial_fit. The whole classifier is pickled: also its count of steps, which sets the
learning rate."""

import os
import pickle
import signal
import sys
import time

import numpy
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

EPOCHS, BATCH, EVERY = 6, 100, 20
asked = False


def ask(_signal, _frame):
    global asked
    asked = True


def save(step, model):
    folder = os.environ.get("NEMO_CHECKPOINT_DIR", ".")
    with open(f"{folder}/.tmp", "wb") as file:
        pickle.dump((step, model), file)
    os.rename(f"{folder}/.tmp", f"{folder}/step-{step}")  # who sees it sees it whole


def main():
    signal.signal(signal.SIGUSR1, ask)
    signal.signal(signal.SIGTERM, ask)
    images, labels = load_digits(return_X_y=True)
    images /= 16
    step, model = 0, SGDClassifier(loss="log_loss", random_state=7)
    if resumed := os.environ.get("NEMO_RESUME_FROM"):
        with open(resumed, "rb") as file:
            step, model = pickle.load(file)
    batches = len(images) // BATCH
    while step < EPOCHS * batches:
        # The order follows from the epoch, not from what a generator did before.
        order = numpy.random.default_rng(step // batches).permutation(len(images))
        batch = order[step % batches * BATCH :][:BATCH]
        model.partial_fit(images[batch], labels[batch], classes=range(10))
        step += 1
        print(f"step {step} accuracy: {model.score(images, labels)}", flush=True)
        time.sleep(float(os.environ.get("PACE", "0.1")))  # a real step takes its time
        if asked or step % EVERY == 0:
            save(step, model)
        if asked:
            sys.exit(75)
    numpy.savez(sys.argv[1], weights=model.coef_, offsets=model.intercept_)


main()
