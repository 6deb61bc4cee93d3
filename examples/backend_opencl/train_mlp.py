"""Trains the network of spiral's front page on an OpenCL device: ``python train_mlp.py [device] [steps]``."""

import sys

import numpy as np

import spiral as sp
from spiral import nn, optim


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 256), nn.Linear(256, 10)

    def forward(self, x):
        return self.fc2(nn.functional.relu(self.fc1(x)))


device = sys.argv[1] if len(sys.argv) > 1 else "opencl"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100
model = MLP().to(device)
opt = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
rng = np.random.default_rng(0)
x = sp.asarray(rng.random((64, 784), np.float32), device=device)
y = sp.asarray(rng.integers(0, 10, 64), device=device)
for step in range(steps):
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0 or step == steps - 1:
        print(f"step {step}: loss {loss.item():.4f}")
