"""The benchmark of events runs, and publishing is cheap even on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.events import publishing

ROOT = Path(__file__).resolve().parents[2]


def test_it_prints_every_row_and_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.events", "--quick", "--against", str(ROOT), "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())["results"]
    assert sum(result["bar"] == 3.0 for result in results) == 3
    assert sum(result["bar"] == 1.05 for result in results) == 3
    assert all(result["ratio"] > 0 and result["what"] in done.stdout for result in results)


def test_a_checkout_that_is_none_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.events", "--quick", "--against", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "there is no checkout of spiral" in done.stderr


def test_publishing_to_ten_listeners_costs_no_multiple_of_ten_calls() -> None:
    """The bar is 3; measured are 1.6 to 1.9. The best of a few tries, as other processes only ever add to a ratio."""
    tries = [{r["what"]: r["ratio"] for r in publishing(repeats=15, seconds=0.002)} for _ in range(4)]
    best = {what: min(t[what] for t in tries) for what in tries[0]}
    assert max(best.values()) < 3.0, best
