"""The console script `spiral`: outside the package, so that an error of importing it is one line as well.

A mistaken SPIRAL_NUM_THREADS, SPIRAL_ISA or SPIRAL_FALLBACK is refused while spiral is imported.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Import the command line and run it; gives the exit status."""
    try:
        from spiral.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not any(kind.__name__ == "SpiralError" for kind in type(error).__mro__):
            raise  # a broken installation: its traceback is needed
        print(f"spiral: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
