"""Same weights, same batches, same losses: whole training runs of spiral and PyTorch side by side.

python -m benchmarks.parity --workloads mlp,gpt,conv --steps 50
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.competitor import BenchmarkError, Competitor, check_same_start, largest_difference
from benchmarks.report import print_table
from benchmarks.workloads import WORKLOADS

TOLERANCE = 1e-4


def losses_of_both(workload: str, *, steps: int, threads: int) -> tuple[list[float], list[float]]:
    """The losses of spiral and of PyTorch over ``steps`` different batches.

    Raises:
        BenchmarkError: their parameters differ, or one of them fails.
    """
    with (
        Competitor("spiral", workload, threads=threads, batches=steps) as ours,
        Competitor("torch", workload, threads=threads, batches=steps) as theirs,
    ):
        check_same_start(ours, theirs)
        return ours.ask("losses", steps=steps)["losses"], theirs.ask("losses", steps=steps)["losses"]


def main() -> int:
    """Compares, prints, returns 1 when a loss differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workloads", default="mlp,gpt,conv", help=f"of: {', '.join(WORKLOADS)}")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the small models")
    parser.add_argument("--json", type=Path, help="write the losses here")
    args = parser.parse_args()
    names = [name + "_small" if args.quick else name for name in args.workloads.split(",")]
    if unknown := set(names) - set(WORKLOADS):
        parser.error(f"--workloads: unknown {sorted(unknown)}; there are {', '.join(WORKLOADS)}.")
    rows, found, failed = [], {}, False
    for name in names:
        try:
            ours, theirs = losses_of_both(name, steps=args.steps, threads=args.threads)
        except BenchmarkError as error:
            print(f"parity: {name}: {error}", file=sys.stderr)
            return 1
        difference, step = largest_difference(ours, theirs)
        good = difference <= TOLERANCE
        failed |= not good
        ends = [f"{losses[0]:.6f} → {losses[-1]:.6f}" for losses in (ours, theirs)]
        rows.append((name, *ends, f"{difference:.1e} (step {step})", "equal" if good else "DIFFERENT"))
        found[name] = {"spiral": ours, "torch": theirs}
    title = f"losses over {args.steps} steps; equal: within {TOLERANCE:g} relative at every step"
    print_table(title, ("workload", "spiral", "torch", "largest difference", ""), rows)
    if args.json:
        args.json.write_text(json.dumps(found) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
