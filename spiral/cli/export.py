"""``spiral export``: a model as a GGUF file that llama.cpp runs."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a model as a GGUF file for llama.cpp"
EXAMPLES = (
    "spiral export runs/demo --type Q8_0",
    "spiral export runs/demo --type F16 --out demo.gguf --name demo",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a run's folder, or a .gguf file to write in another type")
    parser.add_argument("--type", default="F16", type=str.upper, help="F32, F16, BF16 or Q8_0 (default F16)")
    parser.add_argument("--out", help="the file (default: model-TYPE.gguf in the run's folder)")
    parser.add_argument("--name", help="general.name in the file (default: the folder's name)")


def run(arguments: argparse.Namespace) -> int:
    """Export and say what was written."""
    from spiral.io import export_llama_gguf
    from spiral.io.gguf_types import writable_type
    from spiral.models import load_llama
    from spiral.models.files import weight_arrays

    writable_type(arguments.type)  # before a large model is read
    source = Path(arguments.model)
    model, tokenizer = load_llama(source)
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    out = Path(arguments.out) if arguments.out else folder / f"model-{arguments.type.lower()}.gguf"
    result = export_llama_gguf(
        out,
        weight_arrays(model),
        model.config,
        tokenizer.gguf_fields(),
        type=arguments.type,
        name=arguments.name or folder.name,
    )
    print(f"{result.path}: {result.bytes_written:,} bytes, {result.bits_per_weight:.2f} bits per weight")
    for name, reason in result.fallbacks.items():
        print(f"  {name}: {reason}")
    return 0
