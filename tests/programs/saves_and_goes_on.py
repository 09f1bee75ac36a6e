"""Saves when it is asked to, and goes on training."""

from training import Training


class GoesOn(Training):
    steps = 400

    def stop(self):
        self.asked = False
        self.save()


GoesOn().main()
