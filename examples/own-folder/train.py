"""As most public code does it: it resumes from one file in its own folder, and knows nothing of any scheduler."""
import json, os, sys, time

lr = float(sys.argv[1])
state = json.load(open("snapshot.json")) if os.path.exists("snapshot.json") else {"step": 0, "loss": 100.0}
while state["step"] < 60:
    state = {"step": state["step"] + 1, "loss": state["loss"] * (1 - lr)}
    time.sleep(float(os.environ.get("PACE", "0.2")))  # a real step takes its time
    print(f"step {state['step']} loss: {state['loss']}", flush=True)
    with open("snapshot.json", "w") as file:
        json.dump(state, file)
