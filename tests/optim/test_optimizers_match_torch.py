"""Every optimizer against PyTorch's over five steps, and what is around them."""

import copy

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ArgumentError, TrainingError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")

CASES = {
    "sgd": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "sgd-decay": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "sgd-momentum": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    "sgd-nesterov": (
        optim.SGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (optim.Adam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (optim.AdamW, torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "adafactor": (optim.Adafactor, getattr(torch.optim, "Adafactor", None), {"lr": 0.05, "weight_decay": 0.1}),
}
SHAPES = ((5, 3), (7,), (2, 3, 4))


def values(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def run_torch(make, settings, skip=None):
    params = [torch.tensor(v, requires_grad=True) for v in values(0)]
    opt = make(params, **settings)
    for step in range(5):
        for i, (p, g) in enumerate(zip(params, values(step + 1), strict=True)):
            p.grad = None if (step, i) == skip else torch.tensor(g)
        opt.step()
    return [p.detach().numpy() for p in params]


def give_grads(params, seed, skip=None):
    for i, (p, g) in enumerate(zip(params, values(seed), strict=True)):
        p.grad = None if i == skip else sp.asarray(g)


@pytest.mark.parametrize("skip", [None, (0, 1), (2, 0)], ids=["all", "late", "once-left-out"])
@pytest.mark.parametrize("case", CASES)
def test_five_steps_match_torch(case, skip):
    make, torch_make, settings = CASES[case]
    if torch_make is None:
        pytest.skip("this PyTorch has no Adafactor")
    params = [nn.Parameter(sp.asarray(v)) for v in values(0)]
    opt = make(params, **settings)
    for step in range(5):
        give_grads(params, step + 1, skip[1] if skip and skip[0] == step else None)
        opt.step()
    for p, expected in zip(params, run_torch(torch_make, settings, skip), strict=True):
        np.testing.assert_allclose(p.numpy(), expected, rtol=2e-5, atol=2e-6)


def test_adafactor_keeps_each_dtypes_resolution():
    wide, narrow = nn.Parameter(sp.ones((4, 3), dtype=sp.float64)), nn.Parameter(sp.ones((4, 3)))
    opt = optim.Adafactor([narrow, wide])
    for p in (wide, narrow):
        p.grad = sp.full(p.shape, 1e-9, dtype=p.dtype)  # its square is below float32's resolution, above float64's
        opt.step()
        p.grad = None
    assert np.abs(wide.numpy() - 1.0).max() > 1e-3 > np.abs(narrow.numpy() - 1.0).max()


def test_lion_follows_the_papers_algorithm():
    params = [nn.Parameter(sp.asarray(v)) for v in values(0)]
    expected, momentum = [v.astype(np.float64) for v in values(0)], [np.zeros(s) for s in SHAPES]
    opt = optim.Lion(params, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(5):
        give_grads(params, step + 1)
        opt.step()
        for p, m, g in zip(expected, momentum, values(step + 1), strict=True):
            p -= 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * p)
            m[...] = 0.95 * m + 0.05 * g
    for p, wanted in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [*CASES, "lion"])
def test_resuming_from_a_state_dict_gives_the_same_values(case):
    make, _, settings = CASES.get(case, (optim.Lion, None, {"lr": 0.01}))
    params = [nn.Parameter(sp.asarray(v)) for v in values(0)]
    opt = make(params, **settings)
    for step in range(2):
        give_grads(params, step)
        opt.step()
    twins = [copy.deepcopy(p) for p in params]
    other = make(twins, **{**settings, "lr": 9.0})
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for o, ps in ((opt, params), (other, twins)):
        give_grads(ps, 5)
        o.step()
    for p, q in zip(params, twins, strict=True):
        assert p.tolist() == q.tolist()


def test_a_state_dict_of_other_shapes_is_refused_and_names_the_parameter():
    a, b = nn.Parameter(sp.ones((2, 3))), nn.Parameter(sp.ones(4))
    one, two = optim.AdamW([a]), optim.AdamW([b])
    a.grad = sp.ones((2, 3))
    one.step()
    with pytest.raises(nn.StateDictError, match=r"parameter 0: exp_avg must be \(4,\); received \(2, 3\)"):
        two.load_state_dict(one.state_dict())
    assert not two.state


def test_groups_override_settings():
    a, b = nn.Parameter(sp.ones(1)), nn.Parameter(sp.ones(1))
    opt = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    a.grad = b.grad = sp.ones(1)
    opt.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.9, 0.5], rtol=1e-6)


def test_bad_settings_are_refused_by_name():
    p = nn.Parameter(sp.ones(1))
    with pytest.raises(ArgumentError, match="SGD: lr must be a finite number of at least 0; received -1"):
        optim.SGD([p], lr=-1.0)
    with pytest.raises(ArgumentError, match="received none"):
        optim.AdamW([])
    with pytest.raises(ArgumentError, match="given twice"):
        optim.AdamW([p, p])
    with pytest.raises(ArgumentError, match="AdamW: settings must be among"):
        optim.AdamW([{"params": [p], "momentum": 0.9}])
    with pytest.raises(ArgumentError, match="not a result"):
        optim.AdamW([p * 2.0])


def test_zero_grad_forgets_or_zeroes():
    p = nn.Parameter(sp.ones(2))
    opt = optim.SGD([p])
    p.grad = sp.ones(2)
    opt.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    opt.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm_matches_torch(max_norm):
    params = [nn.Parameter(sp.asarray(v)) for v in values(0)]
    give_grads(params, 1)
    others = [torch.tensor(v, requires_grad=True) for v in values(0)]
    for t, g in zip(others, values(1), strict=True):
        t.grad = torch.tensor(g)
    norm = optim.clip_grad_norm_(params, max_norm)
    assert float(norm) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(others, max_norm)), rel=1e-5)
    for p, t in zip(params, others, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-5)


def test_clip_grad_norm_reports_a_norm_that_is_not_finite():
    p = nn.Parameter(sp.ones(1))
    p.grad = sp.asarray([float("inf")])
    with pytest.raises(TrainingError, match="inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_clip_grad_value_limits_every_element():
    p = nn.Parameter(sp.ones(3))
    p.grad = sp.asarray([-3.0, 0.5, 3.0])
    optim.clip_grad_value_([p], 1.0)
    assert p.grad.tolist() == [-1.0, 0.5, 1.0]


def test_ema_follows_its_formula_swaps_and_restores():
    p = nn.Parameter(sp.asarray([1.0, 2.0]))
    ema = optim.EMA([p], decay=0.75)
    p.copy_(sp.asarray([5.0, 6.0]))
    ema.update()
    assert ema.averages[0].tolist() == [2.0, 3.0]
    with ema.swapped():
        assert p.tolist() == [2.0, 3.0]
    assert p.tolist() == [5.0, 6.0]
    twin = optim.EMA([p])
    twin.load_state_dict(ema.state_dict())
    assert twin.decay == 0.75 and twin.averages[0].tolist() == [2.0, 3.0]
