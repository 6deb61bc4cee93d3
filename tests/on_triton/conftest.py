"""This process runs Triton's interpreter on host memory: TRITON_INTERPRET=1 python -m pytest tests/on_triton."""

import os

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
os.environ.setdefault("SPIRAL_GPU", "interpreter")  # or processor: CUDA C++ runs beside it, on the same memory

from spiral.testing import triton_interpreter  # noqa: E402

triton_interpreter.patch()
