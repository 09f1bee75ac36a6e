"""Handwritten digits by boosted trees, one more a step for each digit. A model that is loaded goes on as if it had never
stopped. With `subsample` or `colsample_*` it would not: XGBoost saves no state of what draws rows and columns (3.x, also
with `seed_per_iteration`), so the trees after a resume are as good, but others."""

import os
import signal
import sys
import time

import xgboost
from sklearn.datasets import load_digits

ROUNDS, EVERY = 100, 10
PARAMETERS = {"objective": "multi:softprob", "num_class": 10, "max_depth": 3, "seed": 7, "nthread": 1}
asked = False


def ask(_signal, _frame):
    global asked
    asked = True


def save(step, model):
    folder = os.environ.get("NEMO_CHECKPOINT_DIR", ".")
    model.save_model(f"{folder}/.tmp.ubj")
    os.rename(f"{folder}/.tmp.ubj", f"{folder}/step-{step}.ubj")  # who sees it sees it whole


def main():
    signal.signal(signal.SIGUSR1, ask)
    signal.signal(signal.SIGTERM, ask)
    images, labels = load_digits(return_X_y=True)
    data = xgboost.DMatrix(images, labels)
    model = xgboost.Booster(PARAMETERS, [data], model_file=os.environ.get("NEMO_RESUME_FROM") or None)
    for step in range(model.num_boosted_rounds() + 1, ROUNDS + 1):
        model.update(data, step - 1)
        loss = model.eval(data).split(":")[-1]
        print(f"step {step} loss: {loss}", flush=True)
        time.sleep(float(os.environ.get("PACE", "0.1")))  # a real step takes its time
        if asked or step % EVERY == 0:
            save(step, model)
        if asked:
            sys.exit(75)
    model.save_model(sys.argv[1])


main()
