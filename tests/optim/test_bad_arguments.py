"""A wrong argument of an optimizer, a schedule or a clipping function: a typed error that names who refused what."""

from __future__ import annotations

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ArgumentError, SpiralError

NAN, INF = math.nan, math.inf


def w():
    return sp.ones((2, 300)).requires_grad_()


def stepped():
    """A stepped AdamW and its state."""
    p = w()
    opt = optim.AdamW([p])
    p.grad = sp.ones((2, 300))
    opt.step()
    return opt, opt.state_dict()


def loaded(**changes):
    """Loads a good state of one group and one parameter with some entries changed."""
    opt, state = stepped()
    entries = {**state["state"][0], **changes.pop("entries", {})}
    good = {"state": {0: entries}, "param_groups": state["param_groups"]}
    opt.load_state_dict({**good, **changes})


ROWS = [
    ("optim.AdamW(None)", ArgumentError, "AdamW: params must be tensors or groups; received None"),
    ("optim.AdamW(3)", ArgumentError, "received int"),
    ("optim.AdamW('weights')", ArgumentError, "received str"),
    ("optim.AdamW(np.ones(300))", ArgumentError, "received ndarray (300,) float64"),
    ("optim.AdamW([])", ArgumentError, "AdamW: expected parameters; received none"),
    ("optim.AdamW([3])", ArgumentError, "AdamW: params[0] must be a Tensor; received int"),
    ("optim.AdamW([np.ones(300)])", ArgumentError, "received ndarray (300,) float64"),
    ("optim.AdamW([w() * 2.0])", ArgumentError, "must be a floating leaf"),
    ("optim.AdamW([{'lr': 0.1}])", ArgumentError, "AdamW: a group needs 'params'; received lr"),
    ("optim.AdamW([{'params': None}])", ArgumentError, "AdamW: params must be tensors; received None"),
    ("optim.AdamW([{'params': [w()], 'lr': 'x'}])", ArgumentError, "AdamW: lr"),
    ("optim.AdamW([{'params': [w()], 'rate': 1}])", ArgumentError, "settings must be among lr, betas"),
    ("optim.AdamW([{'params': [w()]}, w()])", ArgumentError, "give either tensors or groups"),
    ("optim.AdamW([w()]).add_param_group(3)", ArgumentError, "a group must be a mapping"),
    ("optim.AdamW([w()], lr='x')", ArgumentError, "AdamW: lr must be a finite number of at least 0; received 'x'"),
    ("optim.AdamW([w()], lr=NAN)", ArgumentError, "received nan"),
    ("optim.SGD([w()], lr=INF)", ArgumentError, "SGD: lr must be a finite number of at least 0; received inf"),
    ("optim.SGD([w()], lr=-1)", ArgumentError, "received -1"),
    ("optim.Lion([w()], lr=True)", ArgumentError, "Lion: lr"),
    ("optim.Lion([w()], lr=None)", ArgumentError, "Lion: lr"),
    ("optim.AdamW([w()], lr=w())", ArgumentError, "received Tensor (2, 300) float32"),
    ("optim.AdamW([w()], lr=np.ones(300))", ArgumentError, "received ndarray (300,) float64"),
    ("optim.AdamW([w()], betas=0.9)", ArgumentError, "AdamW: betas must be two numbers; received 0.9"),
    ("optim.Adam([w()], betas=(0.9,))", ArgumentError, "Adam: betas must be two numbers; received (0.9,)"),
    ("optim.AdamW([w()], betas=('a', 0.9))", ArgumentError, "AdamW: betas[0] must be a number in [0, 1)"),
    ("optim.Lion([w()], betas=(0.9, 1.0))", ArgumentError, "Lion: betas[1] must be a number in [0, 1); received 1.0"),
    ("optim.Lion([w()], betas=(w(), 0.9))", ArgumentError, "received Tensor (2, 300) float32"),
    ("optim.AdamW([w()], eps='a')", ArgumentError, "AdamW: eps"),
    ("optim.AdamW([w()], weight_decay=NAN)", ArgumentError, "AdamW: weight_decay"),
    ("optim.SGD([w()], momentum='a')", ArgumentError, "SGD: momentum"),
    ("optim.SGD([w()], dampening=INF)", ArgumentError, "SGD: dampening"),
    ("optim.SGD([w()], nesterov='yes')", ArgumentError, "SGD: nesterov must be True or False"),
    ("optim.SGD([w()], nesterov=True)", ArgumentError, "nesterov needs momentum"),
    ("optim.Adafactor([w()], eps=1)", ArgumentError, "Adafactor: eps must be two numbers; received 1"),
    ("optim.Adafactor([w()], eps=(None, 'a'))", ArgumentError, "Adafactor: eps[1]"),
    ("optim.Adafactor([w()], d=0)", ArgumentError, "Adafactor: d"),
    ("optim.Adafactor([w()], beta2_decay=0.8)", ArgumentError, "Adafactor: beta2_decay"),
    ("optim.AdamW([w()]).load_state_dict({})", nn.StateDictError, "missing param_groups, state"),
    ("optim.AdamW([w()]).load_state_dict(None)", nn.StateDictError, "expected a mapping"),
    ("loaded(param_groups=3)", nn.StateDictError, "param_groups must be a list; received int"),
    ("loaded(param_groups=[3])", nn.StateDictError, "param_groups[0] must be a mapping"),
    ("loaded(param_groups=[{'params': [0], 'lr': 'x'}])", nn.StateDictError, "AdamW: lr"),
    ("loaded(param_groups=[{'params': [0, 1]}])", nn.StateDictError, "expected groups of [1] parameters; received [2]"),
    ("loaded(state=3)", nn.StateDictError, "received int"),
    ("loaded(state={'a': {}})", nn.StateDictError, "state of parameter 'a', which is in no group"),
    ("loaded(state={0: 3})", nn.StateDictError, "parameter 0: expected a mapping; received int"),
    ("loaded(state={0: {}})", nn.StateDictError, "parameter 0: missing step"),
    ("loaded(entries={'exp_avg': 3})", nn.StateDictError, "parameter 0: exp_avg must be a tensor; received int"),
    ("loaded(entries={'exp_avg': w()[0]})", nn.StateDictError, "exp_avg must be (2, 300); received (300,)"),
    ("loaded(entries={'step': 'a'})", nn.StateDictError, "step must be a number of steps; received 'a'"),
    ("loaded(entries={'step': -1})", nn.StateDictError, "received -1"),
    ("optim.clip_grad_norm_(None, 1.0)", ArgumentError, "clip_grad_norm_: params must be tensors; received None"),
    ("optim.clip_grad_norm_([3], 1.0)", ArgumentError, "clip_grad_norm_: params[0] must be a Tensor"),
    ("optim.clip_grad_norm_([w()], 'a')", ArgumentError, "clip_grad_norm_: max_norm"),
    ("optim.clip_grad_norm_([w()], NAN)", ArgumentError, "received nan"),
    ("optim.clip_grad_norm_([w()], 1.0, norm_type=0)", ArgumentError, "norm_type must be a number above 0"),
    ("optim.clip_grad_value_([w()], None)", ArgumentError, "clip_grad_value_: clip_value"),
    ("optim.scale_grads([w()], 'a')", ArgumentError, "scale_grads: factor"),
    ("optim.EMA(None)", ArgumentError, "EMA: params must be tensors; received None"),
    ("optim.EMA([w()], decay='x')", ArgumentError, "EMA: decay must be a number in [0, 1]; received 'x'"),
    ("optim.EMA([w()]).load_state_dict({})", nn.StateDictError, "EMA.load_state_dict: missing decay, averages"),
    ("optim.EMA([w()]).load_state_dict(None)", nn.StateDictError, "expected a mapping"),
    ("optim.EMA([w()]).load_state_dict({'decay': 'a', 'averages': {}})", nn.StateDictError, "decay must be"),
    ("optim.EMA([w()]).load_state_dict({'decay': 0.5, 'averages': 3})", nn.StateDictError, "expected a mapping"),
    ("optim.cosine(None, total=3)", ArgumentError, "optimizer must be an Optimizer; received None"),
    ("optim.cosine(optim.SGD([w()]), total='a')", ArgumentError, "cosine: total must be a positive integer"),
    ("optim.linear(optim.SGD([w()]), total=3, minimum=NAN)", ArgumentError, "linear: minimum"),
    ("optim.wsd(optim.SGD([w()]), total=3, decay=-1)", ArgumentError, "wsd: decay"),
    ("optim.constant(optim.SGD([w()]), warmup=0.5)", ArgumentError, "constant: warmup"),
    ("optim.LRSchedule(optim.SGD([w()]), 3)", ArgumentError, "LRSchedule: factor must be a function; received 3"),
    ("optim.LRSchedule(optim.SGD([w()]), lambda step: 'a')", ArgumentError, "LRSchedule: factor(0) must be"),
    ("optim.cosine(optim.SGD([w()]), total=3).load_state_dict({})", nn.StateDictError, "missing last_step, base_lrs"),
    ("optim.cosine(optim.SGD([w()]), total=3).load_state_dict(3)", nn.StateDictError, "expected a mapping"),
]


@pytest.mark.parametrize(("call", "error", "fragment"), ROWS, ids=[row[0] for row in ROWS])
def test_wrong_argument_is_refused_by_name(call, error, fragment):
    with pytest.raises(SpiralError) as caught:
        eval(call)
    assert type(caught.value) is error
    assert fragment in str(caught.value)
    assert len(str(caught.value)) < 300, "a message never shows a tensor's values"


def test_numpy_numbers_and_lists_are_settings():
    p = w()
    opt = optim.AdamW([p], lr=np.float32(0.5), betas=[np.float64(0.9), 0.99], weight_decay=0)
    p.grad = sp.ones((2, 300))
    opt.step()
    assert opt.param_groups[0]["betas"] == (0.9, 0.99)
    assert p.tolist()[0][0] == pytest.approx(0.5, rel=1e-5)


def test_a_state_that_is_refused_changes_nothing():
    opt, _ = stepped()
    (p,) = opt.param_groups[0]["params"]
    before, lr = opt.state[p], opt.param_groups[0]["lr"]
    with pytest.raises(nn.StateDictError):
        opt.load_state_dict({"state": {0: {"step": 1}}, "param_groups": [{"params": [0], "lr": 9.0}]})
    assert opt.state[p] is before and opt.param_groups[0]["lr"] == lr


def test_a_group_may_be_empty_if_it_says_so():
    assert optim.SGD([{"params": []}, {"params": [w()]}]).param_groups[0]["params"] == []
