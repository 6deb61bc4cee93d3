"""The workloads' models and their training step in spiral."""

from __future__ import annotations

import time
from collections.abc import Sequence

import spiral as sp
from benchmarks.workloads import GPT, MLP, Array, Convnet, Workload, initial_weights
from spiral import nn
from spiral.optim import AdamW


class MLPModel(nn.Module):
    def __init__(self, w: MLP) -> None:
        super().__init__()
        self.hidden = nn.Linear(w.inputs, w.hidden)
        self.output = nn.Linear(w.hidden, w.classes)

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        logits: sp.Tensor = self.output(sp.relu(self.hidden(x)))
        return logits


class Attention(nn.Module):
    def __init__(self, w: GPT) -> None:
        super().__init__()
        self.heads = w.heads
        self.qkv = nn.Linear(w.dim, 3 * w.dim, bias=w.gpt2)
        self.projection = nn.Linear(w.dim, w.dim)

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        batch, time, dim = x.shape
        q, k, v = [
            sp.permute_dims(sp.reshape(part, (batch, time, self.heads, dim // self.heads)), (0, 2, 1, 3))
            for part in sp.split(self.qkv(x), 3, axis=-1)
        ]
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        projected: sp.Tensor = self.projection(sp.reshape(sp.permute_dims(y, (0, 2, 1, 3)), (batch, time, dim)))
        return projected


class Block(nn.Module):
    def __init__(self, w: GPT) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(w.dim, bias=w.gpt2)
        self.attention = Attention(w)
        self.norm_mlp = nn.LayerNorm(w.dim, bias=w.gpt2)
        self.up = nn.Linear(w.dim, 4 * w.dim)
        self.down = nn.Linear(4 * w.dim, w.dim)

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        x = x + self.attention(self.norm_attention(x))
        y: sp.Tensor = x + self.down(nn.functional.gelu(self.up(self.norm_mlp(x))))
        return y


class GPTModel(nn.Module):
    def __init__(self, w: GPT) -> None:
        super().__init__()
        self.tokens = nn.Embedding(w.vocabulary, w.dim)
        self.positions = nn.Embedding(w.block_size, w.dim)
        self.blocks = nn.ModuleList([Block(w) for _ in range(w.layers)])
        self.norm = nn.LayerNorm(w.dim, bias=w.gpt2)
        self.head = nn.Linear(w.dim, w.vocabulary, bias=False)
        if w.gpt2:
            self.head.weight = self.tokens.weight
        self.index = sp.arange(w.block_size)

    def hidden(self, x: sp.Tensor) -> sp.Tensor:
        """What the head makes logits of: (batch, time, dim)."""
        y = self.tokens(x) + self.positions(self.index)
        for block in self.blocks:
            y = block(y)
        last: sp.Tensor = self.norm(y)
        return last

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        logits: sp.Tensor = self.head(self.hidden(x))
        return logits


class ConvModel(nn.Module):
    def __init__(self, w: Convnet) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, w.channels[0], 3)
        self.conv2 = nn.Conv2d(w.channels[0], w.channels[1], 3)
        self.hidden = nn.Linear(w.features, w.hidden)
        self.output = nn.Linear(w.hidden, w.classes)
        self.features = w.features

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        y = sp.relu(self.conv2(sp.relu(self.conv1(x))))
        y = nn.functional.max_pool2d(y, 2)
        logits: sp.Tensor = self.output(sp.relu(self.hidden(sp.reshape(y, (-1, self.features)))))
        return logits


def build(w: Workload) -> nn.Module:
    """The model of a workload, with the module's own initial values."""
    if isinstance(w, MLP):
        return MLPModel(w)
    return GPTModel(w) if isinstance(w, GPT) else ConvModel(w)


class Trainer:
    """A model with its optimizer and batches; ``step`` is one whole training step."""

    def __init__(
        self,
        w: Workload,
        data: Sequence[tuple[Array, Array]],
        *,
        seed: int,
        lr: float,
        threads: int,
    ) -> None:
        sp.set_num_threads(threads)
        self.model = build(w)
        parameters = dict(self.model.named_parameters())
        self.shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        weights = initial_weights(self.shapes, seed=seed)
        self.model.load_state_dict({name: sp.asarray(value) for name, value in weights.items()})
        self.optimizer = AdamW(list(parameters.values()), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        self.batches = [(sp.asarray(x), sp.asarray(y)) for x, y in data]
        self.steps = 0

    def step(self) -> sp.Tensor:
        """Forward, loss, backward, AdamW on the next batch; returns the loss."""
        x, y = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = nn.functional.cross_entropy(sp.reshape(logits, (-1, logits.shape[-1])), sp.reshape(y, (-1,)))
        loss.backward()
        self.optimizer.step()
        return loss

    def product_seconds(self, size: int) -> float:
        """Seconds of one product of two (size, size) matrices."""
        a = sp.random.normal((size, size))
        start = time.perf_counter()
        sp.matmul(a, a)
        return time.perf_counter() - start
