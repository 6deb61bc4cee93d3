"""Multi-head attention."""

from __future__ import annotations

from spiral import ops
from spiral.errors import ArgumentError, ShapeError, received
from spiral.nn import functional
from spiral.nn.arguments import Count, Probability, Size, flag, integer, real, tensors
from spiral.nn.linear import Linear
from spiral.nn.module import Module
from spiral.nn.rotary import RotaryEmbedding
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


class MultiHeadAttention(Module):
    """Multi-head attention (Vaswani et al. 2017) with grouped keys (Ainslie et al. 2023) and a sliding window.

    Args:
        d_model: Length of x's last axis.
        n_head: Query heads.
        n_kv_head: Key and value heads, a divisor of n_head; n_head by default.
        head_dim: Length of a head; d_model // n_head by default.
        causal: Whether a position sees only itself and those before it.
        window: If positive, how many positions back one sees.
        bias: Whether the projections have biases.
        dropout: Probability with which an attention weight is dropped, in training.
        rope: Rotates queries and keys; may be shared between layers.

    Example:
        >>> import spiral as sp
        >>> MultiHeadAttention(8, n_head=4, n_kv_head=2, causal=True)(sp.ones((2, 5, 8))).shape
        (2, 5, 8)
    """

    rope: RotaryEmbedding | None

    def __init__(
        self,
        d_model: Size,
        n_head: Size,
        n_kv_head: Size | None = None,
        *,
        head_dim: Size | None = None,
        causal: bool = False,
        window: Count = 0,
        bias: bool = True,
        dropout: Probability = 0.0,
        rope: RotaryEmbedding | None = None,
    ) -> None:
        super().__init__()
        name = "MultiHeadAttention"
        d_model = integer(name, "d_model", d_model, 1)
        n_head = integer(name, "n_head", n_head, 1)
        n_kv_head = n_head if n_kv_head is None else integer(name, "n_kv_head", n_kv_head, 1)
        head_dim = None if head_dim is None else integer(name, "head_dim", head_dim, 1)
        if rope is not None and not isinstance(rope, Module):
            raise ArgumentError(f"{name}: rope must be a RotaryEmbedding or None; received {received(rope)}.")
        if n_head % n_kv_head:
            raise ArgumentError(f"MultiHeadAttention: n_kv_head must divide n_head={n_head}; received {n_kv_head}.")
        if head_dim is None and d_model % n_head:
            raise ArgumentError(f"MultiHeadAttention: n_head must divide d_model={d_model}; received {n_head}.")
        self.dropout = real(name, "dropout", dropout, 0.0, 1.0)
        self.d_model = d_model
        self.n_head = n_head
        self.n_kv_head = n_kv_head
        self.head_dim = d_model // n_head if head_dim is None else head_dim
        self.causal = flag(name, "causal", causal)
        self.window = integer(name, "window", window, 0)
        self.q_proj = Linear(d_model, n_head * self.head_dim, bias)
        self.k_proj = Linear(d_model, n_kv_head * self.head_dim, bias)
        self.v_proj = Linear(d_model, n_kv_head * self.head_dim, bias)
        self.o_proj = Linear(n_head * self.head_dim, d_model, bias)
        self.rope = rope

    def _heads(self, x: Tensor, n_head: int) -> Tensor:
        """(B, T, n_head * D) to (B, n_head, T, D), a view."""
        b, t, _ = x.shape
        return ops.permute_dims(x.reshape(b, t, n_head, self.head_dim), (0, 2, 1, 3))

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None, offset: int = 0) -> Tensor:
        """Attends from x to itself, or to ``context``.

        Args:
            x: (B, T, d_model).
            mask: Broadcasts to (B, n_head, T, S); booleans mark pairs that may see each other, numbers are added.
            context: (B, S, d_model), what keys and values come from.
            offset: Position of x's first element, for rope.

        Returns:
            (B, T, d_model).

        Raises:
            ShapeError: x does not have this shape.
        """
        if not isinstance(x, TensorCore) or not (context is None or isinstance(context, TensorCore)):
            tensors("MultiHeadAttention", x=x, context=x if context is None else context)
        if x.ndim != 3 or x.shape[-1] != self.d_model:
            raise ShapeError(f"MultiHeadAttention: expected x (B, T, {self.d_model}); received {x.shape}.")
        source = x if context is None else context
        if source.ndim != 3 or source.shape[-1] != self.d_model:
            raise ShapeError(f"MultiHeadAttention: expected context (B, S, {self.d_model}); received {source.shape}.")
        q = self._heads(self.q_proj(x), self.n_head)
        k = self._heads(self.k_proj(source), self.n_kv_head)
        v = self._heads(self.v_proj(source), self.n_kv_head)
        if self.rope is not None:
            q, k = self.rope(q, offset), self.rope(k, offset)
        y = functional.scaled_dot_product_attention(
            q, k, v, mask, self.dropout if self.training else 0.0, is_causal=self.causal, window=self.window
        )
        b, t, _ = x.shape
        merged = ops.permute_dims(y, (0, 2, 1, 3)).reshape(b, t, self.n_head * self.head_dim)
        return self.o_proj(merged)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        parts = [f"{self.n_head} heads", f"{self.n_kv_head} kv heads"] + ["causal"] * self.causal
        return ", ".join(parts + [f"window={self.window}"] * bool(self.window))
