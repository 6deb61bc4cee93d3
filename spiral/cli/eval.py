"""``spiral eval``: bits per byte of a model on a text."""

from __future__ import annotations

import argparse
import json

HELP = "bits per byte of a model (run folder or .gguf file) on a text"
EXAMPLES = (
    "spiral eval runs/demo",
    "spiral eval runs/demo/model-q8_0.gguf --text held_out.txt --baselines",
    "spiral eval runs/demo --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a run's folder, or a .gguf file")
    parser.add_argument(
        "--text",
        "--data",
        metavar="PATH",
        help="a text file or folder, all of it (default: the demo corpus's held-out part)",
    )
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the demo corpus held out (default 0.1)")
    parser.add_argument("--batch-size", type=int, default=16, help="windows at a time (default 16)")
    parser.add_argument("--baselines", action="store_true", help="also zlib and, on the demo corpus, Witten-Bell")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print."""
    from spiral.data import TokenDataset
    from spiral.models import load_llama
    from spiral.text import demo_corpus, load_text, split, witten_bell_bits_per_byte, zlib_bits_per_byte
    from spiral.train import evaluate

    model, tokenizer = load_llama(arguments.model)
    if arguments.text is None:
        train_text, text = split(demo_corpus(), arguments.held_out)
    else:
        train_text, text = "", load_text(arguments.text)
    data = text.encode("utf-8")
    tokens = TokenDataset(tokenizer.encode(text), model.config.vocab_size)
    found = evaluate(model, tokens, len(data), batch_size=arguments.batch_size, bos_id=tokenizer.end_of_text)
    figures = {"bits_per_byte": found.bits_per_byte, "loss": found.loss, "tokens": found.tokens, "bytes": len(data)}
    if arguments.baselines:
        figures["zlib_bits_per_byte"] = zlib_bits_per_byte(b"", data)
        if train_text:
            figures["witten_bell_bits_per_byte"] = witten_bell_bits_per_byte(train_text.encode("utf-8"), data)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<26} {value:,.4f}" if isinstance(value, float) else f"{name:<26} {value:,}")
    return 0
