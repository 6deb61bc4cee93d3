"""The conformance suite on a device that shares no memory with the host, and whose kernels are right."""

from island import Island

import spiral as sp
from spiral.testing import conformance_suite

TestIsland = conformance_suite(Island("island"), dtypes=(sp.float32, sp.bfloat16))
