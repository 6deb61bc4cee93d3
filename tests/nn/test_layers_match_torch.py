"""Each layer's values and gradients against PyTorch's."""

import copy

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ArgumentError, IndexingError, ShapeError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
from torch_oracle import close, compare, compare_module, copy_weights, normal, tensors  # noqa: E402

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), lambda: torch.nn.Linear(5, 3), (2, 4, 5)),
    "linear-no-bias": (lambda: nn.Linear(5, 3, bias=False), lambda: torch.nn.Linear(5, 3, bias=False), (4, 5)),
    "layer-norm": (lambda: nn.LayerNorm(6), lambda: torch.nn.LayerNorm(6), (2, 3, 6)),
    "layer-norm-2-axes": (lambda: nn.LayerNorm((3, 4)), lambda: torch.nn.LayerNorm((3, 4)), (2, 3, 4)),
    "layer-norm-no-bias": (
        lambda: nn.LayerNorm(6, bias=False),
        lambda: torch.nn.LayerNorm(6, bias=False),
        (4, 6),
    ),
    "layer-norm-plain": (
        lambda: nn.LayerNorm(6, elementwise_affine=False),
        lambda: torch.nn.LayerNorm(6, elementwise_affine=False),
        (4, 6),
    ),
    "rms-norm": (lambda: nn.RMSNorm(6), lambda: torch.nn.RMSNorm(6, eps=1e-6), (2, 3, 6)),
    "rms-norm-2-axes": (lambda: nn.RMSNorm((3, 4)), lambda: torch.nn.RMSNorm((3, 4), eps=1e-6), (2, 3, 4)),
    "group-norm": (lambda: nn.GroupNorm(3, 6), lambda: torch.nn.GroupNorm(3, 6), (2, 6, 4, 5)),
    "batch-norm-2d": (lambda: nn.BatchNorm2d(3), lambda: torch.nn.BatchNorm2d(3), (4, 3, 5, 2)),
    "batch-norm-1d": (lambda: nn.BatchNorm1d(3), lambda: torch.nn.BatchNorm1d(3), (7, 3)),
    "batch-norm-1d-time": (lambda: nn.BatchNorm1d(3), lambda: torch.nn.BatchNorm1d(3), (4, 3, 5)),
    "conv1d": (
        lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        lambda: torch.nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        (2, 4, 9),
    ),
    "conv2d": (
        lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        lambda: torch.nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        (2, 3, 7, 6),
    ),
    "conv2d-same": (
        lambda: nn.Conv2d(2, 2, 3, padding="same", groups=2, bias=False),
        lambda: torch.nn.Conv2d(2, 2, 3, padding="same", groups=2, bias=False),
        (2, 2, 5, 6),
    ),
    "max-pool": (lambda: nn.MaxPool2d(3, 2, 1), lambda: torch.nn.MaxPool2d(3, 2, 1), (2, 3, 7, 8)),
    "avg-pool": (lambda: nn.AvgPool2d(2), lambda: torch.nn.AvgPool2d(2), (2, 3, 6, 8)),
    "avg-pool-padded": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        lambda: torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        (2, 3, 7, 7),
    ),
    "global-pool": (lambda: nn.AdaptiveAvgPool2d(1), lambda: torch.nn.AdaptiveAvgPool2d(1), (2, 3, 4, 5)),
    "adaptive-pool": (
        lambda: nn.AdaptiveAvgPool2d((3, 7)),
        lambda: torch.nn.AdaptiveAvgPool2d((3, 7)),
        (2, 3, 8, 5),
    ),
    "adaptive-pool-one-axis": (
        lambda: nn.AdaptiveAvgPool2d((None, 2)),
        lambda: torch.nn.AdaptiveAvgPool2d((None, 2)),
        (2, 3, 4, 5),
    ),
    "adaptive-pool-1d": (lambda: nn.AdaptiveAvgPool1d(4), lambda: torch.nn.AdaptiveAvgPool1d(4), (2, 3, 7)),
    "max-pool-1d": (lambda: nn.MaxPool1d(3, 2, 1), lambda: torch.nn.MaxPool1d(3, 2, 1), (2, 3, 8)),
    "avg-pool-1d": (
        lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        lambda: torch.nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        (2, 3, 8),
    ),
    "leaky-relu": (lambda: nn.LeakyReLU(0.2), lambda: torch.nn.LeakyReLU(0.2), (3, 4)),
    "elu": (lambda: nn.ELU(0.7), lambda: torch.nn.ELU(0.7), (3, 4)),
    "softplus": (lambda: nn.Softplus(2.0), lambda: torch.nn.Softplus(2.0), (3, 4)),
    "log-softmax": (lambda: nn.LogSoftmax(1), lambda: torch.nn.LogSoftmax(1), (3, 4, 2)),
    "identity": (lambda: nn.Identity(3, bias=False), torch.nn.Identity, (3, 4)),
    "relu": (nn.ReLU, torch.nn.ReLU, (3, 4)),
    "gelu": (nn.GELU, torch.nn.GELU, (3, 4)),
    "gelu-tanh": (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), (3, 4)),
    "silu": (nn.SiLU, torch.nn.SiLU, (3, 4)),
    "tanh": (nn.Tanh, torch.nn.Tanh, (3, 4)),
    "sigmoid": (nn.Sigmoid, torch.nn.Sigmoid, (3, 4)),
    "softmax": (lambda: nn.Softmax(1), lambda: torch.nn.Softmax(1), (3, 4, 2)),
    "flatten": (nn.Flatten, torch.nn.Flatten, (3, 4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_matches_torch(name):
    ours, theirs, shape = LAYERS[name]
    sp.random.manual_seed(0)
    module = ours()
    for p in module.parameters():
        nn.init.normal_(p)
    compare_module(module, theirs(), normal(*shape), tolerance=5e-5)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_keeps_torchs_running_statistics_and_uses_them_in_eval(momentum):
    ours, theirs = nn.BatchNorm2d(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
    for seed in range(3):
        x = normal(4, 3, 5, 2, seed=seed) * 2.0 + 1.0
        ours(sp.asarray(x))
        theirs(torch.tensor(x))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    close(ours.running_mean, theirs.running_mean)
    close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked.item() == 3
    compare(ours.eval(), theirs.eval(), normal(2, 3, 4, 4))


def test_embedding_matches_torch_and_its_padding_row_gets_no_gradient():
    indices = np.array([[0, 2, 2], [4, 1, 0]])
    compare_module(nn.Embedding(5, 3), torch.nn.Embedding(5, 3), indices)
    padded = nn.Embedding(5, 3, padding_idx=2)
    assert padded.weight[2].tolist() == [0.0, 0.0, 0.0]
    compare_module(padded, torch.nn.Embedding(5, 3, padding_idx=2), indices)


@pytest.mark.parametrize("name", ["LeakyReLU", "ELU", "Softplus"])
def test_activations_and_their_gradients_are_finite_and_torchs_far_out_and_at_zero(name):
    x = np.array([-np.inf, -1e4, -90.0, 0.0, 90.0, 1e4, np.inf], np.float32)
    ours, theirs = sp.asarray(x).requires_grad_(), torch.tensor(x, requires_grad=True)
    y, t = getattr(nn, name)()(ours), getattr(torch.nn, name)()(theirs)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=1e-6)
    y.sum().backward()
    t.sum().backward()
    np.testing.assert_allclose(ours.grad.numpy()[1:-1], theirs.grad.numpy()[1:-1], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_lstm_matches_torch(bias, batch_first, both):
    settings = {"num_layers": 2, "bias": bias, "batch_first": batch_first, "bidirectional": both}
    n_states = 4 if both else 2
    ours, theirs = nn.LSTM(3, 4, **settings), torch.nn.LSTM(3, 4, **settings)
    batch = 2 if batch_first else 5

    def call(m):
        def run(x, h, c):
            y, (h, c) = m(x, (h, c))
            return (y * y).sum() + (h * 2.0).sum() + (c * c).sum()

        return run

    copy_weights(ours, theirs)
    states = normal(n_states, batch, 4), normal(n_states, batch, 4, seed=1)
    compare(call(ours), call(theirs), normal(2, 5, 3), *states)
    for name, p in theirs.named_parameters():
        close(dict(ours.named_parameters())[name].grad, p.grad, 5e-5)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_gru_matches_torch(batch_first, both):
    settings = {"num_layers": 2, "batch_first": batch_first, "bidirectional": both}
    ours, theirs = nn.GRU(3, 4, **settings), torch.nn.GRU(3, 4, **settings)
    copy_weights(ours, theirs)

    def call(m):
        def run(x):
            y, h = m(x)
            return (y * y).sum() + (h * 2.0).sum()

        return run

    compare(call(ours), call(theirs), normal(2, 5, 3))
    for name, p in theirs.named_parameters():
        close(dict(ours.named_parameters())[name].grad, p.grad, 5e-5)


def test_a_recurrent_layer_takes_one_sequence_without_a_batch_and_no_sequences_at_all():
    ours, theirs = nn.LSTM(3, 4, bidirectional=True), torch.nn.LSTM(3, 4, bidirectional=True)
    copy_weights(ours, theirs)
    y, (h, c) = ours(sp.asarray(normal(5, 3)))
    t, (ht, ct) = theirs(torch.tensor(normal(5, 3)))
    for a, b in ((y, t), (h, ht), (c, ct)):
        assert a.shape == tuple(b.shape)
        close(a, b)
    y, (h, c) = ours(sp.zeros((5, 0, 3)))
    assert y.shape == (5, 0, 8) and h.shape == c.shape == (2, 0, 4)


def test_dropout_between_recurrent_layers_acts_in_training_only():
    sp.random.manual_seed(0)
    module, x = nn.GRU(3, 4, num_layers=2, dropout=0.5), sp.asarray(normal(5, 2, 3))
    assert module(x)[0].tolist() != module(x)[0].tolist()
    module.eval()
    assert module(x)[0].tolist() == module(x)[0].tolist()


def reference_attention(module, x, mask, window):
    """The same projections in PyTorch, with the T x S matrix written out."""
    p = {k: torch.tensor(np.array(v.numpy())) for k, v in module.state_dict().items()}

    def heads(name, n):
        y = torch.nn.functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])
        return y.reshape(*x.shape[:2], n, module.head_dim).transpose(1, 2)

    group = module.n_head // module.n_kv_head
    q = heads("q_proj", module.n_head)
    k, v = (heads(n, module.n_kv_head).repeat_interleave(group, 1) for n in ("k_proj", "v_proj"))
    t = x.shape[1]
    behind = torch.arange(t)[:, None] - torch.arange(t)[None]
    seen = (behind >= 0) if module.causal else torch.ones(t, t, dtype=torch.bool)
    seen = seen & (behind < window) if window else seen
    seen = seen if mask is None else seen & mask
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    y = y.transpose(1, 2).reshape(*x.shape[:2], -1)
    return torch.nn.functional.linear(y, p["o_proj.weight"], p["o_proj.bias"])


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
@pytest.mark.parametrize("causal, window, masked", [(0, 0, 0), (1, 0, 0), (1, 3, 0), (0, 0, 1), (1, 0, 1)])
def test_multi_head_attention_matches_torch(n_kv_head, causal, window, masked):
    sp.random.manual_seed(1)
    module = nn.MultiHeadAttention(8, 4, n_kv_head, causal=bool(causal), window=window)
    mask = np.random.default_rng(0).random((6, 6)) < 0.6
    np.fill_diagonal(mask, True)
    compare(
        lambda x: module(x, sp.asarray(mask) if masked else None),
        lambda x: reference_attention(module, x, torch.tensor(mask) if masked else None, window),
        normal(2, 6, 8),
    )


def rotate(x, theta, interleaved, offset):
    """Rotation as multiplication of complex numbers, in float64."""
    half = x.shape[-1] // 2
    angles = (torch.arange(x.shape[2]) + offset)[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    pairs = x.double().reshape(*x.shape[:-1], half, 2) if interleaved else torch.stack(x.double().chunk(2, -1), -1)
    turned = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    )
    y = turned.reshape(x.shape) if interleaved else torch.cat(turned.unbind(-1), -1)
    return y.float()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("offset", [0, 7])
def test_rotary_embedding_is_a_complex_rotation_and_its_tables_grow(interleaved, offset):
    rope = nn.RotaryEmbedding(8, max_positions=4, theta=500.0, interleaved=interleaved)
    compare(lambda x: rope(x, offset), lambda x: rotate(x, 500.0, interleaved, offset), normal(2, 3, 5, 8))
    assert rope.state_dict() == {}


def test_attention_with_rope_depends_on_distance_only():
    rope = nn.RotaryEmbedding(4)
    module = nn.MultiHeadAttention(8, 2, causal=True, rope=rope)
    x = sp.asarray(normal(1, 5, 8))
    np.testing.assert_allclose(module(x).numpy(), module(x, offset=11).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["swiglu", "geglu"])
def test_gated_feed_forward_matches_torch(kind):
    module = nn.SwiGLU(4, 6) if kind == "swiglu" else nn.GeGLU(4, 6)
    gate, up, down = (torch.tensor(np.array(p.numpy())) for p in module.parameters())
    act = torch.nn.functional.silu if kind == "swiglu" else torch.nn.functional.gelu
    compare(module, lambda x: (act(x @ gate.T) * (x @ up.T)) @ down.T, normal(2, 3, 4))


def test_dropout_scales_what_it_keeps_and_rests_in_eval():
    sp.random.manual_seed(3)
    module = nn.Dropout(0.25)
    (x,), _ = tensors(np.ones((100, 100), np.float32))
    y = module(x)
    assert set(np.unique(y.numpy())) == {0.0, np.float32(1.0 / 0.75)}
    assert abs(float((y == 0.0).astype(sp.float32).mean()) - 0.25) < 0.02
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert module.eval()(x) is x


def test_dropout_of_everything_gives_zeros_and_zero_gradients_even_of_infinities():
    x = sp.asarray([1.0, float("inf"), float("nan")]).requires_grad_()
    y = nn.Dropout(1.0)(x)
    y.sum().backward()
    assert y.tolist() == x.grad.tolist() == [0.0, 0.0, 0.0]


def test_dropout_repeats_with_the_seed():
    module, x = nn.Dropout(0.5), sp.ones((64,))
    sp.random.manual_seed(7)
    first = module(x).tolist()
    second = module(x).tolist()
    sp.random.manual_seed(7)
    assert module(x).tolist() == first != second


def test_a_small_network_learns_and_its_copy_is_independent():
    sp.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    x = sp.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = sp.asarray([[0.0], [1.0], [1.0], [0.0]])
    twin, before = copy.deepcopy(model), model.state_dict()["0.weight"].tolist()
    opt = optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(100):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss.item() < 0.1
    assert twin.state_dict()["0.weight"].tolist() == before


def test_wrong_settings_and_shapes_name_class_and_argument():
    with pytest.raises(ArgumentError, match="AdaptiveAvgPool2d: output_size must be a positive integer; received 0"):
        nn.AdaptiveAvgPool2d((0, 2))(sp.ones((1, 1, 4, 4)))
    with pytest.raises(ArgumentError, match="MultiHeadAttention: n_kv_head must divide n_head=4; received 3"):
        nn.MultiHeadAttention(8, 4, 3)
    with pytest.raises(ArgumentError, match="Dropout: p must be a number in"):
        nn.Dropout(1.5)
    with pytest.raises(ArgumentError, match="Conv2d: groups must divide"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(IndexingError, match=r"embedding: .*\[0, 3\).* 5"):
        nn.Embedding(3, 2)(sp.asarray([1, 5]))
    with pytest.raises(ShapeError, match=r"layer_norm: normalized_shape \(4,\) must be the last axes of x"):
        nn.LayerNorm(4)(sp.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"BatchNorm2d: expected x with 4 axes and 3 channels"):
        nn.BatchNorm2d(3)(sp.ones((2, 4, 5, 5)))
    with pytest.raises(ShapeError, match=r"LSTM: expected x \(T, B, 3\)"):
        nn.LSTM(3, 4)(sp.ones((2, 5, 4)))
