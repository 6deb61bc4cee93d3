"""Rotary position embedding with cached tables."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from spiral import ops
from spiral.creation import asarray
from spiral.errors import ArgumentError, ShapeError
from spiral.nn.arguments import Positive, Size, flag, integer, real, tensors
from spiral.nn.module import Module
from spiral.schema_values import Range
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


class RotaryEmbedding(Module):
    """Rotates pairs of x by angles position * theta^(-2i / dim) (Su et al. 2021).

    Args:
        dim: How many of a head's columns are rotated; even. The rest is copied.
        max_positions: Rows of the first tables; they grow when a longer sequence comes.
        theta: Base of the frequencies.
        interleaved: Whether pairs are (2i, 2i + 1) (the paper, llama.cpp) rather than the two halves (Hugging Face).
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        dim: Annotated[int, Range(2)],
        max_positions: Size = 2048,
        theta: Positive = 10000.0,
        interleaved: bool = False,
    ) -> None:
        super().__init__()
        dim = integer("RotaryEmbedding", "dim", dim)
        max_positions = integer("RotaryEmbedding", "max_positions", max_positions, 1)
        if dim < 2 or dim % 2:
            raise ArgumentError(f"RotaryEmbedding: dim must be even and positive; received {dim}.")
        self.dim = dim
        self.theta = real("RotaryEmbedding", "theta", theta, 0.0, above=True)
        self.interleaved = flag("RotaryEmbedding", "interleaved", interleaved)
        cos, sin = self._tables(max_positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _tables(self, positions: int) -> tuple[Tensor, Tensor]:
        # angles in float64: position * frequency in float32 is off by 1e-3 at position 10^4
        frequencies = self.theta ** (-np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        angles = np.arange(positions, dtype=np.float64)[:, None] * frequencies
        return asarray(np.cos(angles).astype(np.float32)), asarray(np.sin(angles).astype(np.float32))

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """x (B, H, T, D), whose first position is ``offset``, rotated."""
        if not isinstance(x, TensorCore):
            tensors("RotaryEmbedding", x=x)
        if x.ndim != 4:
            raise ShapeError(f"RotaryEmbedding: expected x (B, H, T, D); received {x.shape}.")
        if offset.__class__ is not int or offset < 0:
            offset = integer("RotaryEmbedding", "offset", offset, 0)
        needed = offset + x.shape[2]
        if needed > self.cos.shape[0]:
            cos, sin = self._tables(max(needed, 2 * self.cos.shape[0]))
            dtype, device = self.cos.dtype, self.cos.device
            self.cos, self.sin = cos.to(dtype).to(device), sin.to(dtype).to(device)
        return ops.rope(x, self.cos, self.sin, offset=offset, interleaved=self.interleaved)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, theta={self.theta}, interleaved={self.interleaved}"
