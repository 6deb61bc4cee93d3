"""Everything that is to be seen on a GPU, in one command that needs only this clone and what the machine has.

    make gpu                                             # python -m benchmarks.gpu
    python -m benchmarks.gpu --minutes 8                 # what matters most comes first
    python -m benchmarks.gpu --parts facts,graph,ops --only softmax
    python -m benchmarks.gpu --device processor --quick  # without a GPU: does it run?

Facts of the device and its limits; one graph of CUDA C++ and Triton kernels; kernels compiled into the cache; the GPU
backends' tests; determinism within and across processes; ops side by side; GPT-2's training step. Each is a process of
its own with its share of the time: what fails or takes too long is a line of the report, and the others go on.
Everything goes to ``benchmarks/results/<date>-gpu-<device>.json``; short tables with the aims come last.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import results
from benchmarks.gpu.part import ROOT, Part, environment, run_part

# part: share of the time; what an earlier part leaves is the later ones'
SHARES = {
    "extension": 0.10, "facts": 0.08, "graph": 0.08, "warm": 0.14, "ops": 0.30, "step": 0.18, "tests cuda": 0.20,
    "tests triton": 0.12, "tests triton torch": 0.10, "determinism 1": 0.06, "determinism 2": 0.05,
}  # fmt: skip
_QUICK = ("facts", "graph", "ops", "step", "determinism 1", "determinism 2")


class Run:
    """One run of the command: the parts that were asked for, in order, within the time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.deadline = time.monotonic() + 60 * args.minutes
        self.parts: list[Part] = []
        self.common = ["--device", args.device, *(["--quick"] if args.quick else [])]

    def seconds_for(self, name: str) -> float:
        """Its share of what is left, among the parts that are still to come."""
        left: float = self.deadline - time.monotonic()
        coming = [n for n in self.args.parts if n in SHARES and n not in {p.name for p in self.parts}]
        total = sum(SHARES[n] for n in coming) or 1.0
        # twice its share: most parts end before their time
        return max(0.0, min(left, 2 * left * SHARES[name] / total))

    def go(self) -> None:
        """Runs them."""
        for name in self.args.parts:
            seconds = self.seconds_for(name)
            if seconds < 2:
                self.note(Part(name, failure="not run: the time was up"))
                continue
            print(f"{name}: at most {seconds:.0f} s", flush=True)
            self.note(_STEPS[name](self, name, seconds))

    def note(self, part: Part) -> None:
        """Keeps what became of a part."""
        self.parts.append(part)
        print(f"{part.name}: {part.seconds:.1f} s: {part.told}", flush=True)

    def module(self, name: str, seconds: float, *more: str, module: str = "", **variables: str) -> Part:
        """A part that is a module of this package."""
        command = ["-m", f"benchmarks.gpu.{module or name}", *more]
        return run_part(name, command, env=environment(self.args.device, **variables), seconds=seconds)


def _plain(run: Run, name: str, seconds: float) -> Part:
    return run.module(name, seconds, *run.common)


def _extension(run: Run, name: str, seconds: float) -> Part:
    """Builds the C++ extension for this processor where there is a compiler and none was built."""
    if any(importlib.util.find_spec(f"spiral._native_{isa}") for isa in ("avx512", "avx2", "baseline")):
        return Part(name, found=[{"extension": "is there"}])
    lacking = None
    if importlib.util.find_spec("setuptools") is None:
        lacking = "setuptools is not installed"
    elif not any(shutil.which(c.split()[0]) for c in (sysconfig.get_config_var("CXX") or "c++", "c++", "g++")):
        lacking = "there is no C++ compiler"
    if lacking is not None:
        return Part(name, failure=f"{lacking}: NumPy does the processor's work")
    return run.module(name, seconds, SPIRAL_ISA="native")


def _warm(run: Run, name: str, seconds: float) -> Part:
    found = next(results.lines(run.parts, "facts", "cc"), None)
    if found is None:
        return Part(name, failure="not run: the device's architecture is not known")
    return run.module(name, seconds, "--arch", f"sm_{found['cc']}", *(["--quick"] if run.args.quick else []))


def _ops(run: Run, name: str, seconds: float) -> Part:
    """Ops; a case that ends the process is noted, and the rest go on in a new one."""
    until, whole = time.monotonic() + seconds, Part(name)
    while True:
        skip = [line["case"] for line in whole.found if "case" in line]
        more = ["--skip", json.dumps(skip), "--only", run.args.only]
        more += ["--rounds", str(run.args.rounds)] if run.args.rounds else []
        more += ["--no-compile"] if run.args.no_compile else []
        part = run.module(name, until - time.monotonic(), *run.common, *more)
        whole.found += part.found
        whole.seconds += part.seconds
        whole.failure = part.failure
        started = [line["started"] for line in part.found if "started" in line]
        done = {line["case"] for line in part.found if "case" in line}
        broken = [case for case in started if case not in done]
        if part.failure is None or not broken or until - time.monotonic() < 15:
            return whole
        whole.found.append({"case": broken[0], "broke": part.failure})


def _step(run: Run, name: str, seconds: float) -> Part:
    return run.module(name, seconds, *run.common, *(["--no-compile"] if run.args.no_compile else []))


def _tests(run: Run, name: str, seconds: float) -> Part:
    suite = name.split()[1]
    driver = "torch" if name.endswith("torch") else "processor" if run.args.device == "processor" else "cupy"
    return run.module(name, seconds, "--suite", suite, "--only", run.args.only, module="samples", SPIRAL_GPU=driver)


def _determinism(run: Run, name: str, seconds: float) -> Part:
    only = run.args.only or ("rms_norm,softmax" if run.args.quick else "")
    return run.module(name, seconds, "--device", run.args.device, "--only", only, module="determinism")


_STEPS: dict[str, Callable[[Run, str, float], Part]] = {
    "extension": _extension, "facts": _plain, "graph": _plain, "warm": _warm, "ops": _ops, "step": _step,
    "tests cuda": _tests, "tests triton": _tests, "tests triton torch": _tests, "determinism 1": _determinism,
    "determinism 2": _determinism,
}  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default 8)")
    parser.add_argument("--parts", default="", help=f"some of: {', '.join(SHARES)}")
    parser.add_argument("--only", default="", help="ops, cases and tests whose name holds this")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of a case (default 60)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few rounds: does it run?")
    parser.add_argument("--results", type=Path, help="folder of the JSON (default benchmarks/results)")
    args: Any = parser.parse_args()
    args.parts = [p.strip() for p in args.parts.split(",") if p.strip()] or list(_QUICK if args.quick else SHARES)
    unknown = [p for p in args.parts if p not in SHARES]
    if unknown:
        parser.error(f"--parts: unknown {unknown}; there are {', '.join(SHARES)}")
    if args.device == "processor" and not args.quick:
        parser.error("--device processor: its times mean nothing; add --quick, which sees that everything runs")
    return args  # type: ignore[no-any-return]


def main() -> int:
    """Runs the parts, writes what they found, prints it; 1 where a part failed."""
    args = _arguments()
    run = Run(args)
    try:
        run.go()
    except KeyboardInterrupt:
        print("stopped; here is what was found so far")
    folder = args.results or ROOT / "benchmarks" / "results"
    path = results.write(run.parts, folder, time.strftime("%Y-%m-%d"))
    print()
    results.print_all(run.parts)
    print(f"Everything is in {path}.")
    return int(any(p.failure is not None for p in run.parts))


if __name__ == "__main__":
    sys.exit(main())
