"""The ``art`` command.

Only what parses the arguments is imported here; a command imports what it runs when it runs.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from art.cli import doctor_command, imports_command, models_command, serve_command
from art.errors import ArtError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``art`` command.

    Args:
        arguments: What follows ``art``; ``None`` is the process's own.

    Returns:
        The exit status: 0, 1 for an error that was explained or for a check that failed, 130
        after Ctrl-C. (Wrong usage
        exits with 2, as argparse does.)
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        status: int | None = options.run(options)
        sys.stdout.flush()
    except ArtError as error:
        print(f"art: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has enough, as `art models | head` does. What is left in the
        # buffer must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="art",
        description="Train LLM agents with reinforcement learning, on any machine.",
        epilog="example: art serve HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show art's version")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much to log to standard error (default: %(default)s)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve_command.add(commands)
    models_command.add(commands)
    doctor_command.add(commands)
    imports_command.add(commands)
    return parser


class _ShowVersion(argparse.Action):
    """``--version``, which alone needs ``importlib.metadata``: half of what starting takes."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Print the version and exit."""
        from importlib.metadata import version

        print(f"art {version('art-rl')}")
        parser.exit()
