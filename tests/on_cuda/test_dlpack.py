"""Memory of a device that other libraries work on, and theirs that we work on.

What shapes, strides and lifetimes become is tested with a driver that shares the host's memory under a device's type;
CuPy and PyTorch are asked where there is a GPU.
"""

import gc
import weakref

import numpy as np
import pytest

import spiral as sp
from spiral import dlpack
from spiral.device import as_device
from spiral.device_array import DeviceArray
from spiral.errors import DeviceError, DTypeError
from spiral.gpu import GpuMemory
from spiral.testing.cuda_on_cpu import CudaOnCpu, unavailable

STAND_IN = sp.ones(1).to("cuda").device.facts.get("on_processor", False)


class SharingDriver(CudaOnCpu):
    """Lends its memory under a device's type, and notes which streams were to wait."""

    index = 3
    stream_address = 4096

    def __init__(self):
        super().__init__()
        self.waited = []

    def let_wait(self, stream):
        self.waited.append(stream)


class Producer:
    """A foreign array: what another library's ``__dlpack__`` gives."""

    def __init__(self, memory, buffer, device=None):
        self.memory, self.buffer, self.asked = memory, buffer, []
        self.device = memory.dlpack_device() if device is None else device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None, copy=None):
        self.asked.append(stream)
        return dlpack.export_from_device(self.buffer, self.memory, "here", stream, max_version)


class OlderProducer(Producer):
    """One of before 2023.12."""

    def __dlpack__(self, *, stream=None):
        return super().__dlpack__(stream=stream)


@pytest.fixture
def memory():
    if unavailable() is not None:
        pytest.skip(unavailable())
    return GpuMemory(SharingDriver())


def placed(memory, values, dtype=np.float32):
    return memory.from_host(np.asarray(values).astype(dtype))


@pytest.mark.skipif(not STAND_IN, reason="there is a real device here")
def test_a_stand_in_does_not_claim_to_have_memory_of_cuda():
    x = sp.ones((2, 3)).to("cuda")
    for attempt in (x.__dlpack_device__, x.__dlpack__, lambda: sp.from_dlpack(x), lambda: np.from_dlpack(x)):
        with pytest.raises(BufferError, match="CUDA on the processor has no memory that other libraries know"):
            attempt()


def test_an_explicit_wish_for_the_cpu_is_granted_as_a_copy():
    x = sp.asarray([[1.0, 2.0], [3.0, 4.0]]).to("cuda")
    capsule = x[:, 1].__dlpack__(dl_device=(1, 0), max_version=(1, 0))
    assert np.from_dlpack(dlpack._Capsule(capsule, (1, 0))).tolist() == [2.0, 4.0]
    with pytest.raises(BufferError, match="as a copy only"):
        x.__dlpack__(dl_device=(1, 0), copy=False)


@pytest.mark.parametrize("dtype", [d.name for d in sp.dtype.ALL])
@pytest.mark.parametrize("producer", [Producer, OlderProducer])
def test_every_dtype_goes_out_and_comes_back(memory, dtype, producer):
    kind = sp.dtype.as_dtype(dtype).numpy
    buffer = placed(memory, [[0, 1, 1], [1, 0, 1]], kind)
    back, writable = dlpack.read_from_device(producer(memory, buffer), memory, None)
    assert (back.address, back.shape, back.strides, back.dtype) == (buffer.address, (2, 3), buffer.strides, kind)
    assert writable is (producer is Producer)  # an unversioned capsule does not say
    assert back.to_host().astype(np.float32).tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]


def test_strides_offsets_and_empty_arrays_survive(memory):
    buffer = placed(memory, np.arange(24).reshape(2, 3, 4))
    views = [
        buffer[:, ::2, 1:], buffer[..., ::-1], buffer.transpose((2, 0, 1)), buffer[1, 2, 3], buffer[:, :0],
        buffer[:1].broadcast_to((5, 3, 4)),
    ]  # fmt: skip
    for view in views:
        back, _ = dlpack.read_from_device(Producer(memory, view), memory, None)
        assert back.shape == view.shape and back.to_host().tolist() == view.to_host().tolist()


def test_the_capsule_names_the_device_and_keeps_the_memory_until_it_dies(memory):
    gpu = memory.driver
    buffer = placed(memory, np.ones(1000))
    used = gpu.usage.used
    capsule = dlpack.export_from_device(buffer, memory, "here", None, (1, 0))
    tensor = dlpack._described(capsule)
    assert (tensor.device_type, tensor.device_id) == (2, 3) and tensor.data == buffer.address
    del buffer
    gc.collect()
    assert gpu.usage.used == used
    del capsule, tensor
    gc.collect()
    assert gpu.usage.used < used


def test_a_consumers_stream_waits_for_ours_as_the_standard_numbers_streams(memory):
    buffer, gpu = placed(memory, [1.0]), memory.driver
    for stream in (None, 1, 2, 2**40, -1):
        dlpack.export_from_device(buffer, memory, "here", stream, None)
    assert gpu.waited == [1, 1, 2, 2**40]
    for bad in (0, -2, "1", 1.0, True):
        with pytest.raises(BufferError, match="stream: expected None, 1, 2, -1 or the address"):
            dlpack.export_from_device(buffer, memory, "here", bad, None)


def test_a_producer_is_told_our_stream_and_keeps_its_memory_until_the_device_is_done(memory):
    buffer = placed(memory, [1.0, 2.0])
    alive = weakref.ref(buffer)
    producer = Producer(memory, buffer)
    back, _ = dlpack.read_from_device(producer, memory, None)
    assert producer.asked == [4096] and back.block.nbytes == 8
    view = back[1:]
    del buffer, producer, back
    gc.collect()
    assert alive() is not None and view.to_host().tolist() == [2.0]
    del view
    memory.give_back(None)  # looks at the events
    gc.collect()
    assert alive() is None


def test_what_cannot_be_taken_is_refused_with_the_reason(memory):
    buffer = placed(memory, [1.0])
    with pytest.raises(
        DeviceError, match=r"expected memory of device \(2, 3\), as its producer says; received \(2, 5\)"
    ):
        other = GpuMemory(SharingDriver())
        other.driver.index = 5
        dlpack.read_from_device(Producer(other, buffer), memory, None)
    with pytest.raises(DTypeError):
        complex_ = DeviceArray(memory.driver, buffer.block, buffer.address, (0,), np.dtype(np.complex64))
        dlpack.read_from_device(Producer(memory, complex_), memory, None)
    with pytest.raises(DeviceError, match=r"spiral doctor` lists; received device \(2, 3\)"):
        sp.from_dlpack(Producer(memory, buffer))
    with pytest.raises(DeviceError, match="spiral doctor"):
        sp.asarray(Producer(memory, buffer))


@pytest.mark.skipif(STAND_IN, reason="needs an NVIDIA GPU: CuPy works on its memory")
def test_cupy_shares_memory_both_ways():
    import cupy

    x = sp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3)).to("cuda") + 1.0
    theirs = cupy.from_dlpack(x)
    assert theirs.data.ptr == x._a.address and theirs.get().tolist() == x.tolist()
    y = sp.from_dlpack(theirs * 2)
    assert y.device == as_device("cuda") and (y + x).tolist() == (3 * np.arange(1, 7).reshape(2, 3)).tolist()
    assert sp.asarray(theirs).device == as_device("cuda")


@pytest.mark.skipif(STAND_IN, reason="needs an NVIDIA GPU: PyTorch works on its memory")
def test_pytorch_shares_memory_both_ways():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    for dtype in (sp.float32, sp.bfloat16):
        x = sp.asarray(np.arange(6.0)).to("cuda").astype(dtype) + 1.0
        theirs = torch.from_dlpack(x)
        assert theirs.data_ptr() == x._a.address and theirs.tolist() == x.tolist()
        assert sp.from_dlpack(theirs * 2).tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
