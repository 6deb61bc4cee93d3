"""Elementwise kernels beyond the samples: integers, layouts, signs of NaN, cuts of huge arrays."""

import numpy as np
import pytest

import spiral as sp
from spiral.backends.triton import activation, arrays, elementwise, pointwise
from spiral.errors import ArgumentError, DTypeError
from spiral.op import F

WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]
FLOATS = ["float32", "float64", "float16", "bfloat16"]


def on_cuda(a):
    return sp.asarray(a, device="cuda")


def bits(t):
    a = np.ascontiguousarray(t.to("cpu").numpy() if isinstance(t, sp.Tensor) else t)
    return a.view(f"u{a.itemsize}")


def same_bits(op, *arrays, **attrs):
    """Whether an op gives the same bits in Triton as NumPy does on the CPU."""
    with sp.prefer("numpy"):
        want = getattr(F, op)(*[sp.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays], **attrs)
    with sp.prefer("triton"):
        got = getattr(F, op)(*[on_cuda(a) if isinstance(a, np.ndarray) else a for a in arrays], **attrs)
    assert got.dtype is want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(bits(got), bits(want), err_msg=f"{op} {[getattr(a, 'dtype', a) for a in arrays]}")


def extremes(dtype, n=67):
    info = np.iinfo(dtype)
    edge = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7, 8, 63, 64]
    edge += [-1, -2, -7, -8] if info.min else []
    rng = np.random.default_rng(1)
    return rng.choice(np.array(edge, dtype), n), rng.choice(np.array(edge, dtype), n)


# ---------------------------------------------------------------- integers
@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize(
    "op",
    ["add", "subtract", "multiply", "floor_divide", "remainder", "maximum", "minimum", "bitwise_and", "bitwise_or",
     "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "equal", "not_equal", "less", "less_equal", "greater",
     "greater_equal", "logical_and", "logical_or", "logical_xor"],
)  # fmt: skip
def test_integers_at_their_limits(op, dtype):
    x, y = extremes(dtype)
    same_bits(op, x, y)
    if not op.endswith("shift") and dtype in ("int8", "uint32", "int64"):
        same_bits(op, x, 3)
        same_bits(op, 3, x)


@pytest.mark.parametrize("dtype", WHOLE)
def test_functions_of_one_integer(dtype):
    x, y = extremes(dtype)
    for op in ("negative", "abs", "square", "sign", "floor", "ceil", "round", "trunc", "bitwise_invert", "logical_not",
               "isnan", "isinf", "isfinite", "signbit", "relu"):  # fmt: skip
        if op != "signbit" or np.dtype(dtype).kind == "i":
            same_bits(op, x)
    small = np.abs(y.astype(np.int64)).astype(dtype) % np.array(9, dtype)
    same_bits("pow", x, small)
    same_bits("pow", x, 5)
    same_bits("pow", 3, small)


def test_truth_values_are_one_byte_of_zero_or_one():
    x, y = np.array([0, 0, 1, 1] * 5, bool), np.array([0, 1, 0, 1] * 5, bool)
    for op in ("add", "multiply", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor", "equal",
               "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or",
               "logical_xor",
               "bitwise_left_shift", "bitwise_right_shift"):  # fmt: skip
        same_bits(op, x, y)
    for op in ("logical_not", "bitwise_invert", "abs", "floor", "relu", "isfinite", "isnan"):
        same_bits(op, x)
    same_bits("logical_and", x, 2.5)
    same_bits("add", x, 3)
    for op in ("subtract", "negative", "sign"):
        args = (on_cuda(x), on_cuda(y))[: 2 if op == "subtract" else 1]
        with pytest.raises(DTypeError, match=f"{op}: expected numbers; received bool"):
            getattr(F, op)(*args)


def test_operands_of_different_dtypes_are_promoted():
    rng = np.random.default_rng(0)
    names = ["bool", "int8", "uint8", "int32", "uint32", "int64", "float32", "float64"]
    arrays = [rng.integers(0, 2 if n == "bool" else 100, (3, 5)).astype(n) for n in names]
    for a in arrays:
        for b in arrays:
            for op in ("multiply", "less"):
                same_bits(op, a, b)
    same_bits("divide", arrays[3] + np.int32(1), arrays[4] + np.uint32(1))


def test_comparisons_do_not_round_what_they_compare():
    big = np.array([2**24 + 1, 2**53 + 1, -(2**63), 2**63 - 1, -1, 0], np.int64)
    unsigned = np.array([2**24 + 1, 2**53, 2**63, 2**64 - 1, 2**64 - 1, 0], np.uint64)
    for op in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        same_bits(op, big, unsigned)
        same_bits(op, unsigned, big)
        same_bits(op, unsigned, big.astype(np.int8))
        same_bits(op, big[:1], np.array([2.0**24], np.float32))
        same_bits(op, big.astype(np.int32), 16777216.5)
        for number in (300, -300, 2**70, -(2**70)):
            same_bits(op, big.astype(np.int8), number)
            same_bits(op, number, big.astype(np.uint8))


def test_numbers_that_an_integer_cannot_hold_are_refused():
    x = on_cuda(np.arange(3, dtype=np.int8))
    with pytest.raises(ArgumentError, match="add: expected a number that int8 holds; received 300"):
        x + 300
    with pytest.raises(ArgumentError, match="negative powers; received -1"):
        F.pow(x, -1)


# ---------------------------------------------------------------- floats
@pytest.mark.parametrize("dtype", FLOATS)
def test_signs_of_zeros_and_nan(dtype):
    kind = sp.dtype.as_dtype(dtype).numpy
    x = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1.5, -1.5], np.float32)
    x = np.where([0, 0, 0, 1, 0, 0, 0, 0], -np.abs(x), x).astype(np.float32).astype(kind)
    y = x[::-1].copy()
    size = x.dtype.itemsize
    top, rest = np.array(1 << (8 * size - 1), f"u{size}"), np.array((1 << (8 * size - 1)) - 1, f"u{size}")
    tx, ty = on_cuda(x), on_cuda(y)
    np.testing.assert_array_equal(bits(F.negative(tx)), bits(x) ^ top)
    np.testing.assert_array_equal(bits(F.abs(tx)), bits(x) & rest)
    np.testing.assert_array_equal(bits(F.copysign(tx, ty)), bits(x) & rest | bits(y) & top)
    np.testing.assert_array_equal(bits(F.copysign(tx, -1.0)), bits(x) | top)
    np.testing.assert_array_equal(bits(F.copysign(2.0, tx)), bits(np.full(8, 2.0, kind)) | bits(x) & top)
    np.testing.assert_array_equal(bits(F.signbit(tx)), (bits(x) & top) != 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quotients_round_down_exactly(dtype):
    rng = np.random.default_rng(3)
    y = rng.choice(np.array([0.1, -0.1, 3.0, -3.0, 1e-3, 7.25, 0.0, -0.0, np.inf, -np.inf, np.nan], dtype), 999)
    with np.errstate(invalid="ignore"):
        x = (y * rng.integers(-50, 50, 999)).astype(dtype)
    x[::7] = np.nextafter(x[::7], np.inf, dtype=dtype)
    x[::50], x[1::50] = np.inf, -0.0
    for op in ("floor_divide", "remainder"):
        with np.errstate(all="ignore"):
            want = getattr(np, op)(x, y)
            if op == "floor_divide":
                want = np.where(np.isinf(x) | np.isinf(y), np.floor(x / y), want)
        got = getattr(F, op)(on_cuda(x), on_cuda(y)).to("cpu").numpy()
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got)[~np.isnan(want)], np.signbit(want)[~np.isnan(want)])


def test_powers_by_numbers_are_those_by_tensors():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2.0, -2.0, 0.3], np.float32)
    for y in (2, 3, -1, 0.5, 0, 1, -2.0):
        number = F.pow(on_cuda(x), y).to("cpu").numpy()
        with np.errstate(all="ignore"):
            want = np.array([np.power(np.float64(v), np.array([y], np.float64))[0] for v in x])
        np.testing.assert_allclose(number, want, 4e-7)
        if y == 0.5:
            assert not np.signbit(number[1]) and number[3] == np.inf


def test_neighbours_of_a_float_have_its_bits_but_one():
    x = np.array([1.0, -1.0, 0.0, 1e-45, 3.4028235e38, np.inf, np.nan], np.float32)
    for y in (2.0, -2.0, np.inf, 0.0):
        same_bits("nextafter", x[:-1], np.full(6, y, np.float32))


# ---------------------------------------------------------------- layouts
@pytest.mark.parametrize("n", [1, 3, 4, 8, 9, 31, 1023, 1024, 1025, 2049])
def test_lengths_around_runs_and_blocks(n):
    for dtype in ("float32", "float16", "uint8", "float64"):
        x = (np.arange(n) % 199).astype(dtype)
        same_bits("add", x, x[::-1].copy())
        same_bits("square", x)
        same_bits("less", x, x[::-1].copy())
        same_bits("where", x > 50, x, x[::-1].copy())


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
def test_views_of_any_strides(dtype):
    base = (np.arange(6 * 7 * 8) % 100).astype(dtype).reshape(6, 7, 8)
    device = on_cuda(base)
    for index in [np.s_[1:], np.s_[:, 1:], np.s_[..., 1:], np.s_[..., ::2], np.s_[::-1], np.s_[..., ::-1],
                  np.s_[2, 3:4], np.s_[:, :, 3:6], np.s_[::2, ::3, 1::3]]:  # fmt: skip
        a, b = base[index], device[index]
        np.testing.assert_array_equal(F.square(b).to("cpu").numpy(), np.square(a))
        np.testing.assert_array_equal(F.add(b, b).to("cpu").numpy(), a + a)
        row = np.ascontiguousarray(a[(0,) * (a.ndim - 1)])
        np.testing.assert_array_equal(F.subtract(b, on_cuda(row)).to("cpu").numpy(), a - row)
        np.testing.assert_array_equal(F.where(b > 50, b, on_cuda(row)).to("cpu").numpy(), np.where(a > 50, a, row))
    turned = F.permute_dims(device, axes=(2, 0, 1))
    other = base.reshape(8, 6, 7)
    np.testing.assert_array_equal(F.add(turned, on_cuda(other)).to("cpu").numpy(), base.transpose(2, 0, 1) + other)


def test_broadcasts_along_every_set_of_axes():
    rng = np.random.default_rng(0)
    shape = (3, 5, 4, 9)
    full = rng.standard_normal(shape).astype(np.float32)
    for mask in range(16):
        part = rng.standard_normal([n if mask >> i & 1 else 1 for i, n in enumerate(shape)]).astype(np.float32)
        same_bits("multiply", full, part)
        same_bits("where", part > 0, full, part)
        same_bits("where", full > 0, part, 1.5)
        same_bits("where", full > 0, -0.0, part)


def test_more_axes_than_a_layout_holds():
    base = np.arange(3**8, dtype=np.float32).reshape((3,) * 8)
    part, device = base[(slice(None, None, 2),) * 8], on_cuda(base)[(slice(None, None, 2),) * 8]
    row = np.arange(2, dtype=np.float32)
    np.testing.assert_array_equal(F.square(device).to("cpu").numpy(), np.square(part))
    np.testing.assert_array_equal(F.add(device, on_cuda(row)).to("cpu").numpy(), part + row)
    np.testing.assert_array_equal(F.where(device > 9, device, 0.0).to("cpu").numpy(), np.where(part > 9, part, 0))
    np.testing.assert_allclose(
        F.swiglu(device, device).to("cpu").numpy(), part * part / (1 + np.exp(-part.astype(np.float64))), 1e-6
    )


def test_arrays_too_long_for_an_index_are_cut(monkeypatch):
    for module in (activation, arrays, elementwise, pointwise):
        monkeypatch.setattr(module, "LIMIT", 64)
    rng = np.random.default_rng(0)
    x, row = rng.standard_normal((1, 7, 45)).astype(np.float32), rng.standard_normal(45).astype(np.float32)
    for op in ("add", "less"):
        same_bits(op, x, row)
        same_bits(op, x, 0.5)
    same_bits("square", x)
    same_bits("where", x > 0, x, row)
    same_bits("tril", x, k=3)
    assert_dropout_is_the_cpus(x)
    g, a, b = (on_cuda(v) for v in (x, x * 2, x + 1))
    got = F.swiglu_grad(g, a, b)
    monkeypatch.undo()
    for part, whole in zip(got, F.swiglu_grad(g, a, b), strict=True):
        np.testing.assert_array_equal(bits(part), bits(whole))
    np.testing.assert_array_equal(bits(F.dropout(g, p=0.3, seed=5, stream=2)).shape, x.shape)


def test_triangles_of_matrices_of_any_shape():
    for shape in [(1, 1), (3, 1), (1, 9), (5, 4), (2, 3, 17, 5), (33, 65), (0, 3), (2, 0, 4)]:
        x = np.arange(1, np.prod(shape) + 1, dtype=np.int16).reshape(shape)
        for k in (-40, -1, 0, 2, 2**70):
            same_bits("tril", x, k=k)
            same_bits("triu", x, k=k)
    turned = F.permute_dims(on_cuda(np.arange(12.0).reshape(3, 4)), axes=(1, 0))
    np.testing.assert_array_equal(F.tril(turned).to("cpu").numpy(), np.tril(np.arange(12.0).reshape(3, 4).T))


# ---------------------------------------------------------------- activations, dropout
def assert_dropout_is_the_cpus(x):
    attrs = {"p": 0.3, "seed": 2**40 + 5, "stream": 2**33 + 1}
    want = F.dropout(sp.asarray(x), **attrs).numpy()
    np.testing.assert_array_equal(F.dropout(on_cuda(x), **attrs).to("cpu").numpy(), want)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 2049, 4099])
def test_dropout_draws_the_numbers_of_the_cpu(n):
    assert_dropout_is_the_cpus(np.arange(1, n + 1, dtype=np.float32))
    ones = np.ones(n, np.float32)
    kept = F.dropout(sp.asarray(ones), p=0.5, seed=1, stream=9).numpy() != 0
    for dtype in ("float16", "bfloat16", "float64"):
        t = on_cuda(ones).astype(dtype)
        np.testing.assert_array_equal(
            F.dropout(t, p=0.5, seed=1, stream=9).astype("float32").to("cpu").numpy() != 0, kept
        )


def test_dropped_elements_are_zero_whatever_they_were():
    x = on_cuda(np.array([np.nan, np.inf] * 50, np.float32))
    y = F.dropout(x, p=0.999, seed=0, stream=0).to("cpu").numpy()
    assert (y == 0).sum() > 90


def test_gradients_run_in_the_wider_dtype():
    g, x = np.array([1.0, 2.0], np.float32), np.array([0.5, -3.0], np.float64)
    for op in (F.silu_grad, F.relu_grad, F.gelu_grad):
        got = op(on_cuda(g), on_cuda(x))
        assert got.dtype is sp.float32
        np.testing.assert_allclose(
            got.to("cpu").numpy(), op(sp.asarray(g).astype("float64"), sp.asarray(x)).numpy(), 1e-6
        )
    da, db = F.swiglu_grad(on_cuda(g), on_cuda(x), on_cuda(g))
    assert (da.dtype, db.dtype) == (sp.float64, sp.float32)


def test_gradients_flow_through_a_gated_layer():
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2)]
    seed = rng.standard_normal((4, 6)).astype(np.float32)
    grads = []
    for device in ("cpu", "cuda"):
        a, b = (sp.asarray(v, device=device).requires_grad_() for v in values)
        y = F.multiply(F.swiglu(a, F.gelu(b, approximate="tanh")), F.exp(F.tanh(a)))
        y.backward(sp.asarray(seed, device=device))
        grads.append([t.grad.to("cpu").numpy() for t in (a, b)])
    for got, want in zip(grads[1], grads[0], strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6)
