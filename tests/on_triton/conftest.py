"""This process runs Triton's interpreter on host memory: TRITON_INTERPRET=1 python -m pytest tests/on_triton.

On a machine with a GPU the same tests run what Triton compiles: SPIRAL_GPU=cupy (or torch) without TRITON_INTERPRET.
"""

import os

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET"):
    os.environ.setdefault("SPIRAL_GPU", "interpreter")  # or processor: CUDA C++ runs beside it, on the same memory

    from spiral.testing import triton_interpreter

    triton_interpreter.patch()
