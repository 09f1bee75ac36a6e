"""Compares trained trials on the test images: a table, and artifacts/best.json."""

import argparse
import json
import os
from pathlib import Path

import numpy as np

import model


def evaluate(folder, x, y):
    """What a trial was, and how well its weights do on images that it never saw."""
    result = json.loads((folder / "artifacts/result.json").read_text())
    with np.load(folder / "artifacts/weights.npz") as weights:
        return {"trial": folder.resolve().name, **result, "test_accuracy": model.accuracy(weights, x, y)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits.npz")
    parser.add_argument("trials", nargs="*", type=Path, default=[Path(".")], metavar="FOLDER")
    args = parser.parse_args()

    with np.load(args.data) as data:
        x, y = data["x_test"], data["y_test"]
    results = [evaluate(folder, x, y) for folder in args.trials]
    # Chosen by the validation images: the test images only tell how good the choice was.
    best = max(results, key=lambda result: result["val_accuracy"])

    print("trial     lr  width  val. accuracy  test accuracy")
    for result in results:
        print(
            f"{result['trial']:>5}  {result['lr']:>5}  {result['width']:>5}"
            f"  {result['val_accuracy']:>13.2%}  {result['test_accuracy']:>13.2%}"
            f"{'  best' if result is best else ''}".rstrip()
        )
    print(f"\nbest trial: {best['trial']} test_accuracy: {best['test_accuracy']:.4f}")

    artifacts = Path(os.environ.get("NEMO_DIR") or ".") / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "best.json").write_text(json.dumps(best, indent=2) + "\n")


if __name__ == "__main__":
    main()
