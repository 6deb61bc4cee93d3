"""Reading and writing a Llama: a folder in Hugging Face's layout, or one GGUF file.

A folder holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ConfigError, DataError, FormatError, SaveError
from spiral.models.llama import Llama, LlamaConfig
from spiral.text import Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def weight_arrays(model: Llama) -> dict[str, NDArray[Any]]:
    """The model's weights by Hugging Face's names, as read-only arrays."""
    return {name: parameter.detach().to("cpu").numpy() for name, parameter in model.named_parameters()}


def set_weights(model: Llama, arrays: Mapping[str, NDArray[Any]], source: str) -> None:
    """Overwrite the model's weights.

    Args:
        model: The model.
        arrays: An array for each parameter's name; other dtypes are converted to float32.
        source: Where they come from, for messages.

    Raises:
        FormatError: Names or shapes are not the model's.
    """
    import spiral as sp

    parameters = dict(model.named_parameters())
    missing, unexpected = sorted(set(parameters) - set(arrays)), sorted(set(arrays) - set(parameters))
    if missing or unexpected:
        raise FormatError(
            f"{source}: expected the weights of this configuration; missing: {_listed(missing)}; "
            f"unexpected: {_listed(unexpected)}."
        )
    with sp.no_grad():
        for name, parameter in parameters.items():
            if arrays[name].shape != parameter.shape:
                raise FormatError(f"{source}: {name} must have shape {parameter.shape}; received {arrays[name].shape}.")
            parameter.detach().copy_(sp.asarray(np.asarray(arrays[name], np.float32), device=parameter.device))


def _listed(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:6]) or "none"


def save_llama(folder: str | Path, model: Llama, tokenizer: Tokenizer) -> Path:
    """Write a model and its tokenizer to a folder that Hugging Face's programs read too.

    Returns:
        The weights' file.

    Raises:
        SaveError: A file cannot be written.
    """
    from spiral.io import atomic_write, save_safetensors

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"save_llama: {folder}: cannot be made: {error.strerror}.") from error
    with atomic_write(folder / CONFIG) as partial:
        partial.write_text(json.dumps(model.config.to_hugging_face(), indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder / TOKENIZER)
    save_safetensors(folder / WEIGHTS, weight_arrays(model), {"format": "pt"})  # transformers insists on the key
    return folder / WEIGHTS


def load_llama(path: str | Path) -> tuple[Llama, Tokenizer]:
    """Read a model and its tokenizer.

    Args:
        path: A folder as `save_llama` writes it, or a ``.gguf`` file; quantized weights are
            computed with as float32.

    Raises:
        DataError: There is no model by that name.
        FormatError: A file is damaged, or belongs to another kind of model.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DataError(f"load_llama: expected a path; received {type(path).__name__}.")
    path = Path(path)
    if path.suffix == ".gguf":
        return _load_gguf(path)
    from spiral.io import load_safetensors

    absent = [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (path / name).is_file()]
    if absent:
        raise DataError(
            f"load_llama: {path}: expected a .gguf file or a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}; "
            f"missing: {', '.join(absent)}."
        )
    try:
        fields = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        config = LlamaConfig.from_hugging_face(fields) if isinstance(fields, dict) else None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path / CONFIG}: expected a Llama's configuration in JSON: {error}") from error
    if config is None:
        raise FormatError(f"{path / CONFIG}: expected a JSON object; received {type(fields).__name__}.")
    arrays = load_safetensors(path / WEIGHTS).arrays
    _require_size(config, arrays, path)
    model = Llama(config)
    set_weights(model, arrays, str(path / WEIGHTS))
    tokenizer = Tokenizer.load(path / TOKENIZER)
    _require_tokenizer(model, tokenizer, path)
    return model, tokenizer


def _require_size(config: LlamaConfig, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Compare the sizes before the model is made: a forged configuration could ask for any amount of memory."""
    there = sum(array.size for array in arrays.values())
    if config.num_parameters() != there:
        raise FormatError(
            f"{path}: {CONFIG} describes {config.num_parameters():,} parameters, {WEIGHTS} holds {there:,} "
            f"in {len(arrays)} tensors: they do not belong together."
        )
    odd = [
        name for name, array in arrays.items() if array.dtype.name not in ("float32", "float16", "bfloat16", "float64")
    ]
    if odd:
        raise FormatError(f"{path / WEIGHTS}: {odd[0][:80]} must be floating; received {arrays[odd[0]].dtype}.")


def _require_tokenizer(model: Llama, tokenizer: Tokenizer, path: Path) -> None:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise FormatError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {model.config.vocab_size:,}: they "
            "do not belong together."
        )


def _load_gguf(path: Path) -> tuple[Llama, Tokenizer]:
    if not path.is_file():
        raise DataError(f"load_llama: {path}: there is no such file.")
    from spiral.io import import_llama_gguf

    arrays, fields_of_config, fields = import_llama_gguf(path)
    try:
        config = LlamaConfig(**fields_of_config)
    except ConfigError as error:
        raise FormatError(f"{path}: {error}") from error
    model = Llama(config)
    set_weights(model, arrays, str(path))
    tokenizer = tokenizer_from_gguf(fields)
    _require_tokenizer(model, tokenizer, path)
    return model, tokenizer


def tokenizer_from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Raises:
        FormatError: It is not a byte-level BPE with GPT-2's pre-tokenizer.
    """
    if fields.get("model") != "gpt2" or fields.get("pre", "gpt-2") != "gpt-2":
        raise FormatError(
            "GGUF tokenizer: expected a byte-level BPE ('gpt2') with GPT-2's pre-tokenizer ('gpt-2'); received "
            f"{str(fields.get('model'))[:40]!r} with {str(fields.get('pre'))[:40]!r}."
        )
    lacking = [key for key in ("tokens", "token_types", "merges") if not isinstance(fields.get(key), list)]
    if lacking:
        raise FormatError(f"GGUF tokenizer: expected tokens, token_types and merges; missing: {', '.join(lacking)}.")
    types = fields["token_types"]
    added = [
        {
            "id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": types[index] == 3,
        }
        for index, token in enumerate(fields["tokens"])
        if types[index] in (3, 4)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    text = json.dumps(
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": {token: index for index, token in enumerate(fields["tokens"])},
                "merges": list(fields["merges"]),
            },
        }
    )  # fmt: skip
    return Tokenizer.from_json(text)
