"""spiral's conformance suite on this backend; the package must be installed."""

from spiral.testing import conformance_suite

TestOpenCL = conformance_suite("opencl")
