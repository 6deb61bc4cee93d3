"""What is missing, too old, of another kind or broken: a reason in `spiral doctor`, never a crash at import.

Each case is a process of its own with real files: a libcuda of an old driver, a package of another version, a CUDA C++
file that no compiler takes.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from spiral.testing.cuda_on_cpu import unavailable

ROOT = Path(__file__).resolve().parents[2]
NO_RUNNER = unavailable()
needs_runner = pytest.mark.skipif(NO_RUNNER is not None, reason=str(NO_RUNNER))
WITHOUT = ("SPIRAL_GPU", "SPIRAL_FALLBACK", "CXX", "TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


def run(code, *path, check=True, **environment):
    """What a script prints in a process whose packages are looked up in some folders first."""
    given = {k: v for k, v in os.environ.items() if k not in WITHOUT}
    given |= {"PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)]), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=given)
    assert not check or done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def doctor(*path, **environment):
    """The backends' lines of `spiral doctor`; the CPU goes on working."""
    code = """
import json
import spiral as sp
from spiral.cli.doctor import report
assert sp.sum(sp.ones(3)).item() == 3.0
print(json.dumps(report()["backends"]))
"""
    found = json.loads(run(code, *path, **environment).splitlines()[-1])
    assert "unavailable" not in found["numpy"]
    return found


# ---------------------------------------------------------------- drivers
@pytest.fixture(scope="module")
def old_driver(tmp_path_factory):
    """A folder with a libcuda that says it is of CUDA 9."""
    folder = tmp_path_factory.mktemp("old_driver")
    source = folder / "libcuda.cpp"
    source.write_text(
        'extern "C" {\n'
        "int cuInit(unsigned) { return 0; }\n"
        "int cuDriverGetVersion(int* version) { *version = 9000; return 0; }\n"
        "int cuDeviceGetCount(int* count) { *count = 1; return 0; }\n"
        "}\n"
    )
    subprocess.run(["g++", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


needs_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


@pytest.mark.skipif(find_library("cuda") is not None, reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("wanted", ["", "cupy", "torch"])
def test_no_driver(wanted):
    if wanted == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    lines = doctor(SPIRAL_GPU=wanted)
    assert lines["cuda"].startswith("unavailable: no NVIDIA driver: libcuda.so.1")
    assert "install NVIDIA's driver" in lines["cuda"]


@needs_runner
@needs_cupy
def test_a_driver_that_is_too_old_for_cupy(old_driver):
    lines = doctor(SPIRAL_GPU="cupy", LD_LIBRARY_PATH=str(old_driver))
    assert "finds no usable device" in lines["cuda"] and "nsufficient" in lines["cuda"]
    assert "install a newer driver" in lines["cuda"]


@needs_runner
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_without_cuda_or_without_a_device_of_it(old_driver):
    line = doctor(SPIRAL_GPU="torch", LD_LIBRARY_PATH=str(old_driver))["cuda"]
    assert "was built without CUDA" in line or "finds no usable device" in line


@needs_runner
@needs_cupy
def test_both_reasons_are_told_where_neither_cupy_nor_pytorch_has_a_device(old_driver):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    line = doctor(LD_LIBRARY_PATH=str(old_driver))["cuda"]
    assert "CuPy" in line and "PyTorch" in line


@pytest.mark.skipif(sys.platform != "linux", reason="the runner is for Linux")
def test_a_processor_without_gxx(tmp_path):
    lines = doctor(SPIRAL_GPU="processor", PATH=str(tmp_path))
    assert lines["cuda"].startswith("unavailable: the runner of CUDA C++ needs g++")
    assert lines["cuda"].endswith("; install g++")


# ---------------------------------------------------------------- packages
def package(folder, name, text):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    return folder


ON_RUNNER = """
import dataclasses, sys
import spiral as sp
from spiral.gpu import use_driver
from spiral.testing.cuda_on_cpu import CudaOnCpu
gpu = CudaOnCpu()
"""


@needs_runner
def test_nvrtc_that_cannot_be_loaded(tmp_path):
    package(tmp_path, "cupy_backends", "")  # as of a CuPy that lacks its libraries
    code = """
gpu.facts = dataclasses.replace(gpu.facts, compiler="")
use_driver(gpu)
print(sp.backends()["cuda"])
print((sp.ones(2) + 1.0).tolist())
"""
    out = run(ON_RUNNER + code, tmp_path)
    assert "unavailable" in out and "has no compiler for CUDA C++: NVRTC cannot be loaded" in out
    assert "[2.0, 2.0]" in out


@needs_runner
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("__version__ = '2.1.0'", "triton 2.1.0 is not one of 3.6 to 3.9"),
        ("__version__ = '4.0.0+git'", "triton 4.0.0+git is not one of"),
        ("__version__ = 'nightly'", "triton nightly is not one of"),
        ("", "triton of no version is not one of"),
        ("raise OSError('libtriton.so: wrong format')", "cannot be imported: OSError: libtriton.so: wrong format"),
    ],
    ids=["old", "new", "odd", "none", "broken"],
)
def test_triton_of_another_version(tmp_path, text, expected):
    code = "use_driver(gpu)\nprint(sp.backends())\nprint(sp.ones(2, device='cuda').tolist())"
    out = run(ON_RUNNER + code, package(tmp_path, "triton", text))
    assert expected in out and "[1.0, 1.0]" in out


# ---------------------------------------------------------------- devices
@needs_runner
def test_two_devices_of_different_kinds_get_the_kernels_that_each_can_run():
    code = """
old, new = gpu, CudaOnCpu()
old.facts = dataclasses.replace(old.facts, name="an old one", cc=75)
use_driver(old, new)
print([str(d) for d in sp.devices()])
q = sp.asarray([[[[0.5, 1.0], [2.0, -1.0]]]])
for device in ("cuda:0", "cuda:1"):
    x = q.astype(sp.bfloat16).to(device)
    print(device, sp.explain("attention", x, x, x, scale=1.0).chosen.backend)
    print([row.reason for row in sp.explain("attention", x, x, x, scale=1.0) if "capability" in str(row.reason)])
    y = q.to(device)
    print(round(sp.sum(sp.softmax(y, axis=-1)).item(), 5))
try:
    q.to("cuda:0") + q.to("cuda:1")
except sp.errors.DeviceError as error:
    print(error)
print(len(old.launches) > 0, len(new.launches) > 0)
"""
    out = run(ON_RUNNER + code)
    lines = out.splitlines()
    assert "cuda:0" in lines[0] and "cuda:1" in lines[0]
    assert "cuda:0 decomposition" in lines
    assert "['needs compute capability 8.0 to 99.9; this device has 7.5']" in lines
    assert "cuda:1 cuda" in lines
    assert lines.count("2.0") == 2
    assert "received cuda:0, cuda:1" in out and lines[-1] == "True True"


# ---------------------------------------------------------------- kernels
BROKEN = (
    ON_RUNNER.replace("CudaOnCpu()", "CudaOnCpu(folder=Path(sys.argv[1]))", 1).replace(
        "import dataclasses, sys", "import logging, sys\nfrom pathlib import Path"
    )
    + """
logging.basicConfig(level=logging.WARNING, format="LOGGED %(message)s")
use_driver(gpu)
x = sp.asarray([[1.0, 2.0, 3.0]]).to("cuda")
def attempt(run):
    try:
        print("RESULT", run())
    except sp.errors.SpiralError as error:
        print("ERROR", type(error).__name__, *str(error).splitlines(), sep=" | ")
"""
)


@pytest.fixture
def broken(tmp_path):
    """What breaks a copy of a kernel file, and runs a script on a device that compiles the copies."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    folder = tmp_path / "kernels" / "cuda"

    def go(file, code, **environment):
        (folder / file).write_text((folder / file).read_text() + '\nstatic_assert(false, "broken on purpose");\n')
        script = BROKEN.replace("sys.argv[1]", repr(str(folder))) + code
        return run(script, **environment)

    return go


@needs_runner
def test_a_kernel_that_does_not_compile_is_set_aside_with_its_reason_and_the_next_runs(broken):
    out = broken(
        "softmax.cu",
        """
from spiral.cli.doctor import report
from spiral.kernel_status import kernel_status
print("BEFORE", sp.explain("softmax", x).chosen.backend)
for _ in range(3):
    attempt(lambda: [round(v, 5) for v in sp.softmax(x).to("cpu").tolist()[0]])
print("AFTER", sp.explain("softmax", x).chosen.backend)
print("WHY", *[row.reason for row in sp.explain("softmax", x) if row.backend == "cuda"])
print("DOCTOR", report()["kernels set aside"])
print("STATUS", *[k.status for k in kernel_status(x.device) if k.op == "softmax" and k.backend == "cuda"])
print("SIXTEEN", sp.explain("softmax", x.astype(sp.float16)).chosen.backend)
w = sp.asarray([[1.0, 2.0, 3.0]]).to("cuda").requires_grad_()
attempt(lambda: [abs(round(v, 5)) for v in sp.grad(lambda w: sp.sum(sp.softmax(w) * 2.0))(w).to("cpu").tolist()[0]])
with sp.prefer(fallback="error"):
    attempt(lambda: sp.softmax(x).to("cpu").tolist())
""",
    )
    lines = out.splitlines()
    assert "BEFORE cuda" in lines and "AFTER decomposition" in lines
    assert lines.count("RESULT [0.09003, 0.24473, 0.66524]") == 3
    assert out.count("LOGGED softmax: the kernel of cuda is set aside on cuda:0 for float32: it cannot be built.") == 1
    for start in ("WHY cannot be built here: softmax.cu: ", "STATUS cannot be built here: softmax.cu: "):
        told = next(line for line in lines if line.startswith(start))
        assert "refuses it" in told and "broken on purpose" in told
    assert "DOCTOR {'softmax (cuda, cuda:0, float32)': 'softmax.cu: " in out
    assert "SIXTEEN cuda" in lines  # nobody has tried
    assert "RESULT [0.0, 0.0, 0.0]" in lines
    last = lines[-1]
    assert last.startswith(
        "ERROR | KernelBuildError | softmax: the kernel of cuda cannot be built on cuda:0, and SPIRAL_"
    )


@needs_runner
def test_doctor_tries_kernels_where_it_is_asked_to(broken):
    out = broken("softmax.cu", 'from spiral.cli.main import main\nmain(["doctor", "--kernels", "softmax", "--try"])')
    line = next(line for line in out.splitlines() if line.startswith("  softmax") and " cuda " in line)
    assert "cannot be built here: softmax.cu: " in line and "broken on purpose" in line
    assert any(
        line.startswith("  softmax") and "decomposition" in line and "chosen" in line for line in out.splitlines()
    )


@needs_runner
def test_where_a_fallback_is_an_error_a_kernel_that_does_not_compile_raises(broken):
    code = 'for _ in range(2):\n    attempt(lambda: sp.softmax(x).to("cpu").tolist())\n'
    out = broken("softmax.cu", code, SPIRAL_FALLBACK="error")
    assert out.count("ERROR | KernelBuildError") == 2 and "broken on purpose" in out and "LOGGED" not in out


@needs_runner
def test_an_op_that_nothing_else_can_run_says_why(broken):
    out = broken(
        "random.cu", "attempt(lambda: sp.ops.dropout(x, p=0.5, seed=1, stream=2))\n" * 2, SPIRAL_FALLBACK="warn"
    )
    assert (
        out.count("ERROR | CapabilityError | dropout: no backend can run it on cuda:0. |   cuda: cannot be built") == 2
    )


STEP = """
from spiral import optim
p = sp.nn.Parameter(sp.asarray([1.0, 2.0]).to("cuda"))
sp.sum(p).backward()
attempt(lambda: optim.SGD([p], lr=0.5).step())
attempt(lambda: p.to("cpu").tolist())
"""


@needs_runner
def test_a_step_that_nothing_else_can_take_leaves_the_parameters(broken):
    out = broken("optim.cu", STEP)
    assert "ERROR | CapabilityError | sgd: no backend can run it on cuda:0. |   cuda: cannot be built here" in out
    assert out.splitlines()[-1] == "RESULT [1.0, 2.0]"


@needs_runner
def test_a_step_whose_kernel_does_not_compile_is_taken_once_by_the_next(broken):
    another = """
from spiral.backend import Cap, Kernel
from spiral.backends_registry import register_kernel
def by_the_host(params, grads, buffers, lr, *rest):
    for p, g in zip(params, grads):
        p.memory.write(p.address, p.to_host() - lr * g.to_host())
register_kernel("cuda", Kernel("sgd", by_the_host, Cap(priority=-1)))
"""
    out = broken("optim.cu", another + STEP)
    assert out.count("LOGGED") == 1 and out.splitlines()[-2:] == ["RESULT None", "RESULT [0.5, 1.5]"]
