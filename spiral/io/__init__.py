"""Files: safetensors, GGUF and the names that other programs give to a model's tensors.

Importing this imports neither gguf nor safetensors; they come with the first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spiral.optional import missing

if TYPE_CHECKING:
    from spiral.io.atomic import atomic_write
    from spiral.io.gguf_read import GGUFFile, TensorInfo
    from spiral.io.gguf_types import writable_type
    from spiral.io.gguf_write import TensorSource, write_gguf
    from spiral.io.llama import (
        ExportResult,
        LlamaImport,
        export_llama_gguf,
        import_llama_gguf,
    )
    from spiral.io.safetensors import (
        SafetensorsFile,
        load_safetensors,
        save_safetensors,
    )

__all__ = [
    "ExportResult",
    "GGUFFile",
    "LlamaImport",
    "SafetensorsFile",
    "TensorInfo",
    "TensorSource",
    "atomic_write",
    "export_llama_gguf",
    "import_llama_gguf",
    "load_safetensors",
    "save_safetensors",
    "writable_type",
    "write_gguf",
]

_HOME = {
    "ExportResult": "llama",
    "GGUFFile": "gguf_read",
    "LlamaImport": "llama",
    "SafetensorsFile": "safetensors",
    "TensorInfo": "gguf_read",
    "TensorSource": "gguf_write",
    "atomic_write": "atomic",
    "export_llama_gguf": "llama",
    "import_llama_gguf": "llama",
    "load_safetensors": "safetensors",
    "save_safetensors": "safetensors",
    "writable_type": "gguf_types",
    "write_gguf": "gguf_write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spiral.io' has no attribute {name!r}; it has {', '.join(__all__)}.")
    try:
        value = getattr(import_module(f"spiral.io.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise missing("gguf", f"spiral.io.{name}", "pip install gguf") from error
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
