"""``spiral generate``: text from a model."""

from __future__ import annotations

import argparse
import codecs
import sys

HELP = "write text with a model (run folder or .gguf file)"
EXAMPLES = (
    'spiral generate runs/demo --prompt "The assert statement"',
    "spiral generate runs/demo/model-q8_0.gguf --tokens 200 --temperature 0",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a run's folder, or a .gguf file")
    parser.add_argument("--prompt", default="", help="text to go on from (default: the beginning of a text)")
    parser.add_argument("--tokens", type=int, default=120, help="tokens to write (default 120)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest token (default 0.8)")
    parser.add_argument("--top-k", type=int, default=50, help="sample among so many tokens, 0 for all (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same text (default 0)")


def run(arguments: argparse.Namespace) -> int:
    """Generate and print as it comes."""
    from spiral.models import generate, load_llama

    model, tokenizer = load_llama(arguments.model)
    prompt = [int(i) for i in tokenizer.encode(arguments.prompt)] or [tokenizer.end_of_text]
    sys.stdout.write(arguments.prompt)
    # a token may end within a character: bytes are kept until the character is whole
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in generate(
        model,
        prompt,
        arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k or None,
        seed=arguments.seed,
        stop=tokenizer.end_of_text,
    ):
        sys.stdout.write(decoder.decode(tokenizer.decode_bytes([token])))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", True) + "\n")
    return 0
