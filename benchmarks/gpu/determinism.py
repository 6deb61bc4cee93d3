"""Every op's samples twice, with a digest of the bits for comparing processes; a part of `benchmarks.gpu`.

A kernel that is declared deterministic must give the same bits for the same inputs, whatever ran before it.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.ops import prepare_interpreter
from benchmarks.gpu.part import Sink


def digest_of(op: Any, backend: str, device: Any) -> str:
    """Of the bits of all samples' results, which are computed twice.

    Raises:
        AssertionError: the two differ.
    """
    import spiral as sp
    from spiral.testing.on_device import check_determinism, values
    from spiral.testing.oracle import samples_of, to_tensor

    check_determinism(op, backend, str(device))
    sha = hashlib.sha256()
    for inputs, attrs in samples_of(op):
        tensors = tuple(to_tensor(x, sp.float32, device) for x in inputs)
        with sp.prefer(backend, deterministic=True):
            outs = op.call(*tensors, *attrs)
        mutated = [t for i in op.mutated for t in (tensors[i] if isinstance(tensors[i], list) else [tensors[i]])]
        outs = mutated if op.mutated else outs if isinstance(outs, tuple) else (outs,)
        for o in outs:
            sha.update(values(o).tobytes())
    return sha.hexdigest()[:16]


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--only", default="", help="ops, with commas between them")
    args = parser.parse_args()
    sink = Sink(args.found)
    deadline = time.monotonic() + 0.95 * args.seconds
    prepare_interpreter(args.device)
    import spiral as sp
    from spiral.device import as_device
    from spiral.errors import CapabilityError
    from spiral.op import OPS
    from spiral.testing.on_device import ops_to_check

    device: Any = as_device("cuda")
    for name in ops_to_check():
        if args.only and name not in args.only.split(","):
            continue
        for backend in ("cuda", "triton"):
            entry = sp.backends()[backend]
            if entry.unavailable is not None or name not in entry.kernels:
                continue
            if time.monotonic() > deadline:
                raise SystemExit(f"determinism: the time was up before {name} on {backend}")
            try:
                sink.put(op=name, backend=backend, digest=digest_of(OPS[name], backend, device))
            except CapabilityError as error:
                sink.put(op=name, backend=backend, absent=str(error)[:300])
            except Exception as error:
                sink.put(op=name, backend=backend, wrong=f"{type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
