"""Runs a Python command with AddressSanitizer in its process, so that kernels are built and watched with it.

SPIRAL_GPU=processor python -m spiral.testing.cuda_on_cpu -m pytest tests/on_cuda
"""

from __future__ import annotations

import os
import sys

from spiral.testing.cuda_on_cpu.compiler import sanitized_environment


def main() -> None:
    """Replaces this process."""
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], {**os.environ, **sanitized_environment()})


if __name__ == "__main__":
    main()
