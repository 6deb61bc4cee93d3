"""``spiral export``: a model in a format that other programs read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

HELP = "write a model as a GGUF file for llama.cpp, or in another format"
EXAMPLES = (
    "spiral export runs/demo --type Q8_0",
    "spiral export runs/demo --type F16 --out demo.gguf --name demo",
    "spiral export runs/demo --format safetensors --out for_transformers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from spiral.models.exporters import EXPORTERS

    known = ", ".join(EXPORTERS)
    parser.add_argument("model", help="a run's folder, or a .gguf file to write in another type")
    parser.add_argument("--format", default="gguf", metavar="NAME", help=f"one of {known} (default gguf)")
    parser.add_argument("--type", type=str.upper, help="for gguf: F32, F16, BF16 or Q8_0 (default F16)")
    parser.add_argument("--out", help="the file or folder (default for gguf: model-TYPE.gguf in the run's folder)")
    parser.add_argument("--name", help="for gguf: general.name in the file (default: the folder's name)")
    parser.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], help="what else the format takes; may be repeated"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export and say what was written."""
    from spiral import named
    from spiral.errors import ArgumentError
    from spiral.models import load_llama
    from spiral.models.exporters import EXPORTERS

    form = arguments.format
    source = Path(arguments.model)
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    flags = {key: value for key in ("type", "name") if (value := getattr(arguments, key)) is not None}
    given = {**_options(arguments.option), **flags}
    export = named.find(EXPORTERS, "--format", form)
    if form == "gguf":
        from spiral.io import writable_type

        given = {"type": "F16", "name": folder.name, **given}
        given["type"] = given["type"].upper()
        writable_type(given["type"])
    options = named.parsed(EXPORTERS, "--option", form, given, leading=3)  # before a large model is read
    if arguments.out is None and form != "gguf":
        raise ArgumentError(f"--out: expected the file or folder that format {form!r} shall be written to.")
    out = folder / f"model-{given['type'].lower()}.gguf" if arguments.out is None else Path(arguments.out)
    model, tokenizer = load_llama(source)
    said = export(model, tokenizer, out, **options)
    print(said if isinstance(said, str) and said else f"{out}: written as {form}")
    return 0


def _options(texts: Iterable[str]) -> dict[str, str]:
    from spiral.errors import ArgumentError

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ArgumentError(f"--option: expected KEY=VALUE; received {text!r}.")
        found[key.strip()] = value
    return found
