"""`make gpu` without a GPU: every part runs on the processor, failures are told and kept apart, aims are judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import results
from benchmarks.gpu.cases import full, tiny
from benchmarks.gpu.ops import distance
from benchmarks.gpu.part import ROOT, Part, environment, run_part
from benchmarks.gpu.side import Drawn, HostSide, TorchSide
from spiral.op import OPS
from spiral.testing.cuda_on_cpu import unavailable


def write(folder: Path, text: str) -> list[str]:
    """A module that a part can run; it gets the arguments that every part gets."""
    path = folder / "part.py"
    path.write_text("import json, os, sys, time\nfound = sys.argv[sys.argv.index('--found') + 1]\n" + text)
    return [str(path)]


PUT = "open(found, 'a').write(json.dumps({'a': 1}) + '\\n')\n"


def test_a_part_that_dies_keeps_what_it_found_and_tells_why(tmp_path: Path) -> None:
    command = write(tmp_path, PUT + "print('the device is gone', flush=True); os.abort()")
    part = run_part("dying", command, env=environment("processor"), seconds=20)
    assert part.found == [{"a": 1}]
    assert part.failure is not None and "exit status -6" in part.failure and "the device is gone" in part.failure


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('x'); time.sleep(0.02)"
    text = f"import subprocess; subprocess.Popen([sys.executable, '-c', {child!r}])\n{PUT}time.sleep(60)"
    part = run_part("hanging", write(tmp_path, text), env=environment("processor"), seconds=1.5)
    assert part.found == [{"a": 1}] and part.seconds < 20
    assert part.failure is not None and part.failure.startswith("stopped after")
    size = beat.stat().st_size if beat.exists() else 0
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)"], check=True)
    assert (beat.stat().st_size if beat.exists() else 0) == size


def test_every_case_names_ops_that_there_are_and_is_listed_at_both_sizes() -> None:
    for case in (*full(), *tiny()):
        assert set(case.ops) <= OPS.keys(), case.key
        assert case.moved > 0 and case.dtype in ("float32", "bfloat16")
    assert {c.name for c in full()} == {c.name for c in tiny()}
    keys = [c.key for c in full()]
    assert len(keys) == len(set(keys))


def test_results_that_differ_in_anything_are_far() -> None:
    x = np.ones(4, np.float32)
    assert distance([x], [x]) == 0.0
    assert distance([x * np.float32(1.01)], [x]) == pytest.approx(0.01, rel=1e-3)
    for got in ([x[:3]], [x * np.nan], [x * np.inf], [x, x], []):
        assert distance(got, [x]) == 1e9


@pytest.mark.parametrize("values, shape", [(5, (3, 4)), (6, (2, 3)), (4, (2, 4)), (7, (7,)), (3, (1,))])
def test_devices_repeat_what_was_drawn(values: int, shape: tuple[int, ...]) -> None:
    drawn = Drawn(np.arange(values, dtype=np.float32), shape)
    assert np.array_equal(HostSide().put(drawn, "float32").numpy(), np.resize(drawn.values, shape))
    pytest.importorskip("torch", reason="PyTorch is not installed")
    assert np.array_equal(TorchSide("PyTorch", "cpu").put(drawn, "float32").numpy(), np.resize(drawn.values, shape))
    indices = HostSide().put(Drawn(np.arange(values), shape), "bfloat16")
    assert indices.dtype.name == "int64"
    assert drawn.nbytes("bfloat16") == 2 * drawn.size
    assert Drawn(np.arange(values), shape).nbytes("bfloat16") == 8 * drawn.size


def side(name: str, microseconds: float, peak: int = 100) -> dict[str, Any]:
    quartiles = {"low": microseconds, "median": microseconds, "high": microseconds}
    return {"side": name, "device_us": quartiles, "wall_us": quartiles, "captured": True, "peak_bytes": peak}


def test_aims_are_judged_by_spirals_faster_side() -> None:
    case = {
        "case": "x", "name": "x", "size": "1", "dtype": "float32", "moved": 8_000_000, "flops": 0, "large": True,
        "speed_aim": 0.9, "memory_aim": 0.35, "absent": {},
        "sides": [side("spiral cuda", 10.0, 60), side("spiral triton", 9.0, 30), side("PyTorch", 8.0)],
    }  # fmt: skip
    parts = [
        Part("facts", found=[{"ceiling": "copy", "bytes_per_second": 1e12}]),
        Part("ops", found=[{"started": "x"}, case]),
        Part("step", found=[{"workload": "g", "sides": [side("spiral cuda, captured", 9.0), side("PyTorch", 12.0),
                                                        side("torch.compile", 8.0)]}]),
    ]  # fmt: skip
    judged = {(a["what"], a["aim"]): (a["reached"], a["met"]) for a in results.judged(parts)}
    assert judged == {
        ("x", "share of copy bandwidth"): (pytest.approx(8 / 9), True),
        ("x", "speed against PyTorch"): (pytest.approx(8 / 9), False),
        ("x", "peak memory against PyTorch"): (pytest.approx(0.3), True),
        ("GPT-2 step, captured", "time against torch.compile"): (pytest.approx(9 / 8), False),
        ("GPT-2 step, captured", "speed against PyTorch"): (pytest.approx(12 / 9), True),
    }


def test_a_processor_is_no_device_to_time() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "processor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--quick" in done.stderr


@pytest.mark.skipif(unavailable() is not None, reason=f"the runner needs g++: {unavailable()}")
@pytest.mark.parametrize(
    "more",
    [
        ["--parts", "facts,graph,ops,determinism 1,determinism 2", "--only", "rms_norm"],
        pytest.param([], marks=pytest.mark.slow),
    ],
    ids=["some", "everything"],
)
def test_the_command_runs_on_the_processor(tmp_path: Path, more: list[str]) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "processor", "--quick", "--minutes", "20"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path), *more], cwd=ROOT, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-gpu-cuda-on-the-processor.json")
    content = json.loads(path.read_text())
    parts = {p["name"]: p for p in content["parts"]}
    graph = {k: v for line in parts["graph"]["found"] for k, v in line.items()}
    assert graph["together"] and graph["agrees"] and graph["same_bits_again"] and not graph["ran_while_recorded"]
    assert content["ceilings"]["copy"] > 0
    measured = [line for line in parts["ops"]["found"] if "name" in line]
    assert measured and not [line for line in parts["ops"]["found"] if "not_run" in line]
    for line in measured:
        wrong = {s: why for s, why in line["absent"].items() if not why.startswith("no kernel of")}
        assert not wrong, line["case"]
    sides = {s["side"] for line in measured for s in line["sides"]}
    assert {"spiral cuda", "spiral triton"} <= sides
    digests = [{line["op"]: line.get("digest") for line in parts[f"determinism {i}"]["found"]} for i in (1, 2)]
    assert digests[0] == digests[1] and digests[0]["rms_norm"]
    assert "aims met." in done.stdout
