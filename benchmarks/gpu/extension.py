"""Builds spiral's C++ extension in the clone, for this processor; a part of `benchmarks.gpu`.

Without it NumPy does the processor's work and calls are slower, which wall times of small ops show.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.part import ROOT, Sink


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, check=True)
    built = sorted(p.name for p in (ROOT / "spiral").glob("_native_*"))
    Sink(args.found).put(extension="was built", files=built)


if __name__ == "__main__":
    main()
