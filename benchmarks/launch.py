"""What a launch of a compiled Triton kernel costs: ours against Triton's own ``kernel[grid](...)``, without a GPU.

    python -m benchmarks.launch
    python -m benchmarks.launch --check    # exit status 1 where a launch costs more than a quarter of Triton's

Neither side calls a driver. Triton's gets a launcher that does nothing, so that its own packing of the arguments is not
counted, where ours packs them all and calls a driver that counts. Triton's side takes PyTorch tensors, ours addresses.
The two alternate, and the ratio is that of the fastest repeats.
"""

from __future__ import annotations

import argparse
import json
import sys
import timeit
from pathlib import Path
from typing import Any

from benchmarks.events import alternate, compared, row
from benchmarks.report import print_table, print_versions
from benchmarks.versions import common_versions

BAR = 0.25
HEADER = ("parameters", "against", "ratio", "quartiles", "bar", "", "ns", "ns, Triton's")
BLOCK = 64


def use_null_driver() -> None:
    """Has Triton compile for sm_90 and launch nothing."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.runtime import driver

    class Utils:
        def get_device_properties(self, device: int) -> dict[str, int]:
            return {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}

        def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
            return 1, 2, 32, 0, 1024

        def unload_module(self, module: int) -> None:
            return None

    class Launcher:
        def __init__(self, source: Any, metadata: Any) -> None:
            return None

        def __call__(self, *arguments: Any) -> None:
            return None

    class NullDriver(DriverBase):  # type: ignore[misc]
        launcher_cls = Launcher
        utils = Utils()

        def __init__(self) -> None:
            return None

        @classmethod
        def is_active(cls) -> bool:
            return True

        def map_python_to_cpp_type(self, kind: str) -> str:
            return kind

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)

        def get_active_torch_device(self) -> Any:
            return torch.device("cpu")

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

        def get_benchmarker(self) -> Any:
            raise NotImplementedError("nothing is run here")

    driver.set_active(NullDriver())


def launches(repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A launch of each kernel on both sides; the ratio is that of the fastest repeats, for others only add to both."""
    import torch

    from benchmarks.launch_kernels import KERNELS
    from spiral.backends.triton.launching import TritonKernel
    from spiral.testing.recording import RecordingDriver

    use_null_driver()
    gpu = RecordingDriver(90)
    gpu.recording = False
    results = []
    for count, fn in KERNELS.items():
        names = fn.arg_names[:count]
        pointers = names.index("n")
        integers = count - pointers - (count > 2)
        kinds = ["*fp32"] * pointers + ["i32"] * integers + ["fp32"] * (count > 2)
        numbers = [*range(64, 64 + integers), *([1e-5] * (count > 2))]
        tensors = [torch.zeros(64) for _ in range(pointers)]
        constants = {"BLOCK": BLOCK}
        kernel = TritonKernel(fn, dict(zip(names, kinds, strict=True)), constants, divisible=("n",))
        values = [*(t.data_ptr() for t in tensors), *numbers]
        shifted = [values[0] + 4, *values[1:]]
        there = {"kernel": kernel, "gpu": gpu, "fn": fn, "grid": (4, 1, 1), "tensors": (*tensors, *numbers)}
        written = ", ".join(f"v{i}" for i in range(count))  # as a launcher is written, not by unpacking a list

        def ours(values: list[Any], there: dict[str, Any] = there, written: str = written) -> timeit.Timer:
            return timeit.Timer(
                f"kernel(gpu, grid, {written})", globals={**there, **{f"v{i}": v for i, v in enumerate(values)}}
            )

        theirs = timeit.Timer(
            f"fn[grid]({written}, BLOCK={BLOCK})",
            globals={**there, **{f"v{i}": v for i, v in enumerate(there["tensors"])}},
        )
        for what, timer in ((f"{count}", ours(values)), (f"{count}, one address not aligned", ours(shifted))):
            a, b = alternate(timer.timeit, theirs.timeit, repeats=repeats, seconds=seconds)
            results.append(compared(what, "Triton's own", a, b, min(a) / min(b), BAR))
    return results


def main() -> int:
    """Measures and prints; returns 1 when ``--check`` finds a bar missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, help="alternating pairs of repeats (default 31)")
    parser.add_argument("--seconds", type=float, help="length of a repeat (default 0.02)")
    parser.add_argument("--quick", action="store_true", help="5 short repeats: does it run?")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--json", type=Path, help="write results here")
    args = parser.parse_args()
    import torch
    import triton

    repeats, seconds = args.repeats or (5 if args.quick else 31), args.seconds or (0.002 if args.quick else 0.02)
    results = launches(repeats, seconds)
    versions = {**common_versions(), "triton": triton.__version__, "torch": torch.__version__}
    print_versions(versions)
    print_table("a launch after the first (lower is better)", HEADER, [row(r) for r in results])
    if args.json:
        plain = [{**r, "quartiles": r["quartiles"].as_dict()} for r in results]
        args.json.write_text(json.dumps({"versions": versions, "results": plain}, indent=1) + "\n")
    return int(args.check and any(r["ratio"] > r["bar"] for r in results))


if __name__ == "__main__":
    sys.exit(main())
