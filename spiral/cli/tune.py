"""``spiral tune``: measures launch configurations of GPU kernels and keeps the fastest."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiral.gpu.search import Outcome

HELP = "measure launch configurations of GPU kernels, and keep the fastest for this device"
EXAMPLES = (
    "spiral tune",
    "spiral tune softmax --seconds 60",
    "spiral tune --commit",
    "spiral tune --list",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("free", nargs="*", metavar="KERNEL", help="kernels whose name holds this; default: all")
    parser.add_argument("--device", default="cuda", help="the GPU (default cuda)")
    parser.add_argument("--seconds", type=float, default=300.0, help="stop after so long (default 300)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each configuration is measured (default 15)")
    parser.add_argument("--megabytes", type=float, default=32.0, help="of an input, about (default 32)")
    parser.add_argument("--commit", action="store_true", help="write the table of this package instead of the user's")
    parser.add_argument("--list", action="store_true", help="show what there is to choose and what is chosen now")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Search, write, print."""
    import spiral as sp
    from spiral.device import as_device
    from spiral.errors import ArgumentError, DeviceError
    from spiral.gpu import tuning

    sp.backends()  # families declare their choices when their backends load
    device: Any = as_device(arguments.device)
    gpu = getattr(device.memory, "driver", None)
    if device.type != "cuda" or gpu is None:
        raise DeviceError(f"tune: expected a GPU, such as cuda:0; received {arguments.device!r}.")
    wanted = [
        c for name, c in sorted(tuning.CHOICES.items())
        if not arguments.free or any(text in name for text in arguments.free)
    ]  # fmt: skip
    if not wanted:
        known = ", ".join(sorted(tuning.CHOICES))
        raise ArgumentError(f"tune: expected kernels among {known or 'none'}; received {', '.join(arguments.free)}.")
    if arguments.list:
        _list(wanted, gpu)
        return 0
    outcomes = _search(wanted, gpu, str(device), arguments)
    path = _write(outcomes, gpu, arguments.commit)
    if arguments.json:
        print(json.dumps({"table": str(path), "found": [_plain(o) for o in outcomes]}, indent=1))
    else:
        print(f"{path}: {sum(o.best != o.choice.default(o.key) for o in outcomes)} of {len(outcomes)} classes of "
              "shapes take another configuration than the heuristic's.")  # fmt: skip
    return 0


def _search(wanted: list[Any], gpu: Any, device: str, arguments: argparse.Namespace) -> list[Outcome]:
    from spiral.gpu.search import search
    from spiral.gpu.tuning import spelled

    outcomes: list[Outcome] = []
    start = time.monotonic()
    for choice in wanted:
        for key in choice.configs:
            if time.monotonic() - start > arguments.seconds:
                if not arguments.json:
                    print(f"{choice.name} {spelled(key)} and what follows: not measured, the time was up")
                return outcomes
            nbytes = int(arguments.megabytes * 2**20)
            outcome = search(choice, key, gpu, device, rounds=arguments.rounds, nbytes=nbytes)
            outcomes.append(outcome)
            if not arguments.json:
                print(_line(outcome), flush=True)
    return outcomes


def _line(outcome: Outcome) -> str:
    from spiral.gpu.tuning import spelled

    choice = outcome.choice
    chosen = ", ".join(f"{option} {value}" for option, value in zip(choice.options, outcome.best, strict=True))
    time_of = 1e3 * outcome.milliseconds[outcome.best]
    failed = f"; {len(outcome.failed)} do not run" if outcome.failed else ""
    text = f"{choice.name} {spelled(outcome.key)}"
    return f"{text:<36} {chosen:<24} {time_of:9.2f} us, {outcome.gain:.2f} x the heuristic's speed{failed}"


def _plain(outcome: Outcome) -> dict[str, Any]:
    from spiral.gpu.tuning import spelled

    return {
        "kernel": outcome.choice.name, "class": spelled(outcome.key), "options": list(outcome.choice.options),
        "best": list(outcome.best), "gain": outcome.gain,
        "milliseconds": {" ".join(map(str, c)): ms for c, ms in outcome.milliseconds.items()},
        "failed": {" ".join(map(str, c)): why for c, why in outcome.failed.items()},
    }  # fmt: skip


def _write(outcomes: list[Outcome], gpu: Any, commit: bool) -> Path:
    """Puts what was found into a table, whose other entries stay where they are of these sources."""
    from spiral.gpu import tuning

    path = tuning.committed_path(gpu.facts.cc) if commit else tuning.user_path(gpu.facts.name)
    before = tuning.read_table(path) if path.exists() else None
    kept: dict[str, Any] = {}
    if before is not None and before.verified:
        kept = {name: dict(entry) for name, entry in before.choices.items()}
    found: dict[str, dict[tuple[int | str, ...], tuple[int, ...]]] = {}
    for o in outcomes:
        found.setdefault(o.choice.name, {})[o.key] = o.best
    for name, configs in found.items():
        choice = tuning.CHOICES[name]
        entry = tuning.entry_of(choice, configs)
        old = kept.get(name)
        if old is not None and choice.refusal(old) is None:
            entry["configs"] = {**old["configs"], **entry["configs"]}
        kept[name] = entry
    tuning.write_table(path, gpu.facts.name, True, kept)
    tuning.forget(gpu)
    return path


def _list(wanted: list[Any], gpu: Any) -> None:
    from spiral.gpu.tuning import spelled

    for choice in wanted:
        print(f"{choice.name}: {', '.join(choice.options)}")
        for key, config in choice.in_effect(gpu).items():
            others = " | ".join(",".join(map(str, c)) for c in choice.configs[key])
            print(f"  {spelled(key):<20} {','.join(map(str, config)):<10} of {others}")
