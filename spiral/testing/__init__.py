"""What backend authors and this project's own tests run: op samples, conformance, gradient checks."""

from spiral.testing.conformance import BackendConformance, conformance_suite
from spiral.testing.gradients import check_gradient, check_second_gradient
from spiral.testing.oracle import check_against_oracle, check_decomposition, samples_of

__all__ = [
    "BackendConformance",
    "check_against_oracle",
    "check_decomposition",
    "check_gradient",
    "check_second_gradient",
    "conformance_suite",
    "samples_of",
]
