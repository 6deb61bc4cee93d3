"""What `import spiral` costs and pulls in, and who imports whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spiral.storage

ROOT = Path(__file__).resolve().parents[2]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_import_pulls_in_no_other_framework():
    out = run(
        "import spiral, sys; print(sorted(set(sys.modules) & {'torch', 'triton', 'cupy', 'scipy', 'matplotlib'}))"
    )
    assert out.strip() == "[]"


def test_import_costs_at_most_a_quarter_second_over_numpy():
    code = "import time, numpy; t = time.process_time(); import spiral; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(5)) <= 0.25


def test_denormals_survive_loading_the_extension():
    assert (
        run("import numpy as np, spiral; spiral.backends(); print(np.float32(1e-40) * np.float32(0.5) != 0)").strip()
        == "True"
    )


def test_generated_wrappers_are_current():
    subprocess.run([sys.executable, "-m", "spiral.op", "--check"], check=True, cwd=ROOT, capture_output=True)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("kernels", ()),
        ("backends", ("spiral.backend", "spiral.dtype", "spiral.storage", "spiral.backends", "spiral.kernels")),
    ],
)
def test_lower_layers_import_only_what_they_may(folder, allowed):
    bad = [
        (p.name, m)
        for p in (ROOT / folder).rglob("*.py")
        for m in imports(p)
        if m.split(".")[0] == "spiral" and not m.startswith(allowed or ("-",))
    ]
    assert bad == []


def test_core_never_names_a_backend():
    core = [p for p in (ROOT / "spiral").glob("*.py")] + list((ROOT / "spiral" / "ops").glob("*.py"))
    bad = [
        (p.name, m)
        for p in core
        for m in imports(p)
        if m.startswith(("spiral.backends.", "spiral.kernels", "spiral.plugins"))
    ]
    assert bad == []


def test_packages_are_reachable_from_the_top_and_not_shadowed_by_op_families():
    code = "from spiral import nn, optim, data, io, text; import spiral as sp; print(optim.AdamW, sp.nn is nn)"
    assert "spiral.optim" in run(code) and "True" in run(code)


@pytest.mark.skipif(spiral.storage.native is None, reason="the table lists the C++ kernels, which are not loaded")
def test_op_table_is_current():
    subprocess.run([sys.executable, "-m", "spiral.op_table", "--check"], check=True, cwd=ROOT, capture_output=True)
