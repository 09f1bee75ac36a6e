"""Goes on from its checkpoint, and counts its steps from 1 again."""

from training import Training


class CountsFromTheBeginning(Training):
    def restore(self, state):
        super().restore(state)
        self.step = 0


CountsFromTheBeginning().main()
