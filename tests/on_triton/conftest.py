"""This process runs Triton's interpreter on host memory: TRITON_INTERPRET=1 python -m pytest tests/on_triton."""

import os

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from spiral.gpu import use_driver  # noqa: E402
from spiral.testing import triton_interpreter  # noqa: E402
from spiral.testing.recording import RecordingDriver  # noqa: E402

triton_interpreter.patch()
if not os.environ.get("SPIRAL_GPU"):  # else CUDA C++ runs beside it
    use_driver(RecordingDriver(cc=0))
