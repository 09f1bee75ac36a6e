"""Ends when it is asked to, and has saved nothing."""

import sys

from training import Training


class NeverSaves(Training):
    every = 0

    def save(self):
        pass


NeverSaves().main()
