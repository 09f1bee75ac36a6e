"""Leaves a process behind that nobody waits for."""

import os
import time

from training import Training


class Daemon(Training):
    def finish(self):
        super().finish()
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)


Daemon().main()
