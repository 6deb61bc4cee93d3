"""The device that is none: what CUDA promises holds, and what CUDA forbids is an error."""

import ctypes
import gc
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from spiral.errors import ArgumentError, KernelError, OutOfMemoryError
from spiral.gpu import CudaSource, Driver
from spiral.gpu.params import Params
from spiral.testing.cuda_on_cpu import CudaOnCpu, sanitized_environment, unavailable
from spiral.testing.cuda_on_cpu.compiler import NAMES_AT_ONCE

NAMES = (
    "indices", "shuffles<float>", "shuffles<i64>", "votes", "predicates", "half_exits", "atomics", "by_value",
    "through_dynamic<float>", "through_dynamic<double>",
    "rms_norm<float>", "rms_norm<double>", "rms_norm<f16>",
    "mathematics", "deep_stack", "reads_unwritten_shared",
    "writes", "writes_past_dynamic", "indexes_past_an_array", "reads_misaligned", "divides", "overflows_its_stack",
    "divergent_barrier", "two_barriers", "mask_without_itself", "lane_that_takes_no_part", "traps", "shifts",
)  # fmt: skip
FLOATS = {"float": (np.float32, 3e-6), "double": (np.float64, 1e-14), "f16": (np.float16, 1e-3)}
ORDERS = ("forward", "reverse", "shuffle:1", "shuffle:2")


@pytest.fixture
def device(bench):
    bench.take_kernels("behaviour.cu", NAMES)
    return bench


def floats(device, n, name, formats, *values, **launch):
    """Runs a kernel whose last parameter is its output."""
    y = device.gpu.allocate(4 * n)
    device.run(name, formats, *values, y, **launch)
    return device.get(y, n, np.float32)


# ---------------------------------------------------------------- what CUDA promises
def test_is_a_driver(device):
    assert isinstance(device.gpu, Driver)
    assert device.gpu.facts.cc == 90 and device.gpu.facts.more["on_processor"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block_runs_once(device, order):
    device = device.in_order(order)
    y = device.put(np.zeros(24 * 30, np.int32))
    device.run("indices", "P", y, grid=(2, 3, 4), block=(5, 3, 2))
    expected = [1000 * block + thread for block in range(24) for thread in range(30)]
    np.testing.assert_array_equal(device.get(y, 720, np.int32), expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name, dtype", [("float", np.float32), ("i64", np.int64)])
def test_shuffles(device, order, name, dtype):
    device = device.in_order(order)
    x = (np.arange(32) * 3 + 1).astype(dtype)
    y = device.gpu.allocate(256 * x.itemsize)
    device.run(f"shuffles<{name}>", "P P", device.put(x), y)
    lane = np.arange(32)
    start, inside = lane & ~7, lane & 7
    sources = [
        np.full(32, 5), np.where(lane >= 3, lane - 3, lane), np.where(lane + 3 < 32, lane + 3, lane), lane ^ 9,
        start + 5, np.where(inside >= 3, lane - 3, lane), np.where(inside + 3 < 8, lane + 3, lane),
        np.where((lane ^ 9) <= (lane | 7), lane ^ 9, lane),
    ]  # fmt: skip
    np.testing.assert_array_equal(device.get(y, (8, 32), dtype), np.stack([x[s] for s in sources]))


def test_votes(device):
    x = np.arange(32, dtype=np.int32) // 4
    y = device.gpu.allocate(6 * 32 * 4)
    device.run("votes", "P P", device.put(x), y)
    got = device.get(y, (6, 32), np.uint32)
    assert (got[0] == 0xFFFF0000).all() and (got[1] == 1).all() and (got[2] == 1).all()
    np.testing.assert_array_equal(got[3], np.uint32(0xF) << (4 * x.astype(np.uint32)))
    np.testing.assert_array_equal(got[4], [0xFFFF] * 16 + [0xFFFF0000] * 16)
    assert (got[5] == 1).all()


@pytest.mark.parametrize("ones", [0, 1, 99, 100])
def test_barriers_count_predicates(device, ones):
    x, y = device.put((np.arange(100) < ones).astype(np.int32)), device.gpu.allocate(12)
    device.run("predicates", "P P", x, y, block=(100, 1, 1))
    assert device.get(y, 3, np.int32).tolist() == [ones, ones == 100, ones > 0]


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_do_not_wait_for_threads_that_have_exited(device, order):
    got = floats(device.in_order(order), 256, "half_exits", "P", block=(256, 1, 1))
    np.testing.assert_array_equal(got[::2], (np.arange(0, 256, 2) + 64) % 256 + 1)
    assert np.isnan(got[1::2]).all()


@pytest.mark.parametrize("order", ORDERS)
def test_atomics(device, order):
    device = device.in_order(order)
    zero = [device.put(np.zeros(1, t)) for t in (np.float32, np.int32, np.uint64, np.float64)]
    device.run("atomics", "P P P P", *zero, grid=(7, 1, 1), block=(48, 1, 1))
    got = [device.get(b, 1, t)[0] for b, t in zip(zero, (np.float32, np.int32, np.uint64, np.float64), strict=True)]
    assert got == [336, -7, 6047, 168]


def test_parameters_of_all_sizes_and_structures_by_value(device):
    shape = (3, 4, 5, 6, 7, 8, 0.5, 9)
    got = floats(device, 6, "by_value", "B 3q3qfB3x d P", 200, *shape, 2.5)
    assert got.tolist() == [200, 5, 6, 0.5, 9, 2.5]


@pytest.mark.parametrize("formats", ["P i", "P", "P q i", "q I"])
def test_parameters_packed_for_another_kernel_are_refused(device, formats):
    with pytest.raises(KernelError, match=r"writes: expected parameters of \[8, 8\] bytes; received \["):
        device.run("writes", formats, *[0] * len(formats.split()))


@pytest.mark.parametrize("name, dtype", [("float", np.float32), ("double", np.float64)])
def test_dynamic_shared_memory_has_the_size_asked_for(device, name, dtype):
    x = np.arange(96).astype(dtype)
    y = device.gpu.allocate(x.nbytes)
    device.run(f"through_dynamic<{name}>", "P P", device.put(x), y, block=(96, 1, 1), shared=x.nbytes)
    np.testing.assert_array_equal(device.get(y, 96, dtype), x[::-1])


def test_mathematical_functions_by_their_names(device):
    x = np.linspace(0.25, 3.75, 32).astype(np.float32)
    got = floats(device, 12 * 32, "mathematics", "P P", device.put(x)).reshape(12, 32)
    wide, i = x.astype(np.float64), np.arange(32)
    erf = np.vectorize(math.erf)
    expected = [
        wide**-0.5, np.exp(wide), erf(wide), np.tanh(wide), np.log1p(wide), np.exp2(wide), wide * wide + 1, 1 / wide,
        np.maximum(wide, 2), np.rint(wide), i // 2, 32 - np.array([int(n).bit_length() for n in i]),
    ]  # fmt: skip
    np.testing.assert_allclose(got, expected, 3e-7)


@pytest.mark.parametrize("name", FLOATS)
def test_normalisation_by_blocks_equals_numpy(device, name):
    rows, n, (dtype, tolerance) = 5, 1000, FLOATS[name]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, n)).astype(dtype), rng.standard_normal(n).astype(dtype)
    y, rstd = device.gpu.allocate(x.nbytes), device.gpu.allocate(rows * x.itemsize)
    device.run(
        f"rms_norm<{name}>", "P P P P i d", device.put(x), device.put(w), y, rstd, n, 1e-6, grid=(rows, 1, 1),
        block=(256, 1, 1),
    )  # fmt: skip
    wide = x.astype(np.float64)
    expected = 1 / np.sqrt((wide**2).mean(axis=1) + 1e-6)
    np.testing.assert_allclose(device.get(rstd, rows, dtype), expected, tolerance)
    np.testing.assert_allclose(device.get(y, x.shape, dtype), wide * expected[:, None] * w, tolerance, 1e-7)
    device.gpu.check_memory()


def test_threads_have_room_for_arrays(device):
    got = floats(device, 256, "deep_stack", "P", block=(256, 1, 1))
    np.testing.assert_array_equal(got, np.arange(256) * 100)


# ---------------------------------------------------------------- what CUDA forbids
@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_is_nan_until_written_in_every_block(device, order):
    got = floats(device.in_order(order), 192, "reads_unwritten_shared", "P", grid=(3, 1, 1), block=(64, 1, 1))
    got = got.reshape(3, 64)
    assert (got[:, :32] == 1).all() and np.isnan(got[:, 32:]).all()


def test_memory_is_nan_until_written(device):
    assert np.isnan(device.get(device.gpu.allocate(400), 100, np.float32)).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", [0, 1])
def test_missing_barrier_in_a_reduction_is_seen(bench, order, which):
    pieces = (bench.folder / "spiral.cuh").read_text().split("  __syncthreads();\n")
    assert len(pieces) == 3
    kept = pieces[0] + ("" if which == 0 else "  __syncthreads();\n") + pieces[1]
    (bench.folder / "spiral.cuh").write_text(kept + ("" if which == 1 else "  __syncthreads();\n") + pieces[2])
    bench.write_kernels("""
__global__ void sums(float* y) {
  __shared__ float scratch[32];
  float total = 0;
  for (int i = 0; i < 3; i++) total += block_reduce<Add>((float)i + threadIdx.x, 0.0f, scratch);
  y[threadIdx.x] = total;
}""")
    got = floats(bench.in_order(order), 256, "sums", "P", block=(256, 1, 1))
    assert (got != 3 * 256 * 255 / 2 + 3 * 256).any()


def test_order_of_threads_changes_no_bit(device):
    x = np.random.default_rng(0).standard_normal((4, 777)).astype(np.float32)
    results = []
    for order in ORDERS:
        device = device.in_order(order)
        y, rstd = device.gpu.allocate(x.nbytes), device.gpu.allocate(16)
        device.run(
            "rms_norm<float>", "P P P P i d", device.put(x), device.put(x[0]), y, rstd, 777, 1e-6, grid=(4, 1, 1),
            block=(128, 1, 1),
        )  # fmt: skip
        results.append(device.get(y, x.size, np.uint32))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("at, where", [(100, "after its end, the first 0 bytes"), (-3, "before its start, the last 3")])
def test_write_outside_of_a_block_is_found(device, at, where):
    block = device.gpu.allocate(100)
    device.run("writes", "P q", block, at, block=(1, 1, 1))
    with pytest.raises(KernelError, match=rf"block of 100 bytes.*wrote 1 bytes {where}.*Last launched: writes"):
        device.gpu.check_memory()
    device.gpu.check_memory()  # told once


def test_write_outside_of_a_block_that_was_freed_is_found(device):
    block = device.gpu.allocate(64)
    device.run("writes", "P q", block, 200, block=(1, 1, 1))
    del block
    gc.collect()
    with pytest.raises(KernelError, match="when it was freed"):
        device.gpu.check_memory()


def test_write_past_dynamic_shared_memory_is_found(device):
    with pytest.raises(KernelError, match="past the end of its 64 bytes of dynamic shared memory"):
        device.run("writes_past_dynamic", "i", 64, shared=64)


@pytest.mark.parametrize(
    "name, formats, values, what",
    [
        ("writes", "P q", (0, 8), "access to address 0x8"),
        ("indexes_past_an_array", "", (), "out of an array's bounds"),
        ("divides", "P i", (0, 0), "division of an integer by zero"),
        ("overflows_its_stack", "P", (0,), "need more than the 258048 bytes of its stack"),
    ],
)
def test_traps_name_block_thread_and_line(device, name, formats, values, what):
    with pytest.raises(KernelError, match=rf"^{name}: block \(0, 0, 0\), thread \d+ .*{re.escape(what)}"):
        device.run(name, formats, *values)
    assert (floats(device, 16, "lane_that_takes_no_part", "P")[:8] == 1).all()  # the next launch is as ever


def test_misaligned_vector_access_is_refused(device):
    with pytest.raises(KernelError, match="misaligned access.*spiral.cuh"):
        device.run("reads_misaligned", "P P", device.put(np.zeros(8, np.float32)), device.gpu.allocate(4))


@pytest.mark.parametrize("order", ORDERS)
def test_divergent_barrier_tells_who_waits_where(device, order):
    with pytest.raises(KernelError) as error:
        device.in_order(order).run("divergent_barrier", "", block=(64, 1, 1))
    assert re.sub(r"cu:\d+", "cu:N", str(error.value)).split("\n  ") == [
        "divergent_barrier: block (0, 0, 0): no thread can go on: they wait for each other",
        "threads 0 to 39 wait at __syncthreads (behaviour.cu:N)",
        "thread 40 waits at __syncwarp with mask 0xffffffff (behaviour.cu:N)",
        "threads 41 to 63 wait at __syncthreads (behaviour.cu:N)",
    ]


def test_barriers_in_both_branches_are_refused(device):
    with pytest.raises(KernelError, match="different barriers") as error:
        device.run("two_barriers", "P", device.gpu.allocate(4), block=(64, 1, 1))
    lines = [int(n) for n in re.findall(r"behaviour\.cu:(\d+)", str(error.value))]
    assert lines[1] == lines[0] + 2


def test_mask_must_name_the_calling_lane(device):
    with pytest.raises(KernelError, match="mask leaves it out.*\n.*thread 0 waits at __shfl_sync with mask 0x0000fffe"):
        device.run("mask_without_itself", "P", device.gpu.allocate(128))


def test_lane_that_takes_no_part_gives_nan(device):
    got = floats(device, 16, "lane_that_takes_no_part", "P")
    assert (got[:8] == 1).all() and np.isnan(got[8:]).all()


def test_trap_is_told_with_its_thread(device):
    with pytest.raises(KernelError, match=r"block \(1, 0, 0\), thread 3: __trap\(\) \(behaviour.cu"):
        device.run("traps", "", grid=(2, 1, 1))


@pytest.mark.parametrize(
    "launch, what",
    [
        ({"block": (33, 32, 1)}, "at most 1024 in all"), ({"block": (1, 1, 65)}, "threads"),
        ({"block": (0, 1, 1)}, "threads"), ({"grid": (1, 65536, 1)}, "blocks"), ({"grid": (0, 1, 1)}, "blocks"),
        ({"shared": 227 * 1024 + 1}, "232448 bytes"),
    ],
)  # fmt: skip
def test_limits_of_a_device_hold(device, launch, what):
    with pytest.raises(KernelError, match=f"traps: expected .*{what}"):
        device.run("traps", "", **launch)


def test_compiler_error_holds_its_message(bench):
    bench.write_kernels("__global__ void f(float* x) { x[0] = oops; }")
    with pytest.raises(KernelError, match=r"^test\.cu: .*g\+\+ refuses it(.|\n)*oops.* was not declared"):
        bench.run("f", "P", 0)


def test_missing_include_and_missing_kernel_are_errors(bench):
    bench.write_kernels('#include "nowhere.cuh"\n__global__ void f() {}')
    with pytest.raises(KernelError, match="nowhere.cuh"):
        bench.run("f", "")
    with pytest.raises(KernelError, match="g is not among the kernels"):
        bench.gpu.compile(CudaSource("test.cu", ("f",)), "g")


def test_a_file_is_compiled_once_however_many_ask(bench, monkeypatch, tmp_path):
    log, command = tmp_path / "log", tmp_path / "counting-g++"
    command.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo "$*" >> {log};; esac\nexec {shutil.which("g++")} "$@"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("CXX", str(command))
    # built objects are kept by their sources' contents, and the comment makes these new
    bench.write_kernels(f"__global__ void f(float* x) {{ x[0] = 1; }}  // {tmp_path}\n__global__ void g(float* x) {{}}")
    source = CudaSource("test.cu", ("f", "g"))
    devices = [CudaOnCpu(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=d.compile, args=(source, name)) for d in devices for name in source.names]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(log.read_text().splitlines()) == 1


def test_many_kernels_of_a_file_are_built_piece_by_piece(bench):
    bench.write_kernels("template <int n> __global__ void f(float* x) { x[0] = n; }")
    bench.names = tuple(f"f<{n}>" for n in range(NAMES_AT_ONCE + 2))
    for n in (NAMES_AT_ONCE + 1, 3):
        assert floats(bench, 1, f"f<{n}>", "P", block=(1, 1, 1))[0] == n


def test_machine_code_is_refused(device):
    with pytest.raises(KernelError, match="TRITON_INTERPRET=1"):
        device.gpu.load(b"\x7fELF", "softmax", 0)


# ---------------------------------------------------------------- the driver
def test_blocks_are_aligned_counted_and_limited():
    gpu = CudaOnCpu(memory=1 << 20)
    blocks = [gpu.allocate(n) for n in (0, 1, 255, 257, 4096)]
    assert all(b.address % 256 == 0 for b in blocks) and len({b.address for b in blocks}) == 5
    assert gpu.usage.used == 4609
    with pytest.raises(OutOfMemoryError, match=r"no 1\.0 MiB left"):
        gpu.allocate(1 << 20)
    del blocks
    assert gpu.usage.used == 0 and gpu.usage.peak == 4609
    gpu.allocate(1 << 20)


def test_copies_outside_of_blocks_are_refused():
    gpu = CudaOnCpu()
    block, other = gpu.allocate(16), gpu.allocate(16)
    gpu.write(block.address, np.arange(4, dtype=np.int32))
    gpu.copy(other.address + 4, block.address, 12)
    gpu.fill(other.address, 7, 4)
    out = np.empty(4, np.int32)
    gpu.read(other.address, out)
    assert out.tolist() == [0x07070707, 0, 1, 2]
    for wrong in (
        lambda: gpu.write(block.address + 4, out), lambda: gpu.read(block.address - 1, out),
        lambda: gpu.copy(other.address, block.address, 17), lambda: gpu.fill(8, 0, 1),
    ):  # fmt: skip
        with pytest.raises(KernelError, match="do not lie in a block"):
            wrong()


def test_only_reading_and_waiting_count_as_synchronizations(device):
    block = device.put(np.zeros(4, np.float32))
    device.run("writes", "P q", block, 0)
    device.gpu.fill(block.address, 0, 4)
    assert device.gpu.synchronizations == 0
    device.get(block, 4, np.float32)
    device.gpu.synchronize()
    device.gpu.event().wait()
    assert device.gpu.synchronizations == 3


def test_launches_are_logged(device):
    device.run("writes", "P q", device.gpu.allocate(8), 0, grid=(2, 1, 1), block=(3, 1, 1), shared=5)
    assert list(device.gpu.launches) == [("writes", (2, 1, 1), (3, 1, 1), 5)]
    device.gpu.launches.clear()
    assert not device.gpu.launches


def test_graph_repeats_its_work_with_the_values_of_then(device):
    block, copied = device.put(np.zeros(16, np.uint8)), device.gpu.allocate(16)
    function = device.gpu.compile(CudaSource("behaviour.cu", NAMES), "writes")
    params = Params("P", "q")

    def work():
        device.gpu.launch(function, (1, 1, 1), (1, 1, 1), 0, params.pack(block.address, 3))
        device.gpu.copy(copied.address, block.address, 16)

    graph = device.gpu.capture(work)
    params.pack(0, 0)  # the memory of the parameters is used again
    assert not device.gpu.launches and device.get(block, 16, np.uint8)[3] == 0
    for _ in range(2):
        device.gpu.fill(block.address, 0, 16)
        graph.launch()
        assert device.get(copied, 16, np.uint8).tolist() == [0, 0, 0, 1] + [0] * 12
    assert len(device.gpu.launches) == 2
    for wrong in (
        lambda: device.get(block, 1, np.uint8), device.gpu.synchronize,
        lambda: device.gpu.capture(work),
    ):  # fmt: skip
        with pytest.raises(KernelError, match="capture: expected launches, copies, fills and writes"):
            device.gpu.capture(wrong)


def test_threads_may_launch_at_the_same_time(device):
    device.gpu.compile(CudaSource("behaviour.cu", NAMES), "half_exits")
    results, mistakes = [], []

    def work():
        try:
            for _ in range(20):
                results.append(np.nansum(floats(device, 256, "half_exits", "P", block=(256, 1, 1))))
        except BaseException as e:
            mistakes.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not mistakes and len(results) == 80 and len(set(results)) == 1


def test_unknown_sanitizer_is_an_error(device, monkeypatch):
    monkeypatch.setenv("SPIRAL_CUDA_SANITIZE", "thread")
    with pytest.raises(ArgumentError, match="SPIRAL_CUDA_SANITIZE: expected address or undefined"):
        device.run("traps", "")
    monkeypatch.setenv("SPIRAL_CUDA_SANITIZE", "address")  # its library is not in this process
    with pytest.raises(KernelError, match="sanitized_environment"):
        device.run("traps", "")


def test_missing_compiler_is_a_reason(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "needs g++" in unavailable()
    with pytest.raises(KernelError, match="needs g\\+\\+"):
        CudaOnCpu()


def test_unknown_order_is_an_error():
    for order in ("backward", "shuffle", "shuffle:x", "forward:1"):
        with pytest.raises(ArgumentError, match="shuffle:<seed>"):
            CudaOnCpu(order=order)


def test_parameters_of_different_sizes_are_packed_apart():
    params = Params("B", "P", "3q3qfB3x", "d", "i")
    pointers = (ctypes.c_void_p * 5).from_address(params.pack(7, 0x1234, 1, 2, 3, 4, 5, 6, 0.5, 8, -1.5, -9))
    assert all(p % 16 == 0 for p in pointers)
    assert ctypes.c_uint8.from_address(pointers[0]).value == 7
    assert ctypes.c_uint64.from_address(pointers[1]).value == 0x1234
    assert list((ctypes.c_int64 * 6).from_address(pointers[2])) == [1, 2, 3, 4, 5, 6]
    assert ctypes.c_float.from_address(pointers[2] + 48).value == 0.5
    assert ctypes.c_double.from_address(pointers[3]).value == -1.5
    assert ctypes.c_int32.from_address(pointers[4]).value == -9


# ---------------------------------------------------------------- cost and sanitizers
def test_threads_that_never_wait_cost_next_to_nothing(device):
    block = device.gpu.allocate(4)
    device.run("writes", "P q", block, 0)
    start = time.perf_counter()
    device.run("writes", "P q", block, 0, grid=(1024, 1, 1), block=(256, 1, 1))
    assert time.perf_counter() - start < 0.1  # 262,144 threads; 3 ms on an idle machine


def test_fibers_of_the_system_do_as_well(device, monkeypatch):
    monkeypatch.setenv("SPIRAL_UCONTEXT", "1")
    got = floats(device, 256, "half_exits", "P", block=(256, 1, 1))
    np.testing.assert_array_equal(got[::2], (np.arange(0, 256, 2) + 64) % 256 + 1)
    with pytest.raises(KernelError, match="thread 40 waits at __syncwarp"):
        device.run("divergent_barrier", "", block=(64, 1, 1))


def test_undefined_behaviour_traps_where_asked_for(device, monkeypatch):
    y = device.gpu.allocate(4)
    device.run("shifts", "P i", y, 40)
    monkeypatch.setenv("SPIRAL_CUDA_SANITIZE", "undefined")
    device.run("shifts", "P i", y, 31)
    with pytest.raises(KernelError, match="undefined behaviour"):
        device.run("shifts", "P i", y, 40)


ASAN = """
import sys
from pathlib import Path
from spiral.gpu import CudaSource
from spiral.gpu.params import Params
from spiral.testing.cuda_on_cpu import CudaOnCpu

gpu = CudaOnCpu(Path(sys.argv[1]))
block, params = gpu.allocate(100), Params("P", "q")
writes, sums = (gpu.compile(CudaSource("asan.cu", ("writes", "sums")), name) for name in ("writes", "sums"))
gpu.launch(writes, (1, 1, 1), (1, 1, 1), 0, params.pack(block.address, 99))
gpu.launch(sums, (2, 1, 1), (256, 1, 1), 0, params.pack(block.address, 32))
print("fine so far", flush=True)
if sys.argv[2] == "global":
    gpu.launch(writes, (1, 1, 1), (1, 1, 1), 0, params.pack(block.address, 100))
else:
    gpu.launch(sums, (1, 1, 1), (32, 1, 1), 0, params.pack(block.address, 33))
"""


@pytest.mark.parametrize(
    "where, line, what", [("global", 3, "heap-buffer-overflow"), ("shared", 7, "global-buffer-overflow")]
)
def test_address_sanitizer_traps_at_the_write(bench, where, line, what):
    bench.write_kernels("")
    (bench.folder / "asan.cu").write_text("""#include "spiral.cuh"
using namespace spiral;
__global__ void writes(u8* y, i64 at) { y[at] = 1; }
__global__ void sums(float* y, i64 n) {
  __shared__ float scratch[32];
  float* past = scratch;
  for (i64 i = 0; i < n; i++) *past++ = i;
  __syncthreads();
  y[0] = block_reduce<Add>(1.0f, 0.0f, scratch);
}""")
    try:
        environment = {**os.environ, **sanitized_environment()}
    except KernelError as reason:
        pytest.skip(str(reason))
    command = [sys.executable, "-c", ASAN, str(bench.folder), where]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.stdout == "fine so far\n", run.stderr[-2000:]
    assert run.returncode != 0
    assert f"AddressSanitizer: {what}" in run.stderr
    assert f"asan.cu:{line}" in run.stderr
