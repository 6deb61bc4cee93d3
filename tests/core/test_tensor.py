"""Tensor: creation, promotion, values, conversions, errors, printing."""

import pickle

import ml_dtypes
import numpy as np
import pytest

import spiral as sp
from spiral.errors import DTypeError, IndexingError, ShapeError


def test_python_values_get_default_dtypes():
    assert sp.asarray([1.0]).dtype is sp.float32
    assert sp.asarray([1]).dtype is sp.int64
    assert sp.asarray(True).dtype is sp.bool


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (sp.int8, sp.int32, sp.int32),
        (sp.uint8, sp.int8, sp.int16),
        (sp.int64, sp.float16, sp.float16),
        (sp.bfloat16, sp.float16, sp.float32),
        (sp.float32, sp.float64, sp.float64),
        (sp.bool, sp.uint8, sp.uint8),
    ],
)
def test_promotion_follows_the_table(a, b, out):
    assert (sp.ones(2, dtype=a) + sp.ones(2, dtype=b)).dtype is out


def test_python_scalars_are_weak():
    assert (sp.ones(2, dtype=sp.float16) * 2.5).dtype is sp.float16
    assert (sp.ones(2, dtype=sp.int32) * 2.5).dtype is sp.float32
    assert (1 - sp.ones(2, dtype=sp.int8)).dtype is sp.int8


def test_uint64_with_a_signed_integer_is_refused():
    with pytest.raises(DTypeError, match="uint64 and int8"):
        sp.ones(2, dtype=sp.uint64) + sp.ones(2, dtype=sp.int8)


def test_bfloat16_sums_are_exact_where_ml_dtypes_saturates():
    assert sp.ones(1000, dtype=sp.bfloat16).sum().item() == 1000.0
    assert np.ones(1000, ml_dtypes.bfloat16).sum() == 256.0


def test_asarray_copies_numpy_unless_told_not_to():
    a = np.zeros(3, np.float32)
    copied, shared = sp.asarray(a), sp.asarray(a, copy=False)
    a[0] = 5.0
    assert copied.tolist() == [0, 0, 0] and shared.tolist() == [5, 0, 0]


def test_numpy_view_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        sp.zeros(3).numpy()[0] = 1.0


def test_slices_share_memory_but_nobody_can_see_it():
    x = sp.arange(6, dtype=sp.float32)
    y = x[1:3]
    x[1] = 100.0
    assert y.tolist() == [1.0, 2.0] and x.tolist()[1] == 100.0


def test_plus_x_is_another_tensor():
    x = sp.ones(2).requires_grad_()
    (+x * 3.0).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    x = sp.ones(2)
    y = +x
    y += 1.0
    y[0] = 7.0
    assert x.tolist() == [1.0, 1.0] and y.tolist() == [7.0, 2.0]


@pytest.mark.parametrize(
    "index", [(0,), (slice(1, None), -1), (Ellipsis, None, 2), ([0, 2], 1), (np.array([True, False, True]),)]
)
def test_indexing_agrees_with_numpy(index):
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(
        sp.asarray(a)[index].numpy(), a[index if not isinstance(index[0], list) else (np.array(index[0]), 1)]
    )


def test_bad_index_names_the_shape():
    with pytest.raises(IndexingError, match=r"\(3,\)"):
        sp.zeros(3)[7]


def test_shape_errors_say_what_was_expected_and_received():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4,\)"):
        sp.ones((2, 3)) + sp.ones(4)
    with pytest.raises(ShapeError, match="weight"):
        sp.rms_norm(sp.ones((2, 10)), sp.ones(12))
    with pytest.raises(ShapeError, match="reshape"):
        sp.reshape(sp.ones(6), (4, 2))


def test_numpy_array_where_a_tensor_is_expected_is_explained():
    with pytest.raises(DTypeError, match="asarray"):
        sp.exp(np.ones(3))


def test_torch_spellings_name_ours():
    with pytest.raises(AttributeError, match="reshape"):
        _ = sp.ones(3).view
    with pytest.raises(ValueError, match="axis"):
        sp.ones(3).sum(dim=0)


def test_printing_shows_what_is_not_obvious():
    assert repr(sp.asarray([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert "dtype=float16" in repr(sp.ones(2, dtype=sp.float16))
    assert "requires_grad=True" in repr(sp.ones(2).requires_grad_())
    assert f"{sp.asarray(2.5):.2f}" == "2.50"


def test_dlpack_round_trip_with_numpy():
    x = sp.arange(4, dtype=sp.float32)
    np.testing.assert_array_equal(np.from_dlpack(x), [0, 1, 2, 3])
    assert sp.asarray(np.arange(3.0)).dtype is sp.float64


def test_pickle_keeps_values_dtype_and_leafness():
    x = sp.ones((2, 2), dtype=sp.bfloat16).requires_grad_()
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype is sp.bfloat16 and y.requires_grad and y.tolist() == x.tolist()


def test_truth_of_several_elements_is_refused():
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        bool(sp.ones(2))


def test_tensors_compare_and_mix_with_numpy_scalars():
    x = sp.asarray([1.0, 2.0])
    assert (x > np.float32(1.5)).tolist() == [False, True]
    assert (np.float32(2) * x).tolist() == [2.0, 4.0]
