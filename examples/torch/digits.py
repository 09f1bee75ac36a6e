"""scikit-learn's digits (1,797 real images) for the examples: one split, the same in all of them."""

import torch
from sklearn.datasets import load_digits

TRAIN, VALIDATION = 1_200, 297


def load():
    """Images and labels to train on, and to validate with."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.data, dtype=torch.float32)[order] / 16
    y = torch.tensor(digits.target)[order]
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN : TRAIN + VALIDATION], y[TRAIN : TRAIN + VALIDATION])


def network():
    """A small one with dropout, so that the random state matters."""
    return torch.nn.Sequential(
        torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(48, 10)
    )
