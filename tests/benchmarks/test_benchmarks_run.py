"""Every benchmark runs in its quick mode, and refuses to compare different computations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="benchmarks compare with PyTorch")

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_train_step_reports_ratios_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    names = ["mlp_small", "gpt_small", "conv_small"]
    done = run("benchmarks.train_step", "--quick", "--workloads", ",".join(names), "--json", str(path))
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert [result["workload"] for result in content["results"]] == names
    for result in content["results"]:
        assert result["rounds"] == 3
        assert 0 < result["ratio"]["low"] <= result["ratio"]["median"] <= result["ratio"]["high"]
        assert result["loss_difference"] <= 1e-4
    expected = {"spiral", "spiral ISA", "spiral gemm", "OpenBLAS", "torch", "MKL", "numpy", "processor"}
    assert expected <= set(content["versions"])
    assert all(name in path.with_suffix(".md").read_text() for name in names)


def test_overhead_prints_every_bar() -> None:
    done = run("benchmarks.overhead", "--quick")
    assert done.returncode == 0, done.stderr
    for name in ("a + b", "gradient recorded", "a * 2.0", "a[0]", "bias add"):
        assert name in done.stdout
