"""When the Triton backend can be used, and what it says when it cannot."""

import json
import os
import subprocess
import sys

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from spiral.backend import DeviceInfo, Unavailable  # noqa: E402
from spiral.backends import triton as package  # noqa: E402


def device(**facts):
    return DeviceInfo("cuda", 0, "GPU of a test", {"cc": 90, **facts})


def probe(monkeypatch, devices, interpreted=False):
    monkeypatch.setattr(package, "device_infos", lambda: devices)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", interpreted)
    return package.TritonBackend().probe()


def test_gpus_are_taken_as_the_driver_layer_gives_them(monkeypatch):
    first, second = device(), DeviceInfo("cuda", 1, "another kind", {"cc": 80})
    found = probe(monkeypatch, [first, second])
    assert found == [first, second] and found[0] is first


def test_no_device_is_the_driver_layers_reason_and_triton_stays_unimported(monkeypatch):
    reason = Unavailable("no NVIDIA driver", "install one")
    assert probe(monkeypatch, reason) is reason
    code = (
        "import sys\n"
        "import spiral as sp\n"
        "entry = sp.backends()['triton']\n"
        "print(entry.unavailable.reason, 'triton' in sys.modules, 'torch' in sys.modules)\n"
    )
    env = {**os.environ, "SPIRAL_GPU": "none"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split("\n")[0].endswith("False False"), done.stderr


@pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.0.0+git1234", "2.3.1"])
def test_other_versions_of_triton_are_named_with_what_to_install(monkeypatch, version):
    monkeypatch.setattr(triton, "__version__", version)
    found = probe(monkeypatch, [device()])
    assert found.reason == f"triton {version} is not one of 3.6 to 3.9" and found.remedy.startswith("pip install")


@pytest.mark.parametrize("version", ["3.6.0", "3.9.2", "3.8.0+cu130"])
def test_versions_that_were_tried_are_taken_with_their_suffixes(monkeypatch, version):
    monkeypatch.setattr(triton, "__version__", version)
    assert isinstance(probe(monkeypatch, [device()]), list)


def test_interpreter_wants_host_memory_and_compiled_kernels_want_a_gpu(monkeypatch):
    host = device(on_processor=True)
    assert probe(monkeypatch, [host], interpreted=True) == [host]
    assert "TRITON_INTERPRET is set" in probe(monkeypatch, [device()], interpreted=True).reason
    found = probe(monkeypatch, [host])
    assert "runs no kernels that Triton has compiled" in found.reason and "TRITON_INTERPRET=1" in found.remedy


def test_missing_triton_is_a_reason(monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    assert probe(monkeypatch, [device()]) == Unavailable("triton is not installed", "pip install triton")


def test_triton_that_does_not_import_is_a_reason(tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("raise OSError('libtriton.so: cannot open')\n")
    code = (
        "import json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from spiral.backend import DeviceInfo\n"
        "from spiral.backends import triton as package\n"
        "package.device_infos = lambda: [DeviceInfo('cuda', 0, 'x', {'cc': 90})]\n"
        "print(json.dumps(package.TritonBackend().probe().reason))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert json.loads(done.stdout) == "triton cannot be imported: OSError: libtriton.so: cannot open", done.stderr


def test_every_file_of_kernels_has_its_launchers_and_ops_that_exist():
    from spiral.op import OPS

    kernels = list(package.backend.kernels())
    assert {"rms_norm", "layer_norm"} <= {k.op for k in kernels} <= set(OPS)
