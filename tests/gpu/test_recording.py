"""The driver that records."""

import ctypes
import gc

import numpy as np
import pytest

from spiral.device_array import DeviceArray
from spiral.errors import KernelError
from spiral.gpu import CudaSource, Driver
from spiral.gpu.params import Params
from spiral.testing.recording import Call, RecordingDriver

SOURCE = CudaSource("norm.cu", ("rms_norm<float>", "other"))


def test_it_is_a_driver():
    assert isinstance(RecordingDriver(), Driver)


def test_memory_is_aligned_poisoned_real_and_counted():
    gpu = RecordingDriver()
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    a = DeviceArray.from_host(gpu, x)
    np.testing.assert_array_equal(a[1:, ::-2].to_host(), x[1:, ::-2])
    b = DeviceArray.empty(gpu, (4, 6), np.dtype(np.float32))
    assert a.address % 256 == b.address % 256 == 0
    assert np.isnan(b.to_host()).all()
    gpu.copy(b.address, a.address, 48)
    gpu.fill(b.address + 48, 0, 48)
    np.testing.assert_array_equal(b.to_host(), np.concatenate([x[:2], np.zeros((2, 6), np.float32)]))
    assert (gpu.usage.used, gpu.usage.peak) == (192, 192)
    del a
    gc.collect()
    assert (gpu.usage.used, gpu.usage.peak) == (96, 192)


def test_calls_are_noted_in_order_with_unpacked_parameters():
    gpu = RecordingDriver()
    gpu.unpack("rms_norm<float>", "P", "i", "3q", "f")
    params = Params("P", "i", "3q", "f")
    function, other = (gpu.compile(SOURCE, name) for name in SOURCE.names)
    gpu.launch(function, (2, 1, 1), (256, 1, 1), 64, params.pack(4096, -1, 1, 2, 3, 0.5))
    gpu.launch(other, [1, 1, 1], [32, 1, 1], 0, 0)
    assert [c.method for c in gpu.calls] == ["compile", "compile", "launch", "launch"]
    assert gpu.calls[2] == Call(
        "launch", "rms_norm<float>", (2, 1, 1), (256, 1, 1), 64, values=(4096, -1, 1, 2, 3, 0.5)
    )
    assert gpu.calls[3].values is None and gpu.launches == 2 and gpu.synchronizations == 0


def test_waiting_is_counted():
    gpu = RecordingDriver()
    a = DeviceArray.from_host(gpu, np.ones(3))
    a.to_host()
    gpu.synchronize()
    gpu.event().wait()
    assert gpu.synchronizations == 3


def test_a_graph_holds_what_was_enqueued_and_runs_nothing():
    gpu = RecordingDriver()
    a = DeviceArray.from_host(gpu, np.ones(4, np.float32))
    function = gpu.compile(SOURCE, "other")
    gpu.calls.clear()

    def step():
        gpu.fill(a.address, 0, 16)
        gpu.launch(function, (1, 1, 1), (32, 1, 1), 0, 0)

    graph = gpu.capture(step)
    graph.launch()
    assert [c.method for c in graph.calls] == ["fill", "launch"]
    assert [c.method for c in gpu.calls] == ["capture", "replay"]
    np.testing.assert_array_equal(a.to_host(), np.ones(4))


def test_waiting_within_a_capture_is_refused_and_the_capture_ends():
    gpu = RecordingDriver()
    a = DeviceArray.from_host(gpu, np.ones(4, np.float32))
    with pytest.raises(KernelError, match="read: the host cannot wait"):
        gpu.capture(lambda: a.to_host() and None)
    assert a.to_host().sum() == 4


def test_unknown_kernels_and_compiled_kernels_on_host_memory_are_refused():
    with pytest.raises(KernelError, match=r"norm\.cu: expected one of .*received 'missing'"):
        RecordingDriver().compile(SOURCE, "missing")
    host = RecordingDriver(on_processor=True)
    for refused in (lambda: host.load(b"", "k", 0), lambda: host.compile(SOURCE, "other"), lambda: host.capture(list)):
        with pytest.raises(KernelError, match="host memory for the interpreter"):
            refused()


def test_parameters_of_two_threads_do_not_mix():
    import threading

    params = Params("q", "q")
    both = threading.Barrier(2)
    seen = {}

    def pack(value):
        both.wait()
        for i in range(2000):
            address = params.pack(value, i)
            pointers = (ctypes.c_void_p * 2).from_address(address)
            seen.setdefault(value, set()).add(ctypes.c_longlong.from_address(pointers[0]).value)

    threads = [threading.Thread(target=pack, args=(v,)) for v in (1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == {1: {1}, 2: {2}}
