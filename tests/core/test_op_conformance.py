"""Every op's samples: kernels against the oracle, decompositions against the oracle, gradients."""

import pytest

import spiral as sp
from spiral import backends_registry
from spiral.op import OPS
from spiral.testing import check_against_oracle, check_decomposition, check_gradient, check_second_gradient

AVAILABLE = sorted(n for n, e in backends_registry.backends().items() if e.unavailable is None)
KERNELS = [(name, b) for name in sorted(OPS) for b in AVAILABLE if name in backends_registry.backends()[b].kernels]


@pytest.mark.parametrize(("name", "backend"), KERNELS)
def test_kernel_agrees_with_the_float64_oracle(name, backend):
    assert check_against_oracle(OPS[name], backend) > 0


@pytest.mark.parametrize("dtype", [sp.float64, sp.float16, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["add", "multiply", "sum", "softmax", "rms_norm", "linear", "gelu", "attention"])
def test_other_floating_dtypes_are_computed_wide_and_rounded_once(name, dtype):
    assert check_against_oracle(OPS[name], "numpy", dtype) > 0


@pytest.mark.parametrize("name", sorted(n for n, o in OPS.items() if o.decompose is not None))
def test_decomposition_agrees_with_the_oracle(name):
    check_decomposition(OPS[name])


DIFFERENTIABLE = sorted(n for n, o in OPS.items() if not o.nondifferentiable)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_agrees_with_differences(name):
    assert check_gradient(OPS[name]) > 0


@pytest.mark.parametrize("name", sorted(set(DIFFERENTIABLE) - {"identity", "astype"}))
def test_second_gradient_agrees_with_differences(name):
    assert check_second_gradient(OPS[name]) > 0


def test_every_op_is_declared_completely():
    for o in OPS.values():
        assert o.doc, o.name
        assert o.oracle is not None, o.name
        assert o.samples is not None, o.name
        assert o.nondifferentiable or o.vjp is not None or o.decompose is not None, o.name
