"""Saves the weights and the place in the data, and not the optimizer's state."""

from training import Training


class ForgetsMomentum(Training):
    def state(self):
        state = super().state()
        del state["momentum"]
        return state


ForgetsMomentum().main()
