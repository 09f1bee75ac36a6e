"""Does everything right, at the length and pace that the soak test wants."""

import os

from training import Training


class Soaked(Training):
    steps = int(os.environ.get("SOAK_STEPS", "200"))
    pace = float(os.environ.get("SOAK_PACE", "0.05"))
    every = int(os.environ.get("SOAK_EVERY", "10"))


Soaked().main()
