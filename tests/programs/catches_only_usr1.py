"""Saves when SIGUSR1 comes, and is ended by the SIGTERM that Slurm sends itself."""

import signal

from training import Training


class CatchesOnlyUsr1(Training):
    pace = 0.05  # so that it is between two steps when both signals come

    def listen(self):
        signal.signal(signal.SIGUSR1, self.hear)


CatchesOnlyUsr1().main()
