"""Llama-style language models: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Parameters have the names of Hugging Face's checkpoints, so that safetensors files and the GGUF
export need no translation table here. Touvron et al. 2023, "Llama 2".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import spiral as sp
from spiral import nn
from spiral.device import Device, cpu
from spiral.errors import ConfigError, ShapeError
from spiral.tensor import Tensor

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (batch, kv heads, positions, head size)."""

# our field, the field of a Hugging Face config.json
_HUGGING_FACE = (
    ("vocab_size", "vocab_size"),
    ("context_length", "max_position_embeddings"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_kv_head", "num_key_value_heads"),
    ("dim", "hidden_size"),
    ("ffn_dim", "intermediate_size"),
    ("rope_theta", "rope_theta"),
    ("norm_eps", "rms_norm_eps"),
    ("tied", "tie_word_embeddings"),
)


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a Llama.

    Args:
        vocab_size: Rows of the embedding.
        context_length: Longest sequence it is trained for.
        n_layer: Number of blocks.
        n_head: Query heads; they divide `dim` into heads of even size.
        n_kv_head: Key and value heads; divides `n_head`.
        dim: Width of the residual stream.
        ffn_dim: Width of the SwiGLU layer.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Added to the mean square in RMSNorm.
        tied: Whether the embedding is also the output projection.
        dropout: Share of the embedding's and each layer's outputs set to zero in training; no part of files.

    Raises:
        ConfigError: A number is not positive, or the heads do not divide what they must divide.

    Example:
        >>> LlamaConfig(vocab_size=64, context_length=8, n_layer=1, n_head=2, n_kv_head=1, dim=8, ffn_dim=16).head_dim
        4
    """

    vocab_size: int
    context_length: int
    n_layer: int
    n_head: int
    n_kv_head: int
    dim: int
    ffn_dim: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "tied":
                if not isinstance(value, bool):
                    raise ConfigError(f"LlamaConfig: tied must be True or False; received {value!r}.")
                continue
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = field.type == "int"
            if not real or (whole and not isinstance(value, int)):
                raise ConfigError(
                    f"LlamaConfig: {field.name} must be {'an integer' if whole else 'a number'}; received {value!r}."
                )
            if field.name != "dropout" and not 0 < value < (2**31 if whole else math.inf):
                raise ConfigError(
                    f"LlamaConfig: {field.name} must be positive and {'below 2**31' if whole else 'finite'}; "
                    f"received {value!r}."
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"LlamaConfig: dropout must be at least 0 and below 1; received {self.dropout!r}.")
        if self.dim % self.n_head or self.dim // self.n_head % 2:
            raise ConfigError(
                f"LlamaConfig: n_head must divide dim into heads of even size; received dim={self.dim}, "
                f"n_head={self.n_head}; try n_head={_nearest_heads(self.dim, self.n_head)}."
            )
        if self.n_head % self.n_kv_head:
            raise ConfigError(
                f"LlamaConfig: n_kv_head must divide n_head={self.n_head}; received {self.n_kv_head}; "
                f"try n_kv_head={math.gcd(self.n_head, self.n_kv_head)}."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_head

    def num_parameters(self) -> int:
        """How many numbers the model's weights are, known without making it."""
        kv_width = self.n_kv_head * self.head_dim
        block = 2 * self.dim * self.dim + 2 * self.dim * kv_width + 3 * self.dim * self.ffn_dim + 2 * self.dim
        return self.n_layer * block + (1 if self.tied else 2) * self.vocab_size * self.dim + self.dim

    def to_hugging_face(self) -> dict[str, Any]:
        """The content of a ``config.json`` that Hugging Face's transformers reads."""
        fields = {theirs: getattr(self, ours) for ours, theirs in _HUGGING_FACE}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "float32",
            **fields,
        }

    @classmethod
    def from_hugging_face(cls, fields: Mapping[str, Any]) -> LlamaConfig:
        """The configuration in a ``config.json``.

        Raises:
            ConfigError: It is another kind of model, or a field is missing.
        """
        if fields.get("model_type") != "llama":
            raise ConfigError(f"LlamaConfig: model_type must be 'llama'; received {fields.get('model_type')!r}.")
        missing = [theirs for _, theirs in _HUGGING_FACE if theirs not in fields]
        if missing:
            raise ConfigError(f"LlamaConfig: config.json lacks {', '.join(missing)}.")
        return cls(**{ours: fields[theirs] for ours, theirs in _HUGGING_FACE})


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions (Ainslie et al. 2023; Su et al. 2021)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        kv_width = config.n_kv_head * config.head_dim
        self.q_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.k_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.v_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.o_proj = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, rotary: KeyValue, past: KeyValue | None, offset: int) -> tuple[Tensor, KeyValue]:
        """Attention of x (batch, time, dim) to itself and the past; also gives all keys and values."""
        q = sp.rope(self._heads(self.q_proj(x), self.n_head), *rotary, offset=offset)
        k = sp.rope(self._heads(self.k_proj(x), self.n_kv_head), *rotary, offset=offset)
        v = self._heads(self.v_proj(x), self.n_kv_head)
        if past is not None:
            k, v = sp.concat([past[0], k], axis=2), sp.concat([past[1], v], axis=2)
        y = sp.attention(q, k, v, causal=True, scale=1.0 / math.sqrt(self.head_dim))
        return self.o_proj(sp.permute_dims(y, (0, 2, 1, 3)).reshape(x.shape)), (k, v)

    def _heads(self, x: Tensor, n_head: int) -> Tensor:
        batch, time, _ = x.shape
        return sp.permute_dims(x.reshape(batch, time, n_head, self.head_dim), (0, 2, 1, 3))


class MLP(nn.Module):
    """SwiGLU feed-forward layer (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.down_proj = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        y: Tensor = self.down_proj(sp.swiglu(self.gate_proj(x), self.up_proj(x)))
        return y


class Block(nn.Module):
    """Attention and feed-forward layer, each normalised before and added to the residual stream."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: KeyValue, past: KeyValue | None, offset: int) -> tuple[Tensor, KeyValue]:
        """(batch, time, dim) to the same; also gives all keys and values of this layer."""
        attended, present = self.self_attn(self.input_layernorm(x), rotary, past, offset)
        normed, x = self.post_attention_layernorm(self.dropout(attended), x)
        return x + self.dropout(self.mlp(normed)), present


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: what Hugging Face's names call ``model``."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)


class Llama(nn.Module):
    """A Llama-style language model.

    Args:
        config: Its shape.

    Example:
        >>> import spiral as sp
        >>> model = Llama(LlamaConfig(32, context_length=8, n_layer=1, n_head=2, n_kv_head=1, dim=8, ffn_dim=16))
        >>> model(sp.zeros((2, 8), dtype=sp.int64)).shape
        (2, 8, 32)
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, time, vocabulary) of tokens (batch, time)."""
        return self.step(tokens, None)[0]

    def step(self, tokens: Tensor, past: list[KeyValue] | None) -> tuple[Tensor, list[KeyValue]]:
        """Logits of tokens (batch, time) that follow the past, and the keys and values of all so far.

        Raises:
            ShapeError: Together they are longer than the context.
        """
        x, present = self._hidden(tokens, past)
        return sp.linear(x, self._output_weight()), present

    def _hidden(self, tokens: Tensor, past: list[KeyValue] | None) -> tuple[Tensor, list[KeyValue]]:
        """What the output projection gets, (batch, time, dim), and the keys and values of all so far."""
        offset = past[0][0].shape[2] if past else 0
        if tokens.ndim != 2 or offset + tokens.shape[1] > self.config.context_length:
            raise ShapeError(
                f"Llama: tokens must be (batch, time) with at most {self.config.context_length} positions "
                f"(context_length); received {tokens.shape}" + (f" after {offset} positions." if offset else ".")
            )
        # a file may claim a context of billions: the tables are made for what is used, in powers of two
        needed = 1 << max(0, offset + tokens.shape[1] - 1).bit_length()
        positions = min(self.config.context_length, needed)
        rotary = rotary_tables(positions, self.config.head_dim, self.config.rope_theta, tokens.device)
        x = self.model.dropout(self.model.embed_tokens(tokens))
        present = []
        for i, block in enumerate(self.model.layers):
            x, keys_and_values = block(x, rotary, past[i] if past else None, offset)
            present.append(keys_and_values)
        return self.model.norm(x), present

    def loss(self, tokens: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of targets (batch, time) given tokens (batch, time)."""
        if type(self) is Llama and not self._hooked:
            x = self._hidden(tokens, None)[0].reshape(-1, self.config.dim)
            return sp.linear_cross_entropy(x, self._output_weight(), targets.reshape(-1), reduction=reduction)
        logits = self(tokens)  # a hook, or a subclass, may change them
        if logits.dtype != sp.float32:  # a sum over the vocabulary in 16 bits would round the loss
            logits = logits.astype(sp.float32, copy=False)
        return sp.cross_entropy(logits.reshape(-1, self.config.vocab_size), targets.reshape(-1), reduction=reduction)

    def generate(
        self, prompt: Any, n: int, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> list[int]:
        """Up to n tokens that follow the prompt's; see `spiral.models.generate`."""
        from spiral.models.generate import generate

        return list(generate(self, prompt, n, temperature=temperature, top_k=top_k, seed=seed))

    def _output_weight(self) -> Tensor:
        head = self.model.embed_tokens if self.config.tied else self.lm_head
        weight: Tensor = head.weight
        return weight

    def _initialise(self) -> None:
        """Normal weights of deviation 0.02, smaller where they add to the residual stream (GPT-2)."""
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(
                    parameter, std=residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                )


@lru_cache(maxsize=32)
def rotary_tables(positions: int, head_dim: int, theta: float, device: Device = cpu) -> KeyValue:
    """Cosine and sine tables, each (positions, head_dim / 2), computed in float64, on a device."""
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angles = np.outer(np.arange(positions, dtype=np.float64), frequencies)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return sp.asarray(cos, device=device), sp.asarray(sin, device=device)


def _nearest_heads(dim: int, n_head: int) -> int:
    fitting = [h for h in range(1, dim + 1) if dim % h == 0 and dim // h % 2 == 0]
    return min(fitting, key=lambda h: abs(h - n_head)) if fitting else 1
