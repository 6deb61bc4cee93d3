"""``spiral demo``: from text to a trained, quantized file that llama.cpp runs, in a few minutes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from spiral.train import TrainConfig
    from spiral.train.run import Prepared

HELP = "train a small language model on Python's own documentation, export it, and check the export"
EXAMPLES = (
    "spiral demo",
    "spiral demo --seconds 60",
    "spiral demo --steps 300 --out runs/short",
    "spiral demo --data my_texts/ --out runs/mine",
)
# little text is soon known by heart: without dropout 693 steps had 1.797 bits per byte on the held-out text
# after 500 and 1.814 at the end; with dropout 0.1, 545 steps end at 1.782 (2026-11-24)
_STEPS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=170.0, help="time to train at most (default 170)")
    length.add_argument("--steps", type=int, help="train for so many steps, however long it takes")
    parser.add_argument("--data", metavar="PATH", help="your own text, a file or a folder, instead of Python's")
    parser.add_argument("--out", default="runs/demo", help="the run's folder (default runs/demo)")
    parser.add_argument("free", nargs="*", metavar="key=value", help="as for `spiral train`")


def run(arguments: argparse.Namespace) -> int:
    """Train, compare with baselines, export, read back."""
    from spiral.cli.output import make_console
    from spiral.train import TrainConfig
    from spiral.train.lock import run_lock

    console = make_console()
    settings: dict[str, Any] = {
        "data": {"path": arguments.data},
        "run": {"out": arguments.out, "steps": _STEPS, "log_every": 50, "eval_every": 250, "checkpoint_every": 250},
    }
    config = TrainConfig.from_dict(settings).with_overrides(arguments.free)
    if arguments.steps is not None:
        config = config.updated({"run": {"steps": arguments.steps}})
    with run_lock(config.run.out):
        return _demo(arguments, config, console)


def _demo(arguments: argparse.Namespace, config: TrainConfig, console: Console) -> int:
    from spiral.cli.progress import TerminalProgress
    from spiral.train import Interrupted, TimeBudget, prepare, run_training

    budget = [] if arguments.steps is not None else [TimeBudget(arguments.seconds)]
    progress = TerminalProgress(console)
    prepared = prepare(config, overwrite=True, callbacks=[*budget, progress])
    references = _baselines(prepared, console)
    console.print(
        f"model: {prepared.trainer.model.num_parameters():,} parameters, vocabulary "
        f"{prepared.tokenizer.vocab_size:,}; {config.run.batch_size} x {config.model.context_length} tokens a step, "
        + f"{config.run.steps:,} steps"
        + (f", {arguments.seconds:.0f} s at most" if budget else "")
    )
    try:
        result = run_training(prepared, name="spiral-demo", references=references)
    except Interrupted as interrupted:
        progress.close()
        print(f"{interrupted}; go on with: spiral train --resume {config.run.out}", file=sys.stderr)
        return 128 + interrupted.signal
    finally:
        progress.close()
    console.print(
        f"trained: {result['bits_per_byte']:.4f} bits per byte held out, {result['seconds']:.0f} s, "
        f"{result['steps_per_second']:.2f} steps/s"
    )
    for note in result["notes"]:
        console.print(note, markup=False)
    console.print("sample:\n" + "\n".join("  | " + line for line in result["sample"].splitlines()), markup=False)
    _export_and_check(prepared, result["bits_per_byte"], console)
    files = sorted(p.name for p in Path(config.run.out).iterdir() if p.is_file() and p.suffix != ".lock")
    console.print(f"files: {', '.join(files)}")
    return 0


def _baselines(prepared: Prepared, console: Console) -> dict[str, float]:
    from spiral.text import witten_bell_bits_per_byte, zlib_bits_per_byte

    train, held_out = prepared.train_text.encode("utf-8"), prepared.held_out_text.encode("utf-8")
    references = {
        "zlib": zlib_bits_per_byte(train, held_out),
        "Witten-Bell 5-gram": witten_bell_bits_per_byte(train, held_out),
    }
    console.print(f"text: {len(train):,} bytes to train on, {len(held_out):,} held out")
    console.print("to beat: " + ", ".join(f"{name} {bits:.4f}" for name, bits in references.items()) + " bits per byte")
    return references


def _export_and_check(prepared: Prepared, bits: float, console: Console) -> None:
    """Export to GGUF and evaluate what is read back from the quantized file."""
    from spiral.io import export_llama_gguf
    from spiral.models import load_llama
    from spiral.models.files import weight_arrays
    from spiral.train import evaluate

    trainer = prepared.trainer
    path = trainer.folder
    for kind in ("F16", "Q8_0"):
        path = trainer.folder / f"model-{kind.lower()}.gguf"
        written: Any = export_llama_gguf(
            path,
            weight_arrays(trainer.model),
            trainer.model.config,
            prepared.tokenizer.gguf_fields(),
            type=kind,
            name="spiral-demo",
        )
        console.print(
            f"exported {path}: {written.bytes_written:,} bytes, {written.bits_per_weight:.2f} bits per weight"
        )
    start = time.perf_counter()
    model, tokenizer = load_llama(path)
    held_out = trainer.held_out
    assert held_out is not None
    same = (tokenizer.encode(prepared.held_out_text) == held_out.tokens[:]).all()
    found = evaluate(model, held_out.tokens, held_out.n_bytes, bos_id=tokenizer.end_of_text)
    console.print(
        f"read back {path.name}: {found.bits_per_byte:.4f} bits per byte ({found.bits_per_byte - bits:+.4f}), its "
        f"tokenizer {'gives the same tokens' if same else 'DIFFERS'}, {time.perf_counter() - start:.1f} s"
    )
