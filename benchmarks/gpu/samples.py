"""The GPU backends' tests on the device, in processes of their own; a part of `benchmarks.gpu`.

python -m benchmarks.gpu.samples --found result.jsonl --suite triton --driver torch
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import ROOT, Sink

SUITES = {"cuda": "tests/on_cuda", "triton": "tests/on_triton"}
_TOLD = 40  # failures told in full
_PROCESSES = 8


def command(suite: str, report: Path, keyword: str, seconds: float) -> list[str]:
    """What runs the tests; side by side where pytest-xdist is there."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", SUITES[suite]]
    words += ["-m", "not slow", "-k", keyword] if keyword else ["-m", "not slow"]
    if importlib.util.find_spec("xdist") is not None and os.environ.get("SPIRAL_GPU") != "processor":
        words += ["-n", str(min(_PROCESSES, os.cpu_count() or 1)), "--dist", "loadgroup"]
    return words


def counted(report: Path) -> dict[str, Any]:
    """What a JUnit file says: numbers, failures, and the reasons of what was left out."""
    suite = next(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    numbers = {k: int(suite.get(k, "0")) for k in ("tests", "failures", "errors", "skipped")}
    failures, skipped = [], dict[str, int]()
    for case in suite.iter("testcase"):
        for kind in ("failure", "error"):
            for found in case.findall(kind):
                name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
                failures.append({"test": name, "why": (found.text or found.get("message") or "").strip()[-800:]})
        for found in case.findall("skipped"):
            reason = found.get("message", "")
            skipped[reason] = skipped.get(reason, 0) + 1
    return {**numbers, "failed": failures[:_TOLD], "skipped_because": skipped}


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--only", default="", help="pytest's -k")
    args = parser.parse_args()
    sink = Sink(args.found)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        process = subprocess.Popen(command(args.suite, report, args.only, args.seconds), cwd=ROOT)
        try:
            status = process.wait(timeout=0.95 * args.seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # pytest then says what it has run so far
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            sink.put(suite=args.suite, driver=os.environ.get("SPIRAL_GPU"), stopped=f"after {args.seconds:.0f} s")
            status = 0
        if report.exists():
            sink.put(suite=args.suite, driver=os.environ.get("SPIRAL_GPU"), **counted(report))
    # 1: tests have failed, which the line above tells; anything else is a failure of the run
    raise SystemExit(0 if status in (0, 1) else status)


if __name__ == "__main__":
    main()
