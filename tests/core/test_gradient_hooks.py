"""Hooks on tensors and on modules see gradients on their way back, and may replace them."""

import pytest

import spiral as sp
from spiral import nn
from spiral.autograd import grad_of
from spiral.errors import AutogradError, ShapeError


def leaf(values):
    return sp.asarray(values).requires_grad_()


def test_hooks_of_results_and_leaves_see_summed_gradients_and_replace_them():
    x = leaf([1.0, 2.0])
    y = x * 3.0
    z = (y + y * 2.0).sum()  # registered after y was used, as in PyTorch
    seen = []
    y.register_hook(seen.append)
    y.register_hook(lambda g: g * 10.0)
    x.register_hook(seen.append)
    z.backward()
    assert [g.tolist() for g in seen] == [[3.0, 3.0], [90.0, 90.0]]
    assert x.grad.tolist() == [90.0, 90.0]


def test_hooks_also_act_on_grad_of_and_under_create_graph():
    x = leaf([2.0])
    y = x * x
    y.register_hook(lambda g: g * 10.0)
    (g,) = grad_of([(y * y).sum()], [x], create_graph=True)
    assert g.tolist() == [320.0]
    (gg,) = grad_of([g.sum()], [x])
    assert gg.tolist() == [3360.0]  # 40 y + 10 * (40 x) (2 x): the second pass goes through y again, as in PyTorch


def test_a_hook_of_one_output_of_several_leaves_the_others_alone():
    x = leaf([1.0, 2.0])
    a, b = sp.split(x, 2)
    a.register_hook(lambda g: g * 5.0)
    (a + b).sum().backward()
    assert x.grad.tolist() == [5.0, 1.0]


def test_a_removed_hook_is_not_called():
    x = leaf([1.0])
    y = x * 2.0
    with y.register_hook(lambda g: g * 100.0):
        pass
    handle = x.register_hook(lambda g: g * 100.0)
    handle.remove()
    handle.remove()
    y.sum().backward()
    assert x.grad.tolist() == [2.0]


def test_a_hook_of_a_leaf_that_takes_itself_away_hides_no_other():
    x = leaf([1.0])
    seen = []

    def once(gradient):
        seen.append("once")
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(lambda g: seen.append("always"))
    for _ in range(2):
        (x * 2.0).sum().backward()
    assert seen == ["once", "always", "always"]


def test_a_leafs_hook_that_raises_leaves_every_leaf_as_it_was():
    a, b, c = leaf([1.0]), leaf([2.0]), leaf([3.0])
    handles = [t.register_hook(lambda g: 1 / 0) for t in (b,)]
    y = (a * b * c).sum()
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert a.grad is None and b.grad is None and c.grad is None
    handles[0].remove()
    y.backward()
    assert (a.grad.tolist(), b.grad.tolist(), c.grad.tolist()) == ([6.0], [3.0], [2.0])


def test_what_a_hook_returns_is_checked():
    x = leaf([1.0])
    y = x * 2.0
    handle = y.register_hook(lambda g: 3.0)
    with pytest.raises(AutogradError, match="must return a Tensor or None; received float"):
        y.sum().backward()
    handle.remove()
    y.register_hook(lambda g: sp.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"must keep the shape \(1,\); it returned \(2, 2\)"):
        y.sum().backward()
    assert x.grad is None
    with pytest.raises(AutogradError, match="requires no gradient"):
        sp.ones(1).register_hook(lambda g: g)


def test_a_modules_backward_hook_sees_both_sides_and_replaces_the_inputs_gradients():
    layer = nn.Linear(2, 3)
    seen = []

    def hook(module, grad_inputs, grad_outputs):
        seen.append((module, [g.shape for g in grad_inputs], [g.tolist() for g in grad_outputs]))
        return (grad_inputs[0] * 0.0,)

    handle = layer.register_full_backward_hook(hook)
    x = leaf([[1.0, 2.0]])
    (layer(x) * 2.0).sum().backward()
    assert seen == [(layer, [(1, 2)], [[[2.0, 2.0, 2.0]]])]
    assert x.grad.tolist() == [[0.0, 0.0]]
    assert layer.weight.grad.tolist() == [[2.0, 4.0]] * 3
    handle.remove()
    layer(x).sum().backward()
    assert len(seen) == 1


def test_a_backward_hook_of_a_module_whose_inputs_need_no_gradient():
    layer, seen = nn.Linear(2, 3), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    layer(sp.ones((1, 2))).sum().backward()
    assert seen == [((None,), (1, 3))]
    with sp.no_grad():
        layer(sp.ones((1, 2)))
    assert len(seen) == 1


def test_a_backward_hook_of_a_module_with_several_inputs_and_outputs():
    class Pair(nn.Module):
        def forward(self, a, k, b):
            return a * b, {"k": k, "sum": a + b}

    pair, seen = Pair(), []
    pair.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    a, b = leaf([2.0]), leaf([5.0])
    product, rest = pair(a, "text", b)
    assert rest["k"] == "text"
    product.sum().backward()
    (grad_inputs, grad_outputs) = seen[0]
    assert [g.tolist() for g in grad_inputs] == [[5.0], [2.0]]
    assert grad_outputs[0].tolist() == [1.0] and grad_outputs[1] is None
