"""Does all right in its own way: a log with dates, a file with a random name, and saves that begin with `_`."""

import datetime
import json
import os
import tempfile

from training import Training


class OddAndRight(Training):
    def save(self):
        folder = os.environ["NEMO_CHECKPOINT_DIR"]
        state = {**self.state(), "written": str(datetime.datetime.now()), "folder": folder}
        with open(f"{folder}/_step{self.step}.json", "w") as file:
            json.dump(state, file)
        os.rename(f"{folder}/_step{self.step}.json", f"{folder}/{self.name()}")

    def finish(self):
        folder = os.environ["NEMO_DIR"] + "/artifacts"
        with open(f"{folder}/train.log", "w") as file:
            print(datetime.datetime.now(), folder, file=file)
        handle, _ = tempfile.mkstemp(prefix="tmp", dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump(self.weights, file)


OddAndRight().main()
