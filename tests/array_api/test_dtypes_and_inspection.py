"""Dtype functions, promotion, inspection, the scalar conversions."""

import itertools

import numpy as np
import pytest
from strategies import ALL, FLOATS, INTEGERS, promotable

import spiral as sp

EVERY = [getattr(sp, n) for n in (*ALL, "float16", "bfloat16")]


@pytest.mark.parametrize("a", [d for d in ALL if d != "bool"])
def test_result_type_is_numpy_s_where_the_standard_defines_it(a):
    for b in [d for d in ALL if d != "bool"]:
        if promotable(a, b):
            want = np.result_type(a, b).name
            assert sp.result_type(getattr(sp, a), getattr(sp, b)).name == want
            assert sp.result_type(sp.ones(2, dtype=a), getattr(sp, b)).name == want


def test_can_cast_says_what_promotion_does():
    for a, b in itertools.product(EVERY, EVERY):
        try:
            want = sp.result_type(a, b) is b
        except TypeError:
            want = False
        assert sp.can_cast(a, b) is want
        assert sp.can_cast(sp.ones((), dtype=a), b) is want
    assert sp.can_cast(sp.uint8, sp.int16) and not sp.can_cast(sp.float64, sp.float32)


def test_result_type_with_scalars_and_without_dtypes():
    assert sp.result_type(sp.int8, 3) is sp.int8
    assert sp.result_type(sp.float32, 3, 2.5) is sp.float32
    assert sp.result_type(1.5, sp.int8) is sp.float32
    with pytest.raises(ValueError, match="at least one"):
        sp.result_type(1, 2.0)


def test_isdtype_kinds_partition_the_dtypes():
    kinds = ("bool", "signed integer", "unsigned integer", "real floating")
    for d in EVERY:
        assert sum(sp.isdtype(d, k) for k in kinds) == 1
        assert sp.isdtype(d, kinds) and not sp.isdtype(d, "complex floating")
        assert sp.isdtype(d, (sp.int8, "real floating")) is (d is sp.int8 or d in EVERY[-4:])
    with pytest.raises(ValueError, match="integral"):
        sp.isdtype(sp.int8, "whole")


@pytest.mark.parametrize("name", FLOATS)
def test_finfo_agrees_with_numpy(name):
    got, want = sp.finfo(getattr(sp, name)), np.finfo(name)
    for field in ("bits", "eps", "max", "min", "smallest_normal"):
        value = getattr(got, field)
        assert value == getattr(want, field) and type(value) in (int, float)
    assert got.dtype is getattr(sp, name) and sp.finfo(sp.ones(1, dtype=name)).eps == got.eps


@pytest.mark.parametrize("name", INTEGERS)
def test_iinfo_agrees_with_numpy(name):
    got, want = sp.iinfo(getattr(sp, name)), np.iinfo(name)
    assert (got.bits, got.min, got.max) == (want.bits, want.min, want.max)


def test_wrong_dtypes_for_limits_are_typed_errors():
    with pytest.raises(TypeError, match="floating"):
        sp.finfo(sp.int8)
    with pytest.raises(TypeError, match="integer"):
        sp.iinfo(sp.float32)


def test_namespace_info_lists_devices_dtypes_and_capabilities():
    info = sp.__array_namespace_info__()
    assert info.default_device() in info.devices() and isinstance(info.devices(), list)
    assert info.capabilities() == {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}
    assert info.default_dtypes(device=info.default_device())["real floating"] is sp.float32
    assert sp.asarray(1.0).dtype is info.default_dtypes()["real floating"]
    assert sp.asarray(1).dtype is info.default_dtypes()["integral"]
    assert sp.argsort(sp.ones(2)).dtype is info.default_dtypes()["indexing"]
    assert sorted(info.dtypes()) == sorted(ALL)
    assert info.dtypes(kind="real floating") == {"float32": sp.float32, "float64": sp.float64}
    assert sorted(info.dtypes(kind=("bool", "unsigned integer"))) == ["bool", "uint16", "uint32", "uint64", "uint8"]
    assert info.dtypes(kind="complex floating") == {}


def test_array_namespace_of_a_tensor_is_spiral_in_known_versions():
    x = sp.ones(1)
    assert x.__array_namespace__() is sp and x.__array_namespace__(api_version="2024.12") is sp
    with pytest.raises(ValueError, match=r"2024\.12"):
        x.__array_namespace__(api_version="1999.01")


def test_conversions_to_python_scalars():
    assert bool(sp.asarray(True)) is True and int(sp.asarray(7, dtype=sp.uint8)) == 7
    assert float(sp.asarray(1.5)) == 1.5 and complex(sp.asarray(2.0)) == 2 + 0j
    assert [10, 20, 30][sp.asarray(1)] == 20
    assert int(sp.asarray(2**63, dtype=sp.uint64)) == 2**63
    with pytest.raises(TypeError, match="float32"):
        [1, 2][sp.asarray(1.0)]
    with pytest.raises(TypeError, match="bool"):
        [1, 2][sp.asarray(True)]
    with pytest.raises(OverflowError):
        int(sp.asarray(float("inf")))
    for convert in (int, float, complex):
        with pytest.raises(ValueError, match="shape"):
            convert(sp.ones(2))


@pytest.mark.parametrize("target", EVERY, ids=lambda d: d.name)
def test_astype_between_all_dtypes(target):
    for source in EVERY:
        x = sp.asarray([0, 1, 3], dtype=source)
        y = sp.astype(x, target)
        assert y.dtype is target
        want = [bool(v) for v in x.tolist()] if target is sp.bool else [type(y.tolist()[0])(v) for v in x.tolist()]
        assert y.tolist() == want
        assert sp.astype(x, source, copy=False) is x
        again = sp.astype(x, source)
        assert again is not x and not np.shares_memory(again.numpy(), x.numpy())


def test_astype_copy_carries_gradients_and_moves_to_a_device():
    x = sp.asarray([1.0, 2.0]).requires_grad_()
    (sp.astype(x, sp.float32, device="cpu") * x.astype(sp.float64)).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
