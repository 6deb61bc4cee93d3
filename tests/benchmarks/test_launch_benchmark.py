"""The benchmark of launches runs, and a launch costs a fraction of Triton's own even on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="Triton's own launches take PyTorch's tensors")
pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).resolve().parents[2]


def test_a_launch_costs_at_most_a_quarter_of_tritons_own(tmp_path: Path) -> None:
    """Measured are 0.04 to 0.18. The best of a few tries, as other processes only ever add to a ratio."""
    best: dict[str, float] = {}
    for _ in range(3):  # a process each: this one may have Triton's interpreter or another driver
        path = tmp_path / "result.json"
        command = [sys.executable, "-m", "benchmarks.launch", "--repeats", "15", "--seconds", "0.004"]
        done = subprocess.run([*command, "--json", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results = json.loads(path.read_text())["results"]
        assert [r["what"].split(",")[0] for r in results] == ["2", "2", "8", "8", "16", "16", "30", "30"]
        for r in results:
            best[r["what"]] = min(best.get(r["what"], 1.0), r["ratio"])
        if max(best.values()) <= 0.25:
            return
    raise AssertionError(best)
