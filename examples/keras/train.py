"""Handwritten digits in Keras. The whole model is saved, with its optimizer. Keras' own BackupAndRestore writes its file in
place: a kill meanwhile leaves a torn file, and Keras can't be started again until somebody removes it.

Exact, since nothing random is left after the first epoch. A saved model has no generator: with Dropout, or with
`shuffle=True`, a resumed run draws other numbers."""

import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy
from sklearn.datasets import load_digits

EPOCHS, EVERY = 40, 5
asked = False


def ask(_signal, _frame):
    global asked
    asked = True


class Save(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        time.sleep(float(os.environ.get("PACE", "0.25")))  # a real epoch takes its time
        print(f"epoch {done} loss: {logs['loss']}", flush=True)
        if asked or done % EVERY == 0:
            folder = os.environ.get("NEMO_CHECKPOINT_DIR", ".")
            self.model.save(f"{folder}/.tmp.keras")
            os.rename(f"{folder}/.tmp.keras", f"{folder}/step-{done}.keras")  # who sees it sees it whole
        if asked:
            sys.exit(75)


def new_model():
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def main():
    signal.signal(signal.SIGUSR1, ask)
    signal.signal(signal.SIGTERM, ask)
    resumed = os.environ.get("NEMO_RESUME_FROM")
    model = keras.saving.load_model(resumed) if resumed else new_model()
    done = int(Path(resumed).stem.removeprefix("step-")) if resumed else 0
    images, labels = load_digits(return_X_y=True)
    model.fit(images / 16, labels, batch_size=128, initial_epoch=done, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[Save()])
    numpy.savez(sys.argv[1], *model.get_weights())


main()
