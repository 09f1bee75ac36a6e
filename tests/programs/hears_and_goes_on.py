"""Catches the signal, and does nothing about it."""

from training import Training


class HearsAndGoesOn(Training):
    pace = 0.06  # it must outlast its notice

    def hear(self, number, frame):
        pass


HearsAndGoesOn().main()
