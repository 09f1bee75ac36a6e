"""Can't read what it has saved."""

from training import Training


class FailsToResume(Training):
    def restore(self, state):
        self.learning_rate = state["learning_rate"]


FailsToResume().main()
