"""Keeps a file of its own beside the checkpoints that it is given, and trusts that one."""

import json
import os

from training import Training


class OwnFile(Training):
    def own(self):
        return os.environ["NEMO_DIR"] + "/artifacts/last.json"

    def report(self, loss):
        super().report(loss)
        with open(self.own() + ".tmp", "w") as file:
            json.dump(self.state(), file)
        os.rename(self.own() + ".tmp", self.own())

    def resume(self):
        if os.path.exists(self.own()):
            with open(self.own()) as file:
                self.restore(json.load(file))


OwnFile().main()
