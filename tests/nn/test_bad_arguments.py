"""A wrong argument of a layer, a function or an initialiser: a typed error that names who refused what."""

from __future__ import annotations

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, DeviceError, DTypeError, IndexingError, RegistryError, ShapeError, SpiralError
from spiral.nn import functional as f
from spiral.nn import init

NAN, INF = math.nan, math.inf


def x(*shape, dtype="float32"):
    return sp.ones(shape or (2, 3), dtype=dtype)


def targets(*classes):
    return sp.asarray(list(classes))


WRONG_LAYERS = [
    ("Linear('a', 3)", ArgumentError, "Linear: in_features must be a positive integer; received 'a'"),
    ("Linear(2.5, 3)", ArgumentError, "Linear: in_features must be a positive integer; received 2.5"),
    ("Linear(2, True)", ArgumentError, "Linear: out_features must be a positive integer; received True"),
    ("Linear(np.bool_(1), 3)", ArgumentError, "received np.True_"),
    ("Linear(x(), 3)", ArgumentError, "received Tensor (2, 3) float32"),
    ("Linear(x(1, dtype='int64')[0], 3)", ArgumentError, "received Tensor () int64"),
    ("Linear(None, 3)", ArgumentError, "received None"),
    ("Linear(-(10**5000), 3)", ArgumentError, "received an integer of"),
    ("Linear(2, 3, bias='no')", ArgumentError, "Linear: bias must be True or False; received 'no'"),
    ("Embedding(0, 2)", ArgumentError, "Embedding: num_embeddings must be a positive integer; received 0"),
    ("Embedding(2, 0)", ArgumentError, "Embedding: embedding_dim"),
    ("Embedding(2, 2, 'a')", ArgumentError, "Embedding: padding_idx must be an integer"),
    ("Embedding(2, 2, 2)", ArgumentError, "padding_idx must be in [0, 2)"),
    ("LayerNorm(0)", ArgumentError, "LayerNorm: normalized_shape must be a positive integer or a tuple of them"),
    ("LayerNorm(())", ArgumentError, "LayerNorm: normalized_shape"),
    ("LayerNorm((2, 'a'))", ArgumentError, "received (2, 'a')"),
    ("LayerNorm(2, eps=NAN)", ArgumentError, "LayerNorm: eps must be a finite number of at least 0; received nan"),
    ("RMSNorm(2.0)", ArgumentError, "RMSNorm: normalized_shape"),
    ("RMSNorm(2, eps='a')", ArgumentError, "RMSNorm: eps"),
    ("GroupNorm(0, 4)", ArgumentError, "GroupNorm: num_groups"),
    ("GroupNorm(3, 4)", ArgumentError, "num_groups must divide num_channels=4; received 3"),
    ("BatchNorm1d(2, eps=-1)", ArgumentError, "BatchNorm1d: eps must be a finite number of at least 0; received -1"),
    ("BatchNorm2d(0)", ArgumentError, "BatchNorm2d: num_features"),
    ("BatchNorm2d(2, momentum=2)", ArgumentError, "momentum must be a number in [0, 1]; received 2"),
    ("BatchNorm2d(2, affine=1)", ArgumentError, "BatchNorm2d: affine must be True or False; received 1"),
    ("Conv2d(1, 1, 0)", ArgumentError, "Conv2d: kernel_size must be a positive integer or 2 of them; received 0"),
    ("Conv2d(1, 1, (3, 3, 3))", ArgumentError, "Conv2d: kernel_size"),
    ("Conv2d(1, 1, None)", ArgumentError, "Conv2d: kernel_size"),
    ("Conv2d(0, 1, 1)", ArgumentError, "Conv2d: in_channels"),
    ("Conv2d(1, 1, 1, stride=0)", ArgumentError, "Conv2d: stride"),
    ("Conv2d(1, 1, 1, padding=-1)", ArgumentError, "Conv2d: padding must be an integer of at least 0"),
    ("Conv2d(1, 1, 1, padding='valid')", ArgumentError, "padding must be integers or 'same'; received 'valid'"),
    ("Conv2d(1, 1, 1, dilation=1.5)", ArgumentError, "Conv2d: dilation"),
    ("Conv2d(4, 4, 1, groups='a')", ArgumentError, "Conv2d: groups"),
    ("Conv2d(4, 4, 1, groups=3)", ArgumentError, "groups must divide"),
    ("Conv1d(1, 1, 0)", ArgumentError, "Conv1d: kernel_size"),
    ("Conv1d(1, 1, (3,))", ArgumentError, "Conv1d: kernel_size must be a positive integer; received (3,)"),
    ("Conv1d(1, 1, 3, stride='a')", ArgumentError, "Conv1d: stride"),
    ("MaxPool2d(0)", ArgumentError, "MaxPool2d: kernel_size"),
    ("AvgPool1d(2, 0)", ArgumentError, "AvgPool1d: stride"),
    ("AdaptiveAvgPool2d((1, 2, 3))", ArgumentError, "AdaptiveAvgPool2d: output_size must be an integer or two"),
    ("AdaptiveAvgPool1d(0)", ArgumentError, "AdaptiveAvgPool1d: output_size"),
    ("Dropout('x')", ArgumentError, "Dropout: p must be a number in [0, 1]; received 'x'"),
    ("Dropout(NAN)", ArgumentError, "received nan"),
    ("Dropout(True)", ArgumentError, "received True"),
    ("GELU('sigmoid')", ArgumentError, "GELU: approximate must be 'none' or 'tanh'; received 'sigmoid'"),
    ("LeakyReLU('a')", ArgumentError, "LeakyReLU: negative_slope"),
    ("ELU(None)", ArgumentError, "ELU: alpha"),
    ("Softplus(0)", ArgumentError, "Softplus: beta must be a finite number above 0; received 0"),
    ("LogSoftmax('a')", ArgumentError, "LogSoftmax: axis must be an integer"),
    ("Flatten(None)", ArgumentError, "Flatten: start"),
    ("SwiGLU(4, 0)", ArgumentError, "SwiGLU: hidden_dim"),
    ("GeGLU(4, 4, approximate=1)", ArgumentError, "GeGLU: approximate"),
    ("MultiHeadAttention(0, 1)", ArgumentError, "MultiHeadAttention: d_model"),
    ("MultiHeadAttention(8, 0)", ArgumentError, "MultiHeadAttention: n_head"),
    ("MultiHeadAttention(8, 2, head_dim=0)", ArgumentError, "MultiHeadAttention: head_dim"),
    ("MultiHeadAttention(8, 2, window=-1)", ArgumentError, "MultiHeadAttention: window"),
    ("MultiHeadAttention(8, 2, causal='yes')", ArgumentError, "MultiHeadAttention: causal"),
    ("MultiHeadAttention(8, 2, rope=4)", ArgumentError, "rope must be a RotaryEmbedding or None; received 4"),
    ("RotaryEmbedding(3)", ArgumentError, "dim must be even"),
    ("RotaryEmbedding(4, theta=0)", ArgumentError, "RotaryEmbedding: theta"),
    ("RotaryEmbedding(4, max_positions=0)", ArgumentError, "RotaryEmbedding: max_positions"),
    ("LSTM(3, 'a')", ArgumentError, "LSTM: hidden_size must be a positive integer; received 'a'"),
    ("GRU(3, 2, dropout=2)", ArgumentError, "GRU: dropout"),
    ("GRU(3, 2, num_layers=0)", ArgumentError, "GRU: num_layers"),
    ("CrossEntropyLoss(label_smoothing=2)", ArgumentError, "label_smoothing must be a number in [0, 1]; received 2"),
    ("CrossEntropyLoss(ignore_index=None)", ArgumentError, "CrossEntropyLoss: ignore_index"),
    ("MSELoss('average')", ArgumentError, "MSELoss: reduction must be 'none', 'mean' or 'sum'; received 'average'"),
    ("HuberLoss(0)", ArgumentError, "HuberLoss: delta"),
    ("KLDivLoss(log_target='a')", ArgumentError, "KLDivLoss: log_target"),
    ("ModuleList(None)", ArgumentError, "ModuleList: expected Modules in a list; received None"),
    ("ModuleList([3])", ArgumentError, "ModuleList: expected a Module; received int"),
    ("ModuleList([nn.ReLU()])['a']", ArgumentError, "ModuleList: index must be an integer; received 'a'"),
    ("ModuleList([nn.ReLU()])[1]", IndexingError, "ModuleList: index 1"),
    ("ModuleDict([1])", ArgumentError, "ModuleDict: expected Modules by name; received list"),
    ("ModuleDict({1: nn.ReLU()})", ArgumentError, "ModuleDict: 1 cannot be a name"),
    ("ModuleDict().__delitem__('a')", IndexingError, "ModuleDict: expected one of"),
    ("Sequential(3)", ArgumentError, "Sequential: expected a Module; received int"),
    ("Parameter(np.ones(3000))", ArgumentError, "received ndarray (3000,) float64"),
]

WRONG_CALLS = [
    ("nn.Linear(3, 2)([1.0, 2.0, 3.0])", DTypeError, "linear: x must be a Tensor; received list"),
    ("nn.Linear(3, 2)(np.ones((2, 3)))", DTypeError, "received ndarray (2, 3) float64. Wrap it with spiral.asarray()"),
    ("nn.Linear(3, 2)(x(2, 4))", ShapeError, "linear: weight must be"),
    ("nn.Embedding(3, 2)(x())", DTypeError, "embedding: indices must be integers; received float32"),
    ("nn.LayerNorm(3)([1.0])", DTypeError, "layer_norm: x must be a Tensor; received list"),
    ("nn.BatchNorm1d(3)(np.ones((2, 3)))", DTypeError, "BatchNorm1d: x must be a Tensor"),
    ("nn.GroupNorm(1, 3)(None)", DTypeError, "GroupNorm: x must be a Tensor; received None"),
    ("nn.Flatten()([[1.0]])", DTypeError, "Flatten: x must be a Tensor"),
    ("nn.LSTM(3, 2)([1.0])", DTypeError, "LSTM: x must be a Tensor"),
    ("nn.LSTM(3, 2)(x(), x(1, 2))", ArgumentError, "LSTM: the state must be 2 tensors; received Tensor (1, 2)"),
    ("nn.GRU(3, 2)(x(), 'a')", DTypeError, "GRU: state must be a Tensor"),
    ("nn.MultiHeadAttention(4, 2)('a')", DTypeError, "MultiHeadAttention: x must be a Tensor"),
    ("nn.MultiHeadAttention(4, 2)(x(1, 2, 4), context=x(2, 4))", ShapeError, "expected context (B, S, 4)"),
    ("nn.RotaryEmbedding(4)(x(2, 4))", ShapeError, "RotaryEmbedding: expected x (B, H, T, D)"),
    ("nn.RotaryEmbedding(4)(x(1, 1, 2, 4), offset=-1)", ArgumentError, "RotaryEmbedding: offset"),
    ("f.layer_norm(x(), x())", ArgumentError, "layer_norm: normalized_shape must be"),
    ("f.rms_norm(x(), x(300))", ArgumentError, "received Tensor (300,) float32"),
    ("f.layer_norm(x(), 3, 'a')", DTypeError, "layer_norm: weight must be a Tensor; received str"),
    ("f.layer_norm(x(), 3, eps='a')", ArgumentError, "layer_norm: eps must be a finite number of at least 0"),
    ("f.layer_norm(x(), 3, eps=-1.0)", ArgumentError, "received -1.0"),
    ("f.rms_norm(x(), 3, eps=x(300))", ArgumentError, "rms_norm: eps"),
    ("f.dropout(x(), 0.5, training='x')", ArgumentError, "dropout: training must be True or False"),
    ("f.avg_pool2d(x(1, 1, 4, 4), 2, count_include_pad='x')", ArgumentError, "avg_pool2d: count_include_pad"),
    ("f.scaled_dot_product_attention(x(), x(), x(), is_causal='x')", ArgumentError, "is_causal must be True or False"),
    ("f.kl_div(x(), x(), log_target=x(300))", ArgumentError, "kl_div: log_target must be True or False"),
    ("f.softmax(x(), axis=True)", ArgumentError, "softmax: axis must be in [-2, 1] for 2 axes; received True"),
    ("f.softmax(x(), axis=1.5)", ArgumentError, "softmax: axis must be in [-2, 1] for 2 axes; received 1.5"),
    ("f.softmax(x(), axis=x(300))", ArgumentError, "softmax: axis must be"),
    ("f.gelu(x(), approximate='erf')", ArgumentError, "gelu: approximate must be 'none' or 'tanh'; received 'erf'"),
    ("f.leaky_relu([1.0])", DTypeError, "leaky_relu: x must be a Tensor"),
    ("f.softplus(x(), 0)", ArgumentError, "softplus: beta"),
    ("f.elu(x(), None)", ArgumentError, "elu: alpha"),
    ("f.dropout(x(), 'a')", ArgumentError, "dropout: p must be a number in [0, 1]; received 'a'"),
    ("f.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), stride=0)", ArgumentError, "conv2d: stride"),
    ("f.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), padding='same')", ArgumentError, "conv2d: padding"),
    ("f.conv1d([1.0], x(1, 1, 1))", DTypeError, "conv1d: x must be a Tensor"),
    ("f.conv1d(x(1, 1, 4), x(1, 1, 1), dilation=0)", ArgumentError, "conv1d: dilation"),
    ("f.max_pool2d(x(1, 1, 4, 4), 0)", ArgumentError, "max_pool2d: kernel_size"),
    ("f.max_pool2d(x(1, 1, 4, 4), None)", ArgumentError, "max_pool2d: kernel_size"),
    ("f.avg_pool1d(x(1, 1, 4), 2.5)", ArgumentError, "avg_pool1d: kernel_size"),
    ("f.adaptive_avg_pool2d(x(1, 1, 4, 4), 'a')", ArgumentError, "adaptive_avg_pool2d: output_size"),
    ("f.scaled_dot_product_attention(None, x(), x())", DTypeError, "q must be a Tensor; received None"),
    ("f.scaled_dot_product_attention(x(), x(), x(), dropout_p=2)", ArgumentError, "dropout_p must be a number in"),
    ("f.scaled_dot_product_attention(x(), x(), x(), window='a')", ArgumentError, "window must be an integer"),
    ("f.scaled_dot_product_attention(x(), x(), x(), np.ones((2, 2)))", DTypeError, "attn_mask must be a Tensor"),
    ("f.embedding(targets(0), x(), padding_idx='a')", ArgumentError, "embedding: padding_idx"),
    ("f.cross_entropy(x(), [0, 1])", DTypeError, "cross_entropy: targets must be a Tensor; received list"),
    ("f.cross_entropy(x(), targets(0, 5))", IndexingError, "cross_entropy: expected targets in [0, 3)"),
    ("f.cross_entropy(x(), targets(0, 1), label_smoothing=2)", ArgumentError, "label_smoothing must be a number in"),
    ("f.cross_entropy(x(), targets(0, 1), label_smoothing=NAN)", ArgumentError, "received nan"),
    ("f.cross_entropy(x(), targets(0, 1), z_loss=-1)", ArgumentError, "cross_entropy: z_loss"),
    ("f.cross_entropy(x(), targets(0, 1), ignore_index=1.5)", ArgumentError, "cross_entropy: ignore_index"),
    ("f.cross_entropy(x(), targets(0, 1), reduction=x(300))", ArgumentError, "received Tensor (300,) float32"),
    ("f.nll_loss(x(), x(2))", DTypeError, "nll_loss: targets must be integers; received float32"),
    ("f.mse_loss(x(), np.ones((2, 3)))", DTypeError, "mse_loss: target must be a Tensor"),
    ("f.l1_loss(x(), x(2, 4))", ShapeError, "l1_loss: target must have the input's shape"),
    ("f.huber_loss(x(), x(), 'a')", ArgumentError, "huber_loss: delta"),
    ("f.smooth_l1_loss(x(), x(), -1)", ArgumentError, "smooth_l1_loss: beta"),
    ("f.kl_div(x(), [1])", DTypeError, "kl_div: target must be a Tensor"),
    ("f.binary_cross_entropy(x() * 2, x())", ArgumentError, "probs must be in [0, 1]"),
    ("f.binary_cross_entropy(-x(), x())", ArgumentError, "received -1"),
    ("f.binary_cross_entropy_with_logits(x(), x(), pos_weight='a')", ArgumentError, "pos_weight must be"),
    ("init.normal_(x(), std=-1)", ArgumentError, "normal_: std must be a finite number of at least 0; received -1"),
    ("init.normal_(None)", DTypeError, "normal_: tensor must be a Tensor; received None"),
    ("init.normal_(x(dtype='int64'))", DTypeError, "normal_: tensor must be floating; received int64"),
    ("init.uniform_(x(), 2, 1)", ArgumentError, "uniform_: high must be a finite number of at least 2"),
    ("init.constant_(x(), 'a')", ArgumentError, "constant_: value"),
    ("init.xavier_uniform_(x(0, 0))", ShapeError, "xavier_uniform_: a tensor without elements has no fan"),
    ("init.xavier_normal_(x(), gain=-1)", ArgumentError, "xavier_normal_: gain"),
    ("init.kaiming_normal_(x(), mode='fan')", ArgumentError, "kaiming_normal_: mode must be 'fan_in' or 'fan_out'"),
    ("init.kaiming_uniform_(x(), nonlinearity=None)", ArgumentError, "calculate_gain: nonlinearity"),
    ("init.trunc_normal_(x(), std=0.0)", ArgumentError, "trunc_normal_: std must be a finite number above 0"),
    ("init.trunc_normal_(x(), a=NAN)", ArgumentError, "trunc_normal_: a"),
    ("init.orthogonal_(x(0, 3))", ShapeError, "orthogonal_"),
]

WRONG_USES = [
    ("state_dict(3)", ArgumentError, "Linear.state_dict: prefix must be a string; received 3"),
    ("load_state_dict({3: np.ones(2)})", nn.StateDictError, "unexpected: 3"),
    ("to(None)", ArgumentError, "Linear.to: expected a floating dtype or a device; received None"),
    ("to(3)", ArgumentError, "received 3"),
    ("to(sp.int64)", ArgumentError, "received int64"),
    ("to('fast')", DeviceError, "received 'fast'"),
    ("load_state_dict(None)", nn.StateDictError, "Linear.load_state_dict: expected a mapping"),
    ("load_state_dict([1])", nn.StateDictError, "received list"),
    ("load_state_dict({'weight': 3, 'bias': 3})", nn.StateDictError, "weight: expected a tensor"),
    ("load_state_dict({'weight': np.ones((2, 3)), 'bias': np.full(2, 'a')})", nn.StateDictError, "bias: expected"),
    ("load_state_dict({'weight': np.ones((2, 3)), 'bias': np.ones(2, complex)})", nn.StateDictError, "complex128"),
    ("load_state_dict({'weight': np.ones((2, 3)), 'bias': np.ones(2, object)})", nn.StateDictError, "object"),
    ("train('x')", ArgumentError, "Linear.train: mode must be True or False"),
    ("requires_grad_(2)", ArgumentError, "Linear.requires_grad_"),
    ("apply(None)", ArgumentError, "Linear.apply: fn must be a function"),
    ("register_forward_hook(None)", ArgumentError, "Linear.register_forward_hook: hook must be a function"),
    ("register_forward_pre_hook(3)", ArgumentError, "Linear.register_forward_pre_hook"),
    ("register_full_backward_hook(3)", ArgumentError, "Linear.register_full_backward_hook"),
    ("register_buffer(3, None)", ArgumentError, "Linear.register_buffer: the name must be a string; received 3"),
    ("register_parameter('a', x())", ArgumentError, "'a' must be a Parameter or None"),
]

WRONG_PREFERENCES = [
    ("x(300)", RegistryError, "there is no backend Tensor (300,) float32; there are"),
    ("'numpy', fallback='never'", ArgumentError, "expected allow, warn or error; received 'never'"),
    ("'numpy', fallback=x(300)", ArgumentError, "received Tensor (300,) float32"),
]

WRONG_QUESTIONS = [
    ("'add', x()", ArgumentError, "explain: add needs 2 input(s): add(x, y) -> z; received 1"),
    ("'add', x(), x(), x()", ArgumentError, "explain: add has 2 input(s)"),
    ("'add', x(2), x(3)", ShapeError, "shapes must broadcast; received (2,) and (3,)"),
    ("'add', np.ones(300), x()", DTypeError, "add: x must be a Tensor or a Python number; received ndarray (300,)"),
    ("'matmul', x(), x()", ShapeError, "matmul"),
    ("'concat', x(), x()", ArgumentError, "explain: concat has 1 input(s)"),
    ("'sum', x(), axis=9", ArgumentError, "axis must be in [-2, 1]"),
    ("'rms_norm', x(), x(3), epsilon=1", ArgumentError, "allowed: eps"),
    ("3", RegistryError, "expected an op's name; received 3"),
    ("['add']", RegistryError, "expected an op's name"),
]

ROWS = (
    [(f"nn.{call}", error, text) for call, error, text in WRONG_LAYERS]
    + WRONG_CALLS
    + [(f"nn.Linear(3, 2).{call}", error, text) for call, error, text in WRONG_USES]
    + [(f"sp.explain({call})", error, text) for call, error, text in WRONG_QUESTIONS]
    + [(f"sp.prefer({call}).__enter__()", error, text) for call, error, text in WRONG_PREFERENCES]
)


@pytest.mark.parametrize(("call", "error", "fragment"), ROWS, ids=[row[0] for row in ROWS])
def test_wrong_argument_is_refused_by_name(call, error, fragment):
    with pytest.raises(SpiralError) as caught:
        eval(call)
    assert type(caught.value) is error
    assert fragment in str(caught.value)
    assert len(str(caught.value)) < 300, "a message never shows a tensor's values"


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nn.Linear(n(3), n(2)),
        lambda n: nn.Embedding(n(3), n(2), padding_idx=n(-1)),
        lambda n: nn.LayerNorm((n(3), n(2))),
        lambda n: nn.BatchNorm2d(n(3), eps=np.float32(1e-3)),
        lambda n: nn.Conv2d(n(4), n(4), (n(3), n(1)), stride=n(2), groups=n(2)),
        lambda n: nn.Conv1d(n(1), n(2), n(3), padding="same"),
        lambda n: nn.MaxPool2d(n(2), [n(1), n(2)]),
        lambda n: nn.MultiHeadAttention(n(8), n(4), n(2), window=n(3)),
        lambda n: nn.GRU(n(3), n(2), num_layers=n(2), bias=np.bool_(True)),
    ],
)
@pytest.mark.parametrize("integer", [np.int8, np.int64, np.array])
def test_numpy_integers_are_sizes_and_become_python_s(make, integer):
    if integer is np.array:
        with pytest.raises(ArgumentError, match=r"received .*ndarray \(\) int64"):
            make(np.array)
        return
    module, twin = make(integer), make(int)
    assert [p.shape for p in module.parameters()] == [p.shape for p in twin.parameters()]
    sizes = [v for v in vars(module).values() if isinstance(v, (int, np.integer))]
    assert not any(isinstance(v, np.integer) for v in sizes)


def test_dtypes_of_a_linear_s_input_promote_as_in_a_product():
    layer = nn.Linear(3, 2)
    for given, result in (("float64", sp.float64), ("int64", sp.float32), ("float16", sp.float32)):
        assert layer(x(2, 3, dtype=given)).dtype is result
        assert (x(2, 3, dtype=given) @ layer.weight.T).dtype is result


def test_mean_over_no_counting_target_is_nan():
    ignored = targets(-100, -100)
    assert math.isnan(f.cross_entropy(x(), ignored).item())
    assert math.isnan(f.cross_entropy(x(), ignored, x(3)).item())
    assert f.cross_entropy(x(), ignored, reduction="sum").item() == 0.0


def test_a_state_dict_that_is_refused_changes_nothing():
    layer = nn.Linear(3, 2)
    before = layer.weight.tolist()
    with pytest.raises(nn.StateDictError):
        layer.load_state_dict({"weight": np.zeros((2, 3)), "bias": np.full(2, "a")})
    assert layer.weight.tolist() == before


def test_nan_probabilities_give_a_nan_loss():
    assert math.isnan(f.binary_cross_entropy(sp.asarray([NAN, 0.5]), x(2)).item())
    assert f.binary_cross_entropy(x(0), x(0), reduction="sum").item() == 0.0
    assert math.isfinite(f.binary_cross_entropy(sp.asarray([0.0, 1.0]), x(2)).item())


def test_infinite_values_are_taken_where_they_make_sense():
    assert init.constant_(x(1), -INF).tolist() == [-INF]
    assert math.isnan(init.constant_(x(1), NAN).item())
