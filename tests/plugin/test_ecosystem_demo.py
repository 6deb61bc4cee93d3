"""The complete example runs and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(**environment: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / "ecosystem_integration_demo.py")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "SPIRAL_PLUGINS": "+early_stopping", **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_the_example_shows_every_part_of_the_system():
    text = run()
    loading = [line.split()[0] for line in text.splitlines() if " can " in line]
    assert loading.index("metrics") < loading.index("schedule") and set(loading) >= {"monitor", "waves"}
    assert "telemetry: metrics, monitor" in text  # discovery by capability
    assert re.search(r"waves_1 +waves +\(N, 2\) +\(N, 48\)", text) and "1,682 parameters" in text
    accuracy = re.search(r"accuracy on new points ([\d.]+)%", text)
    assert accuracy is not None and float(accuracy[1]) > 95
    halved = re.search(r"learning rate ([\d.]+) in the end; halved: (\d+)", text)
    assert halved is not None and float(halved[1]) == 0.04 / 2 ** int(halved[2]) and int(halved[2]) >= 1
    counts = dict(re.findall(r"^(\w+) +(\d+)$", text, re.M))
    assert counts["EpochStart"] == counts["EpochEnd"] == "60" and counts["ModuleRegistered"] == "2"
    assert counts["LearningRateHalved"] == halved[2] and int(counts["TensorOp"]) > 10_000
    assert "'metrics': is needed by 'schedule'" in text
    assert text.endswith("left: nothing; everything as before: True\n")


def test_a_user_overrides_a_setting_of_the_example():
    assert "learning rate 0.04 in the end; halved: 0" in run(SPIRAL_CONFIG__SCHEDULE__PATIENCE="60")
