"""Model families: configurations, modules and how they are read from and written to files."""

from __future__ import annotations

from spiral.models.files import load_llama, save_llama
from spiral.models.generate import generate
from spiral.models.llama import Llama, LlamaConfig

__all__ = ["Llama", "LlamaConfig", "generate", "load_llama", "save_llama"]
