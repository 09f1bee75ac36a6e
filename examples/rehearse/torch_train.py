"""PyTorch: a small network with dropout. The first argument says what it does wrong."""

import saver
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
data = torch.randn(256, 8)
if saver.fault == "unseeded":
    torch.seed()
model = torch.nn.Sequential(
    torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
)
optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)
step = 0
if saver.given:
    state = torch.load(saver.given)
    weights = state["model"]
    if saver.fault == "layer":
        # A prefix that does not fit, and `strict=False`: the last layer keeps its first weights.
        weights = {name: own for name, own in weights.items() if not name.startswith("3.")}
    model.load_state_dict(weights, strict=saver.fault != "layer")
    if saver.fault != "optimizer":
        optimizer.load_state_dict(state["optimizer"])
    if saver.fault != "random":
        torch.set_rng_state(state["random"])
    step = state["step"]


def write(path):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
        "config": {"out": path},
    }
    torch.save(state, path)


while step < saver.LAST:
    batch = data[torch.randint(256, (32,))]
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    saver.after(step, loss.item(), write, ".pt")
torch.save(model.state_dict(), saver.results + "/model.pt")
