"""Saves when asked in its first half, and in its second one finishes first."""

from training import Training


class FinishesAnyway(Training):
    every = 0

    def stop(self):
        if self.step < self.steps * 0.63:
            super().stop()


FinishesAnyway().main()
