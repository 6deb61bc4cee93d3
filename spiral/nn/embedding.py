"""Embedding: a row of a table for each index."""

from __future__ import annotations

from spiral import ops
from spiral.autograd import no_grad
from spiral.creation import arange, empty_
from spiral.errors import ArgumentError
from spiral.nn import functional, init
from spiral.nn.arguments import Size, integer
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.tensor import Tensor


class Embedding(Module):
    """weight[indices]; first values are standard normal.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Length of a row.
        padding_idx: Row that starts at zero and gets no gradient.
    """

    weight: Parameter
    padding_idx: int | None

    def __init__(self, num_embeddings: Size, embedding_dim: Size, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings = rows = integer("Embedding", "num_embeddings", num_embeddings, 1)
        self.embedding_dim = integer("Embedding", "embedding_dim", embedding_dim, 1)
        self.padding_idx = None
        if padding_idx is not None:
            padding_idx = integer("Embedding", "padding_idx", padding_idx)
            if not -rows <= padding_idx < rows:
                raise ArgumentError(f"Embedding: padding_idx must be in [0, {rows}); received {padding_idx}.")
            self.padding_idx = padding_idx % rows
        self.weight = Parameter(empty_((rows, self.embedding_dim)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                rows = ops.expand_dims(arange(self.num_embeddings, device=self.weight.device), axis=1)
                self.weight.copy_(ops.where(rows == self.padding_idx, 0.0, self.weight.detach()))

    def forward(self, indices: Tensor) -> Tensor:
        """indices (...) integers to (..., embedding_dim)."""
        return functional.embedding(indices, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        return f"padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
