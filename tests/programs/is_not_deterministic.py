"""Takes its random numbers from nowhere that could be found again."""

import random

from training import Training


class NotDeterministic(Training):
    def __init__(self):
        super().__init__()
        self.random = random.Random()


NotDeterministic().main()
