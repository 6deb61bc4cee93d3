"""Fifty training steps from the same weights and batches give PyTorch's losses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity with PyTorch needs it")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("workload", ["mlp", "gpt", "conv"])
def test_fifty_steps_have_torch_losses(workload: str, tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    # a process of its own: each framework runs as it does for users, with its own thread pool
    command = [sys.executable, "-m", "benchmarks.parity", "--quick", "--workloads", workload]
    done = subprocess.run([*command, "--json", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert path.exists(), done.stderr
    losses = json.loads(path.read_text())[f"{workload}_small"]
    assert len(losses["torch"]) == 50
    np.testing.assert_allclose(losses["spiral"], losses["torch"], rtol=1e-4, atol=0, err_msg=" ".join(command))
    assert np.mean(losses["spiral"][-10:]) < np.mean(losses["spiral"][:10])  # it learns
