"""What the parts have found, as a file and as tables, with the aims."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Part
from benchmarks.report import print_table

SHARE_AIM = 0.85  # of copy bandwidth, memory-bound kernels at large sizes
STEP_AIMS = {"torch.compile": ("time", 1.1), "PyTorch": ("speed", 1.3)}
_OP_HEADER = ("op", "size", "dtype", "cuda us", "triton us", "PyTorch", "compile", "Liger", "wall", "share", "speed",
              "memory", "aims")  # fmt: skip


def lines(parts: list[Part], name: str, key: str) -> Iterator[dict[str, Any]]:
    """The lines of a part that have a key."""
    for part in parts:
        if part.name == name:
            yield from (line for line in part.found if key in line)


def ceilings(parts: list[Part]) -> dict[str, float]:
    """The most that the device gave: bytes per second, operations per second by dtype."""
    found: dict[str, float] = {}
    for line in lines(parts, "facts", "ceiling"):
        value = line.get("bytes_per_second", line.get("flops"))
        if value is not None:
            found[line["ceiling"]] = max(found.get(line["ceiling"], 0.0), value)
    return found


def device_name(parts: list[Part]) -> str:
    """As the device's maker calls it."""
    return next((str(line["name"]) for line in lines(parts, "facts", "cc")), "no device")


def write(parts: list[Part], folder: Path, date: str) -> Path:
    """Writes everything; gives the file."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(parts).lower()).strip("-")
    path = folder / f"{date}-gpu-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"device": device_name(parts), "ceilings": ceilings(parts), "aims": list(judged(parts)),
               "parts": [p.as_dict() for p in parts]}  # fmt: skip
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


# ---------------------------------------------------------------- aims
def _by_side(line: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["side"]: s for s in line["sides"]}


def _best(line: dict[str, Any]) -> dict[str, Any] | None:
    """spiral's faster side, which is what a user would have chosen."""
    ours = [s for name, s in _by_side(line).items() if name.startswith("spiral")]
    return min(ours, key=lambda s: s["device_us"]["median"], default=None)


def share_of_limit(line: dict[str, Any], limits: dict[str, float]) -> float | None:
    """Which part of the device's limit spiral reaches: of the larger of both floors; None: not known."""
    best = _best(line)
    copy, rate = limits.get("copy"), limits.get(f"product {line['dtype']}")
    if best is None or copy is None or (line["flops"] and rate is None):
        return None
    floor = max(line["moved"] / copy, line["flops"] / (rate or 1.0))
    return float(1e6 * floor / best["device_us"]["median"])


def aims_of_op(line: dict[str, Any], limits: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Each aim that a case has, with what was reached."""
    best, theirs = _best(line), _by_side(line).get("PyTorch")
    share = share_of_limit(line, limits)
    if line["large"] and not line["flops"] and share is not None:
        yield _aim(line["case"], "share of copy bandwidth", share, SHARE_AIM, share >= SHARE_AIM)
    if best is None:
        yield _aim(line["case"], "has a kernel", 0.0, 1.0, False)
        return
    if theirs is not None:
        speed = theirs["device_us"]["median"] / best["device_us"]["median"]
        yield _aim(line["case"], "speed against PyTorch", speed, line["speed_aim"], speed >= line["speed_aim"])
        if line["memory_aim"] and theirs["peak_bytes"]:
            memory = best["peak_bytes"] / theirs["peak_bytes"]
            yield _aim(line["case"], "peak memory against PyTorch", memory, line["memory_aim"],
                       memory <= line["memory_aim"])  # fmt: skip


def aims_of_step(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The captured step against both of PyTorch's."""
    sides = _by_side(line)
    ours = next((s for name, s in sides.items() if name.endswith("captured")), None)
    for name, (kind, aim) in STEP_AIMS.items():
        if ours is None or name not in sides:
            continue
        time = ours["wall_us"]["median"] / sides[name]["wall_us"]["median"]
        reached = time if kind == "time" else 1 / time
        yield _aim(
            "GPT-2 step, captured", f"{kind} against {name}", reached, aim,
            reached <= aim if kind == "time" else reached >= aim,
        )  # fmt: skip


def _aim(what: str, aim: str, reached: float, wanted: float, met: bool) -> dict[str, Any]:
    return {"what": what, "aim": aim, "reached": reached, "wanted": wanted, "met": met}


def judged(parts: list[Part]) -> Iterator[dict[str, Any]]:
    """Every aim that something was measured for."""
    limits = ceilings(parts)
    for line in lines(parts, "ops", "name"):
        yield from aims_of_op(line, limits)
    for line in lines(parts, "step", "workload"):
        yield from aims_of_step(line)
    for line in lines(parts, "graph", "agrees"):
        yield _aim("one graph of both backends", "error", max(line["replay_errors"]), 1e-5, line["agrees"])


# ---------------------------------------------------------------- tables
def print_all(parts: list[Part]) -> None:
    """Short tables, what matters most last."""
    _print_ops(parts)
    _print_step(parts)
    _print_tests(parts)
    limits = ceilings(parts)
    print_table("ceilings", ("what", "measured"), [(k, _rate(k, v)) for k, v in limits.items()])
    rows = [(p.name, f"{p.seconds:.0f} s", p.told) for p in parts]
    print_table(f"parts on {device_name(parts)}", ("part", "took", "ended"), rows)
    aims = list(judged(parts))
    missed = [a for a in aims if not a["met"]]
    told = [(a["what"], a["aim"], f"{a['reached']:.3g}", f"{a['wanted']:.3g}") for a in missed]
    if told:
        print_table("aims MISSED", ("what", "aim", "reached", "wanted"), told)
    print(f"{len(aims) - len(missed)} of {len(aims)} aims met.")


def _rate(name: str, value: float) -> str:
    return f"{value / 1e12:.3g} {'TB/s' if name == 'copy' else 'TFLOP/s'}"


def _print_ops(parts: list[Part]) -> None:
    limits, rows = ceilings(parts), []
    for line in lines(parts, "ops", "name"):
        sides, best, share = _by_side(line), _best(line), share_of_limit(line, limits)
        aims = list(aims_of_op(line, limits))
        theirs = sides.get("PyTorch")
        speed = theirs["device_us"]["median"] / best["device_us"]["median"] if theirs and best else None
        memory = best["peak_bytes"] / theirs["peak_bytes"] if theirs and best and theirs["peak_bytes"] else None
        names = ("spiral cuda", "spiral triton", "PyTorch", "torch.compile", "Liger-Kernel")
        rows.append((
            line["name"], line["size"], line["dtype"], *(_us(sides.get(n)) for n in names),
            "" if best is None else f"{best['wall_us']['median']:.1f}", _number(share), _number(speed), _number(memory),
            "MISSED" if any(not a["met"] for a in aims) else "met" if aims else "",
        ))  # fmt: skip
    if rows:
        print_table(
            "ops: device time of each side; wall: spiral's, launched one by one; share: of the device's limit; speed "
            "and peak memory: spiral's against PyTorch's", _OP_HEADER, rows,
        )  # fmt: skip
    for line in lines(parts, "ops", "name"):
        for side, reason in line["absent"].items():
            if not reason.startswith("no kernel of"):
                print(f"  {line['case']}: {side}: {reason[:200]}")
    for line in (*lines(parts, "ops", "not_run"), *lines(parts, "ops", "broke")):
        print(f"  {line['case']}: not measured: {line.get('not_run', line.get('broke', ''))[:200]}")


def _us(side: dict[str, Any] | None) -> str:
    if side is None:
        return ""
    return f"{side['device_us']['median']:.1f}{'' if side['captured'] else '*'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _print_step(parts: list[Part]) -> None:
    for line in lines(parts, "step", "workload"):
        rows = []
        for side in line["sides"]:
            wall = side["wall_us"]["median"]
            rate = line["flops"] / wall / 1e6
            rows.append((side["side"], f"{1e6 / wall:.3g}", f"{side['device_us']['median'] / 1e3:.2f}",
                         f"{wall / 1e3:.2f}", f"{rate:.3g}", f"{side['peak_bytes'] / 2**30:.2f}"))  # fmt: skip
        header = ("side", "steps/s", "device ms", "wall ms", "TFLOP/s", "peak GiB")
        print_table(f"training step: {line['workload']}, {line['dtype']}", header, rows)
        for side, reason in line["absent"].items():
            print(f"  {side}: {reason[:200]}")


def _print_tests(parts: list[Part]) -> None:
    rows, failures = [], []
    for part in parts:
        for line in part.found:
            if "tests" in line:
                rows.append((part.name, *(str(line[k]) for k in ("tests", "failures", "errors", "skipped"))))
                failures += [f"{part.name}: {f['test']}: {' '.join(f['why'].split())[-160:]}" for f in line["failed"]]
    if rows:
        print_table("tests on the device", ("suite", "ran", "failed", "errors", "left out"), rows)
    digests = [{(r["op"], r["backend"]): r["digest"] for r in p.found if "digest" in r}
               for p in parts if p.name.startswith("determinism")]  # fmt: skip
    wrong = [f"determinism: {r['op']} on {r['backend']}: {r['wrong']}"
             for p in parts for r in p.found if "wrong" in r]  # fmt: skip
    if len(digests) == 2:
        both = digests[0].keys() & digests[1].keys()
        different = sorted(k for k in both if digests[0][k] != digests[1][k])
        print(f"determinism: {len(both)} kernels in two processes, {len(different)} with other bits {different[:8]}")
    for text in (failures + wrong)[:25]:
        print(f"  {text}")
