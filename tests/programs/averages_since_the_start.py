"""Reports an average since the start, and begins it anew after a resume; the training itself is right."""

from training import Training


class Averages(Training):
    total, count = 0.0, 0

    def report(self, loss):
        self.total += loss
        self.count += 1
        super().report(self.total / self.count)


Averages().main()
