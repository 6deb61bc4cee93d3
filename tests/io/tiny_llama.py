"""A Llama small enough to compute in float64 NumPy, with a byte-level vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiral.io.llama_names import llama_tensors


@dataclass(frozen=True)
class TinyConfig:
    """The configuration fields of `spiral.models.llama`."""

    vocab_size: int = 262
    context_length: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_kv_head: int = 2
    dim: int = 64
    ffn_dim: int = 96
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = False


def random_arrays(config: TinyConfig, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights large enough for attention and logits to be far from uniform."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for tensor in llama_tensors(config):
        values = rng.standard_normal(tensor.shape)
        scale, shift = (0.2, 1.0) if len(tensor.shape) == 1 else (2.0 / config.dim**0.5, 0.0)
        arrays[tensor.ours] = (values * scale + shift).astype(np.float32)
    return arrays


def tokenizer_fields(merges: tuple[str, ...] = ("t h", "th e", "a n")) -> dict[str, Any]:
    """A byte-level BPE in the form of `Tokenizer.gguf_fields`, without needing `tokenizers`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    spelled = {byte: chr(byte) for byte in printable}
    spelled |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    tokens = ["<|endoftext|>", *(spelled[byte] for byte in range(256))]
    tokens += [merge.replace(" ", "") for merge in merges]
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_types": [3] + [1] * (len(tokens) - 1),
        "merges": list(merges),
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def forward(arrays: dict[str, NDArray[Any]], config: TinyConfig, ids: list[int]) -> NDArray[np.float64]:
    """Log-probabilities (time, vocab_size) after each position, in float64."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config.n_layer):
        p = f"model.layers.{layer}."
        h = _rms_norm(x, w[p + "input_layernorm.weight"], config.norm_eps)
        q = _rope(_heads(h @ w[p + "self_attn.q_proj.weight"].T, config.n_head), config)
        k = _rope(_heads(h @ w[p + "self_attn.k_proj.weight"].T, config.n_kv_head), config)
        v = _heads(h @ w[p + "self_attn.v_proj.weight"].T, config.n_kv_head)
        groups = config.n_head // config.n_kv_head
        mixed = _attention(q, np.repeat(k, groups, axis=0), np.repeat(v, groups, axis=0))
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        h = _rms_norm(x, w[p + "post_attention_layernorm.weight"], config.norm_eps)
        gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    x = _rms_norm(x, w["model.norm.weight"], config.norm_eps)
    head = w["model.embed_tokens.weight" if config.tied else "lm_head.weight"]
    logits = x @ head.T
    top = logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return result


def _rms_norm(x: NDArray[np.float64], weight: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    normalised: NDArray[np.float64] = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return normalised * weight


def _heads(x: NDArray[np.float64], n_head: int) -> NDArray[np.float64]:
    return x.reshape(len(x), n_head, -1).swapaxes(0, 1)


def _rope(x: NDArray[np.float64], config: TinyConfig) -> NDArray[np.float64]:
    """Rotate (i, i + half), Hugging Face's layout; x is (heads, time, head_dim)."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] / config.rope_theta ** (np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _attention(q: NDArray[np.float64], k: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    time = q.shape[1]
    scores = q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5
    scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: NDArray[np.float64] = weights @ v
    return mixed.swapaxes(0, 1).reshape(time, -1)
