"""A character-level GPT on its own source, in PyTorch. Everything that the next step depends on is in its checkpoint: weights,
the optimizer, the generator that draws batches and dropout."""

import os
import sys
import time

import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 32, 4, 2, 32, 8
STEPS, EVERY = 120, 10
CHECKPOINT = "out/ckpt.pt"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.1, batch_first=True)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))

    def forward(self, x, mask):
        y = self.first(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.network(self.second(x))


class GPT(nn.Module):
    def __init__(self, letters):
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, letters)
        self.register_buffer("mask", torch.triu(torch.ones(CONTEXT, CONTEXT, dtype=torch.bool), 1))

    def forward(self, text):
        x = self.letters(text) + self.places.weight
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(x)


def batch(text):
    begins = torch.randint(len(text) - CONTEXT - 1, (BATCH,))
    pieces = torch.stack([text[begin : begin + CONTEXT + 1] for begin in begins])
    return pieces[:, :-1], pieces[:, 1:]


def main():
    torch.manual_seed(1)
    text = torch.frombuffer(bytearray(open(__file__, "rb").read()), dtype=torch.uint8).long()
    model = GPT(256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    step = 0
    if os.path.exists(CHECKPOINT):
        saved = torch.load(CHECKPOINT)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        step = saved["step"]
        print(f"resuming from {CHECKPOINT} after iter {step}", flush=True)
    while step < STEPS:
        inputs, wanted = batch(text)
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        print(f"iter {step}: loss {loss.item()}", flush=True)
        time.sleep(float(os.environ.get("PACE", "0.1")))  # a real step takes its time
        if step % EVERY == 0:
            os.makedirs("out", exist_ok=True)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "step": step}
            torch.save(state, CHECKPOINT + ".tmp")
            os.replace(CHECKPOINT + ".tmp", CHECKPOINT)
    torch.save(model.state_dict(), sys.argv[1])


main()
