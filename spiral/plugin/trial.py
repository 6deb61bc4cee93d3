"""Runs a plugin's trial in a process of its own, which it may crash, hang or leave in disorder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spiral.errors import SpiralError
from spiral.plugin.base import PluginError
from spiral.plugin.validation import PROBLEM, Check, Rehearsal, Validation

SECONDS = 60.0
_MOST_OUTPUT = 4000


def validate_apart(
    *, path: str | Path | None = None, installed: str | None = None, seconds: float = SECONDS
) -> Validation:
    """Validates a plugin beside those that are installed.

    Args:
        path: a plugin's file or folder; what lies beside it in its folder is not loaded.
        installed: instead of a path, the origin of an installed plugin's source.
        seconds: after which the process is ended and that is a problem.
    """
    steps, end = _run({"action": "validate", "path": _absolute(path), "installed": installed}, seconds)
    if steps and "result" in steps[-1]:
        found = steps[-1]["result"]
        return Validation(**{**found, "checks": [Check(**check) for check in found["checks"]]})
    last = next((step["begun"] for step in reversed(steps) if "begun" in step), "start")
    origin = str(path) if installed is None else installed
    return Validation(origin, checks=[Check(last, PROBLEM, *end)])


def rehearse_apart(*, plugin_id: str = "", path: str | Path | None = None, seconds: float = SECONDS) -> Rehearsal:
    """Reloads a plugin as a program would that has the installed ones loaded.

    Args:
        plugin_id: of an installed plugin; empty: that of the plugin at `path`.
        path: the version that shall take the place of the installed one; where none is, it is loaded first.
        seconds: after which the process is ended.

    Raises:
        PluginError: it was not reloaded.
    """
    steps, end = _run({"action": "reload", "plugin_id": plugin_id, "path": _absolute(path)}, seconds)
    last = steps[-1] if steps else {}
    if "result" in last:
        return Rehearsal(**last["result"])
    raise PluginError(last["error"] if "error" in last else f"plugin {plugin_id or path}: {end[0]}.")


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _run(order: dict[str, Any], seconds: float) -> tuple[list[dict[str, Any]], tuple[str, str]]:
    """What the process reported, step by step; and how it ended, with what it printed."""
    with tempfile.TemporaryDirectory(prefix="spiral-") as folder:
        report, printed = Path(folder, "report"), Path(folder, "printed")
        report.touch()
        command = [sys.executable, "-m", "spiral.plugin.trial", json.dumps(order), str(report)]
        with printed.open("wb") as output:  # a file: whoever inherits a pipe could keep us waiting
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                _wait_until_ready(process, report)
                process.wait(seconds)
                end = _ended(process.returncode)
            except subprocess.TimeoutExpired:
                end = f"was not done after {seconds:g} s"
            finally:
                _end(process)
        steps = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        return steps, (end, printed.read_text(encoding="utf-8", errors="replace")[-_MOST_OUTPUT:].strip())


def _wait_until_ready(process: subprocess.Popen[bytes], report: Path) -> None:
    """Importing spiral on a busy machine does not count as the plugin's time."""
    while process.poll() is None and not report.stat().st_size:
        time.sleep(0.01)


def _ended(status: int) -> str:
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"ended the process, with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and those that it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()
    process.wait()


# ---------------------------------------------------------------- in the process
def _main(order: dict[str, Any], report: Path) -> None:
    from spiral.plugin.lifecycle import Arrival, metadata_of
    from spiral.plugin.loading import every_source, load_installed
    from spiral.plugin.registry import PluginRegistry
    from spiral.plugin.sources import file_source
    from spiral.plugin.validation import rehearse_reload, validate_source

    def tell(**values: Any) -> None:
        with report.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    tell(ready=True)
    registry = PluginRegistry()
    source = None if order["path"] is None else file_source(order["path"])
    if order["action"] == "validate":
        if source is None:
            source = next(s for s in every_source() if s.origin == order["installed"])
        registry.known_sources.add(source.origin)  # it is loaded in the trial, not before
        load_installed(registry)
        tell(result=asdict(validate_source(source, registry, lambda step: tell(begun=step))))
        return
    try:
        load_installed(registry)
        plugin_id = order["plugin_id"]
        if not plugin_id and source is not None:
            arrival = Arrival.of(source)
            plugin_id = metadata_of(arrival.plugin).id
            arrival.put_back()
        if source is not None and registry.get(plugin_id) is None:
            registry.load_path(order["path"])
        tell(result=asdict(rehearse_reload(registry, plugin_id, source)))
    except SpiralError as error:
        tell(error=str(error))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # threads that a plugin has left would keep the process
