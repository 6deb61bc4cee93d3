"""Clipping and stepping where gradients or parameters share memory, are views, or are not there."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ArgumentError

LIMITS = {
    "norm": lambda ps: optim.clip_grad_norm_(ps, 0.5),
    "value": lambda ps: optim.clip_grad_value_(ps, 0.5),
    "scale": lambda ps: optim.scale_grads(ps, 0.5),
}


def parameter(values):
    return nn.Parameter(sp.asarray(values))


@pytest.mark.parametrize("limit", LIMITS)
def test_two_parameters_that_share_one_gradient_are_limited_once_each(limit):
    """The gradient of a + b is one tensor for both; scaling it in place scaled it twice."""
    a, b, g = parameter([3.0, 4.0]), parameter([3.0, 4.0]), sp.asarray([1.0, 1.0])
    (a + b).backward(g)
    LIMITS[limit]([a, b])
    expected = {"norm": [0.25, 0.25], "value": [0.5, 0.5], "scale": [0.5, 0.5]}[limit]
    np.testing.assert_allclose([a.grad.numpy(), b.grad.numpy()], [expected] * 2, rtol=1e-5)
    assert g.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("limit", LIMITS)
def test_broadcast_and_transposed_gradients_are_limited(limit):
    a, b = parameter(np.ones((2, 3), np.float32)), parameter(np.ones((2, 3), np.float32))
    (a.sum() + (sp.ones((4, 3)) @ b.T).sum() * 0.25).backward()
    assert not a.grad.numpy().flags.c_contiguous or not b.grad.numpy().flags.c_contiguous
    LIMITS[limit]([a, b])
    expected = 0.5 / np.sqrt(12.0) if limit == "norm" else 0.5
    np.testing.assert_allclose([a.grad.numpy(), b.grad.numpy()], np.full((2, 2, 3), expected), rtol=1e-5)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.Lion, optim.Adafactor])
@pytest.mark.parametrize("kind", ["transposed", "broadcast", "read-only"])
def test_parameters_without_memory_of_their_own_are_stepped_as_others(make, kind):
    base = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    if kind == "transposed":
        data = sp.asarray(base).T
    elif kind == "broadcast":
        data = sp.broadcast_to(sp.ones(3), (2, 3))
    else:
        base.flags.writeable = False
        data = sp.asarray(base, copy=False)
    odd, plain = nn.Parameter(data), nn.Parameter(sp.asarray(np.array(data.numpy())))
    for p in (odd, plain):
        opt = make([p], lr=0.1)
        for _ in range(2):
            opt.zero_grad()
            (p * p).sum().backward()
            opt.step()
    assert odd.tolist() == plain.tolist()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_clip_grad_norm_of_other_norms_matches_torch(p):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    gradients = [np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate([(3, 4), (5,)])]
    ours = [nn.Parameter(sp.zeros(g.shape)) for g in gradients]
    theirs = [torch.zeros(g.shape, requires_grad=True) for g in gradients]
    for a, b, g in zip(ours, theirs, gradients, strict=True):
        a.grad, b.grad = sp.asarray(g), torch.tensor(g)
    norm = optim.clip_grad_norm_(ours, 0.7, p)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.7, p)
    assert float(norm) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)


def test_clipping_without_gradients_gives_zero_and_a_bad_norm_is_refused():
    p = parameter([1.0])
    assert float(optim.clip_grad_norm_([p], 1.0)) == 0.0
    with pytest.raises(ArgumentError, match="norm_type must be a number above 0; received 0"):
        optim.clip_grad_norm_([p], 1.0, 0)


@pytest.mark.parametrize("dtype", [sp.float16, sp.bfloat16, sp.float64])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.Lion, optim.Adafactor])
def test_every_optimizer_steps_other_dtypes_near_the_float32_result(make, dtype):
    values = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4)
    results = []
    for d in (sp.float32, dtype):
        p = nn.Parameter(sp.asarray(values, dtype=d))
        opt = make([p], lr=0.05)
        for _ in range(3):
            opt.zero_grad()
            (p * p).sum().backward()
            opt.step()
        assert p.dtype is d
        results.append(p.astype(sp.float32).numpy())
    np.testing.assert_allclose(results[1], results[0], atol=0.02 if dtype is not sp.float64 else 1e-5)


def test_an_incomplete_state_dict_is_refused_by_name():
    opt = optim.AdamW([parameter([1.0])])
    with pytest.raises(nn.StateDictError, match="AdamW.load_state_dict: missing param_groups, state"):
        opt.load_state_dict({})
    with pytest.raises(nn.StateDictError, match="Linear.load_state_dict.*\n  weight: expected a tensor.*received list"):
        nn.Linear(2, 2).load_state_dict({"weight": [[1, 2], [3, 4]], "bias": np.zeros(2)})


def test_tied_weights_are_stepped_once_and_stay_tied():
    model = nn.Module()
    model.embed, model.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    model.head.weight = model.embed.weight
    before = model.embed.weight.numpy().copy()
    opt = optim.SGD(model.parameters(), lr=0.1)
    indices = sp.asarray([0, 2])
    model.head(model.embed(indices)).sum().backward()
    g = model.embed.weight.grad.numpy().copy()
    opt.step()
    np.testing.assert_allclose(model.head.weight.numpy(), before - 0.1 * g, rtol=1e-5)
    model.to(sp.float64)
    assert model.head.weight is model.embed.weight and model.head.weight.dtype is sp.float64
    assert list(model.state_dict()) == ["embed.weight", "head.weight"]


def test_a_parameter_group_added_later_has_its_own_settings_and_survives_a_state_dict():
    a, b = parameter([1.0]), parameter([1.0])
    opt = optim.AdamW([a], lr=0.1, weight_decay=0.0)
    opt.add_param_group({"params": [b], "lr": 0.01, "weight_decay": 0.5, "name": "slow"})
    twin = optim.AdamW([{"params": [parameter([1.0])]}, {"params": [parameter([1.0])]}])
    twin.load_state_dict(opt.state_dict())
    assert [g["lr"] for g in twin.param_groups] == [0.1, 0.01]
    assert twin.param_groups[1]["weight_decay"] == 0.5 and twin.param_groups[1]["name"] == "slow"
