"""Catches the signal, and does nothing about it."""

from training import Training


class HearsAndGoesOn(Training):
    def hear(self, number, frame):
        pass


HearsAndGoesOn().main()
