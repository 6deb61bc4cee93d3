"""The example backend passes the conformance suite, found by its entry point."""

import pytest

pytest.importorskip("pyopencl", reason="pyopencl is not installed: pip install pyopencl pocl-binary-distribution")

from spiral.testing import conformance_suite  # noqa: E402

TestOpenCL = conformance_suite("opencl")
