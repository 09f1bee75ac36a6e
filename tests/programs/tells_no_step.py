"""Prints its losses and never a step, and does everything right."""

from training import Training


class TellsNoStep(Training):
    def report(self, loss):
        print(f"loss: {loss!r}", flush=True)


if __name__ == "__main__":
    TellsNoStep().main()
