"""How a Llama's tensors are called and laid out in Hugging Face checkpoints and in GGUF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray


class LlamaShape(Protocol):
    """The fields of a Llama's configuration that its files depend on."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def n_layer(self) -> int: ...
    @property
    def n_head(self) -> int: ...
    @property
    def n_kv_head(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def ffn_dim(self) -> int: ...
    @property
    def rope_theta(self) -> float: ...
    @property
    def norm_eps(self) -> float: ...
    @property
    def tied(self) -> bool: ...


class Mapped(NamedTuple):
    """One tensor under both names; `rope_heads` is not 0 where its rows are rotated by RoPE."""

    ours: str
    gguf: str
    shape: tuple[int, ...]
    rope_heads: int = 0


def llama_tensors(config: LlamaShape) -> Iterator[Mapped]:
    """Every tensor of a Llama, in the order in which llama-quantize writes them.

    That order is: what belongs to no layer by name, then layer by layer, by name.

    Args:
        config: The model's configuration.

    Yields:
        The tensors with their names, and their shapes in NumPy's order.
    """
    width, hidden = config.dim, config.ffn_dim
    kv_width = config.n_kv_head * (width // config.n_head)
    if not config.tied:
        yield Mapped("lm_head.weight", "output.weight", (config.vocab_size, width))
    yield Mapped("model.norm.weight", "output_norm.weight", (width,))
    yield Mapped("model.embed_tokens.weight", "token_embd.weight", (config.vocab_size, width))
    parts = (
        ("self_attn.k_proj", "attn_k", (kv_width, width), config.n_kv_head),
        ("input_layernorm", "attn_norm", (width,), 0),
        ("self_attn.o_proj", "attn_output", (width, width), 0),
        ("self_attn.q_proj", "attn_q", (width, width), config.n_head),
        ("self_attn.v_proj", "attn_v", (kv_width, width), 0),
        ("mlp.down_proj", "ffn_down", (width, hidden), 0),
        ("mlp.gate_proj", "ffn_gate", (hidden, width), 0),
        ("post_attention_layernorm", "ffn_norm", (width,), 0),
        ("mlp.up_proj", "ffn_up", (hidden, width), 0),
    )
    for layer in range(config.n_layer):
        for ours, theirs, shape, rope_heads in parts:
            yield Mapped(
                f"model.layers.{layer}.{ours}.weight",
                f"blk.{layer}.{theirs}.weight",
                shape,
                rope_heads,
            )


def interleave_rope(rows: NDArray[Any], n_head: int) -> NDArray[Any]:
    """Reorder the rows of q or k from Hugging Face's RoPE layout to llama.cpp's.

    Hugging Face rotates elements (i, i + half) of a head, llama.cpp's ``llama`` architecture
    elements (2i, 2i + 1); moving the rows makes both compute the same scores.

    Args:
        rows: (n_head * head_dim, in) weight.
        n_head: Heads of this weight: for k the key-value heads.

    Returns:
        (n_head * head_dim, in), a copy.

    Example:
        >>> import numpy as np
        >>> interleave_rope(np.arange(8).reshape(8, 1), 2).ravel().tolist()
        [0, 2, 1, 3, 4, 6, 5, 7]
    """
    heads = rows.reshape(n_head, 2, -1, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def deinterleave_rope(rows: NDArray[Any], n_head: int) -> NDArray[Any]:
    """The inverse of `interleave_rope`.

    Args:
        rows: (n_head * head_dim, in) weight in llama.cpp's layout.
        n_head: Heads of this weight.

    Returns:
        (n_head * head_dim, in), a copy.

    Example:
        >>> import numpy as np
        >>> deinterleave_rope(np.array([[0], [2], [1], [3]]), 1).ravel().tolist()
        [0, 1, 2, 3]
    """
    heads = rows.reshape(n_head, -1, 2, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)
