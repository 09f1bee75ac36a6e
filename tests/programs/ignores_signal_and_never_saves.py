"""Ignores the signal, and would save only when it came."""

import signal

from training import Training


class IgnoresAndNeverSaves(Training):
    every = 0

    def listen(self):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


IgnoresAndNeverSaves().main()
