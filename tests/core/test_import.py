"""What `import spiral` costs and pulls in, and who imports whom."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from spiral.storage import native

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
            if node.module == "spiral":  # from spiral import nn
                yield from (f"spiral.{a.name}" for a in node.names)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("kernels", ("spiral.kernels",)),  # of each other
        (
            "backends",
            (
                "spiral.backend",
                "spiral.dtype",
                "spiral.errors",
                "spiral.storage",
                "spiral.device_array",
                "spiral.gpu",
                "spiral.backends",
                "spiral.kernels",
            ),
        ),
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


def files(*folders):
    """The package's own files in these folders, without what the links to backends, kernels and plugins show."""
    for folder in folders:
        yield from sorted((ROOT / "spiral" / folder).glob("*.py"))


EVERY_PACKAGE = sorted(p.parent.name for p in (ROOT / "spiral").glob("*/__init__.py") if not p.parent.is_symlink())


@pytest.mark.parametrize("package", [".", *EVERY_PACKAGE])
def test_nothing_names_a_backend_a_kernel_or_a_plugin(package):
    bad = [
        (p.name, m)
        for p in files(package)
        for m in imports(p)
        if m.startswith(("spiral.backends.", "spiral.kernels", "spiral.plugins", "spiral._native"))
    ]
    assert bad == []


# who stands on whom: a package may use the core, ops and what is listed here
MAY_USE = {
    "ops": (),
    "nn": (),
    "optim": ("nn",),
    "io": (),
    "data": ("io",),  # whole files or none
    "text": ("io",),
    "models": ("nn", "io", "text"),
    "plugin": ("nn", "io"),  # its context reaches the catalogs of what it registers; files whole or none
    "train": ("nn", "optim", "data", "text", "io", "models", "gpu"),  # checkpoints say which configurations were tuned
    "testing": ("gpu", "nn", "optim", "models"),
    "gpu": ("io",),  # files whole or none
    "cli": EVERY_PACKAGE,
}


@pytest.mark.parametrize("package", EVERY_PACKAGE)
def test_a_package_stands_only_on_those_below_it(package):
    known = {f"spiral.{name}" for name in EVERY_PACKAGE}
    allowed = {"spiral.ops", "spiral.plugin", f"spiral.{package}", *(f"spiral.{name}" for name in MAY_USE[package])}
    found = {".".join(m.split(".")[:2]) for p in files(package) for m in imports(p)}
    assert sorted(found & known - allowed) == []


def test_the_core_stands_on_ops_and_plugins_alone():
    upper = tuple(f"spiral.{name}" for name in EVERY_PACKAGE if name not in ("ops", "plugin"))
    core = [p for p in files(".") if p.name != "__init__.py"]  # which only tells type checkers about them
    assert [(p.name, m) for p in core for m in imports(p) if m.startswith(upper)] == []


def test_import_needs_numpy_and_ml_dtypes_only():
    code = """
        import sys
        before = set(sys.modules)
        import spiral
        found = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(found - sys.stdlib_module_names - {"numpy", "ml_dtypes", "spiral"}))
    """
    assert run(textwrap.dedent(code)).strip() == "[]"


def test_packages_are_reachable_from_the_top_and_not_shadowed_by_op_families():
    code = "from spiral import nn, optim, data, io, text; import spiral as sp; print(optim.AdamW, sp.nn is nn)"
    assert "spiral.optim" in run(code) and "True" in run(code)


@pytest.mark.skipif(native is None, reason="the table lists the C++ kernels, and they are not here")
def test_op_table_is_current():
    subprocess.run([sys.executable, "-m", "spiral.op_table", "--check"], check=True, cwd=ROOT, capture_output=True)
