"""A training step of GPT-2 124M: forward, loss, backward, AdamW; 16-bit arithmetic, float32 weights.

    python -m benchmarks.gpu.step --found result.jsonl --seconds 200

A part of `benchmarks.gpu`. All sides start from the same weights and batches, and their first losses are compared
before anything is timed. spiral trains as its trainer does (16-bit model, float32 masters, linear + cross-entropy in
one), PyTorch with autocast and fused AdamW. The captured step is one graph: the step number in AdamW's bias correction
stays that of the recording, which changes no time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.ops import prepare_interpreter
from benchmarks.gpu.part import Sink
from benchmarks.gpu.side import Array, Run, SpiralSide, TorchSide
from benchmarks.gpu.timing import measure
from benchmarks.workloads import WORKLOADS, batches, flops, initial_weights

_CHECKED = 3  # losses
_LR, _BETAS, _EPS, _DECAY = 3e-4, (0.9, 0.95), 1e-8, 0.1
TOLERANCE = 2e-2  # of losses, relative: sums of 16-bit products in another order


def weights_of(model: Any) -> dict[str, Array]:
    """The same initial weights for both frameworks; the head is the embedding under another name."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    weights = initial_weights(shapes, seed=0)
    return {**weights, "head.weight": weights["tokens.weight"]}


def spiral_step(workload: str, dtype: str) -> Run:
    """A step on spiral's device."""
    import spiral as sp
    from benchmarks.models_spiral import GPTModel
    from spiral import optim
    from spiral.train.precision import MixedPrecision

    w = WORKLOADS[workload]
    model = GPTModel(w)  # type: ignore[arg-type]
    model.load_state_dict({n: sp.asarray(v) for n, v in weights_of(model).items()})
    model.to("cuda")
    model.index = model.index.to("cuda")
    precision = MixedPrecision(model, dtype)
    optimizer = optim.AdamW(precision.masters, lr=_LR, betas=_BETAS, eps=_EPS, weight_decay=_DECAY)
    data = [tuple(sp.asarray(a).to("cuda") for a in pair) for pair in batches(w, count=4, seed=0)]
    count = [0]

    def step() -> Any:
        x, y = data[count[0] % len(data)]
        count[0] += 1
        optimizer.zero_grad()
        hidden = model.hidden(x)
        loss = sp.linear_cross_entropy(
            sp.reshape(hidden, (-1, hidden.shape[-1])), model.tokens.weight, sp.reshape(y, (-1,))
        )
        precision.backward(loss)
        optimizer.step()
        precision.update()
        return loss.detach()

    return step


def torch_step(torch: Any, device: str, workload: str, dtype: str, compiled: Callable[[Any], Any]) -> Run:
    """A step in PyTorch; ``compiled`` wraps the model's forward pass with its loss."""
    from benchmarks.models_torch import GPTModel

    w = WORKLOADS[workload]
    model = GPTModel(w)  # type: ignore[arg-type]
    model.load_state_dict({n: torch.from_numpy(v) for n, v in weights_of(model).items()})
    model.to(device)
    model.index = model.index.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, betas=_BETAS, eps=_EPS, weight_decay=_DECAY, fused=True)
    data = [tuple(torch.from_numpy(a).to(device) for a in pair) for pair in batches(w, count=4, seed=0)]
    mixed, count = getattr(torch, dtype), [0]

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(device, dtype=mixed, enabled=dtype != "float32"):
            logits = model(x)
            return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))

    forward = compiled(loss_of)

    def step() -> Any:
        x, y = data[count[0] % len(data)]
        count[0] += 1
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def sides_of(device: str, workload: str, dtype: str, compiled: bool, absent: dict[str, str]) -> list[Any]:
    """(side, what makes its step, whether it is recorded) of each side, the most important first."""
    import spiral as sp

    found: list[Any] = []
    for name in ("cuda", "triton"):
        reason = sp.backends()[name].unavailable
        if reason is not None:
            absent[f"spiral {name}"] = reason.reason
            continue
        found.append((SpiralSide(name), lambda: spiral_step(workload, dtype), False))
    if found:
        captured = SpiralSide(found[0][0].backend)
        captured.name += ", captured"
        found.insert(1, (captured, lambda: spiral_step(workload, dtype), True))
    try:
        import torch
    except ImportError as error:
        absent["PyTorch"] = str(error)
        return found
    where = "cuda" if device == "cuda" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        absent["PyTorch"] = f"PyTorch {torch.__version__} finds no GPU"
        return found
    eager = TorchSide("PyTorch", where)
    found.insert(0, (eager, lambda: torch_step(torch, where, workload, dtype, lambda f: f), False))
    if compiled:
        faster = TorchSide("torch.compile", where)
        found.append((faster, lambda: torch_step(torch, where, workload, dtype, torch.compile), False))
    return found


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny model, two rounds")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    deadline = time.monotonic() + 0.9 * args.seconds
    sink = Sink(args.found)
    prepare_interpreter(args.device)
    workload, dtype = ("gpt2_small", "float32") if args.quick else ("gpt2", "bfloat16")
    absent: dict[str, str] = {}
    losses: dict[str, list[float]] = {}
    contest = []
    compiled = args.device == "cuda" and not args.no_compile
    for side, make, record in sides_of(args.device, workload, dtype, compiled, absent):
        sink.put(started=side.name)
        try:
            with side.within():
                step = make()
                losses[side.name] = [float(step().item()) for _ in range(1 if args.quick else _CHECKED)]
            contest.append((side, step, record))
        except Exception as error:
            absent[side.name] = f"{type(error).__name__}: {error}"[:600]
        if time.monotonic() > deadline:
            absent["the rest"] = "the time was up"
            break
    want = losses.get("PyTorch", next(iter(losses.values()), []))
    for name, got in losses.items():
        off = max((abs(a - b) / abs(b) for a, b in zip(got, want, strict=True)), default=0.0)
        if not off <= TOLERANCE:
            absent[name] = f"losses {got} are not those of the others, {want}"
    contest = [c for c in contest if c[0].name not in absent]
    # the unrecorded first: they then take turns, and a graph keeps the memory that it was recorded with
    rounds, results = (2 if args.quick else args.rounds), []
    for record in (False, True):
        chosen = [(side, [step]) for side, step, recorded in contest if recorded == record]
        until = deadline if record else time.monotonic() + 0.7 * (deadline - time.monotonic())
        measured, failures = measure(chosen, rounds=rounds, deadline=until, record=record)
        results += measured
        absent |= failures
    sink.put(
        workload=workload, dtype=dtype, flops=flops(WORKLOADS[workload]), losses=losses, absent=absent,
        sides=[m.as_dict() for m in results],
    )  # fmt: skip


if __name__ == "__main__":
    main()
