"""Counts from 0 in one place and from 1 in another: the checkpoint's name says one step more than was done."""

from training import Training


class OneMore(Training):
    def name(self):
        return f"step-{self.step + 1}.json"


OneMore().main()
