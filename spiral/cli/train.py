"""``spiral train``: train a language model on text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from spiral.train import TrainConfig

HELP = "train a language model from a YAML file and key=value settings"
EXAMPLES = (
    "spiral train run.out=runs/first run.steps=500",
    "spiral train --data my_texts/ run.out=runs/mine optim.lr=1e-3",
    "spiral train config.yaml optim.schedule=wsd run.precision=bfloat16",
    "spiral train --resume runs/first",
    "spiral train --resume runs/first run.steps=1000",
    "spiral train optim.name=lion optim.lr=3e-4 run.out=runs/lion",
    "spiral train run.out=runs/short --callback early_stopping:metric=step.loss,patience=100",
    "spiral train --print",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "free", nargs="*", metavar="[CONFIG.yaml] [key=value ...]", help="configuration; --print shows every key"
    )
    parser.add_argument("--data", metavar="PATH", help="a text file, or a folder of them; the same as data.path=PATH")
    parser.add_argument(
        "--callback", metavar="NAME[:option=value,...]", action="append", default=[],
        help="add a callback to run.callbacks, or give one that is there these options; may be repeated",
    )  # fmt: skip
    parser.add_argument("--resume", metavar="RUN", help="go on from the newest checkpoint of a run's folder")
    parser.add_argument("--overwrite", action="store_true", help="remove another run's checkpoints in run.out")
    parser.add_argument("--print", action="store_true", help="print the configuration as YAML and stop")


def run(arguments: argparse.Namespace) -> int:
    """Train; the run's folder holds everything that comes of it."""
    from spiral.cli.output import make_console

    config = _config(arguments)
    if arguments.print:
        import yaml

        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    return _train(arguments, config, make_console())


def _train(arguments: argparse.Namespace, config: TrainConfig, console: Console) -> int:
    from spiral.cli.progress import TerminalProgress
    from spiral.train import Interrupted, prepare, run_training
    from spiral.train.lock import run_lock

    progress = TerminalProgress(console)
    with run_lock(config.run.out):
        prepared = prepare(config, resume=bool(arguments.resume), overwrite=arguments.overwrite)
        prepared.trainer.callbacks.append(progress)
        console.print(
            f"{prepared.trainer.model.num_parameters():,} parameters, {config.run.steps:,} steps, {config.run.out}"
        )
        try:
            result = run_training(prepared, name=Path(config.run.out).resolve().name)
        except Interrupted as interrupted:
            progress.close()
            print(f"{interrupted}; go on with: spiral train --resume {config.run.out}", file=sys.stderr)
            return 128 + interrupted.signal
        finally:
            progress.close()
    for note in result["notes"]:
        console.print(note, markup=False)
    console.print(
        f"{result['bits_per_byte']:.4f} bits per byte, {result['steps_per_second']:.2f} steps/s; {config.run.out}",
        markup=False,
    )
    return 0


def _config(arguments: argparse.Namespace) -> TrainConfig:
    from spiral.errors import ConfigError
    from spiral.train import load_config
    from spiral.train.run import saved_config

    files = [text for text in arguments.free if "=" not in text]
    overrides = [text for text in arguments.free if "=" in text]
    if len(files) > 1 or (files and arguments.resume):
        raise ConfigError(f"expected at most one YAML file, and none with --resume; received {', '.join(files)}.")
    if arguments.resume and arguments.overwrite:
        raise ConfigError("expected --resume or --overwrite; received both.")
    if arguments.resume:
        config = saved_config(arguments.resume).updated({"run": {"out": arguments.resume}}).with_overrides(overrides)
    else:
        config = load_config(files[0] if files else None, overrides)
    if arguments.data is not None:
        config = config.updated({"data": {"path": arguments.data}})
    return _with_callbacks(config, arguments.callback)


def _with_callbacks(config: TrainConfig, texts: list[str]) -> TrainConfig:
    """The configuration with those of ``--callback``; one of a name that is there takes its place."""
    from spiral.named import from_text, parts

    added = [from_text(text) for text in texts]
    names = {parts(item)[0] for item in added}
    kept = [item for item in config.run.callbacks if parts(item)[0] not in names]
    return config.updated({"run": {"callbacks": [*kept, *added]}}) if added else config
