"""The console that commands print to."""

from __future__ import annotations

import os
import sys
from typing import Any

from spiral.optional import missing


def make_console(**options: Any) -> Any:
    """A `rich.console.Console` that lets a run go on when the reader of its output has gone.

    Colours and the progress bar appear only on a terminal, and NO_COLOR is respected.

    Raises:
        MissingDependencyError: rich is not installed.
    """
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        raise missing("rich", "progress in the terminal", "pip install rich") from error

    class RunConsole(Console):
        def on_broken_pipe(self) -> None:
            """Say once where the record is; rich would end the process here."""
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            print("the reader of the output has gone; the run goes on, its record is metrics.jsonl", file=sys.stderr)

    return RunConsole(highlight=False, soft_wrap=True, **options)
