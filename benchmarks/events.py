"""What events cost: publishing to ten listeners against ten bare calls, and an op that nobody listens to.

    python -m benchmarks.events
    python -m benchmarks.events --against ../spiral-before    # a built checkout from before ops were published

The two sides of a ratio alternate, so that whatever slows the machine slows both. The op is timed in fresh
processes of either checkout, several pairs of them: where a process's memory happens to lie is worth some per cent.
With ``--check`` the exit status says whether every ratio is within its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.competitor import environment
from benchmarks.report import Quartiles, print_table, print_versions
from benchmarks.versions import common_versions, spiral_versions

ROOT = Path(__file__).resolve().parents[1]
LISTENERS = 10
HEADER = ("what", "against", "ratio", "quartiles", "bar", "", "ns", "ns, other")
OPS = {"a + b": "a + b", "a + b, gradient recorded": "g + b", "a * 2.0": "a * 2.0"}

# answers "EXPRESSION<tab>NUMBER" with the seconds of so many evaluations
CHILD = """
import sys, timeit
import spiral as sp
sp.set_num_threads(1)
a, b = sp.ones(16), sp.ones(16)
g = sp.ones(16).requires_grad_()
for line in sys.stdin:
    expression, number = line.split("\\t")
    print(timeit.timeit(expression, globals=globals(), number=int(number)), flush=True)
"""


def alternate(
    ours: Callable[[int], float], other: Callable[[int], float], *, repeats: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Nanoseconds per evaluation of two sides that take turns, in repeats of about so many seconds."""
    for side in (ours, other):
        side(200)
    number = max(1, round(seconds / (max(ours(1000), other(1000)) / 1000)))
    spent: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats):
        for who in (0, 1) if i % 2 == 0 else (1, 0):
            spent[who].append(1e9 * (ours, other)[who](number) / number)
    return spent


def compared(
    what: str, against: str, ours: list[float], other: list[float], ratio: float, bar: float | None
) -> dict[str, Any]:
    """One result; `ratio` is what the bar is for."""
    return {
        "what": what,
        "against": against,
        "bar": bar,
        "ratio": ratio,
        "quartiles": Quartiles.of([a / b for a, b in zip(ours, other, strict=True)]),
        "nanoseconds": min(ours),
        "nanoseconds_other": min(other),
    }


def publishing(repeats: int, seconds: float) -> list[dict[str, Any]]:
    """An event to ten listeners, against ten calls of the same listeners written out."""
    from spiral.plugin.bus import EventBus
    from spiral.plugin.events import Custom, EpochEnd

    def listener(event: object) -> None:
        pass

    results = []
    calls = timeit.Timer("\n".join(["listener(event)"] * LISTENERS), globals={"listener": listener, "event": None})
    for what, kind, event in (
        ("a built-in event", EpochEnd, EpochEnd(1, 0.5)),
        ("a custom event", "MyEvent", Custom("MyEvent", 1)),
        ("an event to listeners of '*'", "*", EpochEnd(1, 0.5)),
    ):
        bus = EventBus()
        for _ in range(LISTENERS):
            bus.subscribe(kind, listener)
        publish = timeit.Timer("publish(event)", globals={"publish": bus.publish, "event": event})
        ours, bare = alternate(publish.timeit, calls.timeit, repeats=repeats, seconds=seconds)
        results.append(compared(what, "ten bare calls", ours, bare, median(ours) / median(bare), 3.0))
    return results


def listened_to(repeats: int, seconds: float) -> list[dict[str, Any]]:
    """An op with one listener against the op with none; has no bar."""
    import spiral as sp
    from spiral.plugin.bus import event_bus
    from spiral.plugin.events import TensorOp

    names = {"a": sp.ones(16), "b": sp.ones(16), "g": sp.ones(16).requires_grad_()}
    results = []
    for what, expression in OPS.items():
        timer = timeit.Timer(expression, globals=names)

        def heard(number: int, timer: timeit.Timer = timer) -> float:
            with event_bus.subscribe(TensorOp, lambda event: None):
                return timer.timeit(number)

        ours, silent = alternate(heard, timer.timeit, repeats=repeats, seconds=seconds)
        results.append(compared(f"{what}, one listener", "none", ours, silent, median(ours) / median(silent), None))
    return results


class Child:
    """A process that times ops of one checkout; use it in a ``with`` block."""

    def __init__(self, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=checkout,
            env={**environment(threads=1), "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def timer(self, expression: str) -> Callable[[int], float]:
        """Seconds that so many evaluations take there."""

        def time(number: int) -> float:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(f"{expression}\t{number}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if not answer:
                raise SystemExit("benchmarks.events: a process that times ops died; is spiral built in both checkouts?")
            return float(answer)

        return time

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def unheard(against: Path, *, pairs: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """An op with nobody listening against the same op of another checkout: the median of pairs of processes."""
    spent: dict[str, tuple[list[float], list[float], list[float]]] = {what: ([], [], []) for what in OPS}
    for _ in range(pairs):
        with Child(ROOT) as ours, Child(against) as other:
            for what, expression in OPS.items():
                sides = alternate(ours.timer(expression), other.timer(expression), repeats=repeats, seconds=seconds)
                for kept, new in zip(spent[what], sides, strict=False):
                    kept.extend(new)
                spent[what][2].append(min(sides[0]) / min(sides[1]))
    return [
        compared(f"{what}, nobody listening", str(against), a, b, median(ratios), 1.05)
        for what, (a, b, ratios) in spent.items()
    ]


def row(r: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    bar = r["bar"]
    verdict = "" if bar is None else "met" if r["ratio"] <= bar else "MISSED"
    times = (f"{r['nanoseconds']:.0f}", f"{r['nanoseconds_other']:.0f}")
    shown = "" if bar is None else f"{bar:.2f}"
    return (r["what"], r["against"], f"{r['ratio']:.3f}", str(r["quartiles"]), shown, verdict, *times)


def main() -> int:
    """Measures and prints; returns 1 when ``--check`` finds a bar missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, help="a built checkout whose ops are not published")
    parser.add_argument("--repeats", type=int, help="alternating pairs of repeats (default 41)")
    parser.add_argument("--seconds", type=float, help="length of a repeat (default 0.02)")
    parser.add_argument("--pairs", type=int, help="pairs of processes for --against (default 7)")
    parser.add_argument("--quick", action="store_true", help="5 short repeats: does it run?")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--json", type=Path, help="write results here")
    args = parser.parse_args()
    if args.against is not None and not (args.against / "spiral" / "__init__.py").is_file():
        parser.error(f"--against {args.against}: there is no checkout of spiral")
    if environment(threads=1) != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.events", *sys.argv[1:]], environment(threads=1))
    import spiral as sp

    sp.set_num_threads(1)
    repeats, seconds = args.repeats or (5 if args.quick else 41), args.seconds or (0.001 if args.quick else 0.02)
    results = publishing(repeats, seconds) + listened_to(repeats, seconds)
    if args.against is not None:
        pairs = args.pairs or (1 if args.quick else 7)
        results += unheard(args.against.resolve(), pairs=pairs, repeats=repeats, seconds=seconds)
    versions = {**common_versions(), **spiral_versions()}
    print_versions(versions)
    print_table("events (lower is better)", HEADER, [row(r) for r in results])
    if args.against is None:
        print("Not measured without --against CHECKOUT: an op that nobody listens to (bar 1.05).")
    if args.json:
        plain = [{**r, "quartiles": r["quartiles"].as_dict()} for r in results]
        args.json.write_text(json.dumps({"versions": versions, "results": plain}, indent=1) + "\n")
    missed = any(r["bar"] is not None and r["ratio"] > r["bar"] for r in results)
    return int(args.check and missed)


if __name__ == "__main__":
    sys.exit(main())
