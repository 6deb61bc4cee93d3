"""Ops side by side; a part of `benchmarks.gpu`.

    python -m benchmarks.gpu.ops --found result.jsonl --seconds 200
    python -m benchmarks.gpu.ops --found result.jsonl --only softmax --rounds 200

Every side computes a case once and is compared with PyTorch before anything is timed. A side that fails, or whose
results are off, is a line with its reason.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import cases
from benchmarks.gpu.case import Case
from benchmarks.gpu.part import Sink
from benchmarks.gpu.side import Array, HostSide, Run, SpiralSide, TorchSide
from benchmarks.gpu.timing import measure

_COMPARED = 1 << 20  # elements of each result
_FAR = 1e9  # JSON has no infinity
_SETS = 16  # of inputs, at most
_LIGER = "liger_kernel.transformers.functional"


def prepare_interpreter(device: str) -> None:
    """Has Triton's interpreter compute as exactly as a GPU, where it is what runs kernels."""
    if device == "processor":
        try:
            patch = importlib.import_module("spiral.testing.triton_interpreter").patch
        except ModuleNotFoundError as error:  # no Triton here
            print(f"no Triton: {error}")
        else:
            patch()


class Contest:
    """The sides that there are, and what they need for a case.

    Args:
        device: ``cuda`` or ``processor``.
        compiled: whether torch.compile is one of them.
    """

    def __init__(self, device: str, compiled: bool) -> None:
        import spiral as sp

        self.device = device
        self.absent: dict[str, str] = {}
        entries = sp.backends()
        self.ours: list[SpiralSide] = []
        for name in ("cuda", "triton"):
            unavailable = entries[name].unavailable
            if unavailable is not None:
                self.absent[f"spiral {name}"] = unavailable.reason
            else:
                self.ours.append(SpiralSide(name))
        self.kernels = {name: set(entries[name].kernels) for name in ("cuda", "triton")}
        facts = self.ours[0].driver.facts if self.ours else None
        self.cache = int(facts.more.get("l2", 0)) if facts else 0
        self.theirs: list[TorchSide] = []
        self.liger: Any = None
        self._find_torch(compiled)

    def _find_torch(self, compiled: bool) -> None:
        try:
            import torch
        except ImportError as error:
            self.absent["PyTorch"] = str(error)
            return
        if self.device == "cuda" and not torch.cuda.is_available():
            self.absent["PyTorch"] = f"PyTorch {torch.__version__} finds no GPU"
            return
        where = "cuda" if self.device == "cuda" else "cpu"
        names = ["PyTorch", *(["torch.compile"] if compiled else []), "Liger-Kernel"]
        try:
            self.liger = importlib.import_module(_LIGER)
        except Exception as error:  # not installed, or of another Triton
            self.absent[names.pop()] = f"{type(error).__name__}: {error}"
        self.theirs = [TorchSide(name, where) for name in names]

    def runs(self, case: Case, arrays: Sequence[Any]) -> tuple[list[tuple[Any, list[Run]]], dict[str, str]]:
        """Each side with its runs, and why others are not there."""
        found: list[tuple[Any, list[Run]]] = []
        reasons: dict[str, str] = {}
        shared: dict[str, Any] = {}

        def inputs(side: Any) -> Any:
            kind = "torch" if isinstance(side, TorchSide) else "spiral"
            if kind not in shared or case.mutates:
                shared[kind] = [[_put(side, a, case.dtype) for a in s] for s in arrays]
            return shared[kind]

        for ours in self.ours:
            missing = [op for op in case.ops if op not in self.kernels[ours.backend]]
            if missing:
                reasons[ours.name] = f"no kernel of {', '.join(missing)}"
            else:
                _attempt(found, reasons, ours, inputs, partial(case.spiral, ours.sp))
        for side in self.theirs:
            make = self._torch_make(case, side)
            if make is not None:
                _attempt(found, reasons, side, inputs, make)
        return found, reasons

    def release(self) -> None:
        """Gives back what PyTorch keeps of a case's memory, for the other framework's next one."""
        gc.collect()
        if self.device == "cuda" and self.theirs:
            self.theirs[0].torch.cuda.empty_cache()

    def _torch_make(self, case: Case, side: TorchSide) -> Callable[[Any], list[Run]] | None:
        torch = side.torch
        if side.name == "Liger-Kernel":
            liger = case.liger
            return None if liger is None else lambda sets: liger((torch, self.liger), sets)
        if side.name == "torch.compile":
            if not case.compiled:
                return None
            return lambda sets: case.torch((torch, lambda f: torch.compile(f, dynamic=False)), sets)
        return lambda sets: case.torch((torch, lambda f: f), sets)


def _put(side: Any, arrays: Any, dtype: str) -> Any:
    return [side.put(a, dtype) for a in arrays] if isinstance(arrays, list) else side.put(arrays, dtype)


def _attempt(
    found: list[Any], reasons: dict[str, str], side: Any, inputs: Callable[[Any], Any], make: Callable[[Any], list[Run]]
) -> None:
    try:
        found.append((side, make(inputs(side))))
    except Exception as error:
        reasons[side.name] = f"{type(error).__name__}: {error}"[:500]


def size_of(inputs: Sequence[Any], dtype: str) -> int:
    """Bytes of a set of inputs on a device."""
    return sum(d.nbytes(dtype) for x in inputs for d in (x if isinstance(x, list) else [x]))


def distance(got: Sequence[Array], want: Sequence[Array]) -> float:
    """The largest relative distance of results; `_FAR` where shapes differ or there is NaN."""
    if len(got) != len(want) or any(g.shape != w.shape for g, w in zip(got, want, strict=True)):
        return _FAR
    most = 0.0
    for g, w in zip(got, want, strict=True):
        norm = float(np.linalg.norm(w.astype(np.float64)))
        off = float(np.linalg.norm(g.astype(np.float64) - w.astype(np.float64))) / (norm or 1.0)
        most = max(most, off if off < _FAR else _FAR)
    return most


def run_case(contest: Contest, case: Case, *, rounds: int, deadline: float) -> dict[str, Any]:
    """One case as a line of the report."""
    rng = np.random.default_rng(0)
    first = [i.draw(rng) for i in case.inputs]
    bytes_of_set = size_of(first, case.dtype)
    count = min(_SETS, max(1, -(-4 * contest.cache // bytes_of_set)))
    if contest.device == "processor":
        count = 2
    arrays = [first, *([i.draw(rng) for i in case.inputs] for _ in range(count - 1))]
    sides, reasons = contest.runs(case, arrays)
    errors: dict[str, float] = {}
    if case.matches:
        sides, errors = _compared(contest, case, first, sides, reasons)
    measured, failures = measure(sides, rounds=rounds, deadline=deadline)
    return {
        "case": case.key, "name": case.name, "size": case.size, "dtype": case.dtype, "moved": case.moved,
        "flops": case.flops, "large": case.large, "speed_aim": case.speed_aim, "memory_aim": case.memory_aim,
        "sets": count, "beyond_cache": count * bytes_of_set > contest.cache, "errors": errors,
        "absent": {**reasons, **failures}, "sides": [m.as_dict() for m in measured],
    }  # fmt: skip


def _compared(
    contest: Contest, case: Case, first: Sequence[Any], sides: list[tuple[Any, list[Run]]], reasons: dict[str, str]
) -> tuple[list[tuple[Any, list[Run]]], dict[str, float]]:
    """Runs every side once; leaves out those that fail or whose results are off."""
    results: dict[str, list[Array]] = {}
    kept: list[tuple[Any, list[Run]]] = []
    errors: dict[str, float] = {}
    if contest.device == "processor":
        host = HostSide()
        inputs = [_put(host, a, case.dtype) for a in first]
        results["reference"] = host.values(case.spiral(host.sp, [inputs])[0](), _COMPARED)
    for side, runs in sides:
        try:
            with side.within():
                results[side.name] = side.values(runs[0](), _COMPARED)
            kept.append((side, runs))
        except Exception as error:
            reasons[side.name] = f"{type(error).__name__}: {error}"[:500]
    want = results.get("reference", results.get("PyTorch"))
    if want is None:
        return kept, errors
    for side, _ in kept:
        errors[side.name] = distance(results[side.name], want)
        if not errors[side.name] <= case.tolerance:
            reasons[side.name] = f"results are off by {errors[side.name]:.2g}, more than {case.tolerance:g}"
    return [(side, runs) for side, runs in kept if side.name not in reasons], errors


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True, help="append lines of JSON to this file")
    parser.add_argument("--seconds", type=float, default=600.0, help="stop starting cases after this long")
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, three rounds")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 60)")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--skip", default="[]", help="JSON list of cases not to run")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    args = parser.parse_args()
    deadline = time.monotonic() + 0.92 * args.seconds
    prepare_interpreter(args.device)
    sink = Sink(args.found)
    contest = Contest(args.device, compiled=args.device == "cuda" and not args.no_compile)
    names = [s.name for s in contest.ours] + [s.name for s in contest.theirs]
    sink.put(sides=names, absent=contest.absent)
    if not contest.ours:
        raise SystemExit(f"ops: spiral has no GPU backend here: {contest.absent}")
    skipped = set(json.loads(args.skip))
    for case in cases.tiny() if args.quick else cases.full():
        if args.only not in case.key or case.key in skipped:
            continue
        if time.monotonic() > deadline:
            sink.put(case=case.key, not_run="the time was up")
            continue
        sink.put(started=case.key)
        rounds = args.rounds or (3 if args.quick else 60)
        began = time.monotonic()
        line = run_case(contest, case, rounds=rounds, deadline=min(deadline, time.monotonic() + 20))
        sink.put(**line, seconds=round(time.monotonic() - began, 2))
        contest.release()


if __name__ == "__main__":
    main()
