"""scikit-learn: `partial_fit`, and the whole model in a pickle. The first argument says what it does wrong."""

import pickle
import time

import numpy as np
import saver
from sklearn.linear_model import SGDRegressor

generator = np.random.default_rng(0)
data = generator.normal(size=(256, 6))
target = data @ np.arange(6.0)
model = SGDRegressor(eta0=0.05, random_state=0)
step, began = 0, time.time()
if saver.given:
    with open(saver.given, "rb") as file:
        saved = pickle.load(file)
    step = saved["step"]
    if saver.fault == "coefficients":
        # Only what it has learned: the learning rate, which falls with each sample, begins anew.
        model.partial_fit(data[:1], target[:1])
        model.coef_, model.intercept_, model.t_ = saved["model"].coef_, saved["model"].intercept_, 1.0
    else:
        model = saved["model"]


def write(path):
    state = {"model": model, "step": step, "elapsed": time.time() - began, "path": path}
    with open(path, "wb") as file:
        pickle.dump(state, file)


while step < saver.LAST:
    batch = np.random.default_rng(step).integers(0, 256, 16)
    loss = 0.0
    if step > 0:
        loss = float(((model.predict(data[batch]) - target[batch]) ** 2).mean())
    model.partial_fit(data[batch], target[batch])
    step += 1
    saver.after(step, loss, write, ".pkl")
np.savetxt(saver.results + "/weights.txt", model.coef_)
