"""The ``art`` command.

Only what parses the arguments is imported here; a command imports what it runs when it runs.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

from art.cli import imports_command, serve_command
from art.errors import ArtError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``art`` command.

    Args:
        arguments: What follows ``art``; ``None`` is the process's own.

    Returns:
        The exit status: 0, 1 for an error that was explained, 130 after Ctrl-C. (Wrong usage
        exits with 2, as argparse does.)
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        options.run(options)
    except ArtError as error:
        print(f"art: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="art",
        description="Train LLM agents with reinforcement learning, on any machine.",
        epilog="example: art serve HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    parser.add_argument("--version", action="version", version=f"art {version('art-rl')}")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much to log to standard error (default: %(default)s)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve_command.add(commands)
    imports_command.add(commands)
    return parser
