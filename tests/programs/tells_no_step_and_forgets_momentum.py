"""Prints no step, and does not save the optimizer's state."""

from tells_no_step import TellsNoStep


class ForgetsMomentum(TellsNoStep):
    def state(self):
        state = super().state()
        del state["momentum"]
        return state


ForgetsMomentum().main()
