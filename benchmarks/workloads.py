"""What is trained: sizes, batches and initial weights, in NumPy, the same for every competitor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MLP:
    """Linear, relu, Linear."""

    inputs: int
    hidden: int
    classes: int
    batch: int


@dataclass(frozen=True)
class GPT:
    """Pre-norm decoder: learned positions, causal attention, GELU, an untied head, no dropout.

    Layer norms, the qkv projection and the head have no bias; the other linear layers have one. With ``gpt2`` all but
    the head have one, and the head is the embedding of tokens, as in GPT-2 (Radford et al. 2019).
    """

    layers: int
    heads: int
    dim: int
    vocabulary: int
    batch: int
    block_size: int
    gpt2: bool = False


@dataclass(frozen=True)
class Convnet:
    """Conv 3x3, relu, conv 3x3, relu, maxpool 2, Linear, relu, Linear."""

    side: int
    channels: tuple[int, int]
    hidden: int
    classes: int
    batch: int

    @property
    def features(self) -> int:
        """What one image has after pooling."""
        return self.channels[1] * ((self.side - 4) // 2) ** 2


Workload: TypeAlias = MLP | GPT | Convnet

WORKLOADS: dict[str, Workload] = {
    "mlp": MLP(inputs=784, hidden=256, classes=10, batch=64),
    "gpt": GPT(layers=4, heads=4, dim=128, vocabulary=65, batch=12, block_size=64),
    "conv": Convnet(side=28, channels=(32, 64), hidden=128, classes=10, batch=64),
    "gpt_large": GPT(layers=6, heads=6, dim=384, vocabulary=65, batch=4, block_size=256),
    "gpt2": GPT(layers=12, heads=12, dim=768, vocabulary=50257, batch=8, block_size=1024, gpt2=True),
    # for tests: the same architectures at sizes that take milliseconds
    "mlp_small": MLP(inputs=64, hidden=32, classes=10, batch=16),
    "gpt_small": GPT(layers=2, heads=2, dim=32, vocabulary=65, batch=4, block_size=16),
    "gpt2_small": GPT(layers=2, heads=2, dim=32, vocabulary=65, batch=2, block_size=16, gpt2=True),
    "conv_small": Convnet(side=12, channels=(4, 8), hidden=16, classes=10, batch=8),
}


def flops(workload: Workload) -> float:
    """Floating-point operations of the matrix products and convolutions of one training step.

    Forward, gradient of the weights and gradient of the inputs, 2 mnk each, without the gradient of the data;
    causal attention counted in full, elementwise work not at all.
    """
    if isinstance(workload, MLP):
        first = workload.batch * workload.inputs * workload.hidden
        return 4.0 * first + 6.0 * workload.batch * workload.hidden * workload.classes
    if isinstance(workload, GPT):
        tokens, d = workload.batch * workload.block_size, workload.dim
        products = tokens * (workload.layers * 12 * d * d + d * workload.vocabulary)
        scores = workload.layers * tokens * workload.block_size * d
        return 6.0 * products + (4.0 + 10.0) * scores
    side, (c1, c2) = workload.side, workload.channels
    conv1 = workload.batch * (side - 2) ** 2 * 9 * c1
    conv2 = workload.batch * (side - 4) ** 2 * 9 * c1 * c2
    linear = workload.batch * workload.hidden * (workload.features + workload.classes)
    return 4.0 * conv1 + 6.0 * (conv2 + linear)


def _markov_tokens(rng: np.random.Generator, workload: GPT) -> Array:
    """Half of the tokens follow from the one before: learnable, with a loss that stays far from 0."""
    length = workload.block_size + 1
    tokens = rng.integers(0, workload.vocabulary, (workload.batch, length))
    follows = rng.random((workload.batch, length)) < 0.5
    for i in range(1, length):
        rule = (5 * tokens[:, i - 1] + 3) % workload.vocabulary
        tokens[:, i] = np.where(follows[:, i], rule, tokens[:, i])
    return tokens


def batches(workload: Workload, *, count: int, seed: int) -> list[tuple[Array, Array]]:
    """Inputs and int64 targets of ``count`` batches.

    Args:
        workload: decides the shapes.
        count: number of batches.
        seed: of the generator.

    Returns:
        Pairs (inputs, targets): tokens (batch, block_size) with the tokens that follow them, or noisy
        images (batch, inputs) or (batch, 1, side, side) with their class (batch,). 30 % of the classes are
        replaced by chance, so that no run reaches a loss of 0, where ratios of losses mean nothing.
    """
    rng = np.random.default_rng(seed)
    if isinstance(workload, GPT):
        sequences = [_markov_tokens(rng, workload) for _ in range(count)]
        return [(np.ascontiguousarray(t[:, :-1]), np.ascontiguousarray(t[:, 1:])) for t in sequences]
    if isinstance(workload, MLP):
        shape: tuple[int, ...] = (workload.batch, workload.inputs)
    else:
        shape = (workload.batch, 1, workload.side, workload.side)
    centres = 0.2 * rng.standard_normal((workload.classes, *shape[1:]))
    found = []
    for _ in range(count):
        y = rng.integers(0, workload.classes, workload.batch)
        x = (centres[y] + rng.standard_normal(shape)).astype(np.float32)
        y = np.where(rng.random(len(y)) < 0.3, rng.integers(0, workload.classes, len(y)), y)
        found.append((x, y))
    return found


def initial_weights(shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> dict[str, Array]:
    """Initial float32 values of parameters, from their names and shapes alone.

    A value depends on its own name, never on the order of parameters, so two frameworks that name a
    parameter alike start it alike.
    """
    weights = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        noise = rng.standard_normal(shape)
        if len(shape) > 1:
            value = noise / math.sqrt(math.prod(shape[1:]))
        else:
            value = 0.02 * noise + (1.0 if name.endswith("weight") else 0.0)  # a norm's scale is near 1
        weights[name] = value.astype(np.float32)
    return weights
