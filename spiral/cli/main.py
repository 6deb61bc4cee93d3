"""Entry of the `spiral` command: finds the subcommand, turns errors into one line and an exit status.

Exit status: 0 done; 2 wrong use or an error that spiral explains; 128 + n stopped by signal n (130 for Ctrl-C,
143 for SIGTERM). Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from spiral.cli import demo, doctor, eval, explain, export, generate, modules, plugin, train, tune
from spiral.errors import ArgumentError, RegistryError, SpiralError
from spiral.registry import Catalog, catalog


def _check_command(name: str, value: Any) -> None:
    lacking = [part for part in ("HELP", "EXAMPLES", "add_arguments", "run") if not hasattr(value, part)]
    if lacking:
        raise RegistryError(f"command {name!r}: needs HELP, EXAMPLES, add_arguments and run; lacks {lacking[0]}.")


COMMANDS: Catalog[Any] = catalog("command", _check_command)
"""What can follow ``spiral``, by name: modules, or anything else with HELP, EXAMPLES, add_arguments and run."""

for _module in (train, eval, generate, export, demo, explain, modules, plugin, doctor, tune):
    COMMANDS.fill({_module.__name__.rsplit(".", 1)[-1]: _module})


def _program(argv: Sequence[str]) -> str:
    """What messages begin with; plugins may bring commands."""
    return f"spiral {argv[0]}" if argv and argv[0] in COMMANDS else "spiral"


class _OneLine(logging.Formatter):
    """A warning in one line, whatever a plugin's error looks like; a traceback follows where there is one."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        self._argv = argv

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base's name)
        return f"{_program(self._argv)}: warning: {' '.join(record.message.split())}"


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing usage over several lines and exiting."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message}; see `{self.prog} --help`.")

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stderr).write(message)  # argparse swallows the error of a full disk


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The parser of all subcommands.

    Args:
        chosen: The one whose arguments it shall know; a mistake in those of another keeps no command from running.
    """
    import spiral

    parser = _Parser(
        prog="spiral",
        description="Train small language models, evaluate them, and export them for llama.cpp.",
        epilog="spiral COMMAND --help says more and has examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"spiral {spiral.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            module.add_arguments(command)
        command.set_defaults(run=module.run, options=_options(command))
    return parser


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser; those of its own subparsers are noted in them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                sub.set_defaults(options=_options(sub))
    return [text for action in parser._actions for text in action.option_strings]


def _load_plugins(argv: Sequence[str]) -> None:
    """Loads the installed plugins: every command may use what they bring, and they hear of what it does.

    Only ``spiral --version``, and a plain ``spiral``, which is refused, do without.
    """
    if argv and argv[0] != "--version":
        from spiral.plugin import init_plugin_system

        init_plugin_system()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        close = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"; did you mean `spiral {close[0]}`?" if close else "."
        raise ArgumentError(f"the command must be one of {', '.join(COMMANDS)}; received {argv[0]!r}{hint}")
    arguments, rest = build_parser(argv[0] if argv else "").parse_known_args(argv)
    if "free" in arguments:  # argparse does not take further ones after an option: `train a=1 --overwrite b=2`
        arguments.free += [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
    if rest:
        close = difflib.get_close_matches(rest[0].partition("=")[0], arguments.options, n=1, cutoff=0.75)
        hint = f"; did you mean {close[0]}?" if close else f"; see `spiral {arguments.command} --help`."
        raise ArgumentError(f"unknown argument {rest[0]!r}{hint}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Arguments without the program's name; None for the process's own.

    Returns:
        The exit status.
    """
    argv = sys.argv[1:] if argv is None else argv
    for closed in ("stdout", "stderr"):
        if getattr(sys, closed) is None:  # `spiral … >&-`
            setattr(sys, closed, open(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):  # a terminal or log that is not UTF-8 gets `?`, not a traceback
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    warnings = logging.StreamHandler()
    warnings.setFormatter(_OneLine(argv))
    logger = logging.getLogger("spiral")
    logger.addHandler(warnings)
    try:
        status = _run(argv)
        sys.stdout.flush()  # here, where a full disk or a reader that has gone can still be told
        return status
    except SpiralError as error:
        return _fail(_program(argv), str(error))
    except KeyboardInterrupt:
        _fail(_program(argv), "interrupted")
        return 130
    except MemoryError as error:
        return _fail(
            _program(argv), f"out of memory: {error or 'no more can be had'}; take a smaller model, batch or context."
        )
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _forget_output()
        return 0
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            _forget_output()
            return _fail(_program(argv), f"cannot write the output: {error.strerror}.")
        if error.filename is None:
            raise
        return _fail(_program(argv), f"{os.fsdecode(error.filename)}: {error.strerror}.")
    finally:
        logger.removeHandler(warnings)


def _run(argv: Sequence[str]) -> int:
    _load_plugins(argv)
    try:
        arguments = _parse(argv)
    except SystemExit as stop:  # argparse has printed --help or --version
        return int(stop.code or 0)
    status: int = arguments.run(arguments)
    return status


def _fail(name: str, message: str) -> int:
    """Say it in one line; gives the status."""
    try:
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    except OSError:  # standard error cannot be written either: the status is all that is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return 2


def _forget_output() -> None:
    """Let the interpreter's last flush go nowhere, or it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
