"""Needs longer for a save than it is given when it is asked to."""

import time

from training import Training


class Slow(Training):
    every = 0

    def save(self):
        time.sleep(4)
        super().save()


Slow().main()
