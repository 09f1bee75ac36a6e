"""Splits scikit-learn's digits (1,797 real images), standardises them and saves them as one file."""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import model

TRAIN, VALIDATION = 1_200, 297  # the other 300 are for the test


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="digits.npz")
    args = parser.parse_args()

    digits = load_digits()
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.target))
    x, y = digits.data[order], digits.target[order]
    mean, deviation = x[:TRAIN].mean(axis=0), x[:TRAIN].std(axis=0)
    x = (x - mean) / np.where(deviation == 0, 1, deviation)

    parts = {}
    for name, part in {
        "train": slice(0, TRAIN),
        "val": slice(TRAIN, TRAIN + VALIDATION),
        "test": slice(TRAIN + VALIDATION, None),
    }.items():
        parts[f"x_{name}"], parts[f"y_{name}"] = x[part], y[part]
    model.save(args.out, parts)
    print(", ".join(f"{name[2:]}: {len(y)} images" for name, y in parts.items() if name[0] == "y"))


if __name__ == "__main__":
    main()
