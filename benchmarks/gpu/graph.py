"""The first experiment: one graph that holds CUDA C++ and Triton kernels together, replayed on other inputs.

A part of `benchmarks.gpu`. Three ops follow each other in one graph: a norm by Triton, a softmax by CUDA C++, a norm by
Triton again, each reading what the one before has written, on addresses that stay. It is launched on inputs that were
not there when it was recorded, and compared with NumPy in float64.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.ops import prepare_interpreter
from benchmarks.gpu.part import Sink

_EPS = 1e-5
TOLERANCE = 1e-5


def expected(x: Any, weight: Any) -> Any:
    """The chain in float64."""

    def rms(v: Any) -> Any:
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + _EPS) * weight

    y = rms(x)
    e = np.exp(y - y.max(-1, keepdims=True))
    return rms(e / e.sum(-1, keepdims=True))


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small rows")
    args = parser.parse_args()
    sink = Sink(args.found)
    prepare_interpreter(args.device)
    import spiral as sp
    from spiral.device import as_device
    from spiral.op import F

    shape = (3, 33) if args.quick else (4096, 1024)
    rng = np.random.default_rng(0)
    first, *others = (rng.standard_normal(shape, np.float32) for _ in range(4))
    weight = rng.standard_normal(shape[1], np.float32)
    x, w, y = (sp.asarray(a).to("cuda") for a in (first, weight, np.zeros_like(first)))
    memory: Any = as_device("cuda").memory
    driver = memory.driver

    def chain() -> None:
        with sp.prefer("triton"):
            a = sp.rms_norm(x, w, eps=_EPS)
        with sp.prefer("cuda"):
            b = sp.softmax(a, axis=-1)
        with sp.prefer("triton"):
            F.copy_(y, sp.rms_norm(b, w, eps=_EPS))

    with sp.prefer("triton"):
        chosen = {"rms_norm": sp.explain("rms_norm", x, w, eps=_EPS).chosen.backend}
    with sp.prefer("cuda"):
        chosen["softmax"] = sp.explain("softmax", x, axis=-1).chosen.backend
    together = set(chosen.values()) == {"cuda", "triton"}
    sink.put(chosen=chosen, together=together)
    chain()  # compiled before: a graph cannot wait for a compiler

    def error(of: Any) -> float:
        want = expected(of.astype(np.float64), weight.astype(np.float64))
        return float(np.linalg.norm(y.to("cpu").numpy() - want) / np.linalg.norm(want))

    sink.put(eager_error=error(first))
    F.copy_(y, sp.zeros_like(y))
    graph = driver.capture(chain)
    recorded = float(np.abs(y.to("cpu").numpy()).max())
    sink.put(ran_while_recorded=recorded != 0.0)
    errors = []
    for values in (first, *others):
        F.copy_(x, sp.asarray(values).to("cuda"))
        graph.launch()
        errors.append(error(values))
    sink.put(replay_errors=errors, agrees=together and max(errors) <= TOLERANCE)
    before = y.to("cpu").numpy().tobytes()
    graph.launch()
    sink.put(same_bits_again=y.to("cpu").numpy().tobytes() == before)
    spent = []
    for _ in range(5 if args.quick else 60):
        start = driver.event()
        graph.launch()
        end = driver.event()
        driver.synchronize()
        spent.append(1e3 * end.milliseconds_since(start))
    sink.put(replay_us=float(np.median(spent)))
    if not together:
        raise SystemExit(f"graph: expected kernels of both backends; received {chosen}")
    if recorded or max(errors) > TOLERANCE:
        raise SystemExit("graph: the replayed graph does not compute what its kernels compute")


if __name__ == "__main__":
    main()
