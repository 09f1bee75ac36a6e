"""Saves, and never looks at what it is given to go on from."""

from training import Training


class StartsOver(Training):
    def resume(self):
        pass


StartsOver().main()
