"""The GGUF metadata of a Llama: its configuration and its tokenizer, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from spiral.errors import ArgumentError, FormatError
from spiral.io.gguf_read import GGUFFile
from spiral.io.llama_names import LlamaShape

# Our configuration's field, GGUF's key, the type it is written with.
_CONFIG_KEYS: tuple[tuple[str, str, type[np.generic]], ...] = (
    ("vocab_size", "llama.vocab_size", np.uint32),
    ("context_length", "llama.context_length", np.uint32),
    ("dim", "llama.embedding_length", np.uint32),
    ("n_layer", "llama.block_count", np.uint32),
    ("ffn_dim", "llama.feed_forward_length", np.uint32),
    ("n_head", "llama.attention.head_count", np.uint32),
    ("n_kv_head", "llama.attention.head_count_kv", np.uint32),
    ("rope_theta", "llama.rope.freq_base", np.float32),
    ("norm_eps", "llama.attention.layer_norm_rms_epsilon", np.float32),
)
# What llama.cpp takes where a file is silent; every other key must be there.
_CONFIG_DEFAULTS: dict[str, Any] = {"llama.rope.freq_base": 10000.0}
# Keys of variants that this family does not have, with the only value that changes nothing.
_MUST_BE: dict[str, Any] = {
    "llama.rope.scaling.type": "none",
    "llama.expert_count": 0,
    "llama.attention.sliding_window": 0,
}
_TOKENIZER_REQUIRED = ("model", "pre", "tokens", "token_types", "merges")
_TOKENIZER_KEYS = {
    "model": "tokenizer.ggml.model",
    "pre": "tokenizer.ggml.pre",
    "tokens": "tokenizer.ggml.tokens",
    "token_types": "tokenizer.ggml.token_type",
    "merges": "tokenizer.ggml.merges",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "unknown_token_id": "tokenizer.ggml.unknown_token_id",
    "padding_token_id": "tokenizer.ggml.padding_token_id",
    "add_bos_token": "tokenizer.ggml.add_bos_token",
    "add_eos_token": "tokenizer.ggml.add_eos_token",
    "chat_template": "tokenizer.chat_template",
}
_UNUSED = 5  # token type of rows that stand for no text


def config_metadata(config: LlamaShape) -> dict[str, Any]:
    """The ``llama.*`` keys of a configuration.

    Args:
        config: The model's configuration.

    Raises:
        ArgumentError: A field is not positive, or the heads do not divide what they must divide.
    """
    for field, _, kind in _CONFIG_KEYS:
        value = getattr(config, field)
        if not 0 < value < (2**32 if kind is np.uint32 else math.inf):
            raise ArgumentError(f"export_llama_gguf: config.{field} must be positive and finite; received {value}.")
    if config.dim % config.n_head or config.n_head % config.n_kv_head or config.dim // config.n_head % 2:
        raise ArgumentError(
            "export_llama_gguf: n_head must divide dim into heads of even size and n_kv_head must "
            f"divide n_head; received dim {config.dim}, n_head {config.n_head}, n_kv_head "
            f"{config.n_kv_head}."
        )
    keys = {key: kind(getattr(config, field)) for field, key, kind in _CONFIG_KEYS}
    return {**keys, "llama.rope.dimension_count": np.uint32(config.dim // config.n_head)}


def read_config(file: GGUFFile) -> dict[str, Any]:
    """The configuration that a Llama's GGUF file describes; the inverse of `config_metadata`.

    Args:
        file: An open GGUF file.

    Returns:
        The fields of the configuration, ``tied`` among them.

    Raises:
        FormatError: It is another architecture, a variant that is not supported here, or a key is
            missing or senseless.
    """
    found = file.metadata
    architecture = found.get("general.architecture")
    if architecture != "llama":
        raise FormatError(f"{file.path}: general.architecture must be 'llama'; received {str(architecture)[:80]!r}.")
    for key, neutral in _MUST_BE.items():
        if found.get(key, neutral) != neutral:
            raise FormatError(
                f"{file.path}: {key} must be {neutral!r}, other Llama variants are not supported; "
                f"received {repr(found[key])[:80]}."
            )
    defaults = _defaults(file)
    config: dict[str, Any] = {}
    for field, key, kind in _CONFIG_KEYS:
        value = found.get(key, defaults.get(key))
        wanted = int if kind is np.uint32 else float
        if type(value) is not wanted or not value > 0:
            received = str(value)[:80]
            raise FormatError(f"{file.path}: {key} must be a positive {wanted.__name__}; received {received}.")
        # 9.999999747378752e-06 is how float32 holds 1e-5; the shortest text that means the same
        # float32 gives the 1e-5 back
        config[field] = value if wanted is int else float(str(np.float32(value)))
    _require_heads(file, config)
    return {**config, "tied": "output.weight" not in file.tensors}


def tokenizer_metadata(fields: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """The ``tokenizer.*`` keys of a tokenizer, padded to the model's vocabulary.

    Args:
        fields: What `Tokenizer.gguf_fields` gives.
        vocab_size: Rows of the embedding. Rows without a token get ``[PAD7]`` and the like, of
            the type that llama.cpp never samples.

    Raises:
        ArgumentError: A field is missing or unknown, or there are more tokens than rows.
    """
    missing = [field for field in _TOKENIZER_REQUIRED if field not in fields]
    unknown = [field for field in fields if field not in _TOKENIZER_KEYS]
    if missing or unknown:
        raise ArgumentError(
            f"export_llama_gguf: tokenizer_fields must have {', '.join(_TOKENIZER_REQUIRED)} and "
            f"may have {', '.join(list(_TOKENIZER_KEYS)[len(_TOKENIZER_REQUIRED) :])}; missing: "
            f"{missing}, unknown: {unknown}; use Tokenizer.gguf_fields()."
        )
    tokens, types = list(fields["tokens"]), list(fields["token_types"])
    if not 0 < len(tokens) <= vocab_size or len(types) != len(tokens):
        raise ArgumentError(
            f"export_llama_gguf: expected at most vocab_size = {vocab_size} tokens with one type "
            f"each; received {len(tokens)} tokens and {len(types)} types: is this the tokenizer "
            "that the model was trained with?"
        )
    padding = range(len(tokens), vocab_size)
    written = {
        **fields,
        "tokens": tokens + [f"[PAD{index}]" for index in padding],
        "token_types": np.array(types + [_UNUSED] * len(padding), np.int32),
        "merges": np.array([], np.str_) if not fields["merges"] else list(fields["merges"]),
    }
    return {_TOKENIZER_KEYS[field]: value for field, value in written.items()}


def read_tokenizer(file: GGUFFile) -> dict[str, Any]:
    """The tokenizer fields of a GGUF file; the inverse of `tokenizer_metadata`.

    Args:
        file: An open GGUF file.

    Returns:
        The fields that the file has, padding removed.

    Raises:
        FormatError: Tokens and their types do not belong together.
    """
    fields = {field: file.metadata[key] for field, key in _TOKENIZER_KEYS.items() if key in file.metadata}
    tokens, types = fields.get("tokens", []), fields.get("token_types", [])
    kinds = [file.value_types.get(_TOKENIZER_KEYS[field], "") for field in ("tokens", "merges")]
    if not set(kinds) <= {"", "ARRAY[STRING]"} or not isinstance(types, list):
        raise FormatError(
            f"{file.path}: tokenizer.ggml.tokens and merges must be arrays of strings and "
            f"token_type an array; received {kinds} and {type(types).__name__}."
        )
    if types and len(types) != len(tokens):
        raise FormatError(
            f"{file.path}: tokenizer.ggml.token_type must have one entry for each of the "
            f"{len(tokens)} tokens; received {len(types)}."
        )
    count = len(tokens)
    while types and count and types[count - 1] == _UNUSED and tokens[count - 1] == f"[PAD{count - 1}]":
        count -= 1
    for field in ("tokens", "token_types"):
        if field in fields:
            fields[field] = fields[field][:count]
    return fields


def _defaults(file: GGUFFile) -> dict[str, Any]:
    """What a file may leave out: llama.cpp's defaults, and the vocabulary's size."""
    embedding = file.tensors.get("token_embd.weight")
    rows = embedding.shape[0] if embedding and embedding.shape else None
    return {
        **_CONFIG_DEFAULTS,
        "llama.vocab_size": rows,
        "llama.attention.head_count_kv": file.metadata.get("llama.attention.head_count"),
    }


def _require_heads(file: GGUFFile, config: dict[str, Any]) -> None:
    dim, n_head, n_kv_head = config["dim"], config["n_head"], config["n_kv_head"]
    if dim % n_head or n_head % n_kv_head or dim // n_head % 2:
        raise FormatError(
            f"{file.path}: expected heads of even size and whole groups; received embedding_length "
            f"{dim}, head_count {n_head}, head_count_kv {n_kv_head}."
        )
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        size = file.metadata.get(f"llama.{key}", dim // n_head)
        if size != dim // n_head:
            raise FormatError(
                f"{file.path}: llama.{key} must be embedding_length / head_count = "
                f"{dim // n_head}, other head sizes are not supported; received {str(size)[:80]}."
            )
