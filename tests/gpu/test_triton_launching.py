"""Triton kernels compiled for real GPUs and launched on a driver that records; no GPU, no torch."""

import gc
import struct
import subprocess
import sys

import numpy as np
import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")
import triton.language as tl  # noqa: E402

from spiral.backends.triton import adapter, launching  # noqa: E402
from spiral.backends.triton.launching import TritonKernel  # noqa: E402
from spiral.device_array import DeviceArray  # noqa: E402
from spiral.errors import KernelBuildError, KernelError  # noqa: E402
from spiral.testing.recording import RecordingDriver  # noqa: E402

if triton.knobs.runtime.interpret:
    pytest.skip("TRITON_INTERPRET is set: nothing is compiled in this process", allow_module_level=True)


@triton.jit
def add(x, y, o, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(o + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n) * scale, mask=i < n)


@triton.jit
def many_types(a, b, c, d, e, f, g, h):
    tl.store(a, b + c + d + e + f + g + h)


@triton.jit
def no_such_function(x):
    tl.store(x, tl.frobnicate(1))


@triton.jit
def wrong_types(x, y):
    tl.store(x, tl.load(x) + tl.dot(tl.load(y), tl.load(y)))


@triton.jit
def through_descriptor(x, rows, cols, B: tl.constexpr):
    there = tl.make_tensor_descriptor(x, shape=[rows, cols], strides=[cols, 1], block_shape=[B, B])
    there.store([0, 0], there.load([0, 0]) + 1.0)


@triton.jit
def large_tile(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    at = i[:, None] * B + i[None, :]
    tl.store(o + at, tl.dot(tl.load(x + at), tl.trans(tl.load(x + at))))


@triton.jit
def scaled_by_sum(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o + i, v * tl.sum(v, 0))  # every value is alive while the sum is made


POINTERS = {"x": "*fp32", "y": "*fp32", "o": "*fp32"}
ADD = {**POINTERS, "n": "i32", "scale": "fp32"}
FORMATS = (*"PPPif", "P", "P")


@pytest.fixture(autouse=True)
def table_as_before():
    before = list(launching.KERNELS)
    yield
    launching.KERNELS[:] = before


def arrays(gpu, *sizes):
    return [DeviceArray.empty(gpu, (n,), np.dtype(np.float32)) for n in sizes]


def test_parameters_arrive_in_order_with_two_null_addresses_behind_them():
    gpu = RecordingDriver(90)
    gpu.unpack("add", *FORMATS)
    x, y, o = arrays(gpu, 100, 100, 100)
    kernel = TritonKernel(add, ADD, {"BLOCK": 128}, num_warps=2)
    kernel(gpu, (1, 1, 1), x.address, y.address, o.address, 100, 0.5)
    (call,) = gpu.named("launch")
    assert call.values == (x.address, y.address, o.address, 100, 0.5, 0, 0)
    assert (call.grid, call.block, call.shared) == ((1, 1, 1), (64, 1, 1), 0)
    assert gpu.synchronizations == 0


def test_every_scalar_type_has_the_width_that_the_kernel_reads():
    kinds = {"a": "*fp64", "b": "i8", "c": "u16", "d": "i64", "e": "u64", "f": "fp32", "g": "fp64", "h": "i16"}
    gpu = RecordingDriver(90)
    gpu.unpack("many_types", *"PbHqQfdh", "P", "P")
    (o,) = arrays(gpu, 8)
    values = (o.address, -5, 65535, -(2**62), 2**64 - 1, 0.25, 1e300, -32768)
    TritonKernel(many_types, kinds)(gpu, (1, 1, 1), *values)
    assert gpu.named("launch")[0].values == (*values, 0, 0)


@pytest.mark.parametrize("values", [(0, 0, 0, 2**31, 1.0), (0, 0, 0, 1), (0, 0, 0, 1, 1.0, 0)])
def test_values_that_do_not_fit_are_refused_before_the_launch(values):
    gpu = RecordingDriver(90)
    with pytest.raises(struct.error):
        TritonKernel(add, ADD, {"BLOCK": 128})(gpu, (1, 1, 1), *values)
    assert gpu.launches == 0


def test_a_kernel_is_compiled_once_per_device_and_never_waits():
    kernel = TritonKernel(add, ADD, {"BLOCK": 128})
    for gpu in (RecordingDriver(80), RecordingDriver(90)):
        x, y, o = arrays(gpu, 64, 64, 64)
        gpu.calls.clear()
        for n in range(16, 512, 16):
            kernel(gpu, (n, 1, 1), x.address, y.address, o.address, n, 1.0)
        assert [c.method for c in gpu.calls] == ["load"] + ["launch"] * 31  # nothing is allocated or copied
        assert gpu.synchronizations == 0


def test_a_prepared_kernel_is_loaded_before_it_is_launched():
    gpu = RecordingDriver(90)
    kernel = TritonKernel(add, ADD, {"BLOCK": 128})
    for _ in range(2):
        kernel.prepare(gpu)
    assert [c.method for c in gpu.calls] == ["load"]
    x, y, o = arrays(gpu, 64, 64, 64)
    kernel(gpu, (1, 1, 1), x.address, y.address, o.address, 64, 1.0)
    assert len(gpu.named("load")) == 1
    with pytest.raises(KernelBuildError):
        TritonKernel(no_such_function, {"x": "*fp32"}).prepare(gpu)


def test_misaligned_address_or_length_takes_the_general_variant():
    gpu = RecordingDriver(90)
    kernel = TritonKernel(add, ADD, {"BLOCK": 1024}, divisible=("n",))
    x, y, o = (a.address for a in arrays(gpu, 4096, 4096, 4096))
    loads = []
    for case in ((x, y, o, 4096), (x + 4, y, o, 4096), (x, y, o + 12, 4096), (x, y, o, 4095), (x, 0, o, 0)):
        kernel(gpu, (4, 1, 1), *case, 1.0)
        loads.append(len(gpu.named("load")))
    assert loads == [1, 2, 2, 2, 2]  # the aligned one, then one for all others, then the first again
    aligned, general = gpu.functions[kernel][True], gpu.functions[kernel][False]
    used = [c for c in gpu.calls if c.method == "launch"]
    assert len(used) == 5 and aligned.function != general.function
    wide, narrow = (kernel.compile(90, a) for a in (True, False))
    assert wide.cubin != narrow.cubin


def test_aligned_variant_alone_reads_16_bytes_at_a_time():
    kernel = TritonKernel(add, ADD, {"BLOCK": 1024}, divisible=("n",))
    assert [sass(kernel.compile(90, aligned).cubin).count("LDG.E.128") > 0 for aligned in (True, False)] == [
        True,
        False,
    ]


def sass(cubin):
    from triton.tools.disasm import get_sass

    return get_sass(cubin)


def test_integers_that_are_not_declared_divisible_do_not_choose():
    gpu = RecordingDriver(90)
    kernel = TritonKernel(add, ADD, {"BLOCK": 128})
    for n in (16, 17):
        kernel(gpu, (1, 1, 1), 0, 0, 0, n, 1.0)
    assert len(gpu.named("load")) == 1


def test_compile_error_names_the_kernel_and_says_what_triton_says():
    gpu = RecordingDriver(90)
    with pytest.raises(KernelBuildError, match=r"(?s)no_such_function: Triton .* for sm_90.*frobnicate"):
        TritonKernel(no_such_function, {"x": "*fp32"})(gpu, (1, 1, 1), 0)
    with pytest.raises(KernelBuildError, match=r"(?s)wrong_types: .*tl\.dot"):
        TritonKernel(wrong_types, {"x": "*fp32", "y": "*fp32"})(gpu, (1, 1, 1), 0, 0)
    assert gpu.calls == []


@pytest.mark.parametrize(
    ("params", "constants", "message"),
    [
        ({**POINTERS, "n": "i32"}, {"BLOCK": 1}, "expected types or constants for x, y, o, n, scale, BLOCK"),
        ({**ADD, "more": "i32"}, {"BLOCK": 1}, "received params x, y, o, n, scale, more"),
        ({"y": "*fp32", "x": "*fp32", "o": "*fp32", "n": "i32", "scale": "fp32"}, {"BLOCK": 1}, "in that order"),
        (ADD, {"BLOCK": 1, "OTHER": 2}, "OTHER"),
        ({**ADD, "scale": "fp16"}, {"BLOCK": 1}, "scale: expected an address or one of .*; received 'fp16'"),
    ],
)
def test_declarations_that_do_not_fit_the_function_are_refused(params, constants, message):
    with pytest.raises(KernelError, match=message):
        TritonKernel(add, params, constants)


def test_only_integers_may_be_declared_divisible():
    for name in ("scale", "nothing"):
        with pytest.raises(KernelError, match=f"divisible.*{name}"):
            TritonKernel(add, ADD, {"BLOCK": 1}, divisible=(name,))


def test_global_scratch_is_allocated_reused_and_passed_before_the_last_parameter():
    gpu = RecordingDriver(90)
    gpu.unpack("through_descriptor", *"Pii", "P", "P")
    kernel = TritonKernel(through_descriptor, {"x": "*fp32", "rows": "i32", "cols": "i32"}, {"B": 32})
    size = kernel.compile(90, False).scratch
    assert size >= 128  # a descriptor of the tensor memory accelerator
    for blocks in (1, 3, 2, 4, 5, 1):
        kernel(gpu, (blocks, 1, 1), 0, 64, 64)
    sizes = [c.nbytes for c in gpu.named("allocate")]
    assert sizes == [size, 3 * size, 6 * size]
    addresses = [c.address for c in gpu.named("allocate")]
    calls = gpu.named("launch")
    assert [c.values[3] for c in calls] == [addresses[i] for i in (0, 1, 1, 2, 2, 2)]
    assert {c.values[4] for c in calls} == {0}


def test_too_much_shared_memory_is_refused_with_both_numbers():
    gpu = RecordingDriver(90, shared_memory=1000)
    with pytest.raises(KernelBuildError, match=r"large_tile: wants \d{4,} bytes of shared memory.*has 1000"):
        TritonKernel(large_tile, {"x": "*fp16", "o": "*fp32"}, {"B": 64})(gpu, (1, 1, 1), 0, 0)


def test_shared_memory_is_asked_for_when_loading_and_launching():
    gpu = RecordingDriver(90)
    TritonKernel(large_tile, {"x": "*fp16", "o": "*fp32"}, {"B": 64})(gpu, (1, 1, 1), 0, 0)
    (load,), (launch,) = gpu.named("load"), gpu.named("launch")
    assert load.shared == launch.shared > 0


def test_launches_that_we_do_not_do_are_refused():
    from types import SimpleNamespace

    plain = {"num_ctas": 1, "launch_pdl": False, "launch_cooperative_grid": False, "profile_scratch_size": 0,
             "tensordesc_meta": None}  # fmt: skip
    adapter._check_launch("k", SimpleNamespace(**plain))
    for change in ({"num_ctas": 2}, {"launch_pdl": True}, {"launch_cooperative_grid": True},
                   {"profile_scratch_size": 64}, {"tensordesc_meta": [{}]}):  # fmt: skip
        with pytest.raises(KernelError, match="k: "):
            adapter._check_launch("k", SimpleNamespace(**{**plain, **change}))


def test_a_kernel_with_other_hidden_parameters_than_two_is_refused():
    ptx = (
        ".visible .entry k(\n\t.param .u64 .ptr .global .align 1 k_param_0,\n\t.param .u64 k_param_1\n)\n.reqntid 32\n{"
    )
    adapter._check_parameters("k", ptx, 2)
    with pytest.raises(KernelError, match="expected 3 parameters, 2 of them hidden.*received 2"):
        adapter._check_parameters("k", ptx, 3)
    with pytest.raises(KernelError, match="received -1"):
        adapter._check_parameters("other", ptx, 2)


def test_fusing_products_and_sums_is_what_was_asked_for():
    fused, apart = (TritonKernel(add, ADD, {"BLOCK": 128}, fp_fusion=f).compile(90, True).cubin for f in (True, False))
    assert "FFMA" in sass(fused) and "FFMA" not in sass(apart)


def test_registers_and_spills_are_those_that_the_assembler_reports():
    free, tight = (
        TritonKernel(scaled_by_sum, {"x": "*fp32", "o": "*fp32"}, {"B": 2048}, num_warps=1, maxnreg=m).compile(90, True)
        for m in (None, 24)
    )
    assert adapter.resources(tight.cubin)[0] <= 24 and adapter.resources(tight.cubin)[1] > 0
    assert adapter.resources(free.cubin)[0] > 64 and adapter.resources(free.cubin)[1] == 0


def test_resources_of_something_else_are_an_error():
    with pytest.raises(KernelError, match="cuobjdump -res-usage failed"):
        adapter.resources(b"no cubin")


def test_compiled_kernels_are_refused_on_host_memory():
    with pytest.raises(KernelError, match="add: .*recording driver without TRITON_INTERPRET=1"):
        TritonKernel(add, ADD, {"BLOCK": 128})(RecordingDriver(on_processor=True), (1, 1, 1), 0, 0, 0, 1, 1.0)


@pytest.mark.parametrize(
    ("n", "threads", "programs"), [(1, 128, 1), (128, 128, 1), (129, 128, 3), (4096, 256, 3), (10**6, 256, 3)]
)
def test_a_norm_is_one_launch_sized_for_its_rows(n, threads, programs):
    from spiral.backends.triton import norm

    gpu = RecordingDriver(90)
    x, y = (DeviceArray.empty(gpu, (3, n), np.dtype(np.float32)) for _ in range(2))
    weight, bias, rows, more = arrays(gpu, n, n, 3, 3)
    gpu.calls.clear()
    norm.layer_norm(x, weight, bias, 1e-5, y, rows, more)
    norm.rms_norm(x, None, 1e-6, y, rows)
    launches = [(c.name, c.grid, c.block) for c in gpu.calls if c.method != "load"]
    assert launches == [("norm_rows", (programs, 1, 1), (threads, 1, 1))] * 2


def test_a_norm_of_no_rows_launches_nothing():
    from spiral.backends.triton import norm

    gpu = RecordingDriver(90)
    x = DeviceArray.empty(gpu, (0, 4), np.dtype(np.float32))
    (rows,) = arrays(gpu, 0)
    norm.rms_norm(x, None, 1e-6, x, rows)
    assert gpu.launches == 0


def test_a_device_that_is_gone_takes_its_kernels_along():
    import weakref

    gpu = RecordingDriver(90)
    TritonKernel(add, ADD, {"BLOCK": 128})(gpu, (1, 1, 1), 0, 0, 0, 1, 1.0)
    there = weakref.ref(gpu)
    del gpu
    gc.collect()
    assert there() is None


def test_every_family_compiles_ahead_of_time_without_torch():
    code = (
        "import sys\n"
        "from spiral.backends.triton import families, launching\n"
        "families()\n"
        "one = {k.fn.__name__: k for k in launching.KERNELS}\n"
        "launching.KERNELS[:] = one.values()\n"
        "for name, config, cubin, registers, spills, shared in launching.compile_all(90):\n"
        "    assert cubin[:4] == b'\\x7fELF' and 0 < registers <= 255 and spills == 0, config\n"
        "    print(name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count("norm_rows") == 2  # aligned and general
