"""The tape: sums, errors, memory, second derivatives, checkpointing, modes."""

import threading
import tracemalloc

import numpy as np
import pytest

import spiral as sp
from spiral.errors import ArgumentError, AutogradError, ShapeError


def leaf(values):
    return sp.asarray(values).requires_grad_()


def test_shared_value_gets_summed_gradient():
    x = leaf([2.0, 3.0])
    y = x * x
    (y + y * 2.0).sum().backward()
    assert x.grad.tolist() == [12.0, 18.0]


def test_gradients_accumulate_over_backward_calls():
    x = leaf(3.0)
    (x * 2.0).backward()
    (x * 5.0).backward()
    assert x.grad.item() == 7.0


def test_unused_input_gets_no_gradient_and_grad_of_it_is_zero():
    x, y = leaf([1.0]), leaf([2.0])
    (x * 3.0).sum().backward()
    assert y.grad is None
    assert sp.grad(lambda a, b: (a * 3.0).sum(), argnums=1)(sp.ones(2), sp.ones(2)).tolist() == [0.0, 0.0]


def test_backward_through_split_with_one_unused_part():
    x = leaf(np.arange(6, dtype=np.float32))
    a, _, c = sp.split(x, 3)
    (a.sum() * 2.0 + c.sum()).backward()
    assert x.grad.tolist() == [2, 2, 0, 0, 1, 1]


def test_item_assignment_is_differentiable_and_changes_only_that_object():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 2.0
    z = y[:2]
    y[0] = x[2] * 10.0
    assert z.tolist() == [2.0, 4.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 2.0, 12.0]


def test_augmented_assignment_is_differentiable():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    before = y.detach()
    y += x * x
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 5.0]
    assert before.tolist() == [1.0, 2.0]


def test_in_place_change_of_a_leaf_is_an_error_outside_no_grad():
    x = leaf([1.0])
    with pytest.raises(AutogradError, match="leaf"):
        x += 1.0
    with sp.no_grad():
        x += 1.0
    assert x.tolist() == [2.0] and x.requires_grad


def test_overwritten_saved_value_is_an_error_naming_op_and_line():
    w = leaf([2.0, 3.0])
    loss = (w * w).sum()
    w.copy_(sp.zeros(2))
    with pytest.raises(AutogradError, match=r"multiply saved.*overwritten by copy_ at .*test_autograd.py:\d+"):
        loss.backward()


def test_backward_of_a_vector_needs_a_gradient_of_its_shape():
    x = leaf([1.0, 2.0])
    with pytest.raises(AutogradError, match="scalar"):
        (x * 2.0).backward()
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        (x * 2.0).backward(sp.ones(3))
    (x * 2.0).backward(sp.asarray([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 20.0]


def test_backward_of_a_constant_is_an_error():
    with pytest.raises(AutogradError, match="does not depend"):
        sp.ones(1).sum().backward()


def test_grad_of_grad_of_grad():
    f = lambda x: (x**4.0).sum()  # noqa: E731
    third = sp.grad(lambda x: sp.grad(lambda y: sp.grad(f)(y).sum())(x).sum())
    np.testing.assert_allclose(third(sp.asarray([2.0, -1.0])).numpy(), [48.0, -24.0], rtol=1e-5)


def test_hessian_through_a_fused_norm_is_exact():
    """The fused vjp treats rstd as a constant; its derivative would be wrong."""
    rng = np.random.default_rng(0)
    x0, u = rng.standard_normal((2, 5))

    def slope(x):
        return sp.grad(lambda t: (sp.rms_norm(t) * sp.asarray(u)).sum())(x)

    exact = sp.grad(lambda x: (slope(x) * sp.asarray(u)).sum())(sp.asarray(x0)).numpy()
    h = 1e-5
    numeric = [
        ((slope(sp.asarray(x0 + h * e)).numpy() - slope(sp.asarray(x0 - h * e)).numpy()) @ u) / (2 * h)
        for e in np.eye(5)
    ]
    np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-8)


def test_forward_without_backward_keeps_memory_flat():
    w = leaf(np.ones((32, 32), np.float32))
    x = sp.ones((4, 32))

    def forward():
        return sp.relu(x @ w).sum()

    for _ in range(50):
        forward()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            forward()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000


def test_no_grad_is_a_decorator_a_context_and_local_to_its_thread():
    x = leaf([1.0])

    @sp.no_grad()
    def f():
        return x * 2.0

    assert not f().requires_grad
    seen = []
    with sp.no_grad():
        t = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        t.start()
        t.join()
        with sp.enable_grad():
            assert (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert seen == [True]


def test_checkpoint_gives_the_same_gradients_also_for_closed_over_leaves():
    w = leaf([[1.0, 2.0], [3.0, 4.0]])
    x = leaf([[0.5, -1.0]])

    def block(t):
        return sp.tanh(t @ w)

    block(x).sum().backward()
    expected = x.grad.tolist(), w.grad.tolist()
    x.grad = w.grad = None
    sp.checkpoint(block, x).sum().backward()
    assert (x.grad.tolist(), w.grad.tolist()) == expected
    w.grad = None
    sp.checkpoint(block, x.detach()).sum().backward()
    assert w.grad.tolist() == expected[1]


def test_value_and_grad_of_nested_structures():
    params = {"w": sp.asarray([2.0]), "list": [sp.asarray([3.0])]}
    value, grads = sp.value_and_grad(lambda p: (p["w"] * p["list"][0]).sum())(params)
    assert value.item() == 6.0
    assert grads["w"].tolist() == [3.0] and grads["list"][0].tolist() == [2.0]


def test_gradients_of_two_leaves_are_tensors_of_their_own():
    a, b, given = leaf([1.0, 2.0]), leaf([3.0, 4.0]), sp.ones(2)
    (a + b).backward(given)
    a.grad[0] = 9.0
    a.grad *= 2.0
    given += 5.0
    assert a.grad.tolist() == [18.0, 2.0] and b.grad.tolist() == [1.0, 1.0]
    ga, gb = sp.grad(lambda x, y: (x + y).sum(), argnums=(0, 1))(sp.ones(2), sp.ones(2))
    ga += 1.0
    assert gb.tolist() == [1.0, 1.0]
    c = leaf([1.0])
    seed = sp.ones(1)
    c.backward(seed)
    seed[0] = 7.0
    assert c.grad.tolist() == [1.0] and c.grad is not seed


def test_a_gradient_that_is_no_tensor_is_a_typed_error():
    x = leaf([1.0, 2.0])
    with pytest.raises(ArgumentError, match="must be a Tensor; received ndarray"):
        (x * 2.0).backward(np.ones(2, np.float32))


def test_a_given_gradient_takes_the_dtype_of_its_tensor():
    x = leaf([1.0, 2.0])
    x.backward(sp.ones(2, dtype=sp.float64))
    x.backward(sp.asarray([2, 3]))
    assert x.grad.dtype is sp.float32 and x.grad.tolist() == [3.0, 4.0]
