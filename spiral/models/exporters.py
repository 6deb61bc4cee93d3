"""The formats that ``spiral export --format`` can name; plugins add theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spiral.errors import RegistryError, received
from spiral.models.files import save_llama, weight_arrays
from spiral.models.llama import Llama
from spiral.registry import Catalog, catalog
from spiral.text import Tokenizer


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"exporter {name!r}: expected a function of model, tokenizer and path; received {received(value)}."
        )


def gguf(
    model: Llama, tokenizer: Tokenizer, path: str | os.PathLike[str], *, type: str = "F16", name: str = "llama"
) -> str:
    """One GGUF file for llama.cpp.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        path: The file.
        type: How matrices are stored: F32, F16, BF16 or Q8_0.
        name: ``general.name``, what programs show.

    Returns:
        What was written, and which tensors got a wider type, in lines.
    """
    from spiral.io import export_llama_gguf

    result = export_llama_gguf(
        path, weight_arrays(model), model.config, tokenizer.gguf_fields(), type=type.upper(), name=name
    )
    wider = [f"  {tensor}: {reason}" for tensor, reason in result.fallbacks.items()]
    first = f"{result.path}: {result.bytes_written:,} bytes, {result.bits_per_weight:.2f} bits per weight"
    return "\n".join([first, *wider])


def safetensors(model: Llama, tokenizer: Tokenizer, path: str | os.PathLike[str]) -> str:
    """A folder in Hugging Face's layout: config.json, model.safetensors, tokenizer.json.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        path: The folder; made if need be.
    """
    weights = save_llama(Path(path), model, tokenizer)
    return f"{weights}: {weights.stat().st_size:,} bytes"


EXPORTERS: Catalog[Callable[..., str | None]] = catalog("exporter", _check)
"""Functions by name: called with model, tokenizer, path and keyword settings; write, and may return what to say."""

EXPORTERS.add("gguf", gguf)
EXPORTERS.add("safetensors", safetensors)
