"""Keeps its state beside the program, where every run finds it."""

import json
import os

from training import Training


class SharesAFile(Training):
    def report(self, loss):
        super().report(loss)
        if self.step == 20:
            with open("shared.json", "w") as file:
                json.dump(self.state(), file)

    def resume(self):
        super().resume()
        if self.step == 0 and os.path.exists("shared.json"):
            with open("shared.json") as file:
                self.restore(json.load(file))


SharesAFile().main()
