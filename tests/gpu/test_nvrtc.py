"""The kernels' files compile to machine code for a device, without one."""

import re
from pathlib import Path

import pytest

from spiral.backend import Unavailable
from spiral.errors import KernelError
from spiral.gpu import nvrtc

FILE = Path(__file__).parent / "behaviour.cu"


@pytest.fixture(autouse=True)
def needs_nvrtc():
    found = nvrtc.binding()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)


def test_every_name_gets_its_mangled_name_and_code():
    names = ["rms_norm<float>", "rms_norm<bf16>"]
    built = nvrtc.compile_cubin(FILE, names)
    assert list(built) == names
    lowered = {name: text for name, (text, _) in built.items()}
    assert lowered["rms_norm<float>"].startswith("_Z8rms_normIfE")
    assert len(set(lowered.values())) == 2
    for text, cubin in built.values():
        assert cubin[:4] == b"\x7fELF" and text.encode() in cubin


def test_message_holds_the_log(tmp_path):
    (tmp_path / "wrong.cu").write_text('#include "spiral.cuh"\n__global__ void f(float* x) { x[0] = oops; }\n')
    with pytest.raises(KernelError, match=re.escape("wrong.cu: NVRTC refuses it for sm_90")) as error:
        nvrtc.compile_cubin(tmp_path / "wrong.cu", ["f"])
    assert 'identifier "oops" is undefined' in str(error.value)


def test_unknown_name_and_target_are_errors():
    for names, arch in ((["no_such_kernel<float>"], "sm_90"), (["rms_norm<float>"], "sm_12345")):
        with pytest.raises(KernelError, match=r"behaviour\.cu: NVRTC refuses it"):
            nvrtc.compile_cubin(FILE, names, arch)
