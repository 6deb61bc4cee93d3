"""Runs one page of the documentation from top to bottom: ``python run_page.py PAGE.md``, in an empty folder.

- ``python`` blocks run in one namespace; a ``text`` block right after one is what it prints, where
  ``...`` stands for anything.
- ``python`` blocks whose first line is ``# NAME.py`` are written to that file: what comes after loads or imports it.
- ``yaml`` blocks whose first line is ``# NAME.yaml`` are written to that file.
- ``sh`` blocks: a line ``spiral ...`` must be accepted by the command line; it is run if it is cheap. The
  target of a line ``make ...`` must exist.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
CHEAP = ("--help", "--version", "--print", "--list", "doctor", "explain", "modules", "validate", "reload")


def main(page: Path) -> None:
    """Run the blocks in their order; the first that fails ends the run with an error that names its line."""
    import spiral.storage

    text = page.read_text(encoding="utf-8")
    sys.modules["page"] = types.ModuleType("page")  # where dataclasses and pickle look for what a page defines
    namespace = vars(sys.modules["page"])
    sys.path.insert(0, str(Path.cwd()))
    printed, end = "", -1
    for block in BLOCK.finditer(text):
        kind, code, line = block[1], block[2], text.count("\n", 0, block.start(2)) + 1
        follows, end = not text[end : block.start()].strip() and end >= 0, block.end()
        if kind == "python" and (name := re.match(r"# (\S+\.py)\n", code)):
            Path(name[1]).write_text(code, encoding="utf-8")
        elif kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
            printed = out.getvalue()
        elif kind == "sh":
            printed = "".join(run_shell(row, f"{page.name}:{line}") for row in code.splitlines())
        elif kind == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", code)):
            Path(name[1]).write_text(code, encoding="utf-8")
        elif kind == "text" and follows and spiral.storage.native is not None:  # without kernels, other choices
            compare(code, printed, f"{page.name}:{line}")
    sys.stdout.write("ok\n")


def compare(wanted: str, printed: str, where: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(wanted, printed, flags):
        raise AssertionError(f"{where}: the page says\n{wanted}\nbut this is printed\n{printed}")


def run_shell(line: str, where: str) -> str:
    """What the line prints, if it was run."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"] and len(words) > 1:
        if not re.search(rf"^{re.escape(words[1])}:", (ROOT / "Makefile").read_text(), re.M):
            raise AssertionError(f"{where}: the Makefile has no target {words[1]}")
    if words[:1] != ["spiral"]:
        return ""
    if not any(word in CHEAP for word in words):
        from spiral.cli.main import build_parser

        try:
            build_parser(*words[1:2]).parse_args(words[1:])
        except SystemExit as error:
            raise AssertionError(f"{where}: {line}: the command line does not accept it") from error
        return ""
    command = [sys.executable, "-m", "spiral.cli", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{where}: {line}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
