"""Saves every so often, and does not listen to anybody."""

from training import Training


class IgnoresSignal(Training):
    def listen(self):
        pass


IgnoresSignal().main()
