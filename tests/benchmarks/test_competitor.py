"""What the measuring process promises about its competitors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
competitor: Any = importlib.import_module("benchmarks.competitor")
train_step: Any = importlib.import_module("benchmarks.train_step")
workloads: Any = importlib.import_module("benchmarks.workloads")


class Scripted:
    """Answers with losses that were written down."""

    def __init__(self, framework: str, losses: list[float]) -> None:
        self.framework = framework
        self.losses = losses

    def ask(self, do: str, steps: int) -> dict[str, list[float]]:
        return {do: self.losses[:steps]}


def test_forced_openblas_core_does_not_reach_competitors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    env = competitor.environment(threads=2)
    assert "OPENBLAS_CORETYPE" not in env
    assert "OPENBLAS_L2_SIZE" not in env
    assert env["SPIRAL_NUM_THREADS"] == env["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("third", [2.001, float("nan")])
def test_different_losses_are_refused(third: float) -> None:
    ours, theirs = Scripted("spiral", [2.0, 2.0, third]), Scripted("torch", [2.0, 2.0, 2.0])
    with pytest.raises(competitor.BenchmarkError, match="at step 2"):
        train_step.check_losses(ours, theirs)


def test_equal_losses_return_their_difference() -> None:
    ours, theirs = Scripted("spiral", [2.0, 2.0, 2.00001]), Scripted("torch", [2.0, 2.0, 2.0])
    assert train_step.check_losses(ours, theirs) == pytest.approx(5e-6, rel=1e-3)


def test_initial_weights_do_not_depend_on_order() -> None:
    shapes = {"a.weight": (3, 2), "b.bias": (3,)}
    backwards = dict(reversed(shapes.items()))
    one, two = (workloads.initial_weights(s, seed=1) for s in (shapes, backwards))
    assert all((one[name] == two[name]).all() for name in shapes)


def test_batches_repeat_for_a_seed() -> None:
    for name in ("mlp_small", "gpt_small", "conv_small"):
        one, two = (workloads.batches(workloads.WORKLOADS[name], count=2, seed=3) for _ in range(2))
        assert all((x == y).all() for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True))
