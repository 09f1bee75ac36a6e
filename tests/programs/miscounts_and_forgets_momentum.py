"""Does two things wrong: its saves are named by one step less, and its momentum is lost."""

from training import Training


class MiscountsAndForgetsMomentum(Training):
    def name(self):
        return f"step-{self.step - 1}.json"

    def restore(self, state):
        super().restore(state)
        self.momentum = [0.0] * 4


MiscountsAndForgetsMomentum().main()
