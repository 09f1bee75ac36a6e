"""A training with all that a real one has: weights, momentum, shuffled data, saves, and a resume.

Each part is a method, so that the programs beside this one can do just one of them wrong.
"""

import json
import os
import random
import signal
import sys
import time


class Training:
    steps, pace, every, batch = 60, 0.02, 10, 4

    def __init__(self):
        self.asked = False
        self.random = random.Random(int(os.environ.get("NEMO_SEED", "0")))
        self.data = [[self.random.uniform(-1, 1) for _ in range(5)] for _ in range(30)]
        self.weights = [0.0] * 4
        self.momentum = [0.0] * 4
        self.order = []
        self.step = 0

    def listen(self):
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self.hear)

    def hear(self, number, frame):
        self.asked = True

    def next_batch(self):
        if len(self.order) < self.batch:
            self.order = list(range(len(self.data)))
            self.random.shuffle(self.order)
        return [self.data[self.order.pop()] for _ in range(self.batch)]

    def train(self):
        loss = 0.0
        gradient = [0.0] * 4
        for *x, y in self.next_batch():
            error = sum(w * v for w, v in zip(self.weights, x)) - y
            loss += error * error / self.batch
            for i, v in enumerate(x):
                gradient[i] += 2 * error * v / self.batch
        self.momentum = [0.9 * m - 0.05 * g for m, g in zip(self.momentum, gradient)]
        self.weights = [w + m for w, m in zip(self.weights, self.momentum)]
        return loss

    def state(self):
        version, words, gauss = self.random.getstate()
        return {
            "step": self.step,
            "weights": self.weights,
            "momentum": self.momentum,
            "rng": [version, list(words), gauss],
            "order": self.order,
        }

    def restore(self, state):
        self.step = state["step"]
        self.weights = state["weights"]
        if "momentum" in state:
            self.momentum = state["momentum"]
        if "rng" in state:
            version, words, gauss = state["rng"]
            self.random.setstate((version, tuple(words), gauss))
            self.order = state["order"]

    def name(self):
        return f"step-{self.step}.json"

    def save(self):
        folder = os.environ["NEMO_CHECKPOINT_DIR"]
        with open(f"{folder}/.tmp", "w") as file:
            json.dump(self.state(), file)
        os.rename(f"{folder}/.tmp", f"{folder}/{self.name()}")

    def resume(self):
        path = os.environ["NEMO_RESUME_FROM"]
        if path:
            with open(path) as file:
                self.restore(json.load(file))

    def stop(self):
        self.save()
        sys.exit(75)

    def report(self, loss):
        print(f"step {self.step} loss: {loss!r}", flush=True)

    def finish(self):
        with open(os.environ["NEMO_DIR"] + "/artifacts/weights.json", "w") as file:
            json.dump(self.weights, file)

    def main(self):
        self.listen()
        self.resume()
        while self.step < self.steps:
            if self.asked:
                self.stop()
            loss = self.train()
            self.step += 1
            self.report(loss)
            if self.every and self.step % self.every == 0:
                self.save()
            time.sleep(self.pace)
        self.finish()
