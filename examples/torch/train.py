"""A plain PyTorch loop with nemo_harness: saved and resumed at any step, with the same bits at the end.

Run by itself (`python3 train.py`) it is an ordinary program.
"""

import os
import time
from pathlib import Path

import torch

import digits
import nemo_harness as nemo

STEPS, BATCH = 200, 64
PACE = float(os.environ.get("PACE") or 0)  # seconds of sleep a step, so that there is something to interrupt


def main():
    torch.set_num_threads(1)  # one thread: the same bits every time
    with nemo.trial(params={"lr": 0.1}) as trial:
        torch.manual_seed(trial.seed)
        (x, y), (x_val, y_val) = digits.load()
        model = digits.network()
        optimizer = torch.optim.SGD(model.parameters(), trial.params["lr"], momentum=0.9)

        def load(path):
            state = torch.load(path / "state.pt")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])

        start = trial.resume(load)
        for step in trial.steps(start, STEPS):
            batch = torch.randint(len(y), (BATCH,))
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trial.report(step, loss=loss)
            if trial.should_save():
                with trial.checkpoint(step) as folder:
                    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    torch.save({**state, "random": torch.get_rng_state()}, folder / "state.pt")
            time.sleep(PACE)

        if trial.finished:
            model.eval()
            accuracy = (model(x_val).argmax(1) == y_val).float().mean()
            trial.report_validation(STEPS, accuracy=accuracy)
            artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
            artifacts.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), artifacts / "weights.pt")
            print(f"accuracy: {accuracy:.4f}")


if __name__ == "__main__":
    main()
