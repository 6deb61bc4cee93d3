"""Llama-style models to GGUF and back: the file that llama.cpp runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ArgumentError, FormatError
from spiral.io.gguf_read import GGUFFile
from spiral.io.gguf_types import TENSOR_TYPES, as_float32, fitting_type, writable_type
from spiral.io.gguf_write import TensorSource, write_gguf
from spiral.io.llama_metadata import (
    config_metadata,
    read_config,
    read_tokenizer,
    tokenizer_metadata,
)
from spiral.io.llama_names import (
    LlamaShape,
    Mapped,
    deinterleave_rope,
    interleave_rope,
    llama_tensors,
)

# `general.file_type` (llama_ftype in llama.h) and GGML_QNT_VERSION
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
_QUANTIZATION_VERSION = 2
# Computed by llama.cpp from rope.freq_base when absent; with it, RoPE is scaled.
_ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class ExportResult:
    """What `export_llama_gguf` wrote.

    Args:
        path: The file.
        tensor_types: GGUF tensor name to type.
        fallbacks: GGUF tensor name to why it did not get the type asked for; empty as a rule.
        metadata_keys: The keys in the file's order.
        bytes_written: The file's size.
        bits_per_weight: Bits of tensor data for each parameter, metadata not counted.
    """

    path: Path
    tensor_types: dict[str, str]
    fallbacks: dict[str, str]
    metadata_keys: list[str]
    bytes_written: int
    bits_per_weight: float


class LlamaImport(NamedTuple):
    """What `import_llama_gguf` read."""

    arrays: dict[str, NDArray[np.float32]]
    config: dict[str, Any]
    tokenizer_fields: dict[str, Any]


def export_llama_gguf(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    config: LlamaShape,
    tokenizer_fields: Mapping[str, Any],
    *,
    type: str = "F16",
    name: str = "llama",
    extra_metadata: Mapping[str, Any] | None = None,
) -> ExportResult:
    """Write a Llama as a GGUF file that llama.cpp loads.

    Args:
        path: The file to write; one that stood there is replaced when the new one is whole.
        arrays: The model's state dict in Hugging Face's names and layout, RoPE in halves.
        config: The model's configuration.
        tokenizer_fields: What `Tokenizer.gguf_fields` gives.
        type: How matrices are stored: ``"F32"``, ``"F16"``, ``"BF16"`` or ``"Q8_0"``. Norms are
            always F32. A matrix that the type cannot hold gets a wider one; see
            `ExportResult.fallbacks`.
        name: ``general.name``, what programs show.
        extra_metadata: Further keys, such as ``general.license``; see `write_gguf`.

    Returns:
        What was written.

    Raises:
        ArgumentError: Tensors are missing, unexpected, of a wrong shape or not finite, or
            tokenizer, type or metadata do not fit.
        SaveError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from spiral.models import Llama, LlamaConfig
        >>> from spiral.models.files import weight_arrays
        >>> from spiral.text import Tokenizer
        >>> tokenizer = Tokenizer.train("the cat, the hat, the bat", vocab_size=260)
        >>> model = Llama(LlamaConfig(tokenizer.vocab_size, 8, n_layer=1, n_head=2, n_kv_head=1, dim=32, ffn_dim=64))
        >>> path = tempfile.mkdtemp() + "/tiny.gguf"
        >>> written = export_llama_gguf(
        ...     path, weight_arrays(model), model.config, tokenizer.gguf_fields(), type="Q8_0"
        ... )
        >>> written.tensor_types["blk.0.attn_q.weight"]
        'Q8_0'
    """
    writable_type(type)
    metadata = _metadata(config, tokenizer_fields, type, name, extra_metadata or {})
    mapped = list(llama_tensors(config))
    _require_names(arrays, mapped, tied=config.tied)
    sources, fallbacks = [], {}
    for tensor in mapped:
        largest = _largest_magnitude(tensor, arrays[tensor.ours])
        wanted = "F32" if len(tensor.shape) == 1 else type
        row, reason = fitting_type(wanted, tensor.shape, largest)
        if reason:
            fallbacks[tensor.gguf] = f"{row.name}: {reason}"
        sources.append(TensorSource(tensor.gguf, tensor.shape, row.name, _reader(tensor, arrays[tensor.ours])))
    written = write_gguf(path, "llama", metadata, sources)
    bits = 8 * sum(TENSOR_TYPES[source.type].nbytes(source.shape) for source in sources)
    return ExportResult(
        path=Path(path),
        tensor_types={source.name: source.type for source in sources},
        fallbacks=fallbacks,
        metadata_keys=["general.architecture", *metadata],
        bytes_written=written,
        bits_per_weight=bits / sum(math.prod(source.shape) for source in sources),
    )


def import_llama_gguf(path: str | os.PathLike[str]) -> LlamaImport:
    """Read a Llama from a GGUF file; the inverse of `export_llama_gguf`.

    Args:
        path: The file, from here or from llama.cpp's own tools, in any type that can be decoded.

    Returns:
        ``(arrays, config, tokenizer_fields)``: float32 arrays in Hugging Face's names and layout,
        the configuration's fields, and the tokenizer's as `Tokenizer.gguf_fields` gives them.

    Raises:
        FormatError: The file is damaged, or is no Llama of the supported kind.
        ArgumentError: A tensor is stored in a type that cannot be decoded here.
        OSError: The file cannot be opened.
    """
    file = GGUFFile(path)
    config = read_config(file)
    expected = _expected_tensors(file, config)
    arrays = {}
    for tensor in expected:
        values = as_float32(tensor.gguf, file.array(tensor.gguf))
        arrays[tensor.ours] = deinterleave_rope(values, tensor.rope_heads) if tensor.rope_heads else values
    return LlamaImport(arrays, config, read_tokenizer(file))


def _metadata(
    config: LlamaShape,
    tokenizer_fields: Mapping[str, Any],
    type: str,
    name: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    own = {
        "general.type": "model",
        "general.name": name,
        **config_metadata(config),
        **tokenizer_metadata(tokenizer_fields, config.vocab_size),
    }
    # last and in this order, as llama-quantize writes them
    last = {
        "general.quantization_version": np.uint32(_QUANTIZATION_VERSION),
        "general.file_type": np.uint32(_FILE_TYPES[type]),
    }
    taken = [key for key in extra if key in own or key in last]
    if taken:
        raise ArgumentError(
            f"export_llama_gguf: extra_metadata must not hold {', '.join(taken)}: the export sets "
            "them from the model, the tokenizer and the arguments."
        )
    return {**own, **extra, **last}


def _require_names(arrays: Mapping[str, NDArray[Any]], mapped: Iterable[Mapped], *, tied: bool) -> None:
    expected = {tensor.ours for tensor in mapped}
    missing, unexpected = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
    if missing or unexpected:
        hint = "; a tied model has no lm_head.weight" if tied and "lm_head.weight" in arrays else ""
        raise ArgumentError(
            f"export_llama_gguf: expected the {len(expected)} tensors of this configuration; "
            f"missing: {_listed(missing)}; unexpected: {_listed(unexpected)}{hint}."
        )


def _largest_magnitude(tensor: Mapped, array: NDArray[Any]) -> float:
    if array.shape != tensor.shape:
        raise ArgumentError(
            f"export_llama_gguf: {tensor.ours} must have shape {tensor.shape}; received "
            f"{array.shape}: does the configuration belong to these tensors?"
        )
    values = as_float32(tensor.ours, array)
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        raise ArgumentError(
            f"export_llama_gguf: {tensor.ours} holds "
            f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values that are NaN or "
            "infinite; export a checkpoint from before the training diverged."
        )
    return largest


def _reader(tensor: Mapped, array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    """Reordering happens when the tensor is written, so one copy exists at a time."""

    def read() -> NDArray[Any]:
        return interleave_rope(array, tensor.rope_heads) if tensor.rope_heads else array

    return read


def _expected_tensors(file: GGUFFile, config: dict[str, Any]) -> list[Mapped]:
    """The tensors that the configuration asks for, if the file has exactly those."""
    # without this a forged block_count would build a list of 2**32 layers of names
    if config["n_layer"] > len(file.tensors):
        raise FormatError(
            f"{file.path}: llama.block_count is {config['n_layer']}, the file has only {len(file.tensors)} tensors."
        )
    expected = list(llama_tensors(SimpleNamespace(**config)))
    names = {tensor.gguf for tensor in expected}
    missing, unexpected = sorted(names - set(file.tensors)), sorted(set(file.tensors) - names)
    if missing or unexpected:
        hint = f"; {_ROPE_FACTORS} scales RoPE, which is not supported"
        raise FormatError(
            f"{file.path}: expected the {len(names)} tensors of a Llama; missing: "
            f"{_listed(missing)}; unexpected: {_listed(unexpected)}"
            f"{hint if _ROPE_FACTORS in unexpected else ''}."
        )
    for tensor in expected:
        shape = file.tensors[tensor.gguf].shape
        if shape != tensor.shape:
            raise FormatError(f"{file.path}: {tensor.gguf!r} must have shape {tensor.shape}; received {shape}.")
    return expected


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(name[:80] for name in names[:6]) or "none") + more
