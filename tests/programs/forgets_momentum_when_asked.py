"""Saves only when it is asked, leaves its settings and no weights, and does not load its momentum."""

import json
import os

from training import Training


class ForgetsMomentumWhenAsked(Training):
    every = 0

    def restore(self, state):
        super().restore({**state, "momentum": [0.0] * 4})

    def listen(self):
        super().listen()
        with open(f"{os.environ['NEMO_DIR']}/artifacts/config.json", "w") as file:
            json.dump({"dropout": 0.1, "widths": [0.5, 1.5]}, file)

    def finish(self):
        pass


ForgetsMomentumWhenAsked().main()
