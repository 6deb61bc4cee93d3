"""Entry of the `spiral` command: finds the subcommand, turns errors into one line and an exit status.

Exit status: 0 done, 2 wrong use or an error that spiral explains, 130 interrupted by Ctrl-C. Anything
else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from spiral.cli import demo, doctor, eval, explain, export, generate, train
from spiral.errors import SpiralError

_COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "eval": eval,
    "generate": generate,
    "export": export,
    "demo": demo,
    "explain": explain,
    "doctor": doctor,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    import spiral

    parser = argparse.ArgumentParser(
        prog="spiral",
        description="Train small language models, evaluate them, and export them for llama.cpp.",
        epilog="spiral COMMAND --help says more and has examples.",
    )
    parser.add_argument("--version", action="version", version=f"spiral {spiral.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Arguments without the program's name; None for the process's own.

    Returns:
        The exit status.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except SpiralError as error:
        print(f"spiral {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"spiral {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
