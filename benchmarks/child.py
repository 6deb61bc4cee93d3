"""One competitor in a process of its own: waits for a command, runs it, answers, waits.

Started by `benchmarks.competitor.Competitor`. Commands and answers are lines of JSON on stdin and
stdout. While it waits it blocks in a read, so it takes nothing from whoever is being measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from typing import Any

from benchmarks import versions, workloads


class Child:
    """The commands, one method each; what a method returns is the answer."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.framework: str = args.framework
        module = importlib.import_module(f"benchmarks.models_{args.framework}")
        workload = workloads.WORKLOADS[args.workload]
        data = workloads.batches(workload, count=args.batches, seed=args.seed)
        self.trainer: Any = module.Trainer(workload, data, seed=args.seed, lr=args.lr, threads=args.threads)

    def shapes(self) -> dict[str, Any]:
        """Names and shapes of the parameters."""
        return {"shapes": self.trainer.shapes}

    def versions(self) -> dict[str, Any]:
        """What this process runs on."""
        return {"versions": getattr(versions, f"{self.framework}_versions")()}

    def product(self, size: int) -> dict[str, Any]:
        """GF/s of the fastest of 15 square matrix products: what this framework gets out of the processor."""
        best = min(self.trainer.product_seconds(size) for _ in range(15))
        return {"gflops": 2e-9 * size**3 / best}

    def losses(self, steps: int) -> dict[str, Any]:
        """Trains and returns the loss of every step."""
        return {"losses": [float(self.trainer.step().item()) for _ in range(steps)]}

    def burst(self, steps: int, warmup: int) -> dict[str, Any]:
        """Trains ``warmup`` steps unmeasured (caches, spinning workers), then ``steps`` measured."""
        step = self.trainer.step
        cpu = time.process_time()  # of the warm-up too: the caller tells it from what others used
        for _ in range(warmup):
            step()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "cpu": time.process_time() - cpu}


def main() -> None:
    """Serves commands until stdin closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=("spiral", "torch"))
    parser.add_argument("workload", choices=workloads.WORKLOADS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    args = parser.parse_args()
    # answers get a descriptor of their own: whatever a library prints goes to stderr
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child(args)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(child, command.pop("do"))(**command)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
