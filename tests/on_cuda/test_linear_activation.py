"""Linear layers with activation and residual: gradients end to end, by our tiles and by a library."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import gemm
from spiral.gpu import drivers
from tests.on_cuda.test_library_products import NumpyBlas

ACTIVATIONS = ["none", "relu", "gelu", "gelu_tanh", "silu"]


def value_and_gradients(device, activation, with_residual, rows=70, width=24, columns=67):
    rng = np.random.default_rng(3)
    shapes = (2, rows, width), (columns, width), (columns,), (2, rows, columns)
    leaves = [sp.asarray(rng.standard_normal(s).astype(np.float32)).to(device).detach() for s in shapes]
    for leaf in leaves:
        leaf.requires_grad = True
    residual = leaves[3] if with_residual else None
    y = sp.linear_activation(*leaves[:3], residual, activation=activation)
    y.backward(sp.asarray(rng.standard_normal(shapes[3]).astype(np.float32)).to(device))
    return [t.to("cpu").numpy() for t in (y, *(leaf.grad for leaf in leaves[: 4 if with_residual else 3]))]


def check(activation, with_residual):
    results = [value_and_gradients(device, activation, with_residual) for device in ("cpu", "cuda")]
    for on_cpu, on_cuda in zip(*results, strict=True):
        np.testing.assert_allclose(on_cuda, on_cpu, atol=2e-6 * np.abs(on_cpu).max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_value_and_gradients_are_those_of_the_parts(activation, with_residual):
    check(activation, with_residual)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_a_library_multiplies_and_one_pass_does_the_rest(monkeypatch, activation, with_residual):
    library = NumpyBlas()
    monkeypatch.setattr(drivers()[0], "blas", library, raising=False)
    monkeypatch.setattr(gemm, "LIBRARY_FROM", 60)
    check(activation, with_residual)
    assert library.calls


def test_the_argument_of_the_activation_is_kept_only_where_there_is_one():
    from spiral.op import OPS

    x, weight = sp.zeros((5, 3)), sp.zeros((4, 3))
    meta = OPS["linear_activation"].meta
    assert meta(x, weight, None, None, "none")[1].shape == (0,)
    assert meta(x, weight, None, None, "silu")[1].shape == (5, 4)


def test_a_wrong_residual_is_named():
    with pytest.raises(sp.errors.ShapeError, match=r"residual must be \(5, 4\)"):
        sp.linear_activation(sp.zeros((5, 3)), sp.zeros((4, 3)), None, sp.zeros((4,)))
