"""checkpoint: the same gradients as without it, whatever the function closes over, returns or contains."""

import gc

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.autograd import grad_of
from spiral.errors import AutogradError


def leaf(values):
    return sp.asarray(values).requires_grad_()


def test_closed_over_results_and_leaves_get_their_gradients_once():
    w = leaf([2.0, 3.0])
    h = w * w  # a result: the gradient of w goes through it and around it
    x = leaf([1.0, -1.0])
    sp.checkpoint(lambda t: t * h * w, x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [8.0, 27.0])
    np.testing.assert_allclose(w.grad.numpy(), [3 * 4.0, -3 * 9.0])


def test_grad_of_a_closed_over_leaf_is_returned_and_no_leaf_is_written_to():
    w, x = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = sp.checkpoint(lambda t: t * w, x).sum()
    assert [g.tolist() for g in grad_of([y], [w, x])] == [[3.0, 4.0], [1.0, 2.0]]
    assert w.grad is None and x.grad is None


def test_several_outputs_keywords_and_nested_arguments():
    def block(pair, *, scale, extra):
        a, b = pair["a"], pair["b"][0]
        return {"sum": (a + b) * scale, "parts": [a * b, extra, 7], "none": None}

    def run(call):
        a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        extra = sp.asarray([1, 2])
        out = call({"a": a, "b": [b]}, scale=3.0, extra=extra)
        assert out["parts"][1].tolist() == [1, 2] and out["parts"][2] == 7 and out["none"] is None
        (out["sum"].sum() + (out["parts"][0] * out["sum"]).sum()).backward()
        return a.grad.tolist(), b.grad.tolist()

    assert run(lambda *a, **k: sp.checkpoint(block, *a, **k)) == run(block)


def test_one_of_two_outputs_unused():
    x = leaf([1.0, 2.0])
    _, b = sp.checkpoint(lambda t: (t * 100.0, t * 3.0), x)
    b.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_an_output_that_is_an_input_or_a_closed_over_leaf():
    x, w = leaf([1.0]), leaf([5.0])
    same, own, y = sp.checkpoint(lambda t: (t, w, t * w), x)
    (same * 2.0 + own * 3.0 + y).sum().backward()
    assert x.grad.tolist() == [7.0] and w.grad.tolist() == [4.0]


def test_nested_checkpoints_and_second_derivatives_are_exact():
    w0 = sp.asarray([0.3, -0.7], dtype=sp.float64)

    def plain(x, w):
        return (sp.tanh(x * w) * w * x).sum()

    def nested(x, w):
        return sp.checkpoint(lambda t: sp.checkpoint(lambda u: sp.tanh(u * w), t) * w * t, x).sum()

    def second(f):
        slope = sp.grad(f, argnums=(0, 1))
        return sp.grad(lambda x, w: sum((g * g).sum() for g in slope(x, w)), argnums=(0, 1))(w0 * 3.0, w0)

    for got, want in zip(second(nested), second(plain), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12)


def test_backward_with_create_graph_reaches_closed_over_parameters():
    def penalty(call):
        sp.random.manual_seed(0)
        layer = nn.Linear(3, 2).to(sp.float64)
        x = sp.asarray(np.linspace(-1, 1, 6).reshape(2, 3)).requires_grad_()
        y = (call(lambda t: sp.tanh(layer(t)), x) ** 2.0).sum()
        (g,) = grad_of([y], [x], create_graph=True)
        (g * g).sum().backward()
        return layer.weight.grad.numpy()

    np.testing.assert_allclose(penalty(sp.checkpoint), penalty(lambda f, x: f(x)), rtol=1e-12)


def test_random_numbers_are_drawn_again_and_the_stream_goes_on():
    sp.random.manual_seed(3)
    x = leaf(np.ones(64, np.float32))
    y = sp.checkpoint(lambda t: nn.functional.dropout(t, 0.5), x)
    state = sp.random.get_state()
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()
    assert sp.random.get_state() == state


def test_an_argument_changed_afterwards_by_augmented_assignment_keeps_its_old_value():
    x = leaf([1.0, 2.0])
    h = x * 1.0
    y = sp.checkpoint(lambda t: t * t, h)
    h += 100.0
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_an_overwritten_argument_is_an_error_naming_the_line():
    x = leaf([1.0, 2.0])
    y = sp.checkpoint(lambda t: t * t, x)
    x.copy_(sp.zeros(2))
    with pytest.raises(AutogradError, match=r"checkpoint saved.*overwritten by copy_ at .*test_recompute.py:\d+"):
        y.sum().backward()


def test_a_function_that_is_not_pure_is_an_error():
    x, calls = leaf([1.0, 2.0]), []

    def other_shape(t):
        calls.append(1)
        return t * 2.0 if len(calls) % 2 else (t * 2.0)[:1]

    y = sp.checkpoint(other_shape, x)
    with pytest.raises(AutogradError, match="same outputs when it runs again"):
        y.sum().backward()

    weights = [leaf([1.0, 1.0])]
    y = sp.checkpoint(lambda t: t * weights[0], x)
    weights[0] = leaf([5.0, 5.0])
    with pytest.raises(AutogradError, match="used other tensors"):
        y.sum().backward()


def test_an_output_that_hides_tensors_is_refused():
    class Box:
        def __init__(self, t):
            self.t = t

    with pytest.raises(AutogradError, match="must return tensors.*received Box"):
        sp.checkpoint(Box, leaf([1.0]))


def test_without_gradients_the_result_is_a_constant():
    x = leaf([1.0])
    with sp.no_grad():
        assert not sp.checkpoint(lambda t: t * 2.0, x).requires_grad
    assert not sp.checkpoint(lambda t: t * 2.0, sp.ones(1)).requires_grad


def test_intermediate_values_are_freed_before_backward():
    if not sp.memory():
        pytest.skip("no buffer pool without the C++ extension")
    x = leaf(np.ones(1 << 18, np.float32))

    def block(t):
        for _ in range(8):
            t = sp.tanh(t)
        return t

    gc.collect()
    before = sp.memory()["live"]
    y = sp.checkpoint(block, x)
    held = sp.memory()["live"] - before
    assert held < 2.5 * x.size * 4
    y.sum().backward()
    plain = block(x.detach().requires_grad_())
    assert plain.tolist() == y.tolist()
