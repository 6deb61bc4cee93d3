"""``spiral train``: train a language model on text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "train a language model from a YAML file and key=value overrides"
EXAMPLES = (
    "spiral train run.out=runs/first run.steps=500",
    "spiral train config.yaml data.path=my_texts/ optim.lr=1e-3",
    "spiral train --resume runs/first",
    "spiral train --resume runs/first run.steps=1000",
    "spiral train --print",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml] [key=value ...]", help="configuration")
    parser.add_argument("--resume", metavar="RUN", help="go on from the newest checkpoint of a run's folder")
    parser.add_argument("--overwrite", action="store_true", help="remove another run's checkpoints in run.out")
    parser.add_argument("--print", action="store_true", help="print the configuration as YAML and stop")


def run(arguments: argparse.Namespace) -> int:
    """Train; the run's folder holds everything that comes of it."""
    from rich.console import Console

    from spiral.cli.progress import TerminalProgress
    from spiral.errors import ConfigError
    from spiral.train import load_config, prepare, run_training
    from spiral.train.run import saved_config
    from spiral.train.trainer import Interrupted

    files = [text for text in arguments.arguments if "=" not in text]
    overrides = [text for text in arguments.arguments if "=" in text]
    if len(files) > 1 or (files and arguments.resume):
        raise ConfigError(f"expected at most one YAML file, and none with --resume; received {', '.join(files)}.")
    if arguments.resume:
        config = saved_config(arguments.resume).updated({"run": {"out": arguments.resume}}).with_overrides(overrides)
    else:
        config = load_config(files[0] if files else None, overrides)
    if arguments.print:
        import yaml

        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    console = Console()
    progress = TerminalProgress(console)
    prepared = prepare(config, resume=bool(arguments.resume), overwrite=arguments.overwrite, callbacks=[progress])
    console.print(
        f"{prepared.trainer.model.num_parameters():,} parameters, {config.run.steps:,} steps, {config.run.out}",
        highlight=False,
    )
    try:
        result = run_training(prepared, name=Path(config.run.out).name)
    except Interrupted as interrupted:
        progress.close()
        print(f"{interrupted}; go on with: spiral train --resume {config.run.out}", file=sys.stderr)
        return 130
    finally:
        progress.close()
    console.print(
        f"{result['bits_per_byte']:.4f} bits per byte, {result['steps_per_second']:.2f} steps/s; {config.run.out}",
        highlight=False,
    )
    return 0
