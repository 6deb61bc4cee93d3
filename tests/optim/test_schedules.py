"""Learning-rate schedules: their ends, warm-up, groups and state."""

import pytest

import spiral as sp
from spiral import optim
from spiral.errors import ArgumentError


def sgd(*lrs):
    return optim.SGD([{"params": [sp.ones(1).requires_grad_()], "lr": lr} for lr in lrs])


def test_warmup_rises_to_one_at_its_last_step():
    assert [optim.constant_factor(s, warmup=4) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_falls_to_its_minimum_and_stays():
    factors = [optim.linear_factor(s, total=4, minimum=0.2) for s in range(6)]
    assert factors == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_cosine_is_halfway_in_the_middle():
    factors = [optim.cosine_factor(s, total=6, warmup=2, minimum=0.1) for s in (0, 1, 2, 4, 6, 9)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_wsd_is_flat_until_the_decay():
    factors = [optim.wsd_factor(s, total=10, decay=4, warmup=2) for s in range(11)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_a_schedule_scales_every_groups_own_rate():
    opt = sgd(1.0, 0.1)
    schedule = optim.linear(opt, total=2)
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize(
    "make",
    [
        lambda o: optim.constant(o, warmup=5),
        lambda o: optim.linear(o, total=9, warmup=2),
        lambda o: optim.cosine(o, total=9, warmup=2),
        lambda o: optim.wsd(o, total=9, decay=5, warmup=2),
    ],
)
def test_a_schedule_resumes_from_its_state(make):
    first, second = sgd(0.3), sgd(0.3)
    a, b = make(first), make(second)
    for _ in range(4):
        a.step()
    b.load_state_dict(a.state_dict())
    assert a.get_last_lr() == b.get_last_lr()
    a.step()
    b.step()
    assert a.get_last_lr() == b.get_last_lr()


def test_a_total_shorter_than_the_warmup_is_refused():
    with pytest.raises(ArgumentError, match="cosine: total 3 must be at least warmup 5"):
        optim.cosine(sgd(0.1), total=3, warmup=5)


def test_a_group_added_later_is_scheduled_from_its_own_rate():
    opt = sgd(1.0)
    schedule = optim.linear(opt, total=4)
    opt.add_param_group({"params": [sp.ones(1).requires_grad_()], "lr": 0.2})
    schedule.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.5, 0.1])
