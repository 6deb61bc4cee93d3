"""The example backend as a package: its size, its reasons, what it borrows, its training script, a broken kernel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyopencl", reason="pyopencl is not installed: pip install pyopencl pocl-binary-distribution")

import spiral as sp  # noqa: E402
from spiral.backends_registry import unregister_backend  # noqa: E402
from spiral.testing import conformance_suite  # noqa: E402

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "backend_opencl"
OWN = ["add", "exp", "where", "sum", "max", "matmul", "softmax", "layer_norm", "rms_norm", "adamw"]
BORROWED = ["sort", "cholesky", "take", "concat", "cumulative_sum", "dropout", "cross_entropy_grad", "layer_norm_grad"]


def python(*arguments, **environment):
    paths = os.pathsep.join([str(ROOT), *(p for p in sys.path if "backend_opencl" in p or p.startswith("/tmp"))])
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def test_the_package_has_fewer_than_400_lines():
    files = [f for f in (EXAMPLE / "src").rglob("*") if f.suffix in (".py", ".cl")]
    assert len(files) >= 5
    assert sum(len(f.read_text().splitlines()) for f in files) < 400


def test_its_own_kernels_run_and_the_rest_is_borrowed():
    kernels = sp.backends()["opencl"].kernels
    assert set(OWN) <= set(kernels) and not set(BORROWED) & set(kernels)
    x = sp.ones((3, 4), device="opencl")
    assert sp.explain("add", x, x).chosen.backend == "opencl"
    assert sp.explain("sort", x).chosen.backend == "host"
    assert sp.explain("log_softmax", x).chosen.backend == "decomposition"
    rows = {row.backend: row.reason for row in sp.explain("add", x.to(sp.float64), x)}
    assert rows["opencl"] == "takes float32; received float64"


def test_memory_is_shared_and_kernels_write_into_it():
    x = sp.ones((3, 4), device="opencl")
    assert type(x._a) is np.ndarray and "SVM" in repr(x._a.base.base)
    assert sp.sort(x)._a.flags.writeable


def test_the_training_script_learns_and_agrees_with_the_cpu():
    losses = []
    for device in ("cpu", "opencl"):
        done = python(str(EXAMPLE / "train_mlp.py"), device, "21")
        assert done.returncode == 0, done.stderr
        losses.append([float(line.split()[-1]) for line in done.stdout.splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][-1] < losses[1][0] / 5


def test_without_a_platform_there_is_a_reason_and_no_crash(tmp_path):
    nowhere = str(tmp_path / "nothing")
    code = "import spiral as sp; print(sp.backends()['opencl'].unavailable.reason); print((sp.ones(2) + 1).tolist())"
    done = python("-c", code, OCL_ICD_VENDORS=nowhere, OPENCL_VENDOR_PATH=nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no OpenCL platform") and "[2.0, 2.0]" in done.stdout


@pytest.mark.parametrize(
    ("file", "right", "wrong", "test"),
    [
        ("table", "x * x", "x + x", "test_op_agrees_with_the_oracle[square-float32]"),
        ("kernels.cl", "x[k * inner]", "x[k]", "test_op_agrees_with_the_oracle[sum-float32]"),
        ("kernels.cl", "xs.batch +", "xs.row +", "test_op_agrees_with_the_oracle[matmul-float32]"),
        ("kernels.cl", "sqrt(v) / root", "sqrt(v)", "test_optimizer_steps_as_on_the_cpu[AdamW]"),
    ],
    ids=["formula", "stride", "batch", "bias correction"],
)
def test_a_broken_kernel_is_caught(monkeypatch, file, right, wrong, test):
    from spiral_opencl import OpenCLBackend, device

    build = device.cl.Program

    def broken(context, source):
        return build(context, source.replace(right, wrong))

    class Broken(OpenCLBackend):
        name = device_type = "broken"

        def probe(self):
            (found,) = super().probe()
            from dataclasses import replace

            return [replace(found, type="broken")]

    monkeypatch.setattr(device.cl, "Program", broken)
    suite = conformance_suite(Broken())
    try:
        with pytest.raises(AssertionError):
            dict(suite.checks())[test]()
    finally:
        unregister_backend("broken")
