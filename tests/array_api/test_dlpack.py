"""DLPack with NumPy and torch: memory shared or copied, versions, devices, bfloat16 both ways."""

import ml_dtypes
import numpy as np
import pytest

import spiral as sp

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32"]


@pytest.mark.parametrize("dtype", [*DTYPES, "float64", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_round_trip_keeps_values_dtype_and_shape(dtype, shape):
    x = sp.reshape(sp.astype(sp.arange(int(np.prod(shape))), getattr(sp, dtype)), shape)
    y = sp.from_dlpack(x)
    assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
    assert y.__dlpack_device__() == x.__dlpack_device__() == (1, 0)


def test_memory_is_shared_unless_a_copy_is_asked_for():
    a = np.arange(3.0)
    shared, own = sp.from_dlpack(a), sp.from_dlpack(a, copy=True)
    a[0] = 9.0
    assert shared.tolist()[0] == 9.0 and own.tolist()[0] == 0.0
    assert np.shares_memory(sp.from_dlpack(a, copy=False, device="cpu").numpy(), a)
    x = sp.ones(3)
    assert np.shares_memory(np.from_dlpack(x), x.numpy())
    assert not np.shares_memory(np.from_dlpack(x, copy=True), x.numpy())


def test_strides_survive_and_read_only_memory_is_copied_where_the_consumer_could_write():
    x = sp.reshape(sp.arange(6), (2, 3)).T
    assert sp.from_dlpack(x).tolist() == x.tolist()
    wide = sp.broadcast_to(sp.asarray([1, 2]), (3, 2))
    assert np.from_dlpack(wide).tolist() == [[1, 2]] * 3
    capsule = wide.__dlpack__()  # an unversioned capsule cannot be marked as read only
    assert "dltensor" in repr(capsule) and "versioned" not in repr(capsule)
    assert "versioned" in repr(wide.__dlpack__(max_version=(1, 0)))
    with pytest.raises(BufferError):
        wide.__dlpack__(copy=False)


def test_streams_and_foreign_devices_are_refused():
    x = sp.ones(1)
    with pytest.raises(BufferError, match="stream"):
        x.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="device"):
        x.__dlpack__(dl_device=(2, 0))
    assert x.__dlpack__(dl_device=(1, 0), copy=True) is not None

    class Elsewhere:
        def __dlpack_device__(self):
            return (2, 0)

    with pytest.raises(ValueError, match="CPU"):
        sp.from_dlpack(Elsewhere())


def test_bfloat16_reaches_torch_and_comes_back():
    torch = pytest.importorskip("torch", reason="torch is the other side of this test")
    x = sp.asarray([1.5, -2.25, 3e38], dtype=sp.bfloat16)
    for theirs in (torch.from_dlpack(x), torch.utils.dlpack.from_dlpack(x.__dlpack__())):
        assert theirs.dtype is torch.bfloat16 and theirs.tolist() == x.tolist()
    back = sp.from_dlpack(theirs)
    assert back.dtype is sp.bfloat16 and back.tolist() == x.tolist()
    theirs[0] = 7.0
    assert back.tolist()[0] == 7.0
    assert sp.asarray(torch.ones(2, dtype=torch.bfloat16)).dtype is sp.bfloat16


def test_capsules_hold_and_free_their_memory():
    x = sp.asarray(np.arange(1000, dtype=np.float32), dtype=sp.bfloat16)
    want = x.tolist()
    y = sp.from_dlpack(x)
    del x
    sp.zeros(1000, dtype=sp.bfloat16)
    assert y.tolist() == want
    before = sp.memory().get("live", 0)
    for _ in range(100):
        sp.from_dlpack(sp.zeros(100_000, dtype=sp.bfloat16)).__dlpack__()
    assert sp.memory().get("live", 0) <= before + 1_000_000


def test_element_types_without_a_spiral_dtype_are_typed_errors():
    with pytest.raises(TypeError):
        sp.from_dlpack(np.ones(2, np.complex64))
    assert sp.from_dlpack(np.ones(2, np.float32)).dtype is sp.float32
    assert np.dtype(ml_dtypes.bfloat16) == sp.bfloat16
