"""The tape where it hurts: deep graphs, threads, errors in the middle, aliases, lists, nested functions."""

import collections
import threading
import tracemalloc

import numpy as np
import pytest

import spiral as sp
from spiral.autograd import grad_of
from spiral.errors import ArgumentError, AutogradError, DTypeError
from spiral.op import OPS, F, op
from spiral.testing import check_gradient, check_second_gradient


def leaf(values):
    return sp.asarray(values).requires_grad_()


def test_backward_may_be_called_again_and_adds_the_same_gradient():
    x = leaf([2.0, 3.0])
    y = (x * x).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [8.0, 12.0]
    with pytest.raises(ArgumentError, match="leave retain_graph out"):
        y.backward(retain_graph=True)


@pytest.mark.parametrize("differentiate", [True, False])
def test_a_chain_of_a_hundred_thousand_nodes_neither_recurses_nor_leaks(differentiate):
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    if differentiate:
        y.backward()
        assert x.grad.item() == 1.0
    del y  # freed node by node: Python's own trashcan bounds the recursion


def test_a_deep_chain_of_nodes_with_several_outputs_and_list_inputs_is_freed():
    x = leaf(np.ones(2, np.float32))
    y = x
    for _ in range(20_000):
        a, b = sp.split(y, 2)
        y = sp.concat([a, b])
    y.sum().backward()
    del y, a, b
    assert x.grad.tolist() == [1.0, 1.0]


def test_ten_thousand_forwards_with_slices_and_assignments_keep_memory_flat_without_the_collector():
    import gc

    w, x = leaf(np.ones((8, 8), np.float32)), sp.ones((2, 8))

    def forward():
        y = sp.relu(x @ w)
        y[0] = 1.0
        y += x
        return sp.concat(list(sp.split(y, 2))).sum()

    for _ in range(100):
        forward()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            forward()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown < 20_000


def test_threads_add_to_one_leaf_without_losing_gradients():
    w = leaf(np.ones(4, np.float32))

    def work():
        for _ in range(100):
            (w * 2.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert w.grad.tolist() == [800.0] * 4


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_backward_changes_no_leaf_and_restores_the_mode(error):
    a, b = leaf([1.0]), leaf([2.0])
    h = b * 3.0

    def interrupt(gradient):
        raise error("stop")

    handle = h.register_hook(interrupt)
    y = (a * 2.0 + h).sum()
    with pytest.raises(error):
        y.backward()
    assert a.grad is None and b.grad is None
    assert (a * 1.0).requires_grad
    handle.remove()
    y.backward()
    assert a.grad.tolist() == [2.0] and b.grad.tolist() == [3.0]


def test_an_error_inside_a_vjp_names_its_op(monkeypatch):
    x = leaf([1.0])
    y = sp.tanh(x).sum()
    monkeypatch.setattr(OPS["tanh"], "vjp", lambda need, g, y: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        y.backward()
    assert "differentiating tanh" in caught.value.__notes__[0]


def test_an_inner_gradient_sees_what_its_function_closes_over():
    """d/dy of d/dx (x^2 y^2), where the inner function closes over y."""
    x0 = sp.asarray([2.0, 3.0])
    outer = sp.grad(lambda y: sp.grad(lambda x: (x * x * y * y).sum())(x0).sum())
    assert outer(sp.asarray([1.0, 5.0])).tolist() == [8.0, 60.0]


def test_a_gradient_penalty_reaches_parameters_that_are_leaves_outside():
    w = leaf([3.0])
    penalty = (sp.grad(lambda x: (x * x * w).sum())(sp.asarray([2.0])) ** 2.0).sum()
    penalty.backward()
    assert w.grad.tolist() == [2.0 * 12.0 * 4.0]
    with sp.no_grad():
        assert not sp.grad(lambda x: (x * w).sum())(sp.asarray([2.0])).requires_grad


def test_the_value_of_value_and_grad_holds_no_graph_when_nothing_outside_needs_one():
    value, _ = sp.value_and_grad(lambda x: (x * x).sum())(sp.ones(3))
    assert not value.requires_grad


def test_value_and_grad_with_auxiliary_results_and_named_tuples():
    Params = collections.namedtuple("Params", "w b")
    f = lambda p: ((p.w * p.w + p.b).sum(), {"seen": p.w.shape})  # noqa: E731
    params = Params(sp.asarray([3.0]), sp.asarray([1.0]))
    (value, aux), grads = sp.value_and_grad(f, has_aux=True)(params)
    assert value.item() == 10.0 and aux == {"seen": (1,)}
    assert isinstance(grads, Params) and grads.w.tolist() == [6.0] and grads.b.tolist() == [1.0]
    grads, aux = sp.grad(f, has_aux=True)(params)
    assert grads.w.tolist() == [6.0] and aux == {"seen": (1,)}


def test_wrong_uses_of_grad_are_typed_errors():
    x = leaf([1.0])
    with pytest.raises(ArgumentError, match="expected a function; received Tensor"):
        sp.grad((x * x).sum(), x)
    with pytest.raises(DTypeError, match="only floating tensors have gradients; received int64"):
        sp.grad(lambda t: t.sum())(sp.asarray([1, 2]))
    with pytest.raises(AutogradError, match="must return a tensor"):
        sp.grad(lambda t: 3.0)(sp.ones(1))


def test_gradients_of_non_contiguous_zero_size_and_broadcast_inputs():
    a = np.arange(24, dtype=np.float64).reshape(4, 6)
    x = leaf(a)
    y = x.T[::2].T[::-1]
    (y * y).sum().backward()
    expected = np.zeros_like(a)
    expected[:, ::2] = 2 * a[:, ::2]
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    e = leaf(np.zeros((0, 3)))
    (e * 2.0 + sp.ones(3, dtype=sp.float64)).sum().backward()
    assert e.grad.shape == (0, 3)
    row = leaf(np.ones((1, 3)))
    (sp.ones((4, 1), dtype=sp.float64) * row + row).sum().backward()
    assert row.grad.tolist() == [[8.0, 8.0, 8.0]]


@pytest.mark.parametrize("dtype", [sp.float16, sp.bfloat16, sp.float64])
def test_gradients_have_the_dtype_of_their_tensor_also_across_casts(dtype):
    x = sp.asarray([1.0, 2.0], dtype=dtype).requires_grad_()
    w = leaf([3.0, 4.0])
    y = (x * w.astype(dtype)).astype(sp.float32) * w
    y.sum().backward()
    assert x.grad.dtype is dtype and w.grad.dtype is sp.float32
    assert x.grad.astype(sp.float32).tolist() == [9.0, 16.0] and w.grad.tolist() == [6.0, 16.0]


def test_slices_assignments_and_augmented_assignments_have_exact_second_derivatives():
    def f(a):
        y = a * a
        y[0] = a[1] ** 3.0
        y += a[::-1]
        z = y[1:] * 2.0
        y[1:] = z * z
        return (y**2.0).sum()

    def slope(v):
        return sp.grad(f)(sp.asarray(v)).numpy().sum()

    point, h = np.array([1.0, 2.0, -0.5]), 1e-5
    exact = sp.grad(lambda a: sp.grad(f)(a).sum())(sp.asarray(point)).numpy()
    numeric = [(slope(point + h * e) - slope(point - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(exact, numeric, rtol=1e-6)


@pytest.fixture
def list_op():
    """An op on a list of tensors that has only a decomposition."""

    @op("test_sum_of_products(*arrays, weight?, *, power: float = 2.0) -> y")
    class SumOfProducts:
        """Declared for one test."""

        @staticmethod
        def meta(arrays, weight, power):
            return arrays[0].spec

        @staticmethod
        def decompose(arrays, weight, power):
            total = sum(a**power for a in arrays[1:])
            return total * arrays[0] * (1.0 if weight is None else weight)

        @staticmethod
        def samples(s):
            yield [s.uniform(3, low=0.5), s.uniform(3, low=0.5), s.uniform(3, low=0.5)], s.normal(3), 3.0
            yield [s.uniform(3, low=0.5), s.uniform(3, low=0.5)], None, 2.0

    declared = OPS["test_sum_of_products"]
    yield declared
    OPS.remove("test_sum_of_products")


def test_an_op_on_lists_is_differentiated_twice_through_its_decomposition(list_op):
    from spiral.autograd import record

    assert check_gradient(list_op) == 2
    assert check_second_gradient(list_op) == 2
    # as a kernel's call would be recorded, so that the derivative is that of the decomposition
    arrays = [leaf([1.0, 2.0]), sp.asarray([3.0, 4.0]), leaf([5.0, 6.0])]
    raw = [[a._a for a in arrays], None]
    value = (arrays[1]._a ** 2 + arrays[2]._a ** 2) * arrays[0]._a
    y = record(list_op, (arrays, None), raw, (2.0,), (value,), (arrays[0]._key,))
    first = grad_of([F.sum(y)], [arrays[0], arrays[2]], create_graph=True)
    assert [g.tolist() for g in first] == [[34.0, 52.0], [10.0, 24.0]]
    second = grad_of([F.sum(first[1])], [arrays[0], arrays[2]])
    assert [g.tolist() for g in second] == [[10.0, 12.0], [2.0, 4.0]]
