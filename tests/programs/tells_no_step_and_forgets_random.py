"""Prints no step, and saves neither the random generator nor the place in the data."""

from tells_no_step import TellsNoStep


class ForgetsRandom(TellsNoStep):
    def state(self):
        state = super().state()
        del state["rng"], state["order"]
        return state


ForgetsRandom().main()
