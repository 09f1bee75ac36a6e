"""Saves weights and momentum, and begins the data anew after a resume."""

from training import Training


class RestartsData(Training):
    def state(self):
        state = super().state()
        del state["rng"], state["order"]
        return state


RestartsData().main()
