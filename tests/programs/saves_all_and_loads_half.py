"""Saves everything, and does not load the momentum."""

from training import Training


class LoadsHalf(Training):
    def restore(self, state):
        super().restore({name: value for name, value in state.items() if name != "momentum"})


LoadsHalf().main()
