"""Whole f32 training steps (forward, loss, backward, AdamW) against PyTorch eager with fused AdamW.

    python -m benchmarks.train_step --vs torch --workloads mlp,gpt,conv,gpt_large --threads 1,2

Each competitor lives in a process of its own. They take turns, A B, B A, A B, …: one runs a burst of
steps while the other is blocked reading a pipe. A round gives one ratio; the median of the rounds is
the result. Nothing is reported unless the first losses of both agree.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.activity import Others, busy_seconds
from benchmarks.competitor import (
    BenchmarkError,
    Competitor,
    check_same_start,
    largest_difference,
)
from benchmarks.report import Quartiles, markdown_table, print_table, print_versions
from benchmarks.versions import common_versions
from benchmarks.workloads import WORKLOADS, flops

TOLERANCE = 1e-4  # of the first losses, relative
CHECKED_STEPS = 3
PRODUCT = 1024  # rows and columns of the product that tells what the processor gives
HEADER = (
    "workload",
    "threads",
    "speed ratio",
    "rounds",
    "steps/s",
    "steps/s, other",
    "GF/s",
    "other",
    "product GF/s",
    "other",
)


@dataclass
class Result:
    """One workload at one thread count."""

    workload: str
    threads: int
    steps: int
    loss_difference: float
    flops: float  # of one step
    product: tuple[float, float] = (0.0, 0.0)  # GF/s of a large product: (ours, theirs)
    seconds: list[tuple[float, float]] = field(default_factory=list)  # per step: (ours, theirs)

    @property
    def ratio(self) -> Quartiles:
        """How many times as fast as the other we are, over the rounds."""
        return Quartiles.of([theirs / ours for ours, theirs in self.seconds])

    def speed(self, who: int) -> Quartiles:
        """Steps per second of ours (0) or theirs (1)."""
        return Quartiles.of([1 / pair[who] for pair in self.seconds])

    def row(self) -> tuple[str, ...]:
        speeds = [self.speed(who).median for who in (0, 1)]
        figures = [f"{s:.4g}" for s in speeds] + [f"{1e-9 * s * self.flops:.0f}" for s in speeds]
        figures += [f"{g:.0f}" for g in self.product]
        return (self.workload, str(self.threads), str(self.ratio), str(len(self.seconds)), *figures)

    def as_dict(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "threads": self.threads,
            "rounds": len(self.seconds),
            "steps_per_burst": self.steps,
            "ratio": self.ratio.as_dict(),
            "steps_per_second": self.speed(0).as_dict(),
            "steps_per_second_other": self.speed(1).as_dict(),
            "loss_difference": self.loss_difference,
            "flops_per_step": self.flops,
            "product_gflops": self.product[0],
            "product_gflops_other": self.product[1],
        }


def check_losses(ours: Competitor, theirs: Competitor) -> float:
    """Runs the first steps of both; returns the largest relative difference of their losses.

    Raises:
        BenchmarkError: it is above the tolerance, so the two do not train the same thing.
    """
    losses = [c.ask("losses", steps=CHECKED_STEPS)["losses"] for c in (ours, theirs)]
    difference, step = largest_difference(losses[0], losses[1])
    if not difference <= TOLERANCE:
        raise BenchmarkError(
            f"the first {CHECKED_STEPS} losses must agree to {TOLERANCE:g} relative; at step {step} "
            f"{ours.framework} has {losses[0][step]:.7g}, {theirs.framework} {losses[1][step]:.7g}. "
            "Not reporting speeds of different computations."
        )
    return difference


def steps_for(competitors: tuple[Competitor, Competitor], seconds: float) -> int:
    """Steps that make the slower competitor's burst last about ``seconds``."""
    slowest = 0.0
    for competitor in competitors:
        first = competitor.ask("burst", steps=1, warmup=1)["seconds"]
        steps = max(1, min(50, int(0.1 / first)))
        slowest = max(slowest, competitor.ask("burst", steps=steps, warmup=1)["seconds"] / steps)
    return max(1, math.ceil(seconds / slowest))


def measure(
    workload: str, threads: int, other: str, *, rounds: int, seconds: float, others: Others, versions: dict[str, str]
) -> Result:
    """Measures one workload at one thread count.

    Args:
        workload: a key of `WORKLOADS`.
        threads: for both competitors.
        other: the framework to compare with; ``"spiral"`` measures the noise.
        rounds: number of pairs of bursts.
        seconds: length of the slower competitor's burst.
        others: collects what other processes used meanwhile.
        versions: gets both frameworks' versions, unless they are in it.
    """
    with (
        Competitor("spiral", workload, threads=threads) as ours,
        Competitor(other, workload, threads=threads) as theirs,
    ):
        check_same_start(ours, theirs)
        difference = check_losses(ours, theirs)
        pair = (ours, theirs)
        steps = steps_for(pair, seconds)
        result = Result(workload, threads, steps, difference, flops(WORKLOADS[workload]))
        warmup = max(1, steps // 10)
        for i in range(rounds):
            spent = [0.0, 0.0]
            for who in (0, 1) if i % 2 == 0 else (1, 0):
                before, start = busy_seconds(), time.perf_counter()
                answer = pair[who].ask("burst", steps=steps, warmup=warmup)
                wall = time.perf_counter() - start
                others.add(before, busy_seconds(), cpu=answer["cpu"], wall=wall)
                spent[who] = answer["seconds"] / steps
            result.seconds.append((spent[0], spent[1]))
        result.product = (ours.ask("product", size=PRODUCT)["gflops"], theirs.ask("product", size=PRODUCT)["gflops"])
        for competitor in pair:
            if competitor.framework not in versions:
                versions.update(competitor.ask("versions")["versions"])
    return result


def write(path: Path, other: str, results: list[Result], versions: dict[str, str], note: str) -> None:
    """Writes results as JSON to ``path`` and as a table to the Markdown file beside it."""
    date = datetime.date.today().isoformat()
    rows = [r.as_dict() for r in results]
    content = {"date": date, "versus": other, "versions": versions, "note": note, "results": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    lines = [
        f"# Training steps, spiral against {other}, {date}",
        "`speed ratio`: spiral's steps per second over the other's, median of interleaved rounds (quartiles). `GF/s`: "
        "of a step's products and convolutions alone, at the median speed. `product GF/s`: of one product of two "
        f"{PRODUCT} x {PRODUCT} matrices, the fastest of 15, which says what the processor gives with these threads.",
        markdown_table(HEADER, [r.row() for r in results]),
        note,
        markdown_table(("what", "version"), list(versions.items())),
        f"Command: `python -m benchmarks.train_step {' '.join(sys.argv[1:])}`",
    ]
    path.with_suffix(".md").write_text("\n\n".join(lines) + "\n")


def arguments() -> argparse.Namespace:
    """The command line, with defaults filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workloads", help=f"comma-separated, of: {', '.join(WORKLOADS)}")
    parser.add_argument("--threads", help="comma-separated thread counts (default 1,2)")
    parser.add_argument("--rounds", type=int, help="pairs of bursts (default 21)")
    parser.add_argument("--seconds", type=float, help="length of a burst (default 0.4)")
    parser.add_argument("--vs", choices=("torch", "spiral"), default="torch")
    parser.add_argument("--quick", action="store_true", help="small model, one thread, 3 rounds: does it run?")
    parser.add_argument("--json", type=Path, help="write results here, and a .md beside it")
    args = parser.parse_args()
    quick = args.quick
    names = args.workloads or ("mlp_small" if quick else "mlp,gpt,conv,gpt_large")
    args.workloads = names.split(",")
    if unknown := set(args.workloads) - set(WORKLOADS):
        parser.error(f"--workloads: unknown {sorted(unknown)}; there are {', '.join(WORKLOADS)}.")
    args.threads = [int(n) for n in (args.threads or ("1" if quick else "1,2")).split(",")]
    args.rounds = args.rounds or (3 if quick else 21)
    args.seconds = args.seconds or (0.02 if quick else 0.4)
    return args


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    args = arguments()
    others = Others()
    results = []
    versions = common_versions()
    try:
        for workload in args.workloads:
            for threads in args.threads:
                print(f"{workload}, {threads} thread(s) …", file=sys.stderr, flush=True)
                result = measure(
                    workload,
                    threads,
                    args.vs,
                    rounds=args.rounds,
                    seconds=args.seconds,
                    others=others,
                    versions=versions,
                )
                results.append(result)
    except BenchmarkError as error:
        print(f"train_step: {workload}, {threads} thread(s): {error}", file=sys.stderr)
        return 1
    print_versions(versions)
    title = f"spiral against {args.vs}: whole training steps, ratio of speeds, median (quartiles)"
    print_table(title, HEADER, [r.row() for r in results])
    print(others.verdict())
    if args.json:
        write(args.json, args.vs, results, versions, others.verdict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
