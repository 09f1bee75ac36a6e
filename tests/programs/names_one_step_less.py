"""The checkpoint's name says one step less than was done."""

from training import Training


class OneLess(Training):
    def name(self):
        return f"step-{self.step - 1}.json"


OneLess().main()
