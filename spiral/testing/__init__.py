"""What backend authors and this project's own tests run: op samples, conformance, gradient checks."""

from spiral.testing.conformance import check_against_oracle, check_decomposition, samples_of
from spiral.testing.gradients import check_gradient, check_second_gradient

__all__ = [
    "check_against_oracle",
    "check_decomposition",
    "check_gradient",
    "check_second_gradient",
    "samples_of",
]
