"""Modules: members, walking, state dicts, modes, hooks, printing."""

import copy
import pickle

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, AutogradError, DTypeError, IndexingError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.scale = nn.Parameter(sp.ones(3))
        self.register_buffer("seen", sp.zeros(1))
        self.register_buffer("cache", sp.zeros(4), persistent=False)

    def forward(self, x):
        return self.fc(x) * self.scale


def test_members_are_found_under_dotted_names():
    model = nn.Sequential(Block(), nn.Linear(3, 1, bias=False))
    assert [n for n, _ in model.named_parameters()] == ["0.scale", "0.fc.weight", "0.fc.bias", "1.weight"]
    assert [n for n, _ in model.named_buffers()] == ["0.seen", "0.cache"]
    assert [n for n, _ in model.named_modules()] == ["", "0", "0.fc", "1"]
    assert model.num_parameters() == 3 + 6 + 3 + 3


def test_a_shared_parameter_counts_once_but_is_saved_under_both_names():
    model = nn.Module()
    model.a, model.b = nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)
    model.b.weight = model.a.weight
    assert [n for n, _ in model.named_parameters()] == ["a.weight"]
    assert list(model.state_dict()) == ["a.weight", "b.weight"]


def test_replacing_and_deleting_members():
    block = Block()
    block.fc = nn.Linear(2, 3, bias=False)
    assert block.num_parameters() == 9
    del block.scale
    assert list(block.state_dict()) == ["seen", "fc.weight"]
    with pytest.raises(ArgumentError, match="Block.fc: expected a Module or None; received int"):
        block.fc = 3


def test_members_before_init_are_refused():
    class Hasty(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(ArgumentError, match=r"Hasty.fc: call super\(\).__init__\(\)"):
        Hasty()


def test_state_dict_round_trip_copies_values():
    a, b = Block(), Block()
    assert b.load_state_dict(a.state_dict()) == ((), ())
    assert b.fc.weight.tolist() == a.fc.weight.tolist()
    a.fc.weight.copy_(sp.zeros((3, 2)))
    assert any(b.fc.weight.flatten().tolist())


def test_loading_reports_everything_at_once_and_changes_nothing():
    block = Block()
    before = block.scale.tolist()
    state = {"scale": sp.zeros(3), "fc.weight": np.zeros((4, 4)), "extra": sp.zeros(1), "seen": sp.zeros(1)}
    with pytest.raises(nn.StateDictError) as caught:
        block.load_state_dict(state)
    assert caught.value.missing == ("fc.bias",)
    assert caught.value.unexpected == ("extra",)
    assert caught.value.mismatched == (("fc.weight", (3, 2), (4, 4)),)
    assert "Block.load_state_dict" in str(caught.value)
    assert "fc.weight: expected shape (3, 2); received (4, 4)" in str(caught.value)
    assert block.scale.tolist() == before


def test_a_load_that_is_not_strict_reports_what_it_left_out():
    block = Block()
    report = block.load_state_dict({"scale": sp.zeros(3), "extra": sp.zeros(1)}, strict=False)
    assert report == (("seen", "fc.weight", "fc.bias"), ("extra",))
    assert block.scale.tolist() == [0.0, 0.0, 0.0]


def test_train_eval_and_apply_reach_every_module():
    model, seen = nn.Sequential(Block(), nn.Dropout()), []
    assert not any(m.training for m in model.eval().modules())
    assert all(m.training for m in model.train().modules())
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Block", "Dropout", "Sequential"]


def test_freezing_and_zero_grad():
    block = Block()
    block(sp.ones((1, 2))).sum().backward()
    assert block.scale.grad is not None
    block.zero_grad()
    assert block.scale.grad is None
    block.fc.requires_grad_(False)
    block(sp.ones((1, 2))).sum().backward()
    assert block.fc.weight.grad is None and block.scale.grad is not None
    assert block.num_parameters(trainable=True) == 3


def test_hooks_see_and_replace_arguments_and_output_until_removed():
    layer, calls = nn.ReLU(), []
    before = layer.register_forward_pre_hook(lambda m, args: (args[0] + 1.0,))
    after = layer.register_forward_hook(lambda m, args, y: calls.append(args[0].item()) or y * 10.0)
    assert layer(sp.asarray(1.0)).item() == 20.0 and calls == [2.0]
    before.remove()
    assert layer(sp.asarray(1.0)).item() == 10.0
    after.remove()
    after.remove()
    assert layer(sp.asarray(1.0)).item() == 1.0
    with layer.register_forward_hook(lambda m, args, y: y - 5.0):
        assert layer(sp.asarray(1.0)).item() == -4.0
    assert layer(sp.asarray(1.0)).item() == 1.0


def test_to_casts_in_place_and_leaves_integers():
    model = nn.BatchNorm2d(2)
    weight = model.weight
    model.to(sp.float64)
    assert model.weight is weight and weight.dtype is sp.float64 and weight.requires_grad
    assert model.running_mean.dtype is sp.float64
    assert model.num_batches_tracked.dtype is sp.int64
    assert model.to("cpu") is model
    with pytest.raises(ArgumentError, match="BatchNorm2d.to: expected a floating dtype"):
        model.to(sp.int32)


def test_repr_shows_the_tree_with_shapes():
    assert repr(nn.Linear(2, 3)) == "Linear(2 -> 3, weight: (3, 2), bias: (3,))"
    assert "  (0): Block(scale: (3,), seen: (1,), cache: (4,)\n    (fc): Linear(" in repr(nn.Sequential(Block()))


def test_deepcopy_and_pickle_keep_names_and_values():
    block = Block()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert list(twin.state_dict()) == list(block.state_dict())
        assert twin.fc.weight.tolist() == block.fc.weight.tolist()
        assert dict(twin.named_parameters())["scale"] is twin.scale
        assert isinstance(twin.scale, nn.Parameter) and twin.scale.requires_grad
        twin.scale.copy_(sp.zeros(3))
    assert block.scale.tolist() == [1.0, 1.0, 1.0]


def test_containers_behave_like_a_list_and_a_dict():
    layers = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])
    layers.append(nn.Tanh())
    assert len(layers) == 3 and isinstance(layers[-1], nn.Tanh) and len(layers[:2]) == 2
    layers[0] = nn.GELU()
    assert [type(m).__name__ for m in layers] == ["GELU", "ReLU", "Tanh"]
    with pytest.raises(IndexingError, match=r"ModuleList: index 3 is not in \[-3, 3\)"):
        layers[3]
    assert isinstance(nn.Sequential(nn.ReLU(), nn.Tanh())[:1], nn.Sequential)
    heads = nn.ModuleDict({"a": nn.Linear(1, 2)})
    heads["b"] = nn.ReLU()
    assert list(heads) == ["a", "b"] and "a" in heads and list(heads.state_dict()) == ["a.weight", "a.bias"]
    with pytest.raises(IndexingError, match="ModuleDict: expected one of a, b; received 'c'"):
        heads["c"]
    with pytest.raises(ArgumentError, match="'keys' cannot be a name"):
        heads["keys"] = nn.ReLU()


def test_parameter_refuses_what_cannot_collect_gradients():
    with pytest.raises(DTypeError, match="Parameter: only floating tensors"):
        nn.Parameter(sp.arange(3))
    with pytest.raises(AutogradError, match="recorded result"):
        nn.Parameter(sp.ones(2).requires_grad_() * 2.0)
    with pytest.raises(ArgumentError, match="Parameter: data must be a Tensor; received list"):
        nn.Parameter([1.0])
    assert not nn.Parameter(sp.arange(3), requires_grad=False).requires_grad


def test_members_are_checked_when_they_are_registered():
    module = nn.Module()
    with pytest.raises(ArgumentError, match="register_parameter: 'w' must be a Parameter or None; received Tensor"):
        module.register_parameter("w", sp.ones(2))
    with pytest.raises(ArgumentError, match="add_module: 'w' must be a Module or None; received int"):
        module.add_module("w", 3)
    for name in ("", "a.b", "forward"):
        with pytest.raises(ArgumentError, match="cannot be a name"):
            module.register_buffer(name, sp.ones(2))
    with pytest.raises(ArgumentError, match="cannot contain itself"):
        module.add_module("again", module)
    module.register_buffer("w", sp.ones(2))
    module.register_parameter("w", nn.Parameter(sp.ones(2)))
    assert not list(module.buffers()) and [n for n, _ in module.named_parameters()] == ["w"]


def test_a_torch_spelling_on_a_module_names_ours():
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'half'; write .to\(spiral.float16\)"):
        nn.Linear(1, 1).half()
    with pytest.raises(AttributeError, match="Linear has no attribute 'foo'\\."):
        nn.Linear(1, 1).foo  # noqa: B018


def test_a_list_inserts_and_deletes_and_a_sequence_takes_names():
    layers = nn.ModuleList([nn.ReLU(), nn.Tanh()])
    layers.insert(1, nn.GELU())
    del layers[0]
    assert [n for n, _ in layers.named_children()] == ["0", "1"]
    assert [type(m).__name__ for m in layers] == ["GELU", "Tanh"]
    with pytest.raises(IndexingError, match="index 2 is not in"):
        del layers[2]
    model = nn.Sequential({"first": nn.Linear(2, 3), "act": nn.ReLU()})
    assert list(model.state_dict()) == ["first.weight", "first.bias"] and model(sp.ones((1, 2))).shape == (1, 3)
    model[1] = nn.Tanh()
    assert isinstance(model.act, nn.Tanh) and len(model) == 2
